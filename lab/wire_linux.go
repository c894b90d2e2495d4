package lab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Line is what a Wire does to frames, in each direction. It exists because not every
// kernel has netem.
type Line struct {
	Delay time.Duration // one way
	Loss  float64       // share of frames lost, 0 to 1
	Queue int           // frames on the way at most, more are dropped; 0: 4000
}

// Wire is a cable between a host and its network that this process carries frame by
// frame: two TAP devices and a queue for each direction.
type Wire struct {
	line atomic.Pointer[Line]
	ends [2]*os.File
	wg   sync.WaitGroup

	Dropped atomic.Int64 // frames lost on purpose or for want of room
}

// Lengthen replaces the host's cable by a Wire. The host gets a new address.
func (h *Host) Lengthen(line Line) (*Wire, error) {
	w := &Wire{}
	w.Set(line)
	if err := ip("-n " + h.ns + " link del eth0"); err != nil {
		return nil, err
	}
	s := h.seg
	n, p4, p6 := s.port(h.lab)
	there := fmt.Sprintf("w%d", n)
	for i, end := range []struct{ ns, dev string }{{h.ns, "eth0"}, {s.ns, there}} {
		var err error
		if e := inNamespace("/run/netns/"+end.ns, func() { w.ends[i], err = openTAP(end.dev) }); e != nil {
			err = e
		}
		if err != nil {
			w.Close()
			return nil, fmt.Errorf("lab: wire of %s: %w", h.Name, err)
		}
	}
	cmds := append([]string{"-n " + s.ns + " link set " + there + " master " + s.bridge + " up"}, h.lab.address(h.ns, "eth0", s, p4, p6, s != h.lab.net)...)
	if s.isolated {
		cmds = append(cmds, "-n "+s.ns+" link set "+there+" type bridge_slave isolated on")
	}
	if err := ip(cmds...); err != nil {
		w.Close()
		return nil, err
	}
	if h.Addr, h.Addr6 = p4.Addr(), p6.Addr(); !h.Addr.IsValid() {
		h.Addr = h.Addr6
	}
	w.wg.Go(func() { w.carry(w.ends[0], w.ends[1], 1) })
	w.wg.Go(func() { w.carry(w.ends[1], w.ends[0], 2) })
	h.lab.mu.Lock()
	h.lab.wires = append(h.lab.wires, w)
	h.lab.mu.Unlock()
	return w, nil
}

// Set changes the wire while it is in use.
func (w *Wire) Set(line Line) {
	if line.Queue == 0 {
		line.Queue = 4000
	}
	w.line.Store(&line)
}

// Close cuts the wire.
func (w *Wire) Close() {
	for _, f := range w.ends {
		if f != nil {
			f.Close()
		}
	}
	w.wg.Wait()
}

// carry takes frames from one end to the other until either is closed. What is lost is
// the same in every run that sends the same frames.
func (w *Wire) carry(from, to *os.File, seed uint64) {
	type frame struct {
		due  time.Time
		data []byte
	}
	queue := make(chan frame, 1<<16)
	var waiting atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() { // ends when queue is closed
		for f := range queue {
			if d := time.Until(f.due); d > 0 {
				time.Sleep(d)
			}
			to.Write(f.data) // a device that is down loses it, as a cable does
			waiting.Add(-1)
		}
	})
	random := rand.New(rand.NewPCG(seed, 0))
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if err != nil {
			break
		}
		line := w.line.Load()
		if line.Loss > 0 && random.Float64() < line.Loss || waiting.Load() >= int64(min(line.Queue, cap(queue))) {
			w.Dropped.Add(1)
			continue
		}
		waiting.Add(1)
		queue <- frame{time.Now().Add(line.Delay), append([]byte(nil), buf[:n]...)}
	}
	close(queue)
	wg.Wait()
}

// openTAP makes a TAP device in the thread's network namespace; it goes with the file.
func openTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("device %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
