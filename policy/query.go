package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// query is one line for EvalQuery. The names are those of the JSON form.
type query struct {
	Kind      string `json:"kind"`
	Src       string `json:"src"`
	Dst       string `json:"dst"`
	User      string `json:"user"`
	Effective bool   `json:"effective"`
	Proto     string `json:"proto"`
	Port      *int   `json:"port"`
	Family    int    `json:"family"`
	Actor     string `json:"actor"`
	Tag       string `json:"tag"`
	Node      string `json:"node"`
	Prefix    string `json:"prefix"`
	Time      string `json:"time"` // of a login; without it hours count as open
}

// EvalQuery answers one JSON line with one JSON line, without the newline.
func EvalQuery(p *Policy, d *Directory, line []byte) []byte {
	return AppendQuery(nil, p, d, line)
}

// AppendQuery is EvalQuery into a buffer.
func AppendQuery(out []byte, p *Policy, d *Directory, line []byte) []byte {
	var q query
	err := json.Unmarshal(line, &q)
	if err == nil {
		n := len(out)
		if out, err = q.answer(out, p, d); err == nil {
			return out
		}
		out = out[:n]
	}
	out = append(out, `{"error":`...)
	out = appendJSON(out, strings.TrimPrefix(err.Error(), "policy: "))
	return append(out, '}')
}

func (q *query) answer(out []byte, p *Policy, d *Directory) ([]byte, error) {
	switch q.Kind {
	case "ssh":
		return q.ssh(out, p, d)
	case "net":
		return q.net(out, p, d)
	case "tag":
		return q.tag(out, p, d)
	case "route":
		return q.route(out, p, d)
	}
	return out, fmt.Errorf("unknown kind %q, it is ssh, net, tag or route", q.Kind)
}

func appendVerdict(out []byte, verdict string, rule int, reason string) []byte {
	out = append(out, `{"verdict":"`...)
	out = append(out, verdict...)
	out = append(out, `","rule":`...)
	out = strconv.AppendInt(out, int64(rule), 10)
	out = append(out, `,"reason":`...)
	return appendJSON(out, reason)
}

func allowed(out []byte, allow bool, rule int, reason string) []byte {
	verdict := "deny"
	if allow {
		verdict = "allow"
	}
	return append(appendVerdict(out, verdict, rule, reason), '}')
}

func appendJSON(out []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			b, err := json.Marshal(s)
			if err != nil {
				return append(out, `""`...) // strings always encode
			}
			return append(out, b...)
		}
	}
	out = append(out, '"')
	out = append(out, s...)
	return append(out, '"')
}

// end is a src or dst of a query: a node, or an address that may be a node's.
type end struct {
	node int        // index in the directory, -1 for an address of no node
	addr netip.Addr // set when the query has an address
}

func (q *query) end(d *Directory, what, s string) (end, error) {
	if i, ok := d.index(s); ok {
		return end{node: i}, nil
	}
	if s == "" {
		return end{}, fmt.Errorf("%s is missing", what)
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return end{}, fmt.Errorf("%s %q is neither a node of the directory nor an address", what, s)
	}
	a = a.Unmap()
	if i, ok := d.owner(a); ok {
		return end{i, a}, nil
	}
	return end{-1, a}, nil
}

// pick gives the address of an end in a family; the zero Addr when the node has no
// addresses at all, which leaves its identity; false when it has none of this family.
func (e end) pick(d *Directory, v4 bool) (netip.Addr, bool) {
	if e.addr.IsValid() {
		return e.addr, e.addr.Is4() == v4
	}
	addrs := d.nodes[e.node].Addrs
	for _, a := range addrs {
		if a.Is4() == v4 {
			return a, true
		}
	}
	return netip.Addr{}, len(addrs) == 0
}

func (q *query) ssh(out []byte, p *Policy, d *Directory) ([]byte, error) {
	src, err := q.end(d, "src", q.Src)
	if err != nil {
		return out, err
	}
	dst, err := q.end(d, "dst", q.Dst)
	if err != nil {
		return out, err
	}
	if q.User == "" {
		return out, fmt.Errorf("user is missing")
	}
	dec := Decision{Rule: -1}
	user, err := ParseLocalUser(q.User)
	switch {
	case src.node < 0 || dst.node < 0:
		dec.Reason = "no-identity: an address is no node's own"
	case err != nil:
		dec.Reason = "no-login: this cannot be the name of an account"
	default:
		r := Request{Ask: AskLogin, Src: d.nodes[src.node], Dst: d.nodes[dst.node], User: user, UIDUnknown: true, SSHOnly: !q.Effective, AnyTime: q.Time == ""}
		if q.Time != "" {
			if r.Now, err = time.Parse(time.RFC3339, q.Time); err != nil {
				return out, fmt.Errorf("time %q is not a time with its zone, as 2027-01-31T17:00:00Z", q.Time)
			}
		}
		if uid, known := d.Nodes[dst.node].LocalUsers[q.User]; known {
			r.UID, r.UIDUnknown = uid, false
		}
		dec = q.login(p, d, r, src, dst)
	}
	out = appendVerdict(out, dec.Verdict.String(), dec.Rule, dec.Reason)
	out = append(out, `,"acceptEnv":[`...)
	for i, s := range dec.AcceptEnv {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendJSON(out, s)
	}
	out = append(out, `],"recorder":[`...)
	for i, t := range dec.Recorder {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendJSON(out, string(t))
	}
	out = append(out, `],"enforceRecorder":`...)
	out = strconv.AppendBool(out, dec.EnforceRecorder)
	out = append(out, `,"checkPeriod":"`...)
	out = append(out, dec.CheckPeriod.String()...)
	out = append(out, '"')
	if dec.terms != nil && dec.terms.words != "" {
		out = append(out, `,"terms":`...)
		out = appendJSON(out, dec.terms.words)
	}
	return append(out, '}'), nil
}

