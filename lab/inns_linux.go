package lab

import (
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
)

// Dial connects from inside the host's network namespace; addr must be numeric, since
// the socket has to be made on this thread.
func (h *Host) Dial(network, addr string) (c net.Conn, err error) {
	e := h.within(func() { c, err = net.Dial(network, addr) })
	if e != nil {
		return nil, e
	}
	return c, err
}

// ListenPacket is net.ListenPacket in the host's network namespace; addr must be numeric.
func (h *Host) ListenPacket(network, addr string) (c net.PacketConn, err error) {
	e := h.within(func() { c, err = net.ListenPacket(network, addr) })
	if e != nil {
		return nil, e
	}
	return c, err
}

// within runs f in the host's network namespace.
func (h *Host) within(f func()) error {
	if h.holder == nil {
		f()
		return nil
	}
	return inNamespace("/run/netns/"+h.ns, f)
}

// inNamespace runs f on a thread that is in the network namespace at path.
func inNamespace(path string, f func()) error {
	there, err := os.Open(path)
	if err != nil {
		return err
	}
	defer there.Close()
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer here.Close()
	if err := netns.Set(netns.NsHandle(there.Fd())); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	f()
	if err := netns.Set(here); err != nil {
		return err // the thread stays locked and ends with this goroutine
	}
	runtime.UnlockOSThread()
	return nil
}
