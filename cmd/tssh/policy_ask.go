package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"tssh/policy"
)

// writeJSON prints one value and gives the exit status.
func writeJSON(stdout, stderr io.Writer, v any) int {
	enc := json.NewEncoder(stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		fmt.Fprintf(stderr, "tssh: error: %s\n", err)
		return 1
	}
	return 0
}

// problem is one line of check and lint for programs.
type problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Col     int    `json:"col"`
	Words   string `json:"words"`
	Warning bool   `json:"warning"`
}

func problemsOf(ps []policy.Problem) (out []problem, failed bool) {
	out = []problem{}
	for _, p := range ps {
		out = append(out, problem{p.File, p.Line, p.Col, p.Words, p.Warning})
		failed = failed || !p.Warning
	}
	return out, failed
}

// problemsJSON is check for programs: all problems as one list on standard output.
func (f policyFiles) problemsJSON(stdout, stderr io.Writer) int {
	p, d, problems, err := f.read()
	if err != nil {
		fmt.Fprintf(stderr, "tssh: error: %s\n", err)
		return 1
	}
	if p != nil {
		problems = append(problems, policy.RunTests(p, d)...)
	}
	out, failed := problemsOf(problems)
	if status := writeJSON(stdout, stderr, out); status != 0 || !failed {
		return status
	}
	return 1
}

// policyLint prints what is doubtful in a file that loads. It fails only when the file
// does not load.
func policyLint(f policyFiles, _ io.Reader, stdout, stderr io.Writer) int {
	p, d, problems, err := f.read()
	if err != nil {
		fmt.Fprintf(stderr, "tssh: error: %s\n", err)
		return 1
	}
	if p != nil {
		problems = append(problems, policy.Lint(p, d, time.Now())...)
	}
	if f.json {
		out, _ := problemsOf(problems)
		if status := writeJSON(stdout, stderr, out); status != 0 {
			return status
		}
	} else {
		printProblems(stdout, problems)
	}
	if p == nil {
		return 1
	}
	return 0
}

// policyExplain tells how each rule judges one login or one flow.
func policyExplain(f policyFiles, _ io.Reader, stdout, stderr io.Writer) int {
	p, d, ok := f.load(stderr)
	if !ok {
		return 1
	}
	t, err := trace(p, d, f.rest[0], f.rest[1], f.at)
	if err != nil {
		fmt.Fprintf(stderr, "tssh: error: %s\n", err)
		return 1
	}
	if f.json {
		return writeJSON(stdout, stderr, t)
	}
	fmt.Fprintf(stdout, "%s: %s\n", t.Verdict, t.Reason)
	switch {
	case t.At != nil:
		fmt.Fprintf(stdout, "at %s", t.At.Format("Mon 2006-01-02 15:04:05 -07:00"))
		if t.Ends != nil {
			fmt.Fprintf(stdout, ", and until %s", t.Ends.Format("Mon 2006-01-02 15:04:05 -07:00"))
		}
		fmt.Fprintln(stdout)
	case t.Timed:
		fmt.Fprintln(stdout, "at some time: a rule has hours or until, and --at TIME says how it is at that time")
	}
	if t.Say != "" {
		fmt.Fprintf(stdout, "the person is told: %s\n", t.Say)
	}
	if t.Logins != nil {
		fmt.Fprintln(stdout, "\nlogins (check rules are asked first, the first that matches decides):")
		printSteps(stdout, t.Logins)
	}
	if t.Network != nil {
		what := "network (rules add up, any that matches allows):"
		if t.Logins != nil {
			what = "network, TCP port 22 (a login needs this too):"
		}
		fmt.Fprintln(stdout, "\n"+what)
		printSteps(stdout, t.Network)
	}
	return 0
}

// maxFar is how many rules that are about others are told one by one.
const maxFar = 10

func printSteps(w io.Writer, steps []policy.Step) {
	far := 0
	for _, s := range steps {
		if !s.Near() {
			if far++; far > maxFar {
				continue
			}
		}
		mark := "no "
		switch {
		case s.Decides:
			mark = "==>"
		case s.Failed == "":
			mark = "yes"
		}
		name := fmt.Sprintf("%s[%d]", s.Section, s.Rule)
		if s.Section == "" {
			name = "(no section)"
		}
		fmt.Fprintf(w, "  %s %s line %d: %s\n", mark, name, s.Line, s.Why)
	}
	if far > maxFar {
		fmt.Fprintf(w, "  ... and %d more rules about others (--json has all)\n", far-maxFar)
	}
}

