package control

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is one end of the control socket. Send may be called by several goroutines,
// Receive by one.
type Conn struct {
	sock     *net.UnixConn
	fromConn bool // what Receive accepts: true at the monitor's end
	mu       sync.Mutex
}

// Pair makes a control socket: the monitor's end, and the file to hand to conn as fd 4.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("control: socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	c, err := FromFile(os.NewFile(uintptr(fds[0]), "control"), true)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c, theirs, nil
}

// FromFile takes over a descriptor of a control socket and closes the file.
func FromFile(f *os.File, monitor bool) (*Conn, error) {
	defer f.Close()
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	return FromNet(nc, monitor)
}

// FromNet takes over a connected socket of the network "unixpacket".
func FromNet(nc net.Conn, monitor bool) (*Conn, error) {
	u, ok := nc.(*net.UnixConn)
	if !ok || nc.LocalAddr().Network() != "unixpacket" {
		nc.Close()
		return nil, fmt.Errorf("control: a %s socket", nc.LocalAddr().Network())
	}
	return &Conn{sock: u, fromConn: monitor}, nil
}

// sendTime bounds a Send: a process that was stopped reads no more, and must not hold up
// whoever has something to tell it.
const sendTime = 5 * time.Second

// Send sends one message, with a descriptor if file is not nil.
func (c *Conn) Send(m Message, file *os.File) error {
	b, err := Encode(m)
	if err != nil {
		return err
	}
	var fds []int
	if file != nil {
		fds = append(fds, int(file.Fd()))
	}
	if g, ok := m.Body.(*GoMsg); ok && g.Scope != nil {
		fds = append(fds, int(g.Scope.Fd()))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.sock.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return fmt.Errorf("control: send %s: %w", m.Type, err)
	}
	if _, _, err := c.sock.WriteMsgUnix(b, oob, nil); err != nil {
		return fmt.Errorf("control: send %s: %w", m.Type, err)
	}
	return nil
}

// Receive waits for one message. Only a Go message may carry a descriptor, which the
// caller then owns.
func (c *Conn) Receive() (Message, *os.File, error) {
	raw, err := c.sock.SyscallConn()
	if err != nil {
		return Message{}, nil, fmt.Errorf("control: %w", err)
	}
	// The wait for a message, which is most of a connection's life, holds no buffer.
	var buf []byte
	oob := make([]byte, unix.CmsgSpace(4*4))
	var n, oobn, flags int
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		n, _, _, _, rerr = recvmsg(int(fd), nil, nil, unix.MSG_PEEK|unix.MSG_TRUNC) // its length
		if errors.Is(rerr, unix.EAGAIN) {
			return false
		}
		if rerr == nil {
			buf = make([]byte, min(n, MaxMessage)+1)
			n, oobn, flags, _, rerr = recvmsg(int(fd), buf, oob, unix.MSG_CMSG_CLOEXEC)
		}
		return true
	})
	if err = errors.Join(err, rerr); err != nil {
		return Message{}, nil, fmt.Errorf("control: %w", err)
	}
	files, ferr := descriptors(oob[:oobn])
	if n == 0 && oobn == 0 {
		return Message{}, nil, fmt.Errorf("control: %w", io.EOF)
	}
	fail := func(err error) (Message, *os.File, error) {
		for _, f := range files {
			f.Close()
		}
		return Message{}, nil, err
	}
	if ferr != nil {
		return fail(ferr)
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return fail(errTooLong)
	}
	m, err := Decode(buf[:n], c.fromConn)
	if err != nil {
		return fail(err)
	}
	if len(files) > 0 && m.Type != Go {
		return fail(fmt.Errorf("control: a descriptor with %s", m.Type))
	}
	if g, ok := m.Body.(*GoMsg); ok && g.Scoped {
		if len(files) == 0 {
			return fail(errors.New("control: no descriptor of the scope"))
		}
		g.Scope, files = files[len(files)-1], files[:len(files)-1]
	}
	switch len(files) {
	case 0:
		return m, nil, nil
	case 1:
		return m, files[0], nil
	}
	return fail(errors.New("control: a descriptor too many"))
}

// recvmsg is recvmsg(2), which signals do not interrupt.
func recvmsg(fd int, p, oob []byte, flags int) (n, oobn, got int, from unix.Sockaddr, err error) {
	for {
		n, oobn, got, from, err = unix.Recvmsg(fd, p, oob, flags)
		if !errors.Is(err, unix.EINTR) {
			return n, oobn, got, from, err
		}
	}
}

// descriptors returns those of a control message. More than two are an error, and all of
// them are closed.
func descriptors(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	var fds []int
	for _, m := range msgs {
		got, err := unix.ParseUnixRights(&m)
		if err == nil {
			fds = append(fds, got...)
		}
	}
	if len(fds) != 1 && len(fds) != 2 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, errors.New("control: neither one descriptor nor two")
	}
	var files []*os.File
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), "passed"))
	}
	return files, nil
}

// Peer returns the credentials of the process at the other end.
func (c *Conn) Peer() (unix.Ucred, error) {
	raw, err := c.sock.SyscallConn()
	if err != nil {
		return unix.Ucred{}, fmt.Errorf("control: %w", err)
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		err = cerr
	}
	if err != nil {
		return unix.Ucred{}, fmt.Errorf("control: peer: %w", err)
	}
	return *cred, nil
}

// Close ends both directions.
func (c *Conn) Close() error { return c.sock.Close() }
