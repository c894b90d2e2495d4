package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"tssh/netnode/coord"
	"tssh/policy"
	"tssh/recording/audit"
)

// maxPast bounds how many different logins of the past are remembered.
const maxPast = 100_000

// pastLogin is what one person did from one machine as one account on one host, as the
// audit log has it, and what the new policy makes of it.
type pastLogin struct {
	Change  string    `json:"change"` // refused or allowed, by the new policy
	Who     string    `json:"who"`
	Node    string    `json:"node"`
	Account string    `json:"account"`
	Host    string    `json:"host"`
	Times   int       `json:"times"`
	Last    time.Time `json:"last"`
	Reason  string    `json:"reason"` // the new policy's, for the last time
}

// dryRun is a policy tried against the logins of the past.
type dryRun struct {
	Since   time.Time   `json:"since"`
	Changes []pastLogin `json:"changes"`
	Same    int         `json:"same"`    // logins that would be decided as they were
	Unknown int         `json:"unknown"` // of people or machines that the mesh does not have any more
	Full    bool        `json:"full,omitempty"`

	was, next *policy.Policy
	dir       *policy.Directory
	by        map[[5]string]*pastLogin
}

// add takes one entry of the audit log. What the policy in force would decide otherwise by
// now as well is no doing of the new one.
func (d *dryRun) add(e *audit.Entry) {
	if e.Kind != "session.open" && e.Kind != "session.refuse" || e.LocalUser == "" || e.Host == "" {
		return
	}
	src, ok := d.dir.Node(e.Node)
	if _, there := d.dir.Node(e.Host); !ok || !there || src.Who() != e.Who {
		d.Unknown++
		return
	}
	let := func(p *policy.Policy) (bool, string) {
		q, err := json.Marshal(map[string]any{"kind": "ssh", "src": e.Node, "dst": e.Host, "user": e.LocalUser, "effective": true, "time": e.Time.UTC().Format(time.RFC3339)})
		if err != nil {
			return false, err.Error()
		}
		var a struct{ Verdict, Reason, Error string }
		if err := json.Unmarshal(policy.EvalQuery(p, d.dir, q), &a); err != nil || a.Error != "" {
			return false, a.Error
		}
		return a.Verdict == "accept", a.Reason
	}
	then := e.Kind == "session.open"
	now, reason := let(d.next)
	before, _ := let(d.was)
	if now == then || now == before {
		d.Same++
		return
	}
	change := "refused"
	if now {
		change = "allowed"
	}
	key := [5]string{change, e.Who, e.Node, e.LocalUser, e.Host}
	p := d.by[key]
	if p == nil {
		if d.Full = d.Full || len(d.by) >= maxPast; d.Full {
			return
		}
		p = &pastLogin{Change: change, Who: e.Who, Node: e.Node, Account: e.LocalUser, Host: e.Host}
		d.by[key] = p
	}
	p.Times++
	if !e.Time.Before(p.Last) {
		p.Last, p.Reason = e.Time, reason
	}
}

func (d *dryRun) done() {
	d.Changes = []pastLogin{}
	for _, p := range d.by {
		d.Changes = append(d.Changes, *p)
	}
	slices.SortFunc(d.Changes, func(a, b pastLogin) int {
		return cmp.Or(-cmp.Compare(a.Change, b.Change), -cmp.Compare(a.Times, b.Times), cmp.Compare(a.Who, b.Who), cmp.Compare(a.Node+" "+a.Account+" "+a.Host, b.Node+" "+b.Account+" "+b.Host))
	})
}

// lines are the run for people: the summary last.
func (d *dryRun) lines() []string {
	var out []string
	people, times := map[string]map[string]bool{"refused": {}, "allowed": {}}, map[string]int{}
	for _, p := range d.Changes {
		people[p.Change][p.Who] = true
		times[p.Change] += p.Times
		mark, then := "-", "would be refused"
		if p.Change == "allowed" {
			mark, then = "+", "was refused, would be let in"
		}
		out = append(out, fmt.Sprintf("%s %s (%s) as %s on %s: %s, last %s: %s (%s)", mark, p.Who, p.Node, p.Account, p.Host, count(p.Times, "login"), p.Last.UTC().Format("2006-01-02 15:04Z"), then, p.Reason))
	}
	sum := fmt.Sprintf("since %s: %s of %s would now be refused, %s of %s newly allowed, %d the same", d.Since.UTC().Format("2006-01-02 15:04Z"),
		count(times["refused"], "login"), count(len(people["refused"]), "person"), count(times["allowed"], "login"), count(len(people["allowed"]), "person"), d.Same)
	if d.Unknown > 0 {
		sum += fmt.Sprintf(", %d of people or machines that are gone", d.Unknown)
	}
	if d.Full {
		sum += "; there are more, of which not all were looked at"
	}
	return append(out, sum)
}

func count(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case what == "person":
		return fmt.Sprintf("%d people", n)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// policyAgainst tries a policy on the logins that the audit log has since then.
func (c *cli) policyAgainst(name, since string) error {
	from, err := parseSince(since, time.Now())
	if err != nil {
		return usageError{strings.Replace(strings.TrimPrefix(err.Error(), "audit: "), "--since", "--against", 1)}
	}
	req, err := c.policyFile(name)
	if err != nil {
		return err
	}
	quiet := *c
	quiet.json = false
	if _, err := quiet.policyPut(coord.AdminPolicyTry, req); err != nil {
		return err
	}
	d := &dryRun{Since: from, by: map[[5]string]*pastLogin{}}
	d.next, _ = policy.Parse(req.Name, []byte(req.Text))
	var info coord.PolicyInfo
	if err := c.get(coord.AdminPolicyGet, &info); err != nil {
		return err
	}
	d.was, _ = policy.Parse("policy", []byte(info.Text))
	var dir policy.Directory
	if err := c.post(coord.AdminDirectory, struct{}{}, &dir); err != nil {
		return err
	}
	if d.dir, err = policy.NewDirectory(dir.Users, dir.Nodes); err != nil {
		return err
	}
	err = c.auditLines(url.Values{"since": {from.Format(time.RFC3339)}}, func(line []byte) error {
		var r audit.Record
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		d.add(&r.Entry)
		return nil
	})
	if err != nil {
		return err
	}
	d.done()
	if c.json {
		return c.printJSON(d)
	}
	for _, l := range d.lines() {
		fmt.Fprintln(c.out, printable(l))
	}
	return nil
}

// auditLines gives each line of the audit log to f.
func (c *cli) auditLines(q url.Values, f func([]byte) error) error {
	resp, err := c.ask(http.MethodGet, coord.AdminAudit+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return decode(resp, nil)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 64<<10), 8<<20) // a host's longest line, with every byte of it escaped
	for lines.Scan() {
		if err := f(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return errFile("the audit log", "from the hub", err)
	}
	if end := resp.Trailer.Get("Audit-End"); end != "ok" {
		return errAudit(end)
	}
	return nil
}
