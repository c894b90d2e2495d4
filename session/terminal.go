package session

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"tssh/session/launch"
)

// ptyRequest is a pty-req (RFC 4254 section 6.2).
type ptyRequest struct {
	term             string
	cols, rows, x, y uint32
	modes            []mode
}

// mode is one encoded terminal mode (RFC 4254 section 8).
type mode struct {
	op  byte
	arg uint32
}

const (
	maxTerm  = 64
	maxModes = 256
)

func parsePTY(p payload) (ptyRequest, bool) {
	var r ptyRequest
	term, ok := p.str()
	if !ok {
		return r, false
	}
	r.cols, r.rows, r.x, r.y, ok = parseWindow(&p)
	if !ok {
		return r, false
	}
	modes, ok := p.str()
	if !ok {
		return r, false
	}
	r.term = cleanTerm(string(term))
	m := payload(modes)
	for len(m) > 0 && len(r.modes) < maxModes {
		op := m[0]
		m = m[1:]
		if op == 0 || op >= 160 { // the end, or nothing this section defines
			break
		}
		arg, ok := m.u32()
		if !ok {
			return r, false
		}
		r.modes = append(r.modes, mode{op, arg})
	}
	return r, true
}

// parseWindow reads a size: columns, rows, and both in pixels.
func parseWindow(p *payload) (cols, rows, x, y uint32, ok bool) {
	var oks [4]bool
	cols, oks[0] = p.u32()
	rows, oks[1] = p.u32()
	x, oks[2] = p.u32()
	y, oks[3] = p.u32()
	ok = oks == [4]bool{true, true, true, true}
	return min(cols, 0xffff), min(rows, 0xffff), min(x, 0xffff), min(y, 0xffff), ok
}

// cleanTerm keeps TERM to what names of terminals are made of.
func cleanTerm(s string) string {
	if s == "" || len(s) > maxTerm {
		return "dumb"
	}
	for _, r := range s {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == '_' || r == '+') {
			return "dumb"
		}
	}
	return s
}

// terminal is a pty pair. The slave stays open here until the program has it.
type terminal struct {
	master *os.File
	name   string
	term   string
	cols   uint32
	rows   uint32

	mu    sync.Mutex
	slave *os.File // nil once handed over
}

func openTerminal(r ptyRequest) (*terminal, error) {
	master, slave, name, err := launch.OpenTerminal()
	if err != nil {
		return nil, err
	}
	t := &terminal{master: master, slave: slave, name: name, term: r.term}
	t.resize(r.cols, r.rows, r.x, r.y)
	if err := setModes(slave, r.modes); err != nil {
		master.Close()
		slave.Close()
		return nil, err
	}
	return t, nil
}

func (t *terminal) resize(cols, rows, x, y uint32) {
	t.cols, t.rows = cols, rows
	_ = t.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(rows), Col: uint16(cols), Xpixel: uint16(x), Ypixel: uint16(y)})
	})
}

func (t *terminal) sendBreak() error {
	return t.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TCSBRK, 0) })
}

