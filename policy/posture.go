package policy

import (
	"fmt"
	"slices"
	"strings"
)

// posture is a named list of assertions about attributes, all of which must hold.
type posture struct {
	name       string
	assertions []assertion
}

type operator uint8

const (
	opEqual operator = iota
	opNotEqual
	opIn
	opNotIn
	opSet
	opNotSet
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
)

// assertion is one line of a posture: node:os IN ['linux', 'macos'].
type assertion struct {
	attribute string
	op        operator
	values    []string
}

// anyPosture reports whether one of the postures holds.
func anyPosture(ps []*posture, attrs map[string]string) bool {
	for _, p := range ps {
		if p.holds(attrs) {
			return true
		}
	}
	return false
}

func (p *posture) holds(attrs map[string]string) bool {
	for i := range p.assertions {
		if !p.assertions[i].holds(attrs) {
			return false
		}
	}
	return len(p.assertions) > 0
}

// holds is false for an attribute that is not set, whatever is asserted but that it is not set.
func (a *assertion) holds(attrs map[string]string) bool {
	v, set := attrs[a.attribute]
	switch {
	case a.op == opNotSet:
		return !set
	case !set:
		return false
	}
	switch a.op {
	case opSet:
		return true
	case opEqual, opIn:
		return slices.Contains(a.values, v)
	case opNotEqual, opNotIn:
		return !slices.Contains(a.values, v)
	}
	c, ok := compareVersions(v, a.values[0])
	if !ok {
		return false
	}
	switch a.op {
	case opLess:
		return c < 0
	case opLessEqual:
		return c <= 0
	case opGreater:
		return c > 0
	case opGreaterEqual:
		return c >= 0
	}
	return false
}

// compareVersions compares dotted numbers part by part; missing parts are zero. It is not
// ok when either begins with something else; what follows the numbers (-rc1) is left out.
func compareVersions(a, b string) (order int, ok bool) {
	na, ra, okA := versionPart(a)
	nb, rb, okB := versionPart(b)
	if !okA || !okB {
		return 0, false
	}
	for {
		switch {
		case na < nb:
			return -1, true
		case na > nb:
			return 1, true
		}
		if !strings.HasPrefix(ra, ".") && !strings.HasPrefix(rb, ".") {
			return 0, true
		}
		na, ra = nextPart(ra)
		nb, rb = nextPart(rb)
	}
}

func nextPart(rest string) (uint64, string) {
	tail, more := strings.CutPrefix(rest, ".")
	if !more {
		return 0, ""
	}
	n, tail, ok := versionPart(tail)
	if !ok {
		return 0, ""
	}
	return n, tail
}

func versionPart(s string) (n uint64, rest string, ok bool) {
	i := 0
	for i < len(s) && '0' <= s[i] && s[i] <= '9' {
		if n > 1<<59 {
			return 0, s, false
		}
		n = n*10 + uint64(s[i]-'0')
		i++
	}
	return n, s[i:], i > 0
}

// parseAssertion reads one assertion. Strings stand in single or double quotes; numbers
// and true and false may stand bare.
func parseAssertion(s string) (assertion, error) {
	var a assertion
	attr, rest := splitBlank(s)
	space, name, ok := strings.Cut(attr, ":")
	if !ok || space == "" || name == "" {
		return a, fmt.Errorf("assertion %q must begin with an attribute, as node:os", s)
	}
	a.attribute = attr
	found := false
	for _, o := range []struct {
		text string
		op   operator
	}{
		{"==", opEqual}, {"!=", opNotEqual}, {"<=", opLessEqual}, {">=", opGreaterEqual}, {"<", opLess}, {">", opGreater},
		{"NOT IN", opNotIn}, {"IN", opIn}, {"IS SET", opSet}, {"NOT SET", opNotSet}, {"IS NOT SET", opNotSet},
	} {
		if r, ok := cutOperator(rest, o.text); ok {
			a.op, rest, found = o.op, r, true
			break
		}
	}
	if !found {
		return a, fmt.Errorf("assertion %q: after the attribute must come ==, !=, <, <=, >, >=, IN, NOT IN, IS SET or NOT SET", s)
	}
	switch a.op {
	case opSet, opNotSet:
		if rest != "" {
			return a, fmt.Errorf("assertion %q: nothing can follow %q", s, "SET")
		}
		return a, nil
	case opIn, opNotIn:
		inner, ok := strings.CutPrefix(rest, "[")
		if inner, ok = strings.CutSuffix(inner, "]"); !ok || !strings.HasPrefix(rest, "[") {
			return a, fmt.Errorf("assertion %q: IN needs a list in brackets", s)
		}
		for inner = strings.TrimSpace(inner); inner != ""; {
			v, tail, ok := parseValue(inner)
			if !ok {
				return a, fmt.Errorf("assertion %q: %q is not a value", s, inner)
			}
			a.values = append(a.values, v)
			tail, comma := strings.CutPrefix(tail, ",")
			inner = strings.TrimSpace(tail)
			if !comma && inner != "" {
				return a, fmt.Errorf("assertion %q: a comma is missing before %q", s, inner)
			}
		}
		if len(a.values) == 0 {
			return a, fmt.Errorf("assertion %q: the list is empty", s)
		}
		return a, nil
	}
	v, tail, ok := parseValue(rest)
	if !ok || tail != "" {
		return a, fmt.Errorf("assertion %q: %q is not a value", s, rest)
	}
	a.values = []string{v}
	if a.op >= opLess {
		if _, _, ok := versionPart(v); !ok {
			return a, fmt.Errorf("assertion %q: %q cannot be compared, it is neither a number nor a version", s, v)
		}
	}
	return a, nil
}

func splitBlank(s string) (first, rest string) {
	s = strings.TrimSpace(s)
	i := strings.IndexAny(s, " \t=!<>")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}

// cutOperator takes an operator of one or two words off the front.
func cutOperator(s, op string) (string, bool) {
	for w := range strings.SplitSeq(op, " ") {
		s = strings.TrimLeft(s, " \t")
		if len(s) < len(w) || !strings.EqualFold(s[:len(w)], w) {
			return "", false
		}
		s = s[len(w):]
		if w[0] >= 'A' && s != "" && s[0] != ' ' && s[0] != '\t' && s[0] != '[' {
			return "", false
		}
	}
	return strings.TrimSpace(s), true
}

// parseValue takes one value off the front and gives the rest without leading blanks.
func parseValue(s string) (v, rest string, ok bool) {
	if s == "" {
		return "", "", false
	}
	if q := s[0]; q == '\'' || q == '"' {
		end := strings.IndexByte(s[1:], q)
		if end < 0 {
			return "", "", false
		}
		return s[1 : 1+end], strings.TrimSpace(s[end+2:]), true
	}
	i := strings.IndexAny(s, ", \t]")
	if i < 0 {
		i = len(s)
	}
	v = s[:i]
	if v != "true" && v != "false" && strings.Trim(v, "0123456789.") != "" || v == "" {
		return "", "", false
	}
	return v, strings.TrimSpace(s[i:]), true
}
