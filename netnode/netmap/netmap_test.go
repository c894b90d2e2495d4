package netmap

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tssh/policy"
)

// mesh is a hub's key and what it signs.
type mesh struct {
	t   *testing.T
	key ControlKey
	id  string
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	k, err := NewControlKey()
	if err != nil {
		t.Fatal(err)
	}
	return &mesh{t: t, key: k, id: "mtest"}
}

func (m *mesh) seal(b Body, rev int64) Envelope {
	m.t.Helper()
	b.Stamp(m.id, rev)
	e, err := Seal(m.key, b)
	if err != nil {
		m.t.Fatal(err)
	}
	return e
}

func (m *mesh) info() *MeshInfo {
	return &MeshInfo{Header: Header{Kind: KindMesh, ID: "mesh"}, Name: "lab", HubKey: m.key.Public(),
		Range4: netip.MustParsePrefix("100.64.0.0/10"), Range6: netip.MustParsePrefix("fd00:1:2::/48")}
}

// node is alice's n-th node.
func (m *mesh) node(n byte) *Node {
	return &Node{Header: Header{Kind: KindNode, ID: fmt.Sprintf("n%d", n)}, Name: fmt.Sprintf("host%d", n), WG: WGPublic{n, 1}, Control: ControlPublic{n, 2},
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{100, 64, 1, n}), netip.MustParseAddr(fmt.Sprintf("fd00:1:2::%d", n))}, User: "alice@example.com"}
}

func (m *mesh) policy(text string) *Policy {
	return &Policy{Header: Header{Kind: KindPolicy, ID: "policy"}, Text: text}
}

// book is an empty one that keeps what it reports.
func (m *mesh) book() (*book, *[]string) {
	said := new([]string)
	return newBook(m.key.Public(), m.id, func(err error) { *said = append(*said, err.Error()) }), said
}

func (m *mesh) full(rev int64, up ...Envelope) *Frame {
	return &Frame{Epoch: "e1", Rev: rev, Snapshot: true, Count: len(up), Up: up}
}

func TestPrivateKeysDoNotPrint(t *testing.T) {
	wg, err := NewWGPrivate()
	if err != nil {
		t.Fatal(err)
	}
	ck, err := NewControlKey()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "a", wg, "b", ck, "c", struct{ K any }{wg})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "a", wg, "b", ck)
	j, err := json.Marshal(map[string]any{"a": wg, "b": ck})
	if err != nil {
		t.Fatal(err)
	}
	out := log.String() + string(j) + fmt.Sprintf("%v %+v %#v %s %x %q %d %v %+v %#v %s %x", wg, wg, wg, wg, wg, wg, wg, ck, ck, ck, ck, ck)
	wb := wg.Bytes()
	for _, secret := range []string{wg.Encode(), ck.Encode(), wg.Hex(), fmt.Sprint(wb[:8])[1:20], base64.RawStdEncoding.EncodeToString(wb[:])[:20], fmt.Sprintf("%x", ck.priv.Seed())} {
		if strings.Contains(out, secret) {
			t.Errorf("a private key is in the output: %s", out)
		}
	}
	back, err := ParseWGPrivate(wg.Encode())
	if err != nil || back.Public() != wg.Public() {
		t.Errorf("key does not come back: %v", err)
	}
	cb, err := ParseControlKey(ck.Encode())
	if err != nil || cb.Public() != ck.Public() {
		t.Errorf("control key does not come back: %v", err)
	}
}

// TestEnvelopeVector is DSSE's own encoding of a known message, so that other
// implementations agree on what is signed.
func TestEnvelopeVector(t *testing.T) {
	if got := string(pae("http://example.com/HelloWorld", []byte("hello world"))); got != "DSSEv1 29 http://example.com/HelloWorld 11 hello world" {
		t.Errorf("pae %q", got)
	}
}

