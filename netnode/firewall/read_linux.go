package firewall

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

const (
	maxChains = 4096
	maxRules  = 20000
)

// Rules are those of the network namespace at one moment.
type Rules struct {
	base   []*chain // in the order in which packets meet them
	tables map[tableKey]*table
}

type tableKey struct {
	family nftables.TableFamily
	name   string
}

type table struct {
	tableKey
	chains map[string]*chain
	sets   map[string]*set
}

type chain struct {
	t      *table
	name   string
	policy nftables.ChainPolicy
	hook   int // 0 prerouting, 1 input
	prio   int
	rules  []*nftables.Rule
}

type set struct {
	interval, concat bool
	elements         []nftables.SetElement
}

// Read takes the ruleset, but for the tables whose names begin with skip: our own.
func Read(skip string) (*Rules, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("firewall: %w", err)
	}
	r := &Rules{tables: map[tableKey]*table{}}
	all, err := c.ListChains()
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) {
		all, err = nil, nil // no nftables in this kernel, so no rules of it
	}
	if err != nil {
		return nil, fmt.Errorf("firewall: chains: %w", err)
	}
	if len(all) > maxChains {
		return nil, fmt.Errorf("firewall: more than %d chains", maxChains)
	}
	hooked := map[tableKey]bool{}
	for _, x := range all {
		k := tableKey{x.Table.Family, x.Table.Name}
		if strings.HasPrefix(k.name, skip) || hookOf(x) < 0 {
			continue
		}
		hooked[k] = true
	}
	rules := 0
	for _, x := range all {
		k := tableKey{x.Table.Family, x.Table.Name}
		if !hooked[k] {
			continue
		}
		t := r.tables[k]
		if t == nil {
			t = &table{tableKey: k, chains: map[string]*chain{}, sets: map[string]*set{}}
			r.tables[k] = t
			if err := t.readSets(c, x.Table); err != nil {
				return nil, err
			}
		}
		ch := &chain{t: t, name: x.Name, hook: hookOf(x), policy: nftables.ChainPolicyAccept}
		if x.Policy != nil {
			ch.policy = *x.Policy
		}
		if ch.rules, err = c.GetRules(x.Table, x); err != nil {
			return nil, fmt.Errorf("firewall: rules of %s: %w", x.Name, err)
		}
		if rules += len(ch.rules); rules > maxRules {
			return nil, fmt.Errorf("firewall: more than %d rules", maxRules)
		}
		t.chains[x.Name] = ch
		if ch.hook >= 0 {
			if x.Priority != nil {
				ch.prio = int(*x.Priority)
			}
			r.base = append(r.base, ch)
		}
	}
	if err := r.readLegacy(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(r.base, func(a, b *chain) int {
		return cmp.Or(cmp.Compare(a.hook, b.hook), cmp.Compare(a.prio, b.prio))
	})
	return r, nil
}

// hookOf is the place of a base chain that a packet for this host comes by, -1 for others.
func hookOf(x *nftables.Chain) int {
	if x.Hooknum == nil || x.Type != nftables.ChainTypeFilter {
		return -1
	}
	switch x.Table.Family {
	case nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6:
	default:
		return -1
	}
	switch *x.Hooknum {
	case *nftables.ChainHookPrerouting:
		return 0
	case *nftables.ChainHookInput:
		return 1
	}
	return -1
}

func (t *table) readSets(c *nftables.Conn, of *nftables.Table) error {
	sets, err := c.GetSets(of)
	if err != nil {
		return fmt.Errorf("firewall: sets of %s: %w", of.Name, err)
	}
	for _, s := range sets {
		el, err := c.GetSetElements(s)
		if err != nil {
			return fmt.Errorf("firewall: set %s: %w", s.Name, err)
		}
		t.sets[s.Name] = &set{s.Interval, s.Concatenation, el}
	}
	return nil
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	}
	return "inet"
}
