package session

import "encoding/binary"

// payload is what is left of an SSH message (RFC 4251 section 5). Each method takes one
// value from its front; lengths are compared, never added, so that none can wrap.
type payload []byte

func (p *payload) u32() (uint32, bool) {
	if len(*p) < 4 {
		return 0, false
	}
	n := binary.BigEndian.Uint32(*p)
	*p = (*p)[4:]
	return n, true
}

func (p *payload) u64() (uint64, bool) {
	if len(*p) < 8 {
		return 0, false
	}
	n := binary.BigEndian.Uint64(*p)
	*p = (*p)[8:]
	return n, true
}

func (p *payload) str() ([]byte, bool) {
	n, ok := p.u32()
	if !ok || uint64(n) > uint64(len(*p)) {
		return nil, false
	}
	s := (*p)[:n]
	*p = (*p)[n:]
	return s, true
}

// appendString adds a string with its length.
func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}
