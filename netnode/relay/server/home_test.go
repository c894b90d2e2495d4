package server

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"tssh/netnode/relay"
)

// far is a relay behind a wire that holds everything back for a while.
func far(t *testing.T, at relay.Server, delay time.Duration) relay.Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := net.JoinHostPort(at.Host, strconv.Itoa(int(at.Port)))
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
	carry := func(dst, src net.Conn) {
		defer dst.Close()
		type late struct {
			b    []byte
			when time.Time
		}
		q := make(chan late, 1000)
		wg.Go(func() { // ends when the reader below does
			for p := range q {
				time.Sleep(time.Until(p.when)) // the wire, not a wait for something
				dst.Write(p.b)
			}
			dst.Close()
		})
		defer close(q)
		for {
			b := make([]byte, 32<<10)
			n, err := src.Read(b)
			if err != nil {
				return
			}
			q <- late{b[:n], time.Now().Add(delay)}
		}
	}
	wg.Go(func() { // ends with the listener
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			context.AfterFunc(ctx, func() { in.Close(); out.Close() })
			wg.Go(func() { carry(out, in) })
			wg.Go(func() { carry(in, out) })
		}
	})
	at.Port = uint16(l.Addr().(*net.TCPAddr).Port)
	return at
}

// TestNearestHome: the nearest relay becomes home, not the first of the map, and a little
// nearer is no reason to move.
func TestNearestHome(t *testing.T) {
	leaks(t)
	one, two, three := newRelay(t, "one", nil), newRelay(t, "two", nil), newRelay(t, "three", nil)
	a, b := newNode(t, nil), newNode(t, nil)
	for _, r := range []*testRelay{one, two, three} {
		r.admit(a)
		r.admit(b)
	}
	a.SetServers([]relay.Server{far(t, one.at, 80*time.Millisecond), two.at})
	a.atHome(t, "two")
	for _, s := range a.Status() {
		if s.ID == "two" && (!s.Home || !s.Connected || s.Latency <= 0) {
			t.Errorf("%+v", s)
		}
	}
	a.SetServers([]relay.Server{three.at, far(t, one.at, 80*time.Millisecond), two.at})
	b.SetServers([]relay.Server{two.at})
	b.atHome(t, "two")
	exchange(t, b, a, "two", "still here")
	if a.Home() != "two" {
		t.Errorf("moved to %q", a.Home())
	}
}

// TestSilentHome cuts the wire to a relay without a word: nothing is refused, nothing
// comes back. It runs in a network namespace of its own, where packets can be dropped.
func TestSilentHome(t *testing.T) {
	const inside = "TSSH_TEST_SILENT_HOME"
	if os.Getenv(inside) == "" {
		if os.Geteuid() != 0 {
			t.Skip("root is needed to drop packets")
		}
		for _, tool := range []string{"unshare", "ip", "nft"} {
			if _, err := exec.LookPath(tool); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), "unshare", "-n", os.Args[0], "-test.run=^TestSilentHome$", "-test.v", "-test.timeout=2m")
		cmd.Env = append(os.Environ(), inside+"=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
		return
	}
	run := func(cmd ...string) {
		t.Helper()
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	run("ip", "link", "set", "lo", "up")
	one, two := newRelay(t, "one", nil), newRelay(t, "two", nil)
	a, b := newNode(t, nil), newNode(t, nil)
	for _, n := range []*node{a, b} {
		one.admit(n)
		two.admit(n)
		n.SetServers([]relay.Server{one.at, far(t, two.at, 30*time.Millisecond)})
		n.atHome(t, "one")
	}
	exchange(t, a, b, "one", "before")
	run("nft", "add table ip cut; add chain ip cut in { type filter hook input priority 0 ; }; add rule ip cut in tcp dport "+strconv.Itoa(int(one.at.Port))+" drop")
	cut := time.Now()
	// While nobody has noticed, packets are lost; then they go another way.
	exchange(t, a, b, "one", "after")
	exchange(t, b, a, "one", "after")
	took := time.Since(cut)
	for _, n := range []*node{a, b} {
		n.atHome(t, "two")
	}
	t.Logf("packets went another way after %v, both at home elsewhere after %v", took.Round(time.Millisecond), time.Since(cut).Round(time.Millisecond))
	if took > 15*time.Second {
		t.Errorf("took %v", took)
	}
	run("nft", "delete table ip cut")
}

// BenchmarkRelay compares packets through a relay with the same bytes through a plain
// proxy that ends TLS on both sides, as the relay does. The ratio is what counts.
func BenchmarkRelay(b *testing.B) {
	const size, window = 1400, 24
	packet := make([]byte, size)
	var relayed, plain float64
	b.Run("relay", func(b *testing.B) {
		r := newRelay(b, "hub", func(c *Config) { c.BytesPerSecond = 1 << 40 })
		x, y := newNode(b, nil), newNode(b, nil)
		for _, n := range []*node{x, y} {
			r.admit(n)
			n.SetServers([]relay.Server{r.at})
			n.atHome(b, "hub")
		}
		exchange(b, x, y, "hub", "first")
		b.SetBytes(size)
		b.ResetTimer()
		sent, got, lost := 0, 0, 0
		quiet := time.NewTimer(time.Second)
		for got+lost < b.N {
			for sent < b.N && sent-got-lost < window && x.Send(y.key, "hub", packet) {
				sent++
			}
			quiet.Reset(time.Second)
			select {
			case <-y.got:
				got++
			case <-quiet.C:
				lost = sent - got
			}
		}
		relayed = float64(b.Elapsed()) / float64(b.N)
		b.ReportMetric(float64(lost)/float64(b.N), "lost/op")
	})
	b.Run("plain", func(b *testing.B) {
		x, y := plainProxy(b)
		b.SetBytes(size)
		b.ResetTimer()
		go func() {
			for range b.N {
				if _, err := x.Write(packet); err != nil {
					return
				}
			}
		}()
		if _, err := io.CopyN(io.Discard, y, int64(size)*int64(b.N)); err != nil {
			b.Fatal(err)
		}
		plain = float64(b.Elapsed()) / float64(b.N)
		if relayed > 0 {
			b.ReportMetric(plain/relayed, "relay/plain")
		}
	})
}
