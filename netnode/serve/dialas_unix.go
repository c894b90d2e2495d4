//go:build unix

package serve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// noGroup is the only group of a helper: to connect to loopback takes none.
const noGroup = 65534

// The messages between a Dialer and its helper, over a datagram socket with boundaries:
//
//	ask     u32 number, u16 port, u8 family (4 or 6)
//	answer  u32 number, u32 errno; with errno 0 the connected socket comes along (SCM_RIGHTS)
const (
	askLen    = 7
	answerLen = 8
	maxDials  = 64 // of one helper at a time
)

// Dialer connects to loopback as the person who asked for it. For others than the user of this process
// that is done by a helper: this program again, as that user for good before its first
// instruction, with nothing but a socket to us.
type Dialer struct {
	Command []string // of the helper: runs HelperMain; nil: only our own user is served

	mu      sync.Mutex
	helpers map[int]*helper
	closed  bool
}

// Dial is Config.Dial.
func (d *Dialer) Dial(ctx context.Context, uid int, addr netip.AddrPort) (net.Conn, error) {
	if uid == os.Getuid() {
		var nd net.Dialer
		return nd.DialContext(ctx, "tcp", addr.String())
	}
	if d.Command == nil || os.Getuid() != 0 || uid <= 0 {
		return nil, fmt.Errorf("serve: dial as uid %d: not possible here", uid)
	}
	h, err := d.helper(uid)
	if err != nil {
		return nil, err
	}
	return h.dial(ctx, addr)
}

// Close ends the helpers.
func (d *Dialer) Close() {
	d.mu.Lock()
	d.closed = true
	all := d.helpers
	d.helpers = nil
	d.mu.Unlock()
	for _, h := range all {
		h.sock.Close()
		<-h.done
	}
}

func (d *Dialer) helper(uid int) (*helper, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, net.ErrClosed
	}
	if h := d.helpers[uid]; h != nil {
		select {
		case <-h.done: // somebody ended it
		default:
			return h, nil
		}
	}
	h, err := startHelper(d.Command, uid)
	if err != nil {
		return nil, err
	}
	if d.helpers == nil {
		d.helpers = map[int]*helper{}
	}
	d.helpers[uid] = h
	return h, nil
}

// helper is the daemon's side of one.
type helper struct {
	sock *net.UnixConn
	done chan struct{} // closed when it has ended
	slot chan struct{} // one for each dial under way

	mu      sync.Mutex
	next    uint32
	waiting map[uint32]chan answer
}

type answer struct {
	conn net.Conn
	err  error
}

