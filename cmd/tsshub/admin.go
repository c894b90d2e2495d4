package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"tssh/netnode/coord"
	"tssh/recording/audit"
)

// verbs are the administrator's commands.
func (c *cli) verbs() map[string]verb {
	var role, since, against, host string
	var ifMatch int64
	var relayURL, relayHash, relayKey string
	var relaySTUN int
	var extend time.Duration
	var withKey bool
	var db string
	var key coord.KeyRequest
	all := map[string]verb{
		"status":  {run: func([]string) error { return c.status() }},
		"metrics": {run: func([]string) error { return c.metrics() }},
		"user add": {min: 1, max: 1, flags: func(fs *flag.FlagSet) { fs.StringVar(&role, "role", "", "") },
			run: func(a []string) error { return c.userAdd(a[0], role) }},
		"user list":   {run: func([]string) error { return c.userList() }},
		"user remove": {min: 1, max: 1, run: func(a []string) error { return c.userRemove(a[0]) }},
		"key create": {flags: func(fs *flag.FlagSet) {
			fs.StringVar(&key.User, "user", "", "")
			fs.Func("tag", "", func(s string) error { key.Tags = append(key.Tags, strings.Split(s, ",")...); return nil })
			fs.BoolVar(&key.Reusable, "reusable", false, "")
			fs.BoolVar(&key.Ephemeral, "ephemeral", false, "")
			fs.BoolVar(&key.Suffix, "suffix", false, "")
			fs.BoolVar(&key.Relay, "relay", false, "")
			fs.Func("node-expiry", "", func(s string) (err error) { key.NodeExpiry, err = parseValidity(s); return err })
			fs.Func("expiry", "", func(s string) (err error) { key.Expiry, err = parseDuration(s); return err })
		}, run: func([]string) error { return c.keyCreate(key) }},
		"key list":    {run: func([]string) error { return c.keyList() }},
		"key revoke":  {min: 1, max: 1, run: func(a []string) error { return c.name(coord.AdminKeyRevoke, a[0], "key %s no longer lets anybody in") }},
		"node list":   {run: func([]string) error { return c.nodeList() }},
		"node expire": {min: 1, max: 1, run: func(a []string) error { return c.name(coord.AdminNodeExpire, a[0], "node %s has to join again") }},
		"node remove": {min: 1, max: 1, run: func(a []string) error { return c.name(coord.AdminNodeRemove, a[0], "node %s is removed") }},
		"node rename": {min: 2, max: 2, run: func(a []string) error { return c.nodeRename(a[0], a[1]) }},
		"node extend": {min: 1, max: 1, flags: func(fs *flag.FlagSet) {
			fs.Func("for", "", func(s string) (err error) { extend, err = parseDuration(s); return err })
		}, run: func(a []string) error { return c.nodeExtend(a[0], extend) }},
		"rotate-key": {flags: func(fs *flag.FlagSet) { fs.StringVar(&db, "db", "", "") },
			run: func([]string) error { return c.rotateKey(db) }},
		"backup": {min: 1, max: 1, flags: func(fs *flag.FlagSet) { fs.BoolVar(&withKey, "with-key", false, "") },
			run: func(a []string) error { return c.backup(a[0], withKey) }},
		"policy get": {run: func([]string) error { return c.policyGet() }},
		"policy set": {min: 1, max: 1, flags: func(fs *flag.FlagSet) { fs.Int64Var(&ifMatch, "if-match", 0, "") },
			run: func(a []string) error { return c.policySet(a[0], ifMatch) }},
		"policy log":       {run: func([]string) error { return c.policyLog() }},
		"policy show":      {min: 1, max: 1, run: func(a []string) error { return c.policyShow(a[0]) }},
		"policy revert":    {min: 1, max: 1, run: func(a []string) error { return c.policyRevert(a[0]) }},
		"policy diff":      {min: 1, max: 1, run: func(a []string) error { return c.policyDiff(a[0]) }},
		"policy directory": {run: func([]string) error { return c.policyDirectory() }},
		"policy check": {min: 1, max: 1, flags: func(fs *flag.FlagSet) { fs.StringVar(&against, "against", "", "") },
			run: func(a []string) error {
				if against != "" {
					return c.policyAgainst(a[0], against)
				}
				return c.policyCheck(a[0])
			}},
		"relay list": {run: func([]string) error { return c.relayList() }},
		"relay add": {min: 1, max: 1, flags: func(fs *flag.FlagSet) {
			fs.StringVar(&relayURL, "url", "", "")
			fs.StringVar(&relayHash, "cert-sha256", "", "")
			fs.StringVar(&relayKey, "key", "", "")
			fs.IntVar(&relaySTUN, "stun", 0, "")
		}, run: func(a []string) error { return c.relayAdd(a[0], relayURL, relayKey, relayHash, relaySTUN) }},
		"relay remove": {min: 1, max: 1, run: func(a []string) error { return c.name(coord.AdminRelayDrop, a[0], "relay %s is removed") }},
		"audit": {flags: func(fs *flag.FlagSet) {
			fs.StringVar(&since, "since", "", "")
			fs.StringVar(&host, "host", "", "")
		}, run: func([]string) error { return c.audit(since, host) }},
	}
	maps.Copy(all, c.recordingVerbs())
	return all
}

