package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"tssh/netnode/localapi"
)

// flags of a verb: before and after its arguments.
type flags struct {
	*flag.FlagSet
	rest []string
}

func (a *app) flags(verb string) *flags {
	f := &flags{FlagSet: flag.NewFlagSet("tssh "+verb, flag.ContinueOnError)}
	f.SetOutput(io.Discard)
	return f
}

// parse wants between least and most arguments; most < 0 is any number.
func (f *flags) parse(args []string, least, most int, form string) error {
	for len(args) > 0 {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return &mistake{words: "usage: tssh " + form, status: statusUsage}
			}
			return usage("%v", err).withHint("tssh " + form)
		}
		left := f.Args()
		if n := len(args) - len(left); n > 0 && args[n-1] == "--" {
			f.rest = append(f.rest, left...)
			break
		}
		if args = left; len(args) > 0 {
			f.rest, args = append(f.rest, args[0]), args[1:]
		}
	}
	if len(f.rest) < least || most >= 0 && len(f.rest) > most {
		return usage("wrong number of arguments").withHint("tssh " + form)
	}
	return nil
}

func addresses(n localapi.Node) string {
	s := make([]string, len(n.Addrs))
	for i, x := range n.Addrs {
		s[i] = x.String()
	}
	return strings.Join(s, " ")
}

func (a *app) status(ctx context.Context, args []string) error {
	f := a.flags("status")
	asJSON := f.Bool("json", false, "")
	metrics := f.Bool("metrics", false, "")
	if err := f.parse(args, 0, 0, "status [--json | --metrics]"); err != nil {
		return err
	}
	if *metrics {
		c, _, err := a.node(ctx, false)
		if err != nil {
			return err
		}
		return c.Metrics(ctx, a.out)
	}
	_, st, err := a.node(ctx, false)
	if err != nil {
		return err
	}
	if st.Peers == nil {
		st.Peers = []localapi.Peer{}
	}
	if *asJSON {
		return a.printJSON(st)
	}
	fmt.Fprintf(a.out, "state:     %s\n", st.State)
	if st.State == localapi.StateNotJoined {
		return nil
	}
	// A node that is down knows only what it is called.
	fmt.Fprintf(a.out, "node:      %s", oneLine(st.Self.Name))
	if who := st.Self.Who(); who != "" {
		fmt.Fprintf(a.out, " (%s)", oneLine(who))
	}
	if len(st.Self.Addrs) > 0 {
		fmt.Fprintf(a.out, "\naddresses: %s", addresses(st.Self))
	}
	fmt.Fprintf(a.out, "\nmesh:      %s\n", oneLine(st.Mesh))
	if words := outside(st.State); words != "" {
		fmt.Fprintf(a.out, "problem:   %s\n", words)
		return nil
	}
	online := "not connected; paths and rights stay as they were last known"
	if st.HubOnline {
		online = "connected"
	}
	fmt.Fprintf(a.out, "hub:       %s, %s\n", oneLine(st.Hub), online)
	if st.Userspace {
		fmt.Fprintln(a.out, "network:   in the node itself; other programs reach the mesh through tssh (tssh config --install, tssh proxy)")
	}
	if st.HomeRelay != "" {
		fmt.Fprintf(a.out, "relay:     %s, where others reach this node when there is no direct path\n", oneLine(st.HomeRelay))
	}
	if st.Names != "" {
		fmt.Fprintf(a.out, "names:     %s\n", oneLine(st.Names))
	}
	talking := 0
	for _, p := range st.Peers {
		if p.Path != "" || p.Relay != "" {
			talking++
		}
	}
	fmt.Fprintf(a.out, "peers:     %d, talking to %d\n", len(st.Peers), talking)
	for _, p := range st.Peers {
		if p.Path == "" && p.Relay == "" {
			continue
		}
		how := "relay " + p.Relay
		if p.Path != "" {
			how = fmt.Sprintf("direct %s, %s ms", p.Path, millis(p.LatencyMS))
		}
		seen := "never"
		if !p.LastHandshake.IsZero() {
			seen = time.Since(p.LastHandshake).Round(time.Second).String() + " ago"
		}
		fmt.Fprintf(a.out, "  %s: %s, handshake %s, %d bytes in, %d out\n", oneLine(p.Name), oneLine(how), seen, p.RxBytes, p.TxBytes)
	}
	if len(st.Recorders) > 0 {
		var names []string
		for _, r := range st.Recorders {
			names = append(names, oneLine(r.Name))
		}
		fmt.Fprintf(a.out, "recorders: %s\n", strings.Join(names, ", "))
	}
	if words := drops(st.Drops); words != "" {
		fmt.Fprintf(a.out, "dropped:   %s\n", words)
	}
	a.notices(st.Notices)
	if words := membership(st.Expires, time.Now()); words != "" {
		fmt.Fprintf(a.out, "expires:   %s\n", words)
	}
	if !st.KeysSince.IsZero() {
		fmt.Fprintf(a.out, "keys:      since %s\n", st.KeysSince.Local().Format("2 January 2006 15:04"))
	}
	if st.Problem != "" {
		fmt.Fprintf(a.out, "problem:   %s\n", oneLine(st.Problem))
	}
	return nil
}

// notices says what on this host is in the way of the mesh.
func (a *app) notices(all []localapi.Notice) {
	for _, n := range all {
		fmt.Fprintf(a.out, "warning:   %s\n", oneLine(n.Words))
		if n.Mend != "" {
			fmt.Fprintf(a.out, "  mend:    %s\n", oneLine(n.Mend))
		}
	}
}

