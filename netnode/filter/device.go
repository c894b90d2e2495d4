package filter

import (
	"os"
	"sync"

	"golang.zx2c4.com/wireguard/tun"
)

// Device is a tun.Device that lets through what a Filter passes. Reading waits for the
// first rules, so that what the kernel kept while no daemon ran is not thrown away for
// want of peers.
type Device struct {
	tun.Device
	f *Filter

	once  sync.Once
	ready chan struct{}
	done  chan struct{}
	stop  sync.Once
}

// Wrap puts f before dev.
func Wrap(dev tun.Device, f *Filter) *Device {
	return &Device{Device: dev, f: f, ready: make(chan struct{}), done: make(chan struct{})}
}

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
		if sizes[i] > 0 && d.f.Out(bufs[i][offset:offset+sizes[i]]) != Pass {
			sizes[i] = 0
		}
	}
	return n, err
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
