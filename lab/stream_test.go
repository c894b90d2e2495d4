package lab

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// stream is a session whose program sends back what it gets: bytes go out steadily until
// finish, and must come back, all of them and in order, whatever happens to the way.
type stream struct {
	t      testing.TB
	cmd    *exec.Cmd
	stop   chan struct{}
	done   chan error
	stderr bytes.Buffer

	mu   sync.Mutex
	back int64
	last time.Time
	gap  time.Duration // longest time in which nothing came back
	out  [32]byte      // hash of what went out
	in   [32]byte      // of what came back
	sent int64
}

const chunk, chunkEvery = 8 << 10, 50 * time.Millisecond

// startStream opens a session from node n to a host by its name and waits for its first bytes.
func startStream(t testing.TB, n *Node, target string) *stream {
	t.Helper()
	// A node that has just joined may not know its peers yet.
	if err := Until(30*time.Second, func() error { _, err := n.ping(target); return err }); err != nil {
		t.Fatal(err)
	}
	s := &stream{t: t, stop: make(chan struct{}), done: make(chan error, 1)}
	s.cmd = n.TsshCommand("-T", "deploy@"+target, "cat")
	s.cmd.Stderr = &s.stderr
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cmd.Process.Kill() })
	s.last = time.Now()
	var wg sync.WaitGroup
	wg.Go(func() { // ends with stop, or when the client is gone
		defer stdin.Close()
		h, random := sha256.New(), rand.NewChaCha8([32]byte{1})
		b := make([]byte, chunk)
		for every := time.NewTicker(chunkEvery); ; {
			random.Read(b)
			if _, err := stdin.Write(b); err != nil {
				break
			}
			h.Write(b)
			s.sent += chunk
			select {
			case <-every.C:
				continue
			case <-s.stop:
			}
			break
		}
		h.Sum(s.out[:0])
	})
	wg.Go(func() { // ends with the client
		h := sha256.New()
		b := make([]byte, chunk)
		for {
			n, err := stdout.Read(b)
			h.Write(b[:n])
			s.mu.Lock()
			if d := time.Since(s.last); d > s.gap {
				s.gap = d
			}
			s.last = time.Now()
			s.back += int64(n)
			s.mu.Unlock()
			if err != nil {
				break
			}
		}
		h.Sum(s.in[:0])
	})
	go func() { // ends with the client
		wg.Wait()
		s.done <- s.cmd.Wait()
	}()
	s.more(4 * chunk)
	return s
}

// more waits until n more bytes came back.
func (s *stream) more(n int64) {
	s.t.Helper()
	s.mu.Lock()
	want := s.back + n
	s.mu.Unlock()
	err := Until(90*time.Second, func() error {
		select {
		case err := <-s.done:
			s.t.Fatalf("the session ended: %v: %s", err, s.stderr.String())
		default:
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.back < want {
			return fmt.Errorf("%d bytes came back, want %d; nothing for %v", s.back, want, time.Since(s.last))
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// calm forgets the longest gap so far.
func (s *stream) calm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gap, s.last = 0, time.Now()
}

// longest is the longest time without a byte back since calm.
func (s *stream) longest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.gap, time.Since(s.last))
}

// finish ends the session and checks what came back.
func (s *stream) finish() {
	s.t.Helper()
	close(s.stop)
	select {
	case err := <-s.done:
		if err != nil {
			s.t.Errorf("the session ended with %v: %s", err, s.stderr.String())
		}
	case <-time.After(60 * time.Second):
		s.t.Fatalf("the session does not end; %d of %d bytes came back", s.back, s.sent)
	}
	if s.in != s.out || s.sent == 0 {
		s.t.Errorf("%d bytes went out, %d came back, hashes equal: %v", s.sent, s.back, s.in == s.out)
	}
}

// pong is a line of tssh ping --json.
type pong struct {
	Via      string  `json:"via"`
	Endpoint string  `json:"endpoint"`
	Relay    string  `json:"relay"`
	Latency  float64 `json:"latency_ms"`
}

func (p pong) String() string {
	return fmt.Sprintf("%s %s%s in %.1f ms", p.Via, p.Endpoint, p.Relay, p.Latency)
}

// ping asks once which way a host is reached.
func (n *Node) ping(host string) (pong, error) {
	r := n.Tssh("ping", "--json", "-c", "1", host)
	if r.Status != 0 {
		return pong{}, errors.New(r.String())
	}
	var p pong
	if err := json.NewDecoder(strings.NewReader(r.Stdout)).Decode(&p); err != nil {
		return p, fmt.Errorf("%w in %q", err, r.Stdout)
	}
	if p.Via == "direct" && p.Endpoint == "" || p.Via == "relay" && p.Relay == "" {
		return p, fmt.Errorf("half an answer: %s", r.Stdout)
	}
	return p, nil
}

// via waits until ping and status both say that the host is reached this way, and at this
// address if one is given; it returns the pong and how long that took.
func (n *Node) via(t testing.TB, host, way string, at netip.Addr, limit time.Duration) (pong, time.Duration) {
	t.Helper()
	var p pong
	begin := time.Now()
	err := Until(limit, func() (err error) {
		if p, err = n.ping(host); err != nil {
			return err
		}
		if p.Via != way {
			return fmt.Errorf("%s is reached via %v, want %s", host, p, way)
		}
		if way == "direct" && at.IsValid() {
			if ap, err := netip.ParseAddrPort(p.Endpoint); err != nil || ap.Addr().Unmap() != at {
				return fmt.Errorf("%s is reached at %q (%v), want an address of %v", host, p.Endpoint, err, at)
			}
		}
		st, err := n.Status()
		if err != nil {
			return err
		}
		for _, x := range st.Peers {
			if x.Name != host {
				continue
			}
			if (way == "direct") != (x.Path != "" && x.Relay == "") || (way == "relay") != (x.Relay != "" && x.Path == "") {
				return fmt.Errorf("ping says %v, status says path %q, relay %q", p, x.Path, x.Relay)
			}
			return nil
		}
		return fmt.Errorf("status does not know %s", host)
	})
	if err != nil {
		t.Fatalf("%v\n%s: %s", err, n.Name, n.Proc.Tail(3000))
	}
	return p, time.Since(begin)
}

// stays checks for a while that the way does not become another one.
func (n *Node) stays(t testing.TB, host, way string, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if p, err := n.ping(host); err != nil || p.Via != way {
			t.Fatalf("%s was to stay reached via %s: %v, %v\n%s", host, way, p, err, n.Proc.Tail(3000))
		}
	}
}
