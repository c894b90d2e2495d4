package netmap

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestRangesOfAHostileHub: what goes into the mesh is taken from all other networks of a
// host, so a hub must not be able to claim those, neither at the join nor later.
func TestRangesOfAHostileHub(t *testing.T) {
	m := newMesh(t)
	for _, s := range []string{"0.0.0.0/0", "127.0.0.0/8", "169.254.0.0/16", "8.8.8.0/24", "224.0.0.0/8", "100.0.0.0/8", "192.0.0.0/8", "172.0.0.0/8"} {
		i := m.info()
		i.Range4 = netip.MustParsePrefix(s)
		if e, err := Seal(m.key, stamped(i, m.id)); err == nil {
			t.Errorf("%s can be a mesh's range: %s", s, e.Payload)
		}
	}
	for _, s := range []string{"::/0", "2000::/3", "::1/128", "fe80::/10", "fc00::/7", "ff00::/8", "2001:db8::/48"} {
		i := m.info()
		i.Range6 = netip.MustParsePrefix(s)
		if _, err := Seal(m.key, stamped(i, m.id)); err == nil {
			t.Errorf("%s can be a mesh's range", s)
		}
	}
	for _, s := range []string{"100.64.0.0/10", "100.96.0.0/16", "10.7.0.0/16", "172.20.0.0/16", "192.168.40.0/24", "198.18.0.0/15"} {
		i := m.info()
		i.Range4 = netip.MustParsePrefix(s)
		if _, err := Seal(m.key, stamped(i, m.id)); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}

	// Later the ranges are what they were, whether the hub says so in passing, all anew, or
	// by leaving the mesh out for once.
	moved := m.info()
	moved.Range4 = netip.MustParsePrefix("192.168.0.0/16")
	other := m.node(1)
	other.Addrs = []netip.Addr{netip.MustParseAddr("192.168.1.1")}
	for name, frames := range map[string][]*Frame{
		"delta":         {{Epoch: "e1", From: 3, Rev: 5, Up: []Envelope{m.seal(moved, 4), m.seal(other, 5)}}},
		"snapshot":      {m.full(5, m.seal(moved, 4), m.seal(m.node(2), 2), m.seal(other, 5))},
		"another epoch": {{Epoch: "e2", Rev: 5, Snapshot: true, Count: 3, Up: []Envelope{m.seal(moved, 4), m.seal(m.node(2), 2), m.seal(other, 5)}}},
		"left out": {m.full(4, m.seal(m.node(2), 2)),
			{Epoch: "e1", From: 4, Rev: 6, Up: []Envelope{m.seal(moved, 5), m.seal(other, 6)}}},
	} {
		b, said := m.book()
		if _, err := b.apply(m.full(3, m.seal(m.info(), 1), m.seal(m.node(2), 2), m.seal(m.node(1), 3))); err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			if _, err := b.apply(f); err != nil {
				t.Fatal(err)
			}
		}
		x, _ := b.build("n2", time.Now())
		if x.Range4 != m.info().Range4 || len(x.Peers) != 0 || x.Self.Name != "host2" {
			t.Errorf("%s: the mesh is %s, with %d peers", name, x.Range4, len(x.Peers))
		}
		if !strings.Contains(strings.Join(*said, "\n"), "keeps its ranges") {
			t.Errorf("%s: nothing is said of it: %q", name, *said)
		}
	}
}

func stamped(b Body, mesh string) Body { b.Stamp(mesh, 1); return b }
