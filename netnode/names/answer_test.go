package names

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// query builds one; edns < 0 is none, else its version.
func query(t testing.TB, name string, qtype dnsmessage.Type, edns int) []byte {
	t.Helper()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 4711, RecursionDesired: true})
	n, err := dnsmessage.NewName(name)
	if err != nil {
		t.Fatal(err)
	}
	b.StartQuestions()
	if err := b.Question(dnsmessage.Question{Name: n, Type: qtype, Class: dnsmessage.ClassINET}); err != nil {
		t.Fatal(err)
	}
	if edns >= 0 {
		b.StartAdditionals()
		var h dnsmessage.ResourceHeader
		h.SetEDNS0(4096, 0, true)
		h.TTL |= uint32(edns) << 16
		b.OPTResource(h, dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 10, Data: []byte("12345678")}}})
	}
	out, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sum is a reply in one line.
func sum(t testing.TB, b []byte) string {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		t.Fatalf("reply %x: %v", b, err)
	}
	if m.ID != 4711 || !m.Response || m.RecursionAvailable || len(b) > 512 {
		t.Errorf("header %+v, %d bytes", m.Header, len(b))
	}
	rcode := strings.TrimPrefix(m.RCode.String(), "RCode")
	s := []string{rcode}
	if m.Authoritative {
		s = append(s, "aa")
	}
	for _, r := range m.Answers {
		switch x := r.Body.(type) {
		case *dnsmessage.AResource:
			s = append(s, netip.AddrFrom4(x.A).String())
		case *dnsmessage.AAAAResource:
			s = append(s, netip.AddrFrom16(x.AAAA).String())
		case *dnsmessage.PTRResource:
			s = append(s, x.PTR.String())
		default:
			s = append(s, strings.TrimPrefix(r.Header.Type.String(), "Type"))
		}
	}
	for _, r := range m.Authorities {
		s = append(s, "authority "+r.Header.Name.String())
	}
	for _, r := range m.Additionals {
		s = append(s, fmt.Sprintf("edns %d ext %d", r.Header.Class, r.Header.TTL>>24))
	}
	return strings.Join(s, " ")
}

func TestAnswers(t *testing.T) {
	tb := corp()
	for _, c := range []struct {
		name  string
		qtype dnsmessage.Type
		edns  int
		want  string
	}{
		{"web.corp.internal.", dnsmessage.TypeA, -1, "Success aa 100.64.0.7"},
		{"WeB.CORP.internal.", dnsmessage.TypeA, 0, "Success aa 100.64.0.7 edns 1232 ext 0"},
		{"web.corp.internal.", dnsmessage.TypeAAAA, -1, "Success aa fd7a:7373:6800::7"},
		{"web.corp.internal.", dnsmessage.TypeALL, -1, "Success aa 100.64.0.7 fd7a:7373:6800::7"},
		{"web.corp.internal.", dnsmessage.TypeMX, -1, "Success aa authority corp.internal."},
		{"db-1.corp.internal.", dnsmessage.TypeAAAA, -1, "Success aa authority corp.internal."},
		{"nope.corp.internal.", dnsmessage.TypeA, -1, "NameError aa authority corp.internal."},
		{"a.web.corp.internal.", dnsmessage.TypeA, -1, "NameError aa authority corp.internal."},
		{"corp.internal.", dnsmessage.TypeA, -1, "Success aa authority corp.internal."},
		{"corp.internal.", dnsmessage.TypeSOA, -1, "Success aa SOA"},
		{"corp.internal.", dnsmessage.TypeNS, -1, "Success aa NS"},
		{"7.0.64.100.in-addr.arpa.", dnsmessage.TypePTR, -1, "Success aa web.corp.internal."},
		{"7.0.64.100.in-addr.arpa.", dnsmessage.TypeA, -1, "Success aa authority 64.100.in-addr.arpa."},
		{"8.0.64.100.in-addr.arpa.", dnsmessage.TypePTR, -1, "NameError aa authority 64.100.in-addr.arpa."},
		{"64.100.in-addr.arpa.", dnsmessage.TypeSOA, -1, "Success aa SOA"},
		{"0.64.100.in-addr.arpa.", dnsmessage.TypePTR, -1, "Success aa authority 64.100.in-addr.arpa."},
		{"7." + strings.Repeat("0.", 19) + "0.0.8.6.3.7.3.7.a.7.d.f.ip6.arpa.", dnsmessage.TypePTR, -1, "Success aa web.corp.internal."},
		{"7.0.63.100.in-addr.arpa.", dnsmessage.TypePTR, -1, "Refused"},
		{"100.in-addr.arpa.", dnsmessage.TypePTR, -1, "Refused"},
		{"web.", dnsmessage.TypeA, -1, "Refused"},
		{"internal.", dnsmessage.TypeA, -1, "Refused"},
		{"example.com.", dnsmessage.TypeA, 0, "Refused edns 1232 ext 0"},
		{".", dnsmessage.TypeNS, -1, "Refused"},
		{"evilcorp.internal.", dnsmessage.TypeA, -1, "Refused"},
		{"web.corp.internal.", dnsmessage.TypeA, 1, "Success edns 1232 ext 1"}, // BADVERS is 16: 1 in the upper bits
	} {
		if got := sum(t, tb.answer(query(t, c.name, c.qtype, c.edns))); got != c.want {
			t.Errorf("%s %v edns %d: %s, want %s", c.name, c.qtype, c.edns, got, c.want)
		}
	}
	var none *Table
	if got := sum(t, none.answer(query(t, "web.corp.internal.", dnsmessage.TypeA, -1))); got != "Refused" {
		t.Errorf("no table: %s", got)
	}
}