// control runs f on the master; after a hang-up that is an error.
func (t *terminal) control(f func(fd int) error) error {
	raw, err := t.master.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// takeSlave hands the slave over; nil when it is taken, or the terminal closed.
func (t *terminal) takeSlave() *os.File {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.slave
	t.slave = nil
	return f
}

// close closes both ends that are here.
func (t *terminal) close() {
	t.master.Close()
	if f := t.takeSlave(); f != nil {
		f.Close()
	}
}

// Terminal modes by opcode: RFC 4254 section 8, with IUTF8 from RFC 8160.
var (
	controlChars = map[byte]int{
		1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2, 8: unix.VSTART, 9: unix.VSTOP,
		10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE, 14: unix.VLNEXT, 16: unix.VSWTC, 18: unix.VDISCARD,
	}
	inputFlags = map[byte]uint32{
		30: unix.IGNPAR, 31: unix.PARMRK, 32: unix.INPCK, 33: unix.ISTRIP, 34: unix.INLCR, 35: unix.IGNCR, 36: unix.ICRNL, 37: unix.IUCLC,
		38: unix.IXON, 39: unix.IXANY, 40: unix.IXOFF, 41: unix.IMAXBEL, 42: unix.IUTF8,
	}
	localFlags = map[byte]uint32{
		50: unix.ISIG, 51: unix.ICANON, 52: unix.XCASE, 53: unix.ECHO, 54: unix.ECHOE, 55: unix.ECHOK, 56: unix.ECHONL, 57: unix.NOFLSH,
		58: unix.TOSTOP, 59: unix.IEXTEN, 60: unix.ECHOCTL, 61: unix.ECHOKE, 62: unix.PENDIN,
	}
	outputFlags  = map[byte]uint32{70: unix.OPOST, 71: unix.OLCUC, 72: unix.ONLCR, 73: unix.OCRNL, 74: unix.ONOCR, 75: unix.ONLRET}
	controlFlags = map[byte]uint32{92: unix.PARENB, 93: unix.PARODD}
	speeds       = map[uint32]uint32{
		50: unix.B50, 75: unix.B75, 110: unix.B110, 134: unix.B134, 150: unix.B150, 200: unix.B200, 300: unix.B300, 600: unix.B600, 1200: unix.B1200,
		1800: unix.B1800, 2400: unix.B2400, 4800: unix.B4800, 9600: unix.B9600, 19200: unix.B19200, 38400: unix.B38400, 57600: unix.B57600,
		115200: unix.B115200, 230400: unix.B230400, 460800: unix.B460800, 921600: unix.B921600,
	}
)

const (
	modeCS7    = 90
	modeCS8    = 91
	modeISpeed = 128
	modeOSpeed = 129
	noChar     = 255 // the wire's word for "not set"
)

// setModes applies what the client said over what the terminal starts with.
func setModes(slave *os.File, modes []mode) error {
	raw, err := slave.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		var t *unix.Termios
		if t, err = unix.IoctlGetTermios(int(fd), unix.TCGETS); err != nil {
			return
		}
		for _, m := range modes {
			apply(t, m)
		}
		err = unix.IoctlSetTermios(int(fd), unix.TCSETS, t)
	})
	if cerr != nil {
		return cerr
	}
	return err
}

func apply(t *unix.Termios, m mode) {
	set := func(field *uint32, bit uint32) {
		if m.arg != 0 {
			*field |= bit
		} else {
			*field &^= bit
		}
	}
	if i, ok := controlChars[m.op]; ok {
		t.Cc[i] = byte(m.arg)
		if m.arg == noChar {
			t.Cc[i] = 0 // _POSIX_VDISABLE
		}
		return
	}
	if bit, ok := inputFlags[m.op]; ok {
		set(&t.Iflag, bit)
		return
	}
	if bit, ok := localFlags[m.op]; ok {
		set(&t.Lflag, bit)
		return
	}
	if bit, ok := outputFlags[m.op]; ok {
		set(&t.Oflag, bit)
		return
	}
	if bit, ok := controlFlags[m.op]; ok {
		set(&t.Cflag, bit)
		return
	}
	switch m.op {
	case modeCS7:
		if m.arg != 0 {
			t.Cflag = t.Cflag&^unix.CSIZE | unix.CS7
		}
	case modeCS8:
		if m.arg != 0 {
			t.Cflag = t.Cflag&^unix.CSIZE | unix.CS8
		}
	case modeISpeed, modeOSpeed:
		// A terminal of Linux has one speed for both ways unless told otherwise.
		if b, ok := speeds[m.arg]; ok {
			t.Cflag = t.Cflag&^unix.CBAUD | b
			t.Ispeed, t.Ospeed = b, b
		}
	}
}
