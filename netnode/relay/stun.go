package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"
)

// STUN, RFC 8489: a header of 20 bytes (type, length, magic cookie, transaction), then
// attributes (type, length, value, padded to four bytes).
const (
	stunHeader   = 20
	stunMagic    = 0x2112a442
	stunRequest  = 0x0001
	stunSuccess  = 0x0101
	stunMapped   = 0x0001 // MAPPED-ADDRESS, of servers older than RFC 5389
	stunXor      = 0x0020 // XOR-MAPPED-ADDRESS
	stunMaxBytes = 1280
)

var errSTUN = errors.New("relay: not a STUN message of the kind expected")

// IsSTUN reports whether a packet is STUN: WireGuard's and our probes never are.
func IsSTUN(b []byte) bool {
	return len(b) >= stunHeader && b[0] < 4 && binary.BigEndian.Uint32(b[4:]) == stunMagic
}

// STUNRequest makes a binding request.
func STUNRequest(tx [12]byte) []byte {
	b := make([]byte, stunHeader)
	binary.BigEndian.PutUint16(b, stunRequest)
	binary.BigEndian.PutUint32(b[4:], stunMagic)
	copy(b[8:], tx[:])
	return b
}

// ParseSTUNResponse reads a binding response. The caller compares the transaction with one
// of its own: anybody can send an answer to a question that was not asked.
func ParseSTUNResponse(b []byte) (tx [12]byte, mapped netip.AddrPort, err error) {
	attrs, err := stunBody(b, stunSuccess)
	if err != nil {
		return tx, mapped, err
	}
	copy(tx[:], b[8:])
	for len(attrs) >= 4 {
		typ, n := binary.BigEndian.Uint16(attrs), int(binary.BigEndian.Uint16(attrs[2:]))
		if 4+n > len(attrs) {
			return tx, mapped, errSTUN
		}
		v := attrs[4 : 4+n]
		switch a, ok := stunAddr(v, b[4:stunHeader], typ == stunXor); {
		case typ == stunXor && ok:
			return tx, a, nil
		case typ == stunMapped && ok:
			mapped = a
		}
		attrs = attrs[min(4+(n+3)&^3, len(attrs)):]
	}
	if !mapped.IsValid() {
		return tx, mapped, errSTUN
	}
	return tx, mapped, nil
}

// stunBody checks the header and gives the attributes.
func stunBody(b []byte, typ uint16) ([]byte, error) {
	if !IsSTUN(b) || len(b) > stunMaxBytes || binary.BigEndian.Uint16(b) != typ {
		return nil, errSTUN
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n%4 != 0 || stunHeader+n != len(b) {
		return nil, errSTUN
	}
	return b[stunHeader:], nil
}

// isBinding reports whether a packet is a binding request, of old clients too.
func isBinding(b []byte) bool {
	return len(b) >= stunHeader && len(b) <= stunMaxBytes && binary.BigEndian.Uint16(b) == stunRequest &&
		len(b)%4 == 0 && stunHeader+int(binary.BigEndian.Uint16(b[2:])) == len(b)
}

// stunAddr reads an address; mask is the magic cookie and the transaction.
func stunAddr(v, mask []byte, xor bool) (netip.AddrPort, bool) {
	if len(v) != 8 && len(v) != 20 {
		return netip.AddrPort{}, false
	}
	family, port := v[1], binary.BigEndian.Uint16(v[2:])
	if family == 1 && len(v) != 8 || family == 2 && len(v) != 20 || family != 1 && family != 2 {
		return netip.AddrPort{}, false
	}
	raw := append([]byte(nil), v[4:]...)
	if xor {
		port ^= stunMagic >> 16
		for i := range raw {
			raw[i] ^= mask[i]
		}
	}
	a, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), port), ok && port != 0
}

// stunAnswer makes the response to a request from an address. One without the magic
// cookie is of RFC 3489's days: all 16 bytes are its transaction, and the address it
// understands is not XORed.
func stunAnswer(request []byte, from netip.AddrPort) []byte {
	old := binary.BigEndian.Uint32(request[4:]) != stunMagic
	a := from.Addr().Unmap()
	raw := a.AsSlice()
	b := make([]byte, stunHeader+8+len(raw))
	binary.BigEndian.PutUint16(b, stunSuccess)
	binary.BigEndian.PutUint16(b[2:], uint16(8+len(raw)))
	copy(b[4:], request[4:stunHeader])
	attr := b[stunHeader:]
	binary.BigEndian.PutUint16(attr, stunXor)
	binary.BigEndian.PutUint16(attr[2:], uint16(4+len(raw)))
	attr[5] = 1
	if a.Is6() {
		attr[5] = 2
	}
	binary.BigEndian.PutUint16(attr[6:], from.Port()^stunMagic>>16)
	for i := range raw {
		attr[8+i] = raw[i] ^ b[4+i]
	}
	if old {
		binary.BigEndian.PutUint16(attr, stunMapped)
		binary.BigEndian.PutUint16(attr[6:], from.Port())
		copy(attr[8:], raw)
	}
	return b
}

// ServeSTUN answers binding requests on pc until ctx ends, and closes it. Requests may
// carry attributes, which are not looked at, as those of all stock clients do.
func ServeSTUN(ctx context.Context, pc net.PacketConn) error {
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	defer pc.Close()
	buf := make([]byte, stunMaxBytes+1)
	for {
		n, addr, err := pc.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			select { // an error about a packet that was sent before
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		from, ok := addr.(*net.UDPAddr)
		if !ok {
			continue
		}
		if !isBinding(buf[:n]) {
			continue
		}
		// An answer that cannot be sent is lost, as UDP loses packets.
		_, _ = pc.WriteTo(stunAnswer(buf[:n], from.AddrPort()), addr)
	}
}