// trace reads the two ends as people write them.
func trace(p *policy.Policy, d *policy.Directory, from, to string, now time.Time) (policy.Trace, error) {
	src, srcAddr, err := endOf(d, from)
	if err != nil {
		return policy.Trace{}, err
	}
	if account, host, ok := cutLast(to, "@"); ok {
		dst, dstAddr, err := endOf(d, host)
		if err != nil {
			return policy.Trace{}, err
		}
		user, err := policy.ParseLocalUser(account)
		if err != nil {
			return policy.Trace{}, fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "policy: "))
		}
		r := policy.Request{Src: src, SrcAddr: srcAddr, Dst: dst, DstAddr: dstAddr, User: user, UIDUnknown: true, AnyTime: now.IsZero(), Now: now}
		for _, n := range d.Nodes {
			if uid, known := n.LocalUsers[account]; known && n.Name == dst.Name {
				r.UID, r.UIDUnknown = uid, false
			}
		}
		return policy.Explain(p, r), nil
	}
	host, port, ok := cutLast(to, ":")
	if !ok {
		return policy.Trace{}, fmt.Errorf("%q is neither ACCOUNT@HOST nor HOST:PORT", to)
	}
	port, protoName, udp := strings.Cut(port, "/")
	proto := uint8(6)
	switch {
	case udp && protoName == "udp":
		proto = 17
	case udp && protoName != "tcp":
		return policy.Trace{}, fmt.Errorf("%q: after the port only /tcp or /udp can stand", to)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return policy.Trace{}, fmt.Errorf("%q is not a port", port)
	}
	dst, dstAddr, err := endOf(d, strings.Trim(host, "[]"))
	if err != nil {
		return policy.Trace{}, err
	}
	return policy.ExplainNet(p, policy.NetRequest{Src: src, SrcAddr: srcAddr, Dst: dst, DstAddr: dstAddr, Proto: proto, Port: uint16(n)}), nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// endOf finds a machine by name or address. A login stands for a machine of that person.
func endOf(d *policy.Directory, s string) (policy.Identity, netip.Addr, error) {
	if id, ok := d.Node(s); ok {
		return id, netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	for _, n := range d.Nodes {
		id, _ := d.Node(n.Name)
		if err != nil && n.User != "" && string(n.User) == s {
			return id, netip.Addr{}, nil
		}
		for _, own := range id.Addrs {
			if err == nil && own == a.Unmap() {
				return id, a.Unmap(), nil
			}
		}
	}
	return policy.Identity{}, netip.Addr{}, fmt.Errorf("%q is no machine, address or login of a machine in the directory", s)
}

// policyWho lists who may log in where and as whom.
func policyWho(f policyFiles, _ io.Reader, stdout, stderr io.Writer) int {
	p, d, ok := f.load(stderr)
	if !ok {
		return 1
	}
	if f.who.Host != "" {
		if _, ok := d.Node(f.who.Host); !ok {
			fmt.Fprintf(stderr, "tssh: error: %q is no machine of the directory\n", f.who.Host)
			return 1
		}
	}
	all := policy.Who(p, d, f.who)
	if f.json {
		if all == nil {
			all = []policy.Access{}
		}
		return writeJSON(stdout, stderr, all)
	}
	if len(all) == 0 {
		fmt.Fprintln(stdout, "nobody")
		return 0
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHO\tFROM\tAS\tON\tHOW\tRULE")
	for _, a := range all {
		how := a.Verdict
		if a.Period != "" {
			how += " " + a.Period
		}
		from := "(no machine yet)"
		if len(a.From) > 0 {
			from = policy.Few(a.From)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\tssh[%d] line %d\n", a.Who, from, policy.AccountWords(a.Account), policy.Few(a.Hosts), how, a.Rule, a.Line)
	}
	w.Flush()
	return 0
}

// policyDiff tells what a new file changes in effect. Its status is 0 whether or not
// anything changes.
func policyDiff(f policyFiles, _ io.Reader, stdout, stderr io.Writer) int {
	old, d, ok := f.load(stderr)
	if !ok {
		return 1
	}
	next, _, ok := policyFiles{policy: f.rest[0]}.load(stderr)
	if !ok {
		return 1
	}
	changes := policy.Diff(old, next, d)
	if f.json {
		if changes == nil {
			changes = []policy.Change{}
		}
		return writeJSON(stdout, stderr, changes)
	}
	if len(changes) == 0 {
		fmt.Fprintln(stdout, "nobody gains or loses anything")
		return 0
	}
	for _, c := range changes {
		fmt.Fprintln(stdout, c)
	}
	return 0
}