func TestAlteredRecordIsRefused(t *testing.T) {
	m := newMesh(t)
	good := m.seal(m.node(1), 5)
	if _, err := Open(good, m.key.Public(), m.id); err != nil {
		t.Fatal(err)
	}
	stranger := newMesh(t)
	for name, alter := range map[string]func(e *Envelope){
		"the owner":         func(e *Envelope) { e.Payload = bytes.Replace(e.Payload, []byte("alice"), []byte("carol"), 1) },
		"one bit":           func(e *Envelope) { e.Payload[len(e.Payload)/2] ^= 1 },
		"a space":           func(e *Envelope) { e.Payload = append(e.Payload, ' ') },
		"the type":          func(e *Envelope) { e.PayloadType = "application/json" },
		"the signature":     func(e *Envelope) { e.Signatures[0].Sig[7] ^= 1 },
		"no signature":      func(e *Envelope) { e.Signatures = nil },
		"a short signature": func(e *Envelope) { e.Signatures[0].Sig = e.Signatures[0].Sig[:10] },
		"another's key":     func(e *Envelope) { *e = stranger.seal(stranger.node(1), 5) },
	} {
		e := good
		e.Payload = bytes.Clone(good.Payload)
		e.Signatures = []Signature{{KeyID: good.Signatures[0].KeyID, Sig: bytes.Clone(good.Signatures[0].Sig)}}
		alter(&e)
		if r, err := Open(e, m.key.Public(), m.id); err == nil {
			t.Errorf("%s altered, and it was taken as %+v", name, r)
		}
	}
	if _, err := Open(good, m.key.Public(), "mother"); err == nil {
		t.Error("taken in another mesh")
	}
	if _, err := Open(good, ControlPublic{}, m.id); err == nil {
		t.Error("taken without a pin")
	}
}