// pair makes a connected pair of sockets that keep messages apart.
func pair() (ours *net.UnixConn, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("serve: socket of the dialling process: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "dial")
	ours, err = unixConn(os.NewFile(uintptr(fds[0]), "dial"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

func unixConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("serve: socket of the dialling process: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("serve: socket of the dialling process: of another kind")
	}
	return u, nil
}

func startHelper(command []string, uid int) (*helper, error) {
	sock, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	// A datagram socket does not tell of the other end's death: a pipe does, both ways.
	life, held, err := os.Pipe()
	if err != nil {
		sock.Close()
		theirs.Close()
		return nil, fmt.Errorf("serve: %w", err)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.ExtraFiles = []*os.File{theirs, life} // 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: noGroup, Groups: []uint32{}}, Setsid: true}
	err = cmd.Start()
	theirs.Close()
	life.Close()
	if err != nil {
		sock.Close()
		held.Close()
		return nil, fmt.Errorf("serve: process that dials as uid %d: %w", uid, err)
	}
	h := &helper{sock: sock, done: make(chan struct{}), slot: make(chan struct{}, maxDials), waiting: map[uint32]chan answer{}}
	go func() { // ends with the socket
		h.read()
		held.Close()
	}()
	go func() { // ends with the process, which ends with the pipe
		cmd.Wait()
		sock.Close()
		h.mu.Lock()
		close(h.done)
		for n, w := range h.waiting {
			delete(h.waiting, n)
			w <- answer{err: errors.New("serve: the process that dials ended")}
		}
		h.mu.Unlock()
	}()
	return h, nil
}

func (h *helper) dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	select {
	case h.slot <- struct{}{}:
		defer func() { <-h.slot }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w := make(chan answer, 1)
	h.mu.Lock()
	h.next++
	n := h.next
	h.waiting[n] = w
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.waiting, n)
		h.mu.Unlock()
		select {
		case late := <-w: // after we gave up
			if late.conn != nil {
				late.conn.Close()
			}
		default:
		}
	}()
	b := make([]byte, askLen)
	binary.BigEndian.PutUint32(b, n)
	binary.BigEndian.PutUint16(b[4:], addr.Port())
	if b[6] = 4; addr.Addr().Is6() {
		b[6] = 6
	}
	if _, err := h.sock.Write(b); err != nil {
		return nil, fmt.Errorf("serve: ask the process that dials: %w", err)
	}
	select {
	case a := <-w:
		return a.conn, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-h.done:
		return nil, errors.New("serve: the process that dials ended")
	}
}

// read takes answers. They come from a process of the user's: a socket for a question that
// nobody asked is closed, and what is not a stream is no answer.
func (h *helper) read() {
	b, oob := make([]byte, answerLen+1), make([]byte, unix.CmsgSpace(4*4))
	for {
		n, on, _, _, err := h.sock.ReadMsgUnix(b, oob)
		if err != nil {
			return
		}
		fds := received(oob[:on])
		var c net.Conn
		if n == answerLen && len(fds) == 1 {
			f := os.NewFile(uintptr(fds[0]), "served")
			if x, err := net.FileConn(f); err == nil {
				if _, ok := x.(*net.TCPConn); ok {
					c = x
				} else {
					x.Close()
				}
			}
			f.Close()
		} else {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
		var w chan answer
		if n == answerLen {
			h.mu.Lock()
			num := binary.BigEndian.Uint32(b)
			w = h.waiting[num]
			delete(h.waiting, num)
			if w != nil {
				a := answer{conn: c}
				if c == nil {
					a.err = os.NewSyscallError("connect", syscall.Errno(binary.BigEndian.Uint32(b[4:])))
					if binary.BigEndian.Uint32(b[4:]) == 0 {
						a.err = errors.New("serve: the process that dials gave no connection")
					}
				}
				w <- a
			}
			h.mu.Unlock()
		}
		if w == nil && c != nil {
			c.Close()
		}
	}
}

// received are the descriptors that came along, none of which is left open to children.
func received(oob []byte) (fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range got {
			unix.CloseOnExec(fd)
			fds = append(fds, fd)
		}
	}
	return fds
}

// HelperMain is the helper's whole life. It refuses to be root, or two users at once.
func HelperMain() int {
	if uid := os.Getuid(); uid == 0 || os.Geteuid() != uid || os.Getgid() != os.Getegid() || os.Getgid() == 0 {
		return 1
	}
	sock, err := unixConn(os.NewFile(3, "dial"))
	if err != nil {
		return 1
	}
	go func() { // ends with the process
		io.Copy(io.Discard, os.NewFile(4, "life"))
		os.Exit(0)
	}()
	busy := make(chan struct{}, maxDials)
	b := make([]byte, askLen+1)
	for {
		n, err := sock.Read(b)
		if err != nil {
			return 0
		}
		if n != askLen {
			continue
		}
		num, port, six := binary.BigEndian.Uint32(b), binary.BigEndian.Uint16(b[4:]), b[6] == 6
		busy <- struct{}{}
		go func() { // ends with the dial
			defer func() { <-busy }()
			reply(sock, num, port, six)
		}()
	}
}

func reply(sock *net.UnixConn, num uint32, port uint16, six bool) {
	a := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if six {
		a = netip.IPv6Loopback()
	}
	out := make([]byte, answerLen)
	binary.BigEndian.PutUint32(out, num)
	c, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, port).String(), dialTime)
	if err != nil {
		code := syscall.ETIMEDOUT
		errors.As(err, &code)
		binary.BigEndian.PutUint32(out[4:], uint32(code))
		sock.Write(out)
		return
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) { sock.WriteMsgUnix(out, unix.UnixRights(int(fd)), nil) })
}
