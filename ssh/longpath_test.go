package ssh

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	gossh "golang.org/x/crypto/ssh"
)

// wire carries one way: what is written arrives after a delay, at no more than a rate.
type wire struct {
	delay time.Duration
	rate  float64 // bytes a second

	mu     sync.Mutex
	some   chan struct{} // has one when something was written or the end came
	queue  []packet
	clear  time.Time // when the last byte has left
	closed bool
}

type packet struct {
	at   time.Time
	data []byte
}

func newWire(delay time.Duration, rate float64) *wire {
	return &wire{delay: delay, rate: rate, some: make(chan struct{}, 1)}
}

func (w *wire) wake() {
	select {
	case w.some <- struct{}{}:
	default:
	}
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, io.ErrClosedPipe
	}
	now := time.Now()
	if w.clear.Before(now) {
		w.clear = now
	}
	w.clear = w.clear.Add(time.Duration(float64(len(b)) / w.rate * float64(time.Second)))
	w.queue = append(w.queue, packet{w.clear.Add(w.delay), bytes.Clone(b)})
	w.wake()
	return len(b), nil
}

func (w *wire) Read(b []byte) (int, error) {
	for {
		w.mu.Lock()
		if len(w.queue) > 0 {
			if wait := time.Until(w.queue[0].at); wait > 0 {
				w.mu.Unlock()
				time.Sleep(wait)
				continue
			}
			n := copy(b, w.queue[0].data)
			if w.queue[0].data = w.queue[0].data[n:]; len(w.queue[0].data) == 0 {
				w.queue = w.queue[1:]
			}
			w.mu.Unlock()
			return n, nil
		}
		closed := w.closed
		w.mu.Unlock()
		if closed {
			return 0, io.EOF
		}
		<-w.some
	}
}

func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.wake()
	return nil
}

// longConn is one end of two wires.
type longConn struct {
	net.Conn // for what is not used
	in, out  *wire
}

func (c longConn) Read(b []byte) (int, error)  { return c.in.Read(b) }
func (c longConn) Write(b []byte) (int, error) { return c.out.Write(b) }
func (c longConn) Close() error                { c.in.Close(); return c.out.Close() }
func (c longConn) RemoteAddr() net.Addr        { return &net.TCPAddr{} }
func (c longConn) LocalAddr() net.Addr         { return &net.TCPAddr{} }

// What several channels bring on a path of 80 ms, where a window carries 25 MiB/s. (Not in
// synctest: the library sends under a mutex, for which a bubble's clock stands still.)
func TestLongPath(t *testing.T) {
	const size = 32 << 20
	seconds := map[int]map[string]float64{}
	all := []int{1, 0}
	if testing.Verbose() {
		all = []int{1, 2, 4, 8, 0}
	}
	for _, channels := range all {
		seconds[channels] = map[string]float64{}
		far, done := longHost(t, 40*time.Millisecond, 125e6)
		dir := t.TempDir()
		want := random(t, dir+"/src", size)
		for _, c := range []struct {
			name     string
			from, to *Files
		}{{"up", LocalFiles(), far}, {"down", far, LocalFiles()}} {
			begun := time.Now()
			if err := (Copy{Channels: channels}).Run(t.Context(), []Place{{c.from, "", dir + "/src"}}, Place{c.to, "", dir + "/" + c.name}); err != nil {
				t.Fatal(err)
			}
			seconds[channels][c.name] = time.Since(begun).Seconds()
			if got, _ := os.ReadFile(dir + "/" + c.name); !bytes.Equal(got, want) {
				t.Error("other bytes")
			}
		}
		if channels == 0 && len(far.more) != 3 { // opened while the first one copies
			t.Errorf("%d further channels", len(far.more))
		}
		done()
		up, down := seconds[channels]["up"], seconds[channels]["down"]
		t.Logf("channels %d: 32 MiB over 80 ms and 1 Gbit/s: up %.2f s (%.0f MiB/s), down %.2f s (%.0f MiB/s)", channels, up, 32/up, down, 32/down)
	}
	for _, way := range []string{"up", "down"} {
		if one, chosen := seconds[1][way], seconds[0][way]; chosen > 1.5*one { // measured: half of it; a busy machine blurs that
			t.Errorf("%s: %.2f s through one channel, %.2f s through as many as are chosen", way, one, chosen)
		}
	}
}

// Many small files cost what a few round trips cost, not a few each.
func TestLongPathManyFiles(t *testing.T) {
	far, done := longHost(t, 40*time.Millisecond, 125e6)
	defer done()
	dir := t.TempDir()
	for i := range 100 {
		write(t, fmt.Sprintf("%s/src/%d", dir, i), "x", 0o644)
	}
	begun := time.Now()
	if err := (Copy{Recursive: true, Preserve: true}).Run(t.Context(), []Place{{LocalFiles(), "", dir + "/src"}}, Place{far, "", dir + "/up"}); err != nil {
		t.Fatal(err)
	}
	up := time.Since(begun)
	begun = time.Now()
	if err := (Copy{Recursive: true, Preserve: true}).Run(t.Context(), []Place{{far, "", dir + "/src"}}, Place{LocalFiles(), "", dir + "/down"}); err != nil {
		t.Fatal(err)
	}
	down := time.Since(begun)
	t.Logf("100 files over 80 ms: up %v, down %v", up, down)
	if up > 30*time.Second || down > 30*time.Second { // one after the other it is 50 s and more
		t.Error("one after the other")
	}
}

// longHost is an sftp server at the far end of a long path.
func longHost(t *testing.T, delay time.Duration, rate float64) (*Files, func()) {
	t.Helper()
	a, b := newWire(delay, rate), newWire(delay, rate)
	key := newSigner(t)
	cfg := &gossh.ServerConfig{NoClientAuth: true}
	cfg.AddHostKey(key)
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, chans, reqs, err := gossh.NewServerConn(longConn{in: a, out: b}, cfg)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		go gossh.DiscardRequests(reqs)
		for nc := range chans {
			ch, reqs, err := nc.Accept()
			if err != nil {
				continue
			}
			wg.Go(func() {
				for r := range reqs {
					if r.WantReply {
						r.Reply(true, nil)
					}
				}
			})
			wg.Go(func() {
				if s, err := sftp.NewServer(ch); err == nil {
					s.Serve()
				}
				ch.Close()
			})
		}
	})
	c, err := Dial(context.Background(), Config{Dial: func(context.Context) (net.Conn, error) { return longConn{in: b, out: a}, nil },
		Host: "far", User: "u", HostKeys: []gossh.PublicKey{key.PublicKey()}, KeepaliveInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Files()
	if err != nil {
		t.Fatal(err)
	}
	return f, func() {
		f.Close()
		c.Close()
		wg.Wait()
	}
}