// TestSignedNonsenseIsRefused: the hub's signature does not make everything true.
func TestSignedNonsenseIsRefused(t *testing.T) {
	m := newMesh(t)
	for name, edit := range map[string]func(n *Node){
		"user and tags":       func(n *Node) { n.Tags = []policy.Tag{"tag:web"} },
		"nobody's":            func(n *Node) { n.User = "" },
		"name with a dot":     func(n *Node) { n.Name = "metadata.google" },
		"reserved name":       func(n *Node) { n.Name = "localhost" },
		"a name of a verb":    func(n *Node) { n.Name = "status" },
		"a terminal's escape": func(n *Node) { n.Name = "web\x1b[2J" },
		"the hub's name":      func(n *Node) { n.Name = HubName },
		"no key":              func(n *Node) { n.WG = WGPublic{} },
		"no address":          func(n *Node) { n.Addrs = nil },
		"mapped address":      func(n *Node) { n.Addrs = []netip.Addr{netip.MustParseAddr("::ffff:100.64.0.1")} },
		"zone":                func(n *Node) { n.Addrs = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} },
		"host key of 2 lines": func(n *Node) { n.HostKeys = []string{"ssh-ed25519 AAAA\n* ssh-ed25519 BBBB"} },
		"host key of options": func(n *Node) { n.HostKeys = []string{"command=\"x\" ssh-ed25519 AAAA"} },
		"many host keys":      func(n *Node) { n.HostKeys = strings.Split(strings.Repeat("a b,", 9)+"a b", ",") },
		"bad login":           func(n *Node) { n.User = "alice" },
	} {
		n := m.node(1)
		edit(n)
		n.Stamp(m.id, 1)
		if _, err := Seal(m.key, n); err == nil {
			t.Errorf("%s: sealed", name)
		}
		b, err := marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		e, err := sign(m.key, b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(e, m.key.Public(), m.id); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestUnknownFieldsAreKept(t *testing.T) {
	m := newMesh(t)
	n := m.node(1)
	n.Extra = map[string]json.RawMessage{"later": json.RawMessage(`{"a":[1,2]}`), "name": json.RawMessage(`"mallory"`)}
	r, err := Open(m.seal(n, 3), m.key.Public(), m.id)
	if err != nil {
		t.Fatal(err)
	}
	if r.Node.Name != "host1" || string(r.Node.Extra["later"]) != `{"a":[1,2]}` || len(r.Node.Extra) != 1 {
		t.Errorf("came as %q with %s", r.Node.Name, r.Node.Extra)
	}
	// A newer hub writes again what it does not know itself.
	r2, err := Open(m.seal(r.Node, 4), m.key.Public(), m.id)
	if err != nil || string(r2.Node.Extra["later"]) != `{"a":[1,2]}` {
		t.Errorf("lost: %s %v", r2.Node.Extra, err)
	}
	// A kind from later is kept in the book, and is nobody.
	b, said := m.book()
	e, err := sign(m.key, []byte(`{"mesh":"mtest","kind":"relay","id":"r1","rev":2,"url":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.apply(m.full(9, m.seal(m.info(), 1), m.seal(m.node(1), 3), e)); err != nil || len(*said) != 0 {
		t.Fatal(err, *said)
	}
	if len(b.envelopes()) != 3 {
		t.Error("a record of an unknown kind is not in the cache")
	}
}

func TestOneBadRecordDoesNotFailTheFrame(t *testing.T) {
	m := newMesh(t)
	b, said := m.book()
	bad := m.seal(m.node(3), 4)
	bad.Payload = bytes.Replace(bytes.Clone(bad.Payload), []byte("alice"), []byte("admin"), 1)
	if _, err := b.apply(m.full(5, m.seal(m.info(), 1), m.seal(m.policy(`{"acls":[]}`), 2), m.seal(m.node(1), 3), bad, m.seal(m.node(2), 5))); err != nil {
		t.Fatal(err)
	}
	x, _ := b.build("n1", time.Now())
	if len(x.Peers) != 1 || x.Peers[0].Name != "host2" || x.Policy == nil || len(*said) != 1 {
		t.Errorf("peers %+v, said %q", x.Peers, *said)
	}
	// An altered newer record leaves the former one in place.
	up := m.seal(m.node(2), 6)
	up.Payload = bytes.Replace(bytes.Clone(up.Payload), []byte("host2"), []byte("host9"), 1)
	if _, err := b.apply(&Frame{Epoch: "e1", From: 5, Rev: 6, Up: []Envelope{up}}); err != nil {
		t.Fatal(err)
	}
	if x, _ := b.build("n1", time.Now()); len(x.Peers) != 1 || x.Peers[0].Name != "host2" || x.Revision != 6 {
		t.Errorf("peers %+v at %d", x.Peers, x.Revision)
	}
}

func TestNothingGoesBack(t *testing.T) {
	m := newMesh(t)
	start := func() (*book, *[]string) {
		b, said := m.book()
		if _, err := b.apply(m.full(10, m.seal(m.info(), 1), m.seal(m.policy(`{"acls":[]}`), 8), m.seal(m.node(1), 3), m.seal(m.node(2), 9))); err != nil {
			t.Fatal(err)
		}
		return b, said
	}
	state := func(b *book) string {
		x, _ := b.build("n1", time.Now())
		return fmt.Sprint(show(x.Peers), " ", x.PolicyRev, " ", x.Revision)
	}
	open := m.policy(`{"acls":[{"action":"accept","src":["*"],"dst":["*:*"]}]}`)
	for name, tc := range map[string]struct {
		f    *Frame
		fail bool
		want string
	}{
		"an older policy":           {f: &Frame{Epoch: "e1", From: 10, Rev: 11, Up: []Envelope{m.seal(open, 7)}}, want: "host2 8 11"},
		"an older policy, snapshot": {f: m.full(11, m.seal(m.info(), 1), m.seal(open, 7), m.seal(m.node(1), 3)), want: " 8 11"},
		"an older node":             {f: &Frame{Epoch: "e1", From: 10, Rev: 11, Up: []Envelope{m.seal(&Node{Header: Header{Kind: KindNode, ID: "n2"}, Name: "old", WG: WGPublic{9}, Control: ControlPublic{9}, Addrs: m.node(2).Addrs, User: "alice@example.com"}, 2)}}, want: "host2 8 11"},
		"a gap":                     {f: &Frame{Epoch: "e1", From: 11, Rev: 12}, fail: true, want: "host2 8 10"},
		"backwards":                 {f: &Frame{Epoch: "e1", From: 10, Rev: 9}, fail: true, want: "host2 8 10"},
		"an older snapshot":         {f: m.full(9, m.seal(m.info(), 1), m.seal(m.node(1), 3)), fail: true, want: "host2 8 10"},
		"another epoch's delta":     {f: &Frame{Epoch: "e2", From: 10, Rev: 11}, fail: true, want: "host2 8 10"},
		"a short snapshot":          {f: &Frame{Epoch: "e1", Rev: 11, Snapshot: true, Count: 2, Up: []Envelope{m.seal(m.info(), 1)}}, fail: true, want: "host2 8 10"},
		"removal of the policy":     {f: &Frame{Epoch: "e1", From: 10, Rev: 11, Rm: []Ref{{KindPolicy, "policy"}}}, want: "host2 8 11"},
		"a new epoch, from scratch": {f: &Frame{Epoch: "e2", Rev: 4, Snapshot: true, Count: 3, Up: []Envelope{m.seal(m.info(), 1), m.seal(m.policy(`{"acls":[]}`), 2), m.seal(m.node(1), 3)}}, want: " 2 4"},
	} {
		b, _ := start()
		_, err := b.apply(tc.f)
		if (err != nil) != tc.fail || state(b) != tc.want {
			t.Errorf("%s: %v, then %q, want %q", name, err, state(b), tc.want)
		}
	}
	// What was revoked stays so, whatever comes after.
	b, said := start()
	if _, err := b.apply(&Frame{Epoch: "e1", From: 10, Rev: 11, Up: []Envelope{m.seal(&Revocation{Header: Header{Kind: KindRevocation, ID: "node:n2"}, Node: "n2"}, 11)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.apply(&Frame{Epoch: "e1", From: 11, Rev: 12, Up: []Envelope{m.seal(m.node(2), 12)}}); err != nil {
		t.Fatal(err)
	}
	if got := state(b); got != " 8 12" || len(*said) != 1 {
		t.Errorf("after the revocation: %q, said %q", got, *said)
	}
	if _, err := b.apply(m.full(13, m.seal(m.info(), 1), m.seal(m.policy(`{"acls":[]}`), 8), m.seal(m.node(1), 3), m.seal(m.node(2), 9))); err != nil {
		t.Fatal(err)
	}
	if got := state(b); got != " 8 13" {
		t.Errorf("a snapshot brought it back: %q", got)
	}
	// A person is revoked up to then, not for good.
	b, _ = start()
	if _, err := b.apply(&Frame{Epoch: "e1", From: 10, Rev: 12, Up: []Envelope{
		m.seal(&Revocation{Header: Header{Kind: KindRevocation, ID: "user:alice@example.com"}, User: "alice@example.com"}, 11), m.seal(m.node(4), 12), m.seal(m.node(5), 10)}}); err != nil {
		t.Fatal(err)
	}
	if len(b.recs) != 4 || b.recs[Ref{KindNode, "n4"}].Node == nil {
		t.Errorf("records after the person's revocation: %d", len(b.recs))
	}
}

func show(ps []Peer) string {
	var s []string
	for _, p := range ps {
		s = append(s, p.Name)
	}
	return strings.Join(s, " ")
}

func TestWhoIsWhoIsNeverAmbiguous(t *testing.T) {
	m := newMesh(t)
	for name, edit := range map[string]func(n *Node){
		"address": func(n *Node) { n.Addrs = m.node(2).Addrs },
		"key":     func(n *Node) { n.WG = m.node(2).WG },
		"name":    func(n *Node) { n.Name = m.node(2).Name },
	} {
		b, said := m.book()
		n := m.node(3)
		edit(n)
		if _, err := b.apply(m.full(9, m.seal(m.info(), 1), m.seal(m.node(1), 2), m.seal(m.node(2), 3), m.seal(n, 4), m.seal(m.node(4), 5))); err != nil {
			t.Fatal(err)
		}
		if x, _ := b.build("n1", time.Now()); show(x.Peers) != "host4" || len(*said) == 0 {
			t.Errorf("two with one %s: peers %q, said %q", name, show(x.Peers), *said)
		}
	}
	// Nobody takes what is this node's own, and nobody is outside of the mesh.
	b, _ := m.book()
	mine, out := m.node(2), m.node(3)
	mine.Addrs = m.node(1).Addrs
	out.Addrs = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	if _, err := b.apply(m.full(9, m.seal(m.info(), 1), m.seal(m.node(1), 2), m.seal(mine, 3), m.seal(out, 4))); err != nil {
		t.Fatal(err)
	}
	if x, _ := b.build("n1", time.Now()); len(x.Peers) != 0 || len(x.SelfAddrs) != 2 {
		t.Errorf("peers %q", show(x.Peers))
	}
}

func TestTimeAndPolicyFailClosed(t *testing.T) {
	m := newMesh(t)
	now := time.Now()
	b, said := m.book()
	n := m.node(2)
	n.Until = now.Add(time.Hour)
	if _, err := b.apply(m.full(9, m.seal(m.info(), 1), m.seal(m.node(1), 2), m.seal(n, 3), m.seal(m.policy(`{"acls":[]}`), 4))); err != nil {
		t.Fatal(err)
	}
	x, wake := b.build("n1", now)
	if len(x.Peers) != 1 || !wake.Equal(n.Until) {
		t.Errorf("peers %q, wake %s", show(x.Peers), wake)
	}
	if x, wake := b.build("n1", n.Until); len(x.Peers) != 0 || !wake.IsZero() {
		t.Errorf("an expired peer stays: %q %s", show(x.Peers), wake)
	}
	// A policy that this version does not understand denies.
	if _, err := b.apply(&Frame{Epoch: "e1", From: 9, Rev: 10, Up: []Envelope{m.seal(m.policy(`{"fromTheFuture": 1}`), 10)}}); err != nil {
		t.Fatal(err)
	}
	if x, _ := b.build("n1", now); x.Policy != nil || len(*said) == 0 {
		t.Error("a policy that is not understood is in force")
	}
	// This node itself: expired, or not known at all.
	if x, _ := b.build("n7", now); x.Policy != nil || len(x.Peers) != 0 {
		t.Error("a node that is nobody has a map")
	}
	me := m.node(1)
	me.Until = now
	if _, err := b.apply(&Frame{Epoch: "e1", From: 10, Rev: 11, Up: []Envelope{m.seal(me, 11)}}); err != nil {
		t.Fatal(err)
	}
	if x, _ := b.build("n1", now); x.Policy != nil || len(x.Peers) != 0 {
		t.Error("an expired node has a map")
	}
}

func TestNames(t *testing.T) {
	for _, bad := range []string{"", "-a", "a-", "a.b", "A", "a_b", "123", "0x7f", "localhost", "hub", "up", "watch", "wpad", "metadata", strings.Repeat("a", 64), "é"} {
		if CheckName(bad) == nil {
			t.Errorf("name %q taken", bad)
		}
	}
	for _, good := range []string{"a", "web-1", "1a", strings.Repeat("a", 63), "0xg"} {
		if err := CheckName(good); err != nil {
			t.Errorf("name %q: %v", good, err)
		}
	}
	for in, want := range map[string]string{"Alice's MacBook.local": "alice-s-macbook", "WEB01.example.com": "web01", "--": "", "host_name": "host-name", strings.Repeat("x", 80): strings.Repeat("x", 63), "Büro": "b-ro"} {
		if got := NameFromHostname(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// TestBrokenCache: a cache that is damaged or of somebody else is none, and what is in it is verified.
func TestBrokenCache(t *testing.T) {
	m := newMesh(t)
	ck, err := NewControlKey()
	if err != nil {
		t.Fatal(err)
	}
	wg, err := NewWGPrivate()
	if err != nil {
		t.Fatal(err)
	}
	s := &State{Dir: t.TempDir(), Hub: "127.0.0.1:1", Pin: m.key.Public(), MeshID: m.id, NodeID: "n1", WG: wg, Control: ck}
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(s.Dir, nodeFile)); err != nil || st.Mode() != 0o600 {
		t.Errorf("node.json: %v %v", st.Mode(), err)
	}
	back, err := LoadState(s.Dir)
	if err != nil || back.Control.Public() != ck.Public() || back.WG.Public() != wg.Public() || back.NodeID != "n1" {
		t.Fatalf("came back as %+v: %v", back, err)
	}
	peers := func() string {
		k, err := NewClient(ClientConfig{State: s, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return show(k.Map().Peers)
	}
	recs := []Envelope{m.seal(m.info(), 1), m.seal(m.node(1), 2), m.seal(m.node(2), 3)}
	if err := s.saveCache(cache{Epoch: "e1", Rev: 3, Records: recs}); err != nil {
		t.Fatal(err)
	}
	if got := peers(); got != "host2" {
		t.Errorf("peers %q", got)
	}
	file := filepath.Join(s.Dir, cacheFile)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	forged := base64.StdEncoding.EncodeToString(bytes.Replace(recs[2].Payload, []byte("host2"), []byte("host8"), 1))
	for name, b := range map[string][]byte{
		"cut":    whole[:len(whole)/2],
		"empty":  {},
		"other":  bytes.Replace(whole, []byte(`"mesh_id":"mtest"`), []byte(`"mesh_id":"mtesu"`), 1),
		"forged": bytes.Replace(whole, []byte(base64.StdEncoding.EncodeToString(recs[2].Payload)), []byte(forged), 1),
	} {
		if bytes.Equal(b, whole) {
			t.Fatalf("%s: nothing was altered", name)
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := peers(); got != "" {
			t.Errorf("%s: peers %q", name, got)
		}
	}
}

func TestTokens(t *testing.T) {
	pin := ControlPublic{1, 2, 3, 250}
	for _, host := range []string{"hub.example.com:8443", "192.0.2.1:1", "[2001:db8::1]:443"} {
		in := Token{Host: host, AuthKey: "abc-DEF_123", Pin: pin}
		out, err := ParseToken("  " + in.String() + "\n")
		if err != nil || out != in {
			t.Errorf("%s came back as %+v: %v", in, out, err)
		}
	}
	good := Token{Host: "hub:8443", AuthKey: "secretsecret", Pin: pin}.String()
	for _, bad := range []string{"", "tssh://", good[:len(good)-1], good + "A", strings.Replace(good, "#", "", 1), strings.Replace(good, ":8443", "", 1), strings.Replace(good, ":8443", ":0", 1),
		strings.Replace(good, "tssh:", "http:", 1), strings.Replace(good, "hub:", "a@hub:", 1), strings.Replace(good, "secret", "sec/ret", 1), strings.Replace(good, "secret", "sec ret", 1), strings.Repeat("x", 600)} {
		if tok, err := ParseToken(bad); err == nil {
			t.Errorf("%q taken as %+v", bad, tok)
		} else if strings.Contains(err.Error(), "secretsecret") {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add(Token{Host: "hub:8443", AuthKey: "abc", Pin: ControlPublic{1}}.String())
	f.Add("tssh://[::1]:1/k#")
	f.Add("tssh://a:1/#AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err != nil {
			return
		}
		again, err := ParseToken(tok.String())
		if err != nil || again != tok {
			t.Errorf("%q is %+v, written again %+v: %v", s, tok, again, err)
		}
	})
}

// FuzzRecord signs whatever it gets: nothing that is taken may be unusable, and
// nothing may panic on its way into a map.
func FuzzRecord(f *testing.F) {
	seed := sha(1)
	key, err := ParseControlKey(base64.StdEncoding.EncodeToString(seed[:]))
	if err != nil {
		f.Fatal(err)
	}
	m := &mesh{key: key, id: "mtest"}
	for _, b := range []Body{m.info(), m.node(2), m.policy(`{"acls":[]}`), &User{Header: Header{Kind: KindUser, ID: "a@b"}, Login: "a@b"}, &Revocation{Header: Header{Kind: KindRevocation, ID: "node:n2"}, Node: "n2"}} {
		b.Stamp(m.id, 7)
		raw, err := marshal(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"mesh":"mtest","kind":"node","id":"n2","rev":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := &mesh{t: t, key: key, id: "mtest"}
		e, err := sign(key, raw)
		if err != nil {
			return
		}
		r, err := Open(e, key.Public(), m.id)
		if err != nil {
			return
		}
		if r.Header.Mesh != m.id || r.Rev <= 0 || r.ID == "" {
			t.Fatalf("taken without a header: %+v", r)
		}
		b, _ := m.book()
		if _, err := b.apply(m.full(9, m.seal(m.info(), 1), m.seal(m.node(1), 2), e)); err != nil {
			t.Fatal(err)
		}
		x, _ := b.build("n1", time.Unix(1e9, 0))
		for _, p := range x.Peers {
			if !p.Valid() || CheckName(p.Name) != nil && p.Name != HubName || p.Key.IsZero() || len(p.Addrs) == 0 {
				t.Fatalf("peer %+v", p)
			}
			for _, a := range p.Addrs {
				if !x.Range4.Contains(a) && !x.Range6.Contains(a) {
					t.Fatalf("peer at %s", a)
				}
			}
		}
	})
}

func sha(b byte) (out [32]byte) { out[0] = b; return out }

func FuzzFrame(f *testing.F) {
	for _, fr := range []*Frame{{Ping: true}, {Epoch: "e", From: 1, Rev: 2, Rm: []Ref{{KindNode, "n"}}}, {Hello: &Hello{Since: 3}}, {Snapshot: true, Epoch: "e", Rev: 1, Count: 1, Up: []Envelope{{PayloadType: "x", Payload: []byte("{}")}}}} {
		for _, z := range []bool{false, true} {
			var b bytes.Buffer
			if err := WriteFrame(&b, fr, z); err != nil {
				f.Fatal(err)
			}
			f.Add(b.Bytes())
		}
	}
	f.Add([]byte{1, 0, 0, 4, 0x28, 0xb5, 0x2f, 0xfd})
	f.Add([]byte{0, 255, 255, 255})
	f.Fuzz(func(t *testing.T, raw []byte) {
		fr, err := ReadFrame(bytes.NewReader(raw), MaxFrame)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := WriteFrame(&b, fr, raw[0]&frameZstd != 0); err != nil {
			return // longer than it came
		}
		if _, err := ReadFrame(&b, MaxFrame); err != nil {
			t.Errorf("written again it cannot be read: %v", err)
		}
	})
}

// TestFrameBounds: what is too long is refused before it is read or unpacked.
func TestFrameBounds(t *testing.T) {
	var head [4]byte
	binary.BigEndian.PutUint32(head[:], MaxFrame+1)
	if _, err := ReadFrame(bytes.NewReader(head[:]), MaxFrame); err == nil {
		t.Error("a frame that is too long was read")
	}
	binary.BigEndian.PutUint32(head[:], 2000)
	if _, err := ReadFrame(bytes.NewReader(append(head[:], make([]byte, 2000)...)), 1000); err == nil {
		t.Error("a frame beyond the reader's limit was read")
	}
	// 64 MiB of one letter are a few KiB packed.
	var b bytes.Buffer
	if err := WriteFrame(&b, &Frame{Epoch: strings.Repeat("a", 64<<20)}, true); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFrame(&b, MaxFrame); err == nil {
		t.Error("a bomb was unpacked")
	}
}