func (c *cli) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s\n", b)
	return err
}

// table prints rows with aligned columns, cells made safe for a terminal.
func (c *cli) table(head string, rows [][]string) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(head, " ", "\t"))
	for _, r := range rows {
		for i := range r {
			r[i] = printable(r[i])
			if r[i] == "" {
				r[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

func (c *cli) status() error {
	var s coord.StatusInfo
	if err := c.get(coord.AdminStatus, &s); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(s)
	}
	_, err := fmt.Fprintf(c.out, "mesh      %s (%s, %s)\nhub       https://%s\npin       %s\nrevision  %d\nnodes     %d, %d connected\npeople    %d\n",
		s.Mesh, s.Range4, s.Range6, s.Host, s.Pin, s.Revision, s.Nodes, s.Online, s.Users)
	return err
}

func (c *cli) userAdd(login, role string) error {
	var u coord.UserInfo
	if err := c.post(coord.AdminUserAdd, coord.UserRequest{Login: login, Role: role}, &u); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(u)
	}
	_, err := fmt.Fprintf(c.out, "%s is in the mesh as %s\n", printable(u.Login), u.Role)
	return err
}

func (c *cli) userList() error {
	us := []coord.UserInfo{}
	if err := c.get(coord.AdminUserList, &us); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(us)
	}
	var rows [][]string
	for _, u := range us {
		rows = append(rows, []string{u.Login, u.Role, fmt.Sprint(u.Nodes)})
	}
	return c.table("LOGIN ROLE NODES", rows)
}

func (c *cli) userRemove(login string) error {
	var r coord.UserRemoved
	if err := c.post(coord.AdminUserRemove, coord.UserRequest{Login: login}, &r); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(r)
	}
	_, err := fmt.Fprintf(c.out, "%s is removed, and %d nodes with them\n", printable(r.Login), r.Nodes)
	return err
}

// keyCreate prints the token and nothing else, so that it can go into a file.
func (c *cli) keyCreate(r coord.KeyRequest) error {
	var k coord.KeyInfo
	if err := c.post(coord.AdminKeyCreate, r, &k); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(k)
	}
	_, err := fmt.Fprintln(c.out, k.Token)
	return err
}

func (c *cli) keyList() error {
	ks := []coord.KeyInfo{}
	if err := c.get(coord.AdminKeyList, &ks); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(ks)
	}
	var rows [][]string
	for _, k := range ks {
		var kind []string
		if k.Reusable {
			kind = append(kind, "reusable")
		}
		if k.Ephemeral {
			kind = append(kind, "ephemeral")
		}
		if k.Suffix {
			kind = append(kind, "suffix")
		}
		rows = append(rows, []string{k.ID, k.User + strings.Join(k.Tags, ","), strings.Join(kind, ","), when(k.Expires), fmt.Sprint(k.Uses)})
	}
	return c.table("ID FOR KIND EXPIRES USES", rows)
}

