package lab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// footprint is what a daemon holds.
type footprint struct {
	files int
	mib   float64
}

func footprintOf(t *testing.T, p *Proc) (f footprint) {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	if err != nil {
		t.Fatalf("%s: %v\n%s", p.Name, err, p.Tail(2000))
	}
	f.files = len(fds)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kb float64
		if _, err := fmt.Sscanf(line, "Pss: %f kB", &kb); err == nil {
			f.mib = kb / 1024
		}
	}
	return f
}

// goroutines ends a daemon by the signal that makes it list its goroutines.
func goroutines(t *testing.T, p *Proc) int {
	t.Helper()
	before := len(p.Tail(1 << 30))
	p.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-p.Exited():
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not end by SIGQUIT", p.Name)
	}
	return strings.Count(p.Tail(1 << 30)[before:], "\ngoroutine ")
}

// TestSoakPaths lets everything happen to a mesh for a while: routers that block UDP, let it
// through and change ports, laptops that get other addresses, nodes that come, go and crash,
// a hub that crashes. Two streams must get through whole, and the daemons that were there
// all along must hold at the end about what they held at the start.
func TestSoakPaths(t *testing.T) {
	needRoot(t)
	t.Parallel()
	span := 15 * time.Second
	if os.Getenv("TSSH_SOAK") != "" {
		span = 4 * time.Minute
	}
	w := newWorld(t, "coord,relay,recorder", "r2")
	pairs := []pair{w.pair(t, "one", &Routing{}, &Routing{}), w.pair(t, "two", &Routing{NAT: AddressAndPortDependent}, &Routing{})}
	guest := w.join(t, must(w.lab.AddHost("guest", Account{"deploy", deployUID}))(t), "tag:web")
	var streams []*stream
	var daemons []*Proc
	var before []footprint
	for _, p := range pairs {
		daemons = append(daemons, p.web.Proc, p.laptop.Proc)
	}
	open := func() {
		for _, p := range pairs {
			streams = append(streams, startStream(t, p.laptop, p.web.Name))
		}
	}
	closeAll := func() {
		for _, s := range streams {
			s.finish()
		}
		streams = nil
	}
	open() // every part of the daemons was used once when they are measured
	closeAll()
	for _, d := range daemons {
		before = append(before, footprintOf(t, d))
	}
	open()
	blocked := make([]bool, len(pairs))
	random := rand.New(rand.NewPCG(3, 0))
	count := map[string]int{}
	begin := time.Now()
	for n := 1; time.Since(begin) < span; n++ {
		i := random.IntN(len(pairs))
		p := pairs[i]
		var err error
		var what string
		switch random.IntN(7) {
		case 0, 1:
			blocked[i] = !blocked[i]
			what, err = "UDP blocked or let through", p.routeL.BlockUDP(blocked[i])
		case 2:
			what, err = "router rebound", p.routeW.Rebind(uint16(20000+random.IntN(10000)))
		case 3:
			what, err = "laptop readdressed", p.laptop.Host.Readdress()
		case 4:
			what = "node crashed"
			guest.Proc.Kill()
			err = guest.Start()
		case 5:
			what = "node left and came back"
			guest.Proc.Stop()
			err = guest.Start()
		case 6:
			what = "hub crashed"
			w.hub.Proc.Kill()
			err = w.hub.Start()
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		count[what]++
		for _, s := range streams {
			s.more(4 * chunk)
		}
		if n%12 == 0 {
			closeAll()
			open()
		}
	}
	for _, p := range pairs {
		if err := p.routeL.BlockUDP(false); err != nil {
			t.Fatal(err)
		}
	}
	closeAll()
	t.Logf("%v in %v", count, time.Since(begin).Round(time.Second))
	for i, d := range daemons {
		var now footprint
		// Memory is given back some time after traffic, connections of ended sessions go in seconds.
		if err := Until(90*time.Second, func() error {
			if now = footprintOf(t, d); now.files > before[i].files+15 || now.mib > before[i].mib+30 {
				return fmt.Errorf("holds %+v, at the start %+v", now, before[i])
			}
			return nil
		}); err != nil {
			t.Errorf("%s: %v", d.Name, err)
		}
		n := goroutines(t, d)
		t.Logf("%s: %d files (%d), %.0f MiB (%.0f), %d goroutines", d.Name, now.files, before[i].files, now.mib, before[i].mib, n)
		if n == 0 || n > 150 {
			t.Errorf("%s: %d goroutines", d.Name, n)
		}
	}
}
