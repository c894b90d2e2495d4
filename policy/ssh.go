package policy

import (
	"cmp"
	mathbits "math/bits"
	"slices"
	"strings"
	"time"
)

// sshRule is one entry of the ssh section.
type sshRule struct {
	index   int // in the file
	off     int // of the rule in the text
	check   bool
	request bool
	src     []selector
	dst     []selector
	own     bool // a dst is the person's own devices: autogroup:self, autogroup:member, or the login that is the src
	posture []*posture
	users   users
	reason  string
	noWay   string // the reason of a denial when the network lacks a rule

	acceptEnv       []string
	recorder        []Tag
	enforceRecorder bool
	period          time.Duration
	terms           *terms
}

// rank is the place of the rule's kind in the order of asking. What needs another person
// comes after what does not, and breaking the glass is the last resort.
func (r *sshRule) rank() int {
	switch {
	case r.check:
		return 0
	case r.request:
		return 2
	case r.terms.BreakGlass:
		return 3
	}
	return 1
}

// users says which accounts a rule lets in.
type users struct {
	names   []LocalUser
	root    bool // root is among the names
	nonroot bool
	domains []string // of localpart:*@domain
}

// match reports whether the rule lets src in as the account. uid 0 is root under any
// name: it needs both its own name and root to be written.
func (u *users) match(account LocalUser, uid0 bool, src *Identity) bool {
	named := slices.Contains(u.names, account)
	if uid0 {
		return named && u.root
	}
	if named || u.nonroot {
		return true
	}
	if len(u.domains) == 0 || src.User == "" || src.External || account == "root" {
		return false
	}
	i := strings.LastIndexByte(string(src.User), '@')
	return i > 0 && string(src.User[:i]) == string(account) && slices.Contains(u.domains, string(src.User[i+1:]))
}

// sshTable is all ssh rules in the order in which they are asked: every check rule in
// file order, then every accept rule, every request rule, and every break-glass rule.
type sshTable struct {
	rules    []sshRule
	src, dst *side
	own      bits
}

func newSSHTable(rules []sshRule) *sshTable {
	slices.SortStableFunc(rules, func(a, b sshRule) int { return cmp.Compare(a.rank(), b.rank()) })
	t := &sshTable{rules: rules}
	t.src = newSide(len(rules), func(i int) []selector { return rules[i].src })
	t.dst = newSide(len(rules), func(i int) []selector { return tagsOf(rules[i].dst) })
	t.own = make(bits, t.src.words)
	for i := range rules {
		rules[i].noWay = "no-network: " + rules[i].reason + " has this login, but no acl or grant allows TCP port 22"
		if rules[i].own {
			t.own.set(i)
		}
	}
	return t
}

// tagsOf keeps the selectors that name machines. What names people in a dst means their
// own devices only, and is sshRule.own.
func tagsOf(dst []selector) []selector {
	return slices.DeleteFunc(slices.Clone(dst), func(s selector) bool { return !s.tagged() })
}

// miss says how near the best rule came.
type miss uint8

const (
	missPair    miss = iota // no rule has this source and this destination
	missPosture             // one has, but asks for a posture that the source lacks
	missUser                // one has, but not for this account
	missHours               // one has, but not at this time
)

// asked is what find is asked about beside the two ends.
type asked struct {
	account LocalUser
	uid0    bool
	now     time.Time
	always  bool // hours and postures are taken to hold
	anyTime bool // hours are
	glass   bool // break-glass rules alone
}

// find gives the index of the rule that decides, or -1 and what was missing.
func (t *sshTable) find(src, dst *Identity, q *asked) (int, miss) {
	why := missPair
	own := sameOwner(src, dst)
	var sb, db [chunk]uint64
	for base := 0; base < t.src.words; base += chunk {
		n := min(chunk, t.src.words-base)
		s, d := sb[:n], db[:n]
		clear(s)
		clear(d)
		t.src.identity(s, base, src)
		t.dst.identity(d, base, dst)
		if own {
			or(d, t.own.from(base))
		}
		for w := range s {
			for left := s[w] & d[w]; left != 0; left &= left - 1 {
				i := (base+w)*64 + mathbits.TrailingZeros64(left)
				r := &t.rules[i]
				if q.glass && !r.terms.BreakGlass {
					continue
				}
				if len(r.posture) > 0 && !q.always && !anyPosture(r.posture, src.Attributes) {
					why = max(why, missPosture)
					continue
				}
				if !r.users.match(q.account, q.uid0, src) {
					why = max(why, missUser)
					continue
				}
				if _, ok := r.terms.holds(q.now); ok || q.anyTime || q.always {
					return i, 0
				}
				why = missHours
			}
		}
	}
	return -1, why
}

// reaches reports whether any rule lets src in on dst as anybody.
func (t *sshTable) reaches(src, dst *Identity) bool {
	own := sameOwner(src, dst)
	var sb, db [chunk]uint64
	for base := 0; base < t.src.words; base += chunk {
		n := min(chunk, t.src.words-base)
		s, d := sb[:n], db[:n]
		clear(s)
		clear(d)
		t.src.identity(s, base, src)
		t.dst.identity(d, base, dst)
		if own {
			or(d, t.own.from(base))
		}
		for w := range s {
			for left := s[w] & d[w]; left != 0; left &= left - 1 {
				r := &t.rules[(base+w)*64+mathbits.TrailingZeros64(left)]
				if len(r.posture) == 0 || anyPosture(r.posture, src.Attributes) {
					return true
				}
			}
		}
	}
	return false
}
