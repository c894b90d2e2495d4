package portmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

const (
	pcpVersion = 2
	pcpMap     = 1
	pcpLen     = 60 // RFC 6887, 7.1 and 11.1
	udp        = 17
	answerBit  = 0x80
	pmpAddress = 0
	pmpUDP     = 1
)

var (
	errOther   = errors.New("portmap: not the answer to this question")
	errVersion = errors.New("portmap: the gateway speaks another version")
)

// refusal is a gateway that answers, and says no.
type refusal struct {
	protocol string
	code     uint16
}

func (e refusal) Error() string {
	return fmt.Sprintf("portmap: the gateway refuses (%s result %d)", e.protocol, e.code)
}

// pcpRequest is a MAP request for a UDP port; lifetime 0 gives it back.
func pcpRequest(nonce [12]byte, self netip.Addr, inside uint16, want netip.AddrPort, life time.Duration) []byte {
	b := make([]byte, pcpLen)
	b[0], b[1] = pcpVersion, pcpMap
	binary.BigEndian.PutUint32(b[4:], uint32(life/time.Second))
	ip := self.As16()
	copy(b[8:], ip[:])
	copy(b[24:], nonce[:])
	b[36] = udp
	binary.BigEndian.PutUint16(b[40:], inside)
	binary.BigEndian.PutUint16(b[42:], want.Port())
	outside := netip.IPv4Unspecified().As16() // "any IPv4 address"
	if want.Addr().Is4() {
		outside = want.Addr().As16()
	}
	copy(b[44:], outside[:])
	return b
}

// pcpAnswer reads the answer to a MAP request.
func pcpAnswer(b []byte, nonce [12]byte, inside uint16) (outside netip.AddrPort, life time.Duration, err error) {
	if len(b) >= 2 && b[0] != pcpVersion && b[1]&answerBit != 0 {
		return outside, 0, errVersion
	}
	if len(b) < 24 || b[1] != pcpMap|answerBit {
		return outside, 0, errOther
	}
	if b[3] == 1 { // UNSUPP_VERSION
		return outside, 0, errVersion
	}
	if len(b) < pcpLen || [12]byte(b[24:36]) != nonce || b[36] != udp || binary.BigEndian.Uint16(b[40:]) != inside {
		return outside, 0, errOther
	}
	if b[3] != 0 {
		return outside, 0, refusal{PCP, uint16(b[3])}
	}
	outside = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[44:60])).Unmap(), binary.BigEndian.Uint16(b[42:]))
	return outside, time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second, nil
}

// pmpRequest is a request for a UDP port; lifetime 0 gives it back.
func pmpRequest(inside, want uint16, life time.Duration) []byte {
	b := make([]byte, 12)
	b[1] = pmpUDP
	binary.BigEndian.PutUint16(b[4:], inside)
	binary.BigEndian.PutUint16(b[6:], want)
	binary.BigEndian.PutUint32(b[8:], uint32(life/time.Second))
	return b
}

// pmpAnswer checks what all answers begin with.
func pmpAnswer(b []byte, opcode byte, length int) error {
	if len(b) < 4 || b[0] != 0 || b[1] != opcode|answerBit {
		return errOther
	}
	if code := binary.BigEndian.Uint16(b[2:]); code != 0 {
		return refusal{NATPMP, code}
	}
	if len(b) < length {
		return errOther
	}
	return nil
}

func pmpAddressAnswer(b []byte) (netip.Addr, error) {
	if err := pmpAnswer(b, pmpAddress, 12); err != nil {
		return netip.Addr{}, err
	}
	return netip.AddrFrom4([4]byte(b[8:12])), nil
}

func pmpMapAnswer(b []byte, inside uint16) (port uint16, life time.Duration, err error) {
	if err := pmpAnswer(b, pmpUDP, 16); err != nil {
		return 0, 0, err
	}
	if binary.BigEndian.Uint16(b[8:]) != inside {
		return 0, 0, errOther
	}
	return binary.BigEndian.Uint16(b[10:]), time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Second, nil
}
