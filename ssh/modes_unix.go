//go:build linux || darwin

package ssh

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// modes is the terminal's mode list, RFC 4254 section 8: opcode and value, ending with 0.
// The remote terminal then has the same special characters and flags as the local one.
func modes(t *Terminal) string {
	if t == nil {
		return plainModes
	}
	tio, err := unix.IoctlGetTermios(int(t.f.Fd()), getTermios)
	if err != nil {
		return plainModes
	}
	b := []byte(plainModes[:len(plainModes)-1])
	put := func(op byte, v uint32) { b = binary.BigEndian.AppendUint32(append(b, op), v) }
	for _, c := range []struct {
		op byte
		at int
	}{
		{1, unix.VINTR}, {2, unix.VQUIT}, {3, unix.VERASE}, {4, unix.VKILL}, {5, unix.VEOF}, {6, unix.VEOL}, {7, unix.VEOL2},
		{8, unix.VSTART}, {9, unix.VSTOP}, {10, unix.VSUSP}, {12, unix.VREPRINT}, {13, unix.VWERASE}, {14, unix.VLNEXT}, {18, unix.VDISCARD},
	} {
		v := uint32(tio.Cc[c.at])
		if v == vdisable {
			v = 255 // the wire's word for "none"
		}
		put(c.op, v)
	}
	for _, f := range []struct {
		op   byte
		in   uint64
		mask uint64
	}{
		{30, uint64(tio.Iflag), unix.IGNPAR}, {31, uint64(tio.Iflag), unix.PARMRK}, {32, uint64(tio.Iflag), unix.INPCK},
		{33, uint64(tio.Iflag), unix.ISTRIP}, {34, uint64(tio.Iflag), unix.INLCR}, {35, uint64(tio.Iflag), unix.IGNCR},
		{36, uint64(tio.Iflag), unix.ICRNL}, {38, uint64(tio.Iflag), unix.IXON}, {39, uint64(tio.Iflag), unix.IXANY},
		{40, uint64(tio.Iflag), unix.IXOFF}, {41, uint64(tio.Iflag), unix.IMAXBEL}, {42, uint64(tio.Iflag), iutf8},
		{50, uint64(tio.Lflag), unix.ISIG}, {51, uint64(tio.Lflag), unix.ICANON}, {53, uint64(tio.Lflag), unix.ECHO},
		{54, uint64(tio.Lflag), unix.ECHOE}, {55, uint64(tio.Lflag), unix.ECHOK}, {56, uint64(tio.Lflag), unix.ECHONL},
		{57, uint64(tio.Lflag), unix.NOFLSH}, {58, uint64(tio.Lflag), unix.TOSTOP}, {59, uint64(tio.Lflag), unix.IEXTEN},
		{60, uint64(tio.Lflag), unix.ECHOCTL}, {61, uint64(tio.Lflag), unix.ECHOKE}, {62, uint64(tio.Lflag), unix.PENDIN},
		{70, uint64(tio.Oflag), unix.OPOST}, {72, uint64(tio.Oflag), unix.ONLCR}, {73, uint64(tio.Oflag), unix.OCRNL},
		{74, uint64(tio.Oflag), unix.ONOCR}, {75, uint64(tio.Oflag), unix.ONLRET},
		{90, uint64(tio.Cflag), unix.CS7}, {91, uint64(tio.Cflag), unix.CS8}, {92, uint64(tio.Cflag), unix.PARENB}, {93, uint64(tio.Cflag), unix.PARODD},
	} {
		v := uint32(0)
		if f.in&f.mask == f.mask {
			v = 1
		}
		put(f.op, v)
	}
	return string(append(b, 0))
}