func (c *cli) nodeList() error {
	ns := []coord.NodeInfo{}
	if err := c.get(coord.AdminNodeList, &ns); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(ns)
	}
	var rows [][]string
	for _, n := range ns {
		var addrs []string
		for _, a := range n.Addresses {
			addrs = append(addrs, a.String())
		}
		state := "last seen " + when(n.Seen)
		switch {
		case n.Expired:
			state = "expired"
		case n.Online:
			state = "connected"
		}
		rows = append(rows, []string{n.Name, n.User + strings.Join(n.Tags, ","), strings.Join(addrs, " "), state, when(n.Expires)})
	}
	return c.table("NAME OWNER ADDRESSES STATE EXPIRES", rows)
}

// name is a verb whose one argument names something.
func (c *cli) name(path, name, done string) error {
	var r coord.NameRequest
	if err := c.post(path, coord.NameRequest{Name: name}, &r); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(r)
	}
	_, err := fmt.Fprintf(c.out, done+"\n", printable(name))
	return err
}

func (c *cli) audit(since, host string) error {
	q := url.Values{}
	if host != "" {
		q.Set("host", host)
	}
	if since != "" {
		t, err := parseSince(since, time.Now())
		if err != nil {
			return err
		}
		q.Set("since", t.Format(time.RFC3339))
	}
	return c.auditLines(q, func(line []byte) error {
		if c.json {
			_, err := fmt.Fprintf(c.out, "%s\n", line)
			return err
		}
		var r audit.Record
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.out, printable(auditLine(r)))
		return err
	})
}

// auditLine is an entry for people: when, what, who, and whatever else there is.
func auditLine(r audit.Record) string {
	e := r.Entry
	p := []string{e.Time.UTC().Format("2006-01-02 15:04:05Z"), e.Kind}
	host, claims, received := e.Host, "", ""
	if r.FromID != "" {
		// Whose line it is counts, not what it says.
		if host = r.From; e.Host != "" && e.Host != host {
			claims = e.Host
		}
		if late := r.Received.Sub(e.Time).Abs(); late > time.Minute {
			received = r.Received.UTC().Format("2006-01-02T15:04:05Z")
		}
	}
	for _, f := range []struct{ k, v string }{{"who", e.Who}, {"node", e.Node}, {"host", host}, {"says-host", claims}, {"received", received}, {"user", e.LocalUser}, {"session", e.Session}, {"verdict", e.Verdict}, {"rule", e.Rule}} {
		if f.v != "" {
			p = append(p, f.k+"="+quoted(f.v))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(e.Extra)) {
		p = append(p, k+"="+quoted(e.Extra[k]))
	}
	if e.Text != "" {
		p = append(p, quoted(e.Text))
	}
	return strings.Join(p, " ")
}

func quoted(s string) string {
	if strings.ContainsAny(s, " \"=\n") {
		return fmt.Sprintf("%q", s)
	}
	return s
}

func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04Z")
}

// parseDuration knows days beside what Go knows.
func parseDuration(s string) (time.Duration, error) {
	var days int
	if n, err := fmt.Sscanf(s, "%dd", &days); err == nil && n == 1 && s == fmt.Sprintf("%dd", days) {
		return time.Duration(days) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a duration like 90m, 24h or 7d", printable(s))
	}
	return d, nil
}

// parseSince reads a time, a day, or how long ago.
func parseSince(s string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	d, err := parseDuration(s)
	if err != nil {
		return time.Time{}, usageError{fmt.Sprintf("audit: --since %q is not a time: 2026-01-31, 2026-01-31T12:00:00Z, 24h or 7d", printable(s))}
	}
	return now.Add(-d), nil
}
