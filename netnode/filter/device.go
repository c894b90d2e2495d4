package filter

import (
	"net/netip"
	"os"
	"sync"

	"golang.zx2c4.com/wireguard/tun"
)

// Device is a tun.Device that lets through what a Filter passes. Reading waits for the
// first rules, so that what the kernel kept while no daemon ran is not thrown away for
// want of peers.
type Device struct {
	tun.Device
	f      *Filter
	toward func(dst netip.Addr, stop <-chan struct{}) // nil: nobody needs to know

	once  sync.Once
	ready chan struct{}
	done  chan struct{}
	stop  sync.Once
}

// Wrap puts f before dev.
func Wrap(dev tun.Device, f *Filter) *Device {
	return &Device{Device: dev, f: f, ready: make(chan struct{}), done: make(chan struct{})}
}

// Toward has f called with where a packet goes, before WireGuard gets it. f runs on one
// goroutine, and may block until stop is closed. It is set before the first Read.
func (d *Device) Toward(f func(dst netip.Addr, stop <-chan struct{})) { d.toward = f }

// Ready opens the way out, after SetRules and once WireGuard knows its peers.
func (d *Device) Ready() { d.once.Do(func() { close(d.ready) }) }

// Read gives WireGuard what may go out. A dropped packet keeps its place with size 0,
// which WireGuard skips.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case <-d.ready:
	case <-d.done:
		return 0, os.ErrClosed
	}
	n, err := d.Device.Read(bufs, sizes, offset)
	for i := range n {
		if sizes[i] == 0 {
			continue
		}
		b := bufs[i][offset : offset+sizes[i]]
		if d.f.Out(b) != Pass {
			sizes[i] = 0
		} else if d.toward != nil {
			d.toward(destination(b), d.done)
		}
	}
	return n, err
}

// destination is that of a packet that passed.
func destination(b []byte) netip.Addr {
	if b[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(b[16:20]))
	}
	return netip.AddrFrom16([16]byte(b[24:40]))
}

// Write hands on what may come in. It runs for several peers at once.
func (d *Device) Write(bufs [][]byte, offset int) (int, error) {
	kept, dropped := bufs, false
	for i, b := range bufs {
		switch pass := len(b) > offset && d.f.In(b[offset:]) == Pass; {
		case !pass && !dropped: // the first that goes: from now on a copy, bufs is the caller's
			dropped = true
			kept = append(make([][]byte, 0, len(bufs)), bufs[:i]...)
		case pass && dropped:
			kept = append(kept, b)
		}
	}
	if len(kept) == 0 {
		return len(bufs), nil
	}
	if _, err := d.Device.Write(kept, offset); err != nil {
		return 0, err
	}
	return len(bufs), nil
}

// Close ends a Read that waits and closes the device beneath.
func (d *Device) Close() error {
	d.stop.Do(func() { close(d.done) })
	return d.Device.Close()
}
