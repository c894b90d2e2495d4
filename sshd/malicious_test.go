package sshd_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMaliciousClient: one client does everything wrong that a client can do, at once. Its
// other channels still work, and so does everybody else's connection.
func TestMaliciousClient(t *testing.T) {
	r := newRig(t, usual())
	r.Limits.ForwardsPerConn = 20
	r.Limits.SessionsPerConn = 10
	u := account(t)
	d := r.daemon()
	sink := listen(t, "tcp", "127.0.0.1:0")
	t.Cleanup(func() { sink.Close() })
	go func() { // takes connections and reads nothing; ends with the listener
		var kept []net.Conn // else the collector of garbage would close them
		for {
			c, err := sink.Accept()
			if err != nil {
				for _, c := range kept {
					c.Close()
				}
				return
			}
			kept = append(kept, c)
		}
	}()

	// Slow starters: a byte of the version line, or a packet that is never whole.
	for _, words := range []string{"S", "SSH-2.0-x\r\n\x00\x00\x10\x00"} {
		nc := d.connect()
		t.Cleanup(func() { nc.Close() })
		if _, err := io.WriteString(nc, words); err != nil {
			t.Fatal(err)
		}
	}

	bad := d.client(u.Username)
	// A program whose output is never read, and one that is fed without reading.
	for _, command := range []string{"echo $$; exec yes", "echo $$; exec sleep 300"} {
		ch, _ := open(t, bad)
		if !request(t, ch, "exec", str(command)) {
			t.Fatal("no exec")
		}
		var pid int
		if _, err := fmt.Fscan(ch, &pid); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) }) // without a terminal it would go on
		go func() {                                            // ends with the connection
			for {
				if _, err := ch.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}()
	}
	// A forward that is filled and goes nowhere.
	full, err := bad.Dial("tcp", sink.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the connection
		for {
			if _, err := full.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	}()
	// Floods of channels and requests whose lengths lie, and of more than there may be.
	huge := []byte{0xff, 0xff, 0xff, 0xff, 'x'}
	var flood sync.WaitGroup
	for _, kind := range []string{"direct-tcpip", "direct-streamlocal@openssh.com", "x11", "session@nonsense", "forwarded-tcpip"} {
		flood.Go(func() {
			for n := range 200 {
				payload := huge[:n%6%5+1]
				if ch, _, err := bad.OpenChannel(kind, payload); err == nil {
					t.Errorf("%s with a payload of %d bytes was opened", kind, len(payload))
					ch.Close()
				}
			}
		})
	}
	for _, kind := range []string{"tcpip-forward", "cancel-tcpip-forward", "streamlocal-forward@openssh.com", "hostkeys-prove-00@openssh.com"} {
		flood.Go(func() {
			for n := range 200 {
				if ok, _, err := bad.SendRequest(kind, true, huge[:n%6%5+1]); ok || err != nil {
					t.Errorf("%s: %v %v", kind, ok, err)
				}
			}
		})
	}
	var made sync.Map
	flood.Go(func() { // as many as there may be, and then more
		for n := range 60 {
			if ch, _, err := bad.OpenChannel("direct-tcpip", direct(sink.Addr())); err == nil {
				made.Store(n, ch)
			}
		}
	})

	// Meanwhile, for everybody else nothing is different.
	good := d.client(u.Username)
	for range 5 {
		s, err := good.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if out, err := s.Output("echo fine"); string(out) != "fine\n" || err != nil {
			t.Errorf("another's session: %q %v", out, err)
		}
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("another's session took %v", took)
		}
	}
	flood.Wait()
	n := 0
	made.Range(func(any, any) bool { n++; return true })
	if n == 0 || n > 19 {
		t.Errorf("%d forwards of 20 less one were made", n)
	}
	s, err := bad.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("echo still"); string(out) != "still\n" || err != nil {
		t.Errorf("its own other channel: %q %v", out, err)
	}
	bad.Close()
	r.until("all of it is gone", func() bool { return len(r.audited2("session.close")) == 1 })
	for _, e := range r.audited("session.close") {
		if e.Verdict != "closed" {
			t.Errorf("it ended with %q", e.Verdict)
		}
	}
}

func direct(a net.Addr) []byte {
	t := a.(*net.TCPAddr)
	b := binary.BigEndian.AppendUint32(str(t.IP.String()), uint32(t.Port))
	return binary.BigEndian.AppendUint32(append(b, str("127.0.0.1")...), 1)
}
