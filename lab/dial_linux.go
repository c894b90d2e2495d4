package lab

import (
	"net"
	"runtime"

	"github.com/vishvananda/netns"
)

// Dial connects from inside the host's network namespace; addr must be numeric, since
// the socket has to be made on this thread.
func (h *Host) Dial(network, addr string) (net.Conn, error) {
	if h.holder == nil {
		return net.Dial(network, addr)
	}
	there, err := netns.GetFromPid(h.holder.Process.Pid)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer here.Close()
	if err := netns.Set(there); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	c, err := net.Dial(network, addr)
	if e := netns.Set(here); e != nil {
		return nil, e // the thread stays locked and ends with this goroutine
	}
	runtime.UnlockOSThread()
	return c, err
}