func TestStrangeQueries(t *testing.T) {
	tb := corp()
	q := query(t, "web.corp.internal.", dnsmessage.TypeA, -1)
	edit := func(f func(b []byte) []byte) []byte { return f(append([]byte(nil), q...)) }
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"a response":     {edit(func(b []byte) []byte { b[2] |= 0x80; return b }), ""},
		"no header":      {q[:11], ""},
		"empty":          {nil, ""},
		"too long":       {append(append([]byte(nil), q...), make([]byte, maxQuery)...), ""},
		"an update":      {edit(func(b []byte) []byte { b[2] |= 5 << 3; return b }), "NotImplemented"},
		"no question":    {edit(func(b []byte) []byte { b[5] = 0; return b[:12] }), "FormatError"},
		"two questions":  {edit(func(b []byte) []byte { b[5] = 2; return append(b, b[12:]...) }), "FormatError"},
		"cut short":      {q[:20], "FormatError"},
		"chaos class":    {edit(func(b []byte) []byte { b[len(b)-1] = 3; return b }), "Refused"},
		"false promises": {edit(func(b []byte) []byte { b[11] = 9; return b }), "FormatError"},
		"pointer loop":   {edit(func(b []byte) []byte { b[12], b[13] = 0xc0, 12; return b }), "FormatError"},
	} {
		out := tb.answer(c.in)
		got := ""
		if out != nil {
			got = sum(t, out)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, n := range []string{"web.corp.internal.", "7.0.64.100.in-addr.arpa.", "example.com.", ".", "a.0.0.8.6.3.7.3.7.a.7.d.f.ip6.arpa."} {
		f.Add(query(f, n, dnsmessage.TypeA, -1))
		f.Add(query(f, n, dnsmessage.TypeALL, 0))
	}
	tb := corp()
	f.Fuzz(func(t *testing.T, in []byte) {
		out := tb.answer(in)
		if out == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(out); err != nil {
			t.Fatalf("%x -> %x: %v", in, out, err)
		}
		if !m.Response || m.ID != binary.BigEndian.Uint16(in) || len(out) > 900 {
			t.Fatalf("%x -> %+v", in, m.Header)
		}
		for _, r := range m.Answers { // nothing is said of names that are not ours
			n := strings.ToLower(r.Header.Name.String())
			if !strings.HasSuffix(n, "corp.internal.") && !strings.HasSuffix(n, ".100.in-addr.arpa.") && !strings.HasSuffix(n, "0.0.8.6.3.7.3.7.a.7.d.f.ip6.arpa.") {
				t.Fatalf("answer for %q", n)
			}
		}
	})
}

func TestServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var s Server
	s.Set(corp())
	udp, tcp, err := both(ctx, netip.MustParseAddr("127.0.0.1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.ServeUDP(ctx, udp) })
	wg.Go(func() { s.ServeTCP(ctx, tcp) })
	defer wg.Wait()
	defer cancel()

	c, err := net.Dial("udp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 4096)
	c.Write([]byte("garbage")) // gets nothing and disturbs nothing
	c.Write(query(t, "web.corp.internal.", dnsmessage.TypeA, 0))
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if got := sum(t, buf[:n]); got != "Success aa 100.64.0.7 edns 1232 ext 0" {
		t.Error(got)
	}
	// Two queries in one stream, in pieces; Go's own resolver too.
	tc, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tc.Close()
	tc.SetDeadline(time.Now().Add(20 * time.Second))
	q := query(t, "db-1.corp.internal.", dnsmessage.TypeA, -1)
	both := append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)
	both = append(both, both...)
	for i := range both {
		tc.Write(both[i : i+1])
	}
	for range 2 {
		var l [2]byte
		if _, err := io.ReadFull(tc, l[:]); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, binary.BigEndian.Uint16(l[:]))
		if _, err := io.ReadFull(tc, b); err != nil {
			t.Fatal(err)
		}
		if got := sum(t, b); got != "Success aa 100.127.255.254" {
			t.Error(got)
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, udp.LocalAddr().String())
		}}
		a, err := r.LookupNetIP(ctx, "ip", "web.corp.internal.")
		if err != nil || len(a) != 2 {
			t.Errorf("%s: %v %v", network, a, err)
		}
		back, err := r.LookupAddr(ctx, "100.64.0.7")
		if err != nil || len(back) != 1 || back[0] != "web.corp.internal." {
			t.Errorf("%s: %v %v", network, back, err)
		}
	}
	// A new table is in force at once.
	s.Set(New("corp", meshRanges, nil))
	c.Write(query(t, "web.corp.internal.", dnsmessage.TypeA, -1))
	if n, err = c.Read(buf); err != nil {
		t.Fatal(err)
	}
	if got := sum(t, buf[:n]); got != "NameError aa authority corp.internal." {
		t.Error(got)
	}
}

func TestAdmit(t *testing.T) {
	own := netip.MustParseAddr("100.64.0.1")
	s := Server{Admit: func(a netip.Addr) bool { return a == own }}
	for in, want := range map[string]bool{"100.64.0.1:5": true, "127.0.0.1:5": true, "[::1]:5": true, "100.64.0.7:5": false, "192.168.1.2:5": false, "[fe80::1%eth0]:5": false} {
		if got := s.admits(net.UDPAddrFromAddrPort(netip.MustParseAddrPort(in))); got != want {
			t.Errorf("%s: %v", in, got)
		}
	}
}

func TestBounds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var s Server
	s.Set(corp())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.ServeTCP(ctx, l) })
	defer wg.Wait()
	defer cancel()
	for range maxTCP {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(tcpIdle - time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("connection %d stays: %v", maxTCP+1, err)
	}
}
