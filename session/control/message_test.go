package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTable sends every message of the table through its wire form, and lets each side
// refuse what only the other may say.
func TestTable(t *testing.T) {
	for typ, e := range table {
		b, err := Encode(Message{typ, 7, e.body()})
		if err != nil {
			t.Fatal(err)
		}
		m, err := Decode(b, e.fromConn)
		if err != nil || m.Type != typ || m.N != 7 || !reflect.DeepEqual(m.Body, e.body()) {
			t.Errorf("%s: %+v %v", typ, m, err)
		}
		if _, err := Decode(b, !e.fromConn); err == nil {
			t.Errorf("%s from the wrong side was read", typ)
		}
		if _, err := Encode(Message{typ, 7, struct{}{}}); err == nil {
			t.Errorf("%s with another body was written", typ)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, s := range []string{"", "null", "[]", `{"t":"auth"}`, `{"t":"auth","n":1,"b":null}`, `{"t":"auth","n":1,"b":{"user":"a","uid":0}}`, `{"t":"auth","n":1,"b":{},"x":1}`,
		`{"t":"auth","n":1,"b":{}} {}`, `{"t":"auth","n":-1,"b":{}}`, `{"t":"nonsense","n":1,"b":{}}`, `{"t":"auth","n":1,"b":{"user":1}}`,
		`{"t":"auth","n":1,"b":{"user":"` + strings.Repeat("a", MaxMessage) + `"}}`} {
		if m, err := Decode([]byte(s), true); err == nil {
			t.Errorf("%.60q was read as %+v", s, m)
		}
	}
}

// TestStates walks the whole table: before login nothing of after it, and the other way
// round; nothing after the end.
func TestStates(t *testing.T) {
	may := map[Type]string{Hello: "S", Resume: "S", Sign: "OR", Prove: "R", Auth: "O", Begin: "O", Ask: "R", TTY: "R", Gone: "R", Unkept: "R", Pong: "OR", Done: "OR"}
	names := map[State]string{Start: "S", Open: "O", Running: "R", Ended: "E"}
	for typ := range table {
		for st, n := range names {
			next, err := Step(st, typ)
			if want := strings.Contains(may[typ], n); (err == nil) != want {
				t.Errorf("%s in %s: %v", typ, n, err)
			}
			if err != nil && next != st {
				t.Errorf("%s in %s: refused, and the state is another", typ, n)
			}
		}
	}
	if s, _ := Step(Start, Hello); s != Open {
		t.Errorf("after hello: %v", s)
	}
}

func TestSocket(t *testing.T) {
	mon, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer mon.Close()
	conn, err := FromFile(file, false)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	long := strings.Repeat("x", MaxMessage-1000)
	if err := conn.Send(Message{Ask, 1, &AskMsg{Kind: "exec", Target: long}}, nil); err != nil {
		t.Fatal(err)
	}
	m, f, err := mon.Receive()
	if err != nil || f != nil || m.Body.(*AskMsg).Target != long {
		t.Fatalf("%v %v", m.Type, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := mon.Send(Message{Go, 2, &GoMsg{OK: true}}, w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	m, f, err = conn.Receive()
	if err != nil || f == nil || m.Type != Go {
		t.Fatalf("%+v %v %v", m, f, err)
	}
	fmt.Fprint(f, "through")
	f.Close()
	b := make([]byte, 16)
	if n, _ := r.Read(b); string(b[:n]) != "through" {
		t.Errorf("got %q", b[:n])
	}
	// A descriptor where none belongs is closed, and an error.
	if err := conn.Send(Message{Pong, 3, &PongMsg{}}, r); err != nil {
		t.Fatal(err)
	}
	if _, f, err := mon.Receive(); err == nil || f != nil {
		t.Errorf("a descriptor with pong: %v %v", f, err)
	}
	if cred, err := mon.Peer(); err != nil || int(cred.Pid) != os.Getpid() {
		t.Errorf("%+v %v", cred, err)
	}
	conn.Close()
	if _, _, err := mon.Receive(); err == nil || errors.Is(err, errTooLong) {
		t.Errorf("after close: %v", err)
	}
}

// TestWaiting: a socket that waits for a message costs next to nothing, and a message of
// more than there may be is refused whole.
func TestWaiting(t *testing.T) {
	const n = 100
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var wg sync.WaitGroup
	var ends []*Conn
	for range n {
		mon, file, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := FromFile(file, false)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, conn, mon)
		first := make(chan struct{})
		wg.Go(func() { // ends with its socket
			for i := 0; ; i++ {
				if _, _, err := mon.Receive(); err != nil {
					return
				}
				if i == 0 {
					close(first)
				}
			}
		})
		if err := conn.Send(Message{Ask, 1, &AskMsg{Kind: "exec", Target: strings.Repeat("x", 30_000)}}, nil); err != nil {
			t.Fatal(err)
		}
		<-first
	}
	if each := (int64(heap()) - int64(before)) / n; each > 16<<10 {
		t.Errorf("%d bytes for each", each)
	}
	for _, c := range ends {
		c.Close()
	}
	wg.Wait()

	mon, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer mon.Close()
	defer file.Close()
	if err := unix.Sendmsg(int(file.Fd()), make([]byte, MaxMessage+1), nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := mon.Receive(); !errors.Is(err, errTooLong) {
		t.Errorf("a message that is too long: %v", err)
	}
}

// FuzzDecode: whatever is read can be written, and reads the same again.
func FuzzDecode(f *testing.F) {
	for typ, e := range table {
		b, err := Encode(Message{typ, 1, e.body()})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, e.fromConn)
	}
	f.Add([]byte(`{"t":"sign","n":18446744073709551615,"b":{"key":-1,"data":"AAAA"}}`), true)
	f.Fuzz(func(t *testing.T, b []byte, fromConn bool) {
		m, err := Decode(b, fromConn)
		if err != nil {
			return
		}
		again, err := Encode(m)
		if errors.Is(err, errTooLong) {
			return // JSON can be longer the second time
		}
		if err != nil {
			t.Fatal(err)
		}
		n, err := Decode(again, fromConn)
		x, _ := json.Marshal(m.Body)
		y, _ := json.Marshal(n.Body)
		if err != nil || n.Type != m.Type || n.N != m.N || !bytes.Equal(x, y) {
			t.Fatalf("%+v, then %+v (%v)", m, n, err)
		}
	})
}
