package filter

import (
	"bytes"
	"os"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"
)

// memory is a tun.Device that keeps what is written and reads what it is told.
type memory struct {
	tun.Device
	written [][]byte
	toRead  [][]byte
}

func (m *memory) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		m.written = append(m.written, append([]byte(nil), b[offset:]...))
	}
	return len(bufs), nil
}

func (m *memory) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for i, b := range m.toRead {
		sizes[i] = copy(bufs[i][offset:], b)
	}
	return len(m.toRead), nil
}

func (m *memory) Close() error { return nil }

const offset = 16

func padded(packets ...[]byte) [][]byte {
	var out [][]byte
	for _, p := range packets {
		out = append(out, append(make([]byte, offset), p...))
	}
	return out
}

func TestDeviceKeepsOrderAndDropsTheRest(t *testing.T) {
	a, b, c := tcp(peer4, self4, 1, 22, tcpSYN), tcp(peer4, self4, 1, 80, tcpSYN), tcp(peer6, self6, 1, 22, tcpSYN)
	bad := tcp(peer4, self4, 1, 23, tcpSYN)
	for _, x := range []struct{ in, want [][]byte }{
		{[][]byte{a, b, c}, [][]byte{a, b, c}},
		{[][]byte{bad, a, bad, b, c, bad}, [][]byte{a, b, c}},
		{[][]byte{a, bad, b}, [][]byte{a, b}},
		{[][]byte{bad, {}}, nil},
	} {
		m := &memory{}
		d := Wrap(m, New())
		d.f.SetRules(rules())
		in := padded(x.in...)
		if n, err := d.Write(in, offset); n != len(in) || err != nil {
			t.Errorf("write: %d, %v", n, err)
		}
		if len(m.written) != len(x.want) {
			t.Fatalf("%d packets came through, want %d", len(m.written), len(x.want))
		}
		for i := range x.want {
			if !bytes.Equal(m.written[i], x.want[i]) {
				t.Errorf("packet %d is another", i)
			}
			if !bytes.Equal(in[i][offset:], x.in[i]) {
				t.Errorf("the caller's slice was changed at %d", i)
			}
		}
	}
}

func TestDeviceReadWaitsForRules(t *testing.T) {
	m := &memory{toRead: [][]byte{tcp(self4, peer4, 22, 1, tcpACK), tcp(lan4, peer4, 22, 1, tcpACK)}}
	d := Wrap(m, New())
	read := make(chan []int)
	go func() { // ends with Ready
		bufs, sizes := padded(make([]byte, 2000), make([]byte, 2000)), make([]int, 2)
		d.Read(bufs, sizes, offset)
		read <- sizes
	}()
	select {
	case <-read:
		t.Fatal("read before there are rules")
	case <-time.After(50 * time.Millisecond):
	}
	d.f.SetRules(rules())
	d.Ready()
	if sizes := <-read; sizes[0] != len(m.toRead[0]) || sizes[1] != 0 {
		t.Errorf("sizes %v: the first packet passes, the second is spoofed", sizes)
	}

	d = Wrap(m, New())
	ended := make(chan error)
	go func() { // ends with Close
		_, err := d.Read(padded(make([]byte, 2000)), make([]int, 1), offset)
		ended <- err
	}()
	d.Close()
	if err := <-ended; err != os.ErrClosed {
		t.Errorf("a waiting read after Close: %v", err)
	}
}
