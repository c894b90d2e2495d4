package coord

import (
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"tssh/netnode/netmap"
	"tssh/policy"
)

// view answers who has to do with whom under one policy. Nodes that the policy cannot
// tell apart are one class, and the question is asked once per pair of classes: with
// thousands of nodes there are dozens of classes.
type view struct {
	policy *policy.Policy
	// named are the addresses and prefixes that the policy's text has in it. A node in one
	// of them may be treated otherwise than its like, so they are part of its class.
	named []netip.Prefix
	// recorders are the tags of recorders.
	recorders []policy.Tag

	mu    sync.Mutex
	cache map[[2]string]bool
}

func newView(text string) (*view, error) {
	p, problems := policy.Parse("policy", []byte(text))
	for _, x := range problems {
		if !x.Warning {
			return nil, x
		}
	}
	if p == nil {
		return nil, fmt.Errorf("no policy")
	}
	return &view{policy: p, named: prefixesIn(text), recorders: p.Recorders(), cache: map[[2]string]bool{}}, nil
}

// class is what the policy can know a node by.
func (v *view) class(id *policy.Identity) string {
	var b strings.Builder
	if id.User != "" {
		fmt.Fprintf(&b, "u %s %s", id.User, id.Role)
	} else {
		tags := slices.Clone(id.Tags)
		slices.Sort(tags)
		fmt.Fprintf(&b, "t %v", tags)
	}
	if len(id.Attributes) > 0 {
		h := fnv.New128a()
		for _, k := range slices.Sorted(maps.Keys(id.Attributes)) {
			fmt.Fprintf(h, "%q=%q;", k, id.Attributes[k])
		}
		fmt.Fprintf(&b, " a %x", h.Sum(nil))
	}
	if id.Exit {
		b.WriteString(" exit")
	}
	for _, r := range slices.SortedFunc(slices.Values(id.Routes), netip.Prefix.Compare) {
		fmt.Fprintf(&b, " r%v", r)
	}
	for i, p := range v.named {
		for _, a := range id.Addrs {
			if p.Contains(a) {
				fmt.Fprintf(&b, " n%d", i)
			}
		}
	}
	return b.String()
}

// adjacent reports whether one of the two may reach the other, by any rule.
func (v *view) adjacent(a, b *policy.Identity) bool {
	ca, cb := v.class(a), v.class(b)
	if cb < ca {
		ca, cb = cb, ca
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	yes, ok := v.cache[[2]string{ca, cb}]
	if !ok {
		if len(v.cache) > 1<<20 {
			clear(v.cache)
		}
		yes = policy.Adjacent(v.policy, *a, *b)
		v.cache[[2]string{ca, cb}] = yes
	}
	return yes
}

// sees reports whether viewer has target in its map. Everybody sees itself and the
// hub's own node, which sees everybody; a relay that stands alone sees everybody, too, and
// nobody sees it: it has to know whom to let in, and nothing else. A recorder that rules name and
// everybody else see each other, as with the hub's node: hosts bring it their recordings, people
// watch them there, and it has to know who is who.
func (s *state) sees(v *view, viewer, target *netmap.Node) bool {
	if viewer.ID == target.ID || viewer.Hub() || target.Hub() || viewer.Relay() {
		return true
	}
	if target.Relay() {
		return false
	}
	if v.records(viewer) || v.records(target) {
		return true
	}
	a, b := s.identity(viewer), s.identity(target)
	return v.adjacent(&a, &b)
}

// records reports whether the node is a recorder.
func (v *view) records(n *netmap.Node) bool {
	return len(v.recorders) > 0 && slices.ContainsFunc(n.Tags, func(t policy.Tag) bool { return slices.Contains(v.recorders, t) })
}

// prefixesIn finds every address and prefix written in a text, in comments as well:
// one too many only makes classes finer.
func prefixesIn(text string) []netip.Prefix {
	found := map[netip.Prefix]bool{}
	for _, w := range strings.FieldsFunc(text, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'f' || 'A' <= r && r <= 'F' || r == '.' || r == ':' || r == '/')
	}) {
		// With a port or without: "100.64.0.1:22" and "fd7a::1:22" are written alike.
		for n := 0; n < 2 && w != ""; n++ {
			if p, err := netip.ParsePrefix(w); err == nil {
				found[p.Masked()] = true
			} else if a, err := netip.ParseAddr(w); err == nil {
				found[netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())] = true
			}
			w = w[:max(strings.LastIndexByte(w, ':'), 0)]
		}
	}
	out := slices.Collect(maps.Keys(found))
	slices.SortFunc(out, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	return out
}