// dropReasons are the reasons that mean something to a person, with what they mean.
var dropReasons = []struct{ reason, words string }{
	{"denied", "that the policy does not allow"},
	{"no-peer", "from or to addresses that are no peer's"},
	{"not-ours", "for other addresses of this host"},
	{"spoofed", "that this host only forwarded"},
	{"forwarded", "that containers or other computers sent through this host to the mesh's addresses"},
	{"local-users", "of local users who may not use this mesh (tsshd run --local-users)"},
	{"lan", "for the mesh address, but not from the mesh"},
	{"no-flow", "that answer to nothing"},
	{"hidden-port", "to the port behind the SSH port"},
	{"no-rules", "before this node had heard from its hub"},
	{"malformed", "that are no IP packets"},
	{"source-route", "that name their own way"},
	{"fragment", "in pieces that cannot be judged"},
	{"icmp", "of control messages about nothing that was sent"},
}

// drops says what the node did not let in, and why.
func drops(n map[string]uint64) string {
	var out []string
	for _, d := range dropReasons {
		if c := n[d.reason]; c > 0 {
			out = append(out, fmt.Sprintf("%d %s", c, d.words))
		}
	}
	if len(out) == 0 {
		return ""
	}
	return "packets: " + strings.Join(out, ", ")
}

func (a *app) list(ctx context.Context, args []string) error {
	f := a.flags("ls")
	asJSON := f.Bool("json", false, "")
	if err := f.parse(args, 0, 0, "ls [--json]"); err != nil {
		return err
	}
	_, st, err := a.ready(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(st.Peers, func(x, y localapi.Peer) int { return strings.Compare(x.Name, y.Name) })
	if *asJSON {
		if st.Peers == nil {
			st.Peers = []localapi.Peer{}
		}
		return a.printJSON(st.Peers)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\tOWNER\tADDRESS\tSSH\tPATH\tLAST SEEN")
	for _, p := range st.Peers {
		addr, ssh, path, seen := "-", "-", "-", "-"
		if len(p.Addrs) > 0 {
			addr = p.Addrs[0].String()
		}
		if p.SSH {
			ssh = "yes"
		}
		switch {
		case p.Path != "":
			path = p.Path
		case p.Relay != "":
			path = "relay " + p.Relay
		}
		if !p.LastHandshake.IsZero() {
			seen = time.Since(p.LastHandshake).Round(time.Second).String() + " ago"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", oneLine(p.Name), oneLine(p.Who()), addr, ssh, oneLine(path), seen)
	}
	return w.Flush()
}

func (a *app) whois(ctx context.Context, args []string) error {
	f := a.flags("whois")
	asJSON := f.Bool("json", false, "")
	if err := f.parse(args, 1, 1, "whois ADDR [--json]"); err != nil {
		return err
	}
	c, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	n, err := c.WhoIs(ctx, f.rest[0])
	if err != nil {
		return err
	}
	if *asJSON {
		return a.printJSON(n)
	}
	fmt.Fprintf(a.out, "node:      %s\nowner:     %s\naddresses: %s\n", oneLine(n.Name), oneLine(n.Who()), addresses(n))
	return nil
}

// instead is the next step of somebody who is not let in.
func instead(y localapi.Why) string {
	host := oneLine(y.Host)
	var ways []string
	for _, u := range y.Instead {
		ways = append(ways, "tssh "+oneLine(u)+"@"+host)
	}
	if y.Others {
		ways = append(ways, "any other account but root")
	}
	if len(ways) == 0 {
		return "nothing lets you log in on " + host + "; ask whoever keeps the policy of this mesh"
	}
	if last := len(ways) - 1; last > 0 {
		return strings.Join(ways[:last], ", ") + " or " + ways[last]
	}
	return ways[0]
}

func (a *app) why(ctx context.Context, args []string) error {
	f := a.flags("why")
	asJSON := f.Bool("json", false, "")
	login := f.String("l", "", "")
	watch := f.Bool("watch", false, "")
	if err := f.parse(args, 1, 1, "why [user@]host [--json] | why --watch ID [--json]"); err != nil {
		return err
	}
	if *watch {
		return a.whyWatch(ctx, f.rest[0], *asJSON)
	}
	t := command{user: *login}
	if err := t.target(f.rest[0]); err != nil {
		return err
	}
	c, _, err := a.ready(ctx)
	if err != nil {
		return err
	}
	user, err := a.loginName(t.user)
	if err != nil {
		return err
	}
	y, err := c.Why(ctx, localapi.WhyRequest{Host: t.host, User: user})
	if err != nil {
		return err
	}
	if *asJSON {
		err = a.printJSON(y)
	} else {
		say := oneLine(y.Say)
		if y.Verdict == "accept" {
			say = strings.TrimSpace("yes: you may log in as " + oneLine(y.User) + " on " + oneLine(y.Host) + ". " + say)
		} else if say == "" {
			say = "no: " + y.Verdict
		} else {
			say = "no: " + say
		}
		fmt.Fprintln(a.out, say)
		if y.Terms != "" {
			fmt.Fprintf(a.out, "the session: %s\n", oneLine(y.Terms))
		}
		if y.Reason != "" {
			fmt.Fprintf(a.out, "because: %s\n", oneLine(y.Reason))
		}
		if y.Verdict == "deny" {
			fmt.Fprintf(a.out, "instead: %s\n", instead(y))
		}
	}
	if err == nil && y.Verdict != "accept" {
		return &mistake{status: statusFailed} // said above
	}
	return err
}
