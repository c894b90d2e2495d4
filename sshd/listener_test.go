package sshd_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// TestListenerFilledByOthers: whoever connects to a listener of the client's, and how often, its
// other listeners and forwards go on. The client here answers none of those connections.
func TestListenerFilledByOthers(t *testing.T) {
	r := newRig(t, usual())
	r.Limits.ForwardsPerConn = 12
	c := r.client(account(t).Username)
	chans := c.HandleChannelOpen("forwarded-tcpip")
	remote := func() string {
		ok, b, err := c.SendRequest("tcpip-forward", true, binary.BigEndian.AppendUint32(str("127.0.0.1"), 0))
		if !ok || err != nil || len(b) != 4 {
			t.Fatalf("%v %v %v", ok, b, err)
		}
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(binary.BigEndian.Uint32(b))))
	}
	flooded, other := remote(), remote()
	asked := make(chan struct{}, 100)
	go func() { // ends with the connection
		for nc := range chans {
			var p struct {
				Addr     string
				Port     uint32
				From     string
				FromPort uint32
			}
			if gossh.Unmarshal(nc.ExtraData(), &p) != nil || net.JoinHostPort(p.Addr, strconv.Itoa(int(p.Port))) == flooded {
				asked <- struct{}{}
				continue
			}
			if ch, reqs, err := nc.Accept(); err == nil {
				go gossh.DiscardRequests(reqs)
				go func() { io.Copy(ch, ch); ch.Close() }()
			}
		}
	}()
	over := make(chan error, 40)
	for range cap(over) {
		nc, err := net.Dial("tcp", flooded)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		go func() { _, err := nc.Read(make([]byte, 1)); over <- err }() // ends with the connection
	}
	for range cap(over) - 6 { // half of 12 may wait for the client
		select {
		case <-over:
		case <-time.After(20 * time.Second):
			t.Fatal("more than half of the room was given to one listener")
		}
	}
	for range 6 {
		<-asked
	}
	near, err := net.Dial("tcp", other)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	_ = near.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintln(near, "by another listener")
	if line, err := bufio.NewReader(near).ReadString('\n'); line != "by another listener\n" {
		t.Errorf("%q %v", line, err)
	}
	tcp := listen(t, "tcp", "127.0.0.1:0")
	defer tcp.Close()
	fc, err := c.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Errorf("the client's own forward: %v", err)
	} else {
		fc.Close()
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("echo fine"); string(out) != "fine\n" {
		t.Errorf("%q %v", out, err)
	}
	select {
	case err := <-over:
		t.Errorf("one that waits for the client was ended: %v", err)
	case <-asked:
		t.Error("the client was asked about more than half of the room")
	default:
	}
}
