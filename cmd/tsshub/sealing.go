package main

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"tssh/netnode/coord"
	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
)

// sealGrace is how long after a change of the policy a recording may still begin as the one before
// says: hosts that are connected have a new one within a second or two.
const sealGrace = 30 * time.Second

// sealing says what is wrong with whom a recording is sealed to, by the policy in force; "" is nothing. The
// recipients that a recording names are its host's word: whether the key is sealed to them only they can find out.
func (r *rooms) sealing(m recording.Meta, to []string) string {
	why := sealedWrong(r.cfg.Mesh.Policy().SealTo(), m.Sealed, to)
	if why == "" {
		return ""
	}
	since, before := r.cfg.Mesh.Before()
	if time.Since(since) < sealGrace && sealedWrong(before, m.Sealed, to) == "" {
		return ""
	}
	if !m.Sealed && m.Start.Before(since) {
		why += " (its host says that it began before this policy was there)"
	}
	return why
}

// membersOf are those of the hub itself.
func membersOf(c *coord.Server, log *slog.Logger) members {
	return members{ByKey: c.NodeByControlKey, Node: c.Node, Named: c.Named, Policy: c.Policy, Before: func() (time.Time, []string) {
		versions := c.PolicyLog()
		if len(versions) == 0 {
			return time.Time{}, nil
		}
		return versions[0].Time, sealedBefore(c, versions[1:], log)
	}}
}

// sealedBefore is whom the newest of these versions of the policy has recordings sealed to.
func sealedBefore(c *coord.Server, versions []coord.PolicyVersion, log *slog.Logger) []string {
	if len(versions) == 0 {
		return nil
	}
	v, err := c.PolicyAt(context.Background(), versions[0].Rev)
	if err != nil {
		log.Error("the policy before", "rev", versions[0].Rev, "err", err)
		return nil
	}
	p, _ := policy.Parse(v.Name, []byte(v.Text))
	return p.SealTo() // nobody of one that does not parse any more
}

func sealedWrong(want []string, sealed bool, to []string) string {
	switch {
	case len(want) == 0:
		return ""
	case !sealed:
		return "not sealed, though the policy asks for it"
	case len(to) == 0:
		return "" // it does not say yet, and has nothing in it
	}
	for _, w := range want {
		if !slices.Contains(to, w) {
			return "not sealed to all whom the policy names"
		}
	}
	return ""
}

// limited audits that a host has used up its share of the recorder.
func (r *rooms) limited(host, limit, say string) {
	name := host
	if n, ok := r.cfg.Mesh.Node(host); ok {
		name = n.Name
	}
	if err := r.cfg.Audit(audit.Entry{Time: time.Now(), Kind: "recording.limit", Who: name, Node: name, Host: name, Verdict: "deny", Text: say, Extra: map[string]string{"limit": limit}}); err != nil {
		r.cfg.Log.Error("audit", "err", err)
	}
}

// marked audits it, once of each recording.
func (r *rooms) marked(m recording.Meta, why string) {
	err := r.cfg.Audit(audit.Entry{Time: time.Now(), Kind: "recording.unsealed", Who: m.Host, Node: m.Host, Host: m.Host, LocalUser: m.LocalUser, Session: m.ID, Text: why,
		Extra: map[string]string{"person": m.Login, "start": m.Start.UTC().Format(time.RFC3339)}})
	if err != nil {
		r.cfg.Log.Error("audit", "err", err)
	}
}