// login asks once for each family that both ends have: a login that one of them can make is possible.
func (q *query) login(p *Policy, d *Directory, r Request, src, dst end) Decision {
	last := Decision{Rule: -1, Reason: "no-network: source and destination have no address family in common"}
	for _, v4 := range [...]bool{true, false} {
		if r.SSHOnly && !v4 {
			break
		}
		a, okA := src.pick(d, v4)
		b, okB := dst.pick(d, v4)
		if !r.SSHOnly && (!okA || !okB) {
			continue
		}
		r.SrcAddr, r.DstAddr = a, b
		if last = Evaluate(p, r); last.Verdict != Deny {
			break
		}
	}
	return last
}

func (q *query) net(out []byte, p *Policy, d *Directory) ([]byte, error) {
	if p == nil {
		return allowed(out, false, -1, "no-policy: there is no policy yet"), nil
	}
	src, err := q.end(d, "src", q.Src)
	if err != nil {
		return out, err
	}
	dst, err := q.end(d, "dst", q.Dst)
	if err != nil {
		return out, err
	}
	proto := uint8(protoTCP)
	if q.Proto != "" {
		if proto, err = parseProto(q.Proto); err != nil {
			return out, err
		}
	}
	var port uint16
	switch {
	case q.Port != nil && (*q.Port < 0 || *q.Port > 65535):
		return out, fmt.Errorf("port %d is out of range", *q.Port)
	case q.Port != nil:
		port = uint16(*q.Port)
	case hasPorts(proto):
		return out, fmt.Errorf("port is missing")
	}
	v4, err := q.family(d, src, dst)
	if err != nil {
		return out, err
	}
	srcs, okS := q.parties(d, src, v4, false)
	dsts, okD := q.parties(d, dst, v4, true)
	if !okS || !okD {
		return allowed(out, false, -1, "no-route: a node has no address of this family"), nil
	}
	var dec NetDecision
	for i := range srcs {
		for j := range dsts {
			if dec = p.decideNet(&srcs[i], &dsts[j], proto, port); dec.Allow {
				return allowed(out, true, dec.Rule, dec.Reason), nil
			}
		}
	}
	return allowed(out, false, dec.Rule, dec.Reason), nil
}

// family is IPv4 or IPv6: as asked, as the addresses say, or IPv4 when both nodes have it.
func (q *query) family(d *Directory, src, dst end) (v4 bool, err error) {
	fixed := 0
	switch q.Family {
	case 0, 4, 6:
		fixed = q.Family
	default:
		return false, fmt.Errorf("family %d is neither 4 nor 6", q.Family)
	}
	for _, e := range [...]end{src, dst} {
		if !e.addr.IsValid() {
			continue
		}
		f := 6
		if e.addr.Is4() {
			f = 4
		}
		if fixed != 0 && fixed != f {
			return false, fmt.Errorf("family and addresses do not go together")
		}
		fixed = f
	}
	if fixed != 0 {
		return fixed == 4, nil
	}
	_, a := src.pick(d, true)
	_, b := dst.pick(d, true)
	return a && b, nil
}

func (q *query) parties(d *Directory, e end, v4, dst bool) ([]party, bool) {
	if e.node < 0 {
		return d.parties(e.addr, dst), true
	}
	a, ok := e.pick(d, v4)
	return []party{{id: &d.nodes[e.node], addr: a, own: true, mesh: true}}, ok
}

func (q *query) tag(out []byte, p *Policy, d *Directory) ([]byte, error) {
	tag, err := ParseTag(q.Tag)
	if err != nil {
		return out, err
	}
	var actor Identity
	if n, ok := d.Node(q.Actor); ok {
		actor = n
	} else if strings.Contains(q.Actor, "@") {
		l, err := ParseLogin(q.Actor)
		if err != nil {
			return out, err
		}
		actor = Identity{ID: q.Actor, User: l, Role: d.Role(l)}
	} else {
		return out, fmt.Errorf("actor %q is neither a node of the directory nor a login", q.Actor)
	}
	ok, rule, reason := p.mayTag(&actor, tag)
	return allowed(out, ok, rule, reason), nil
}

func (q *query) route(out []byte, p *Policy, d *Directory) ([]byte, error) {
	n, ok := d.Node(q.Node)
	if !ok {
		return out, fmt.Errorf("node %q is not in the directory", q.Node)
	}
	pfx, err := netip.ParsePrefix(q.Prefix)
	if err != nil {
		return out, fmt.Errorf("prefix %q is not a prefix", q.Prefix)
	}
	ok, rule, reason := p.routeApproved(&n, pfx)
	return allowed(out, ok, rule, reason), nil
}
