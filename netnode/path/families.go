package path

import (
	"reflect"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
)

// families is conn.StdNetBind made fit for both address families. The pinned version
// keeps the destination of a datagram in a buffer that it uses for both: after an IPv4
// address only the first four bytes of an IPv6 one are copied into it, and the datagram
// goes to an address that nobody wrote. So each family sends through a StdNetBind of its
// own. The second one is a copy of the first, taken when it has its sockets and has not
// sent anything: then both have the same sockets, and buffers of their own.
type families struct {
	now atomic.Pointer[bothFamilies]
}

type bothFamilies struct{ four, six conn.Bind }

var _ conn.Bind = (*families)(nil)

func newFamilies() *families {
	f := &families{}
	b := conn.NewStdNetBind()
	f.now.Store(&bothFamilies{b, b}) // it has no sockets, so it does not send
	return f
}

// Open makes a new StdNetBind: the one before has sent.
func (f *families) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	if f.now.Load().four != f.now.Load().six {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	four := conn.NewStdNetBind()
	fns, actual, err := four.Open(port)
	if err != nil {
		return nil, 0, err
	}
	from := reflect.ValueOf(four).Elem()
	copied := reflect.New(from.Type())
	copied.Elem().Set(from)
	f.now.Store(&bothFamilies{four, copied.Interface().(conn.Bind)})
	return fns, actual, nil
}

// Close closes the sockets, which are the copy's too.
func (f *families) Close() error {
	b := f.now.Load()
	f.now.Store(&bothFamilies{b.four, b.four})
	return b.four.Close()
}

func (f *families) SetMark(mark uint32) error { return f.now.Load().four.SetMark(mark) }

func (f *families) BatchSize() int { return f.now.Load().four.BatchSize() }

func (f *families) ParseEndpoint(s string) (conn.Endpoint, error) {
	return f.now.Load().four.ParseEndpoint(s)
}

func (f *families) Send(bufs [][]byte, ep conn.Endpoint) error {
	b := f.now.Load()
	if ep.DstIP().Is6() {
		return b.six.Send(bufs, ep)
	}
	return b.four.Send(bufs, ep)
}
