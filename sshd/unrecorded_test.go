package sshd_test

import (
	"strings"
	"testing"

	"tssh/policy"
)

// TestUnrecordedAreListed: sessions that are not recorded are listed, by whatever they are not, and can be ended; recorded
// ones are not among them.
func TestUnrecordedAreListed(t *testing.T) {
	for name, c := range map[string]struct {
		fields string
		listed bool
	}{"off": {`"record":"off",`, true}, "required": {"", false}} {
		p, r := newInProcessUnder(t, true, strings.Replace(usual(), `"users":`, c.fields+`"users":`, 1))
		cl, _, err := p.dial(t, account(t).Username)
		if err != nil {
			t.Fatal(err)
		}
		run := start(t, cl, true, "echo $$; exec sleep 300")
		pid := pidOf(r, run)
		open := p.Unrecorded()
		if (len(open) == 1) != c.listed {
			t.Fatalf("%s: %+v", name, open)
		}
		if !c.listed {
			continue
		}
		o := open[0]
		if o.ID != p.Sessions()[0].ID || o.Src.User != "alice@example.com" || o.Src.Name != "laptop" || string(o.LocalUser) != account(t).Username || o.Start.IsZero() || o.Why != "" || o.SrcAddr.String() != "100.64.0.2" {
			t.Errorf("%+v", o)
		}
		if err := p.End(o.ID, policy.Identity{ID: "n9", Name: "desk", User: "root@example.com", Role: policy.RoleAdmin}, "enough"); err != nil {
			t.Fatal(err)
		}
		<-run.done
		r.until("the program ends", func() bool { return !alive(pid) })
		r.until("nothing is listed", func() bool { return len(p.Unrecorded()) == 0 })
	}
}
