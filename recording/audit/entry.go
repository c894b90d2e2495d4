package audit

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of one entry. A field that is longer is cut and says so: an audit line that is
// refused because an attacker made it long would be worse than a short one.
const (
	maxField    = 2 << 10 // bytes of one string
	maxExtra    = 32      // keys in Extra
	maxKey      = 64      // bytes of a key in Extra
	maxLine     = 1 << 20 // bytes of one line when read; more than any written line can have
	cutReminder = "... (cut, %d bytes)"
)

// Entry is one thing that happened. Kind is required; all else is what applies.
type Entry struct {
	Time      time.Time `json:"time"`              // by the clock of the writer; zero means now
	HubTime   time.Time `json:"hub_time,omitzero"` // by the hub's clock, where the writer's may be wrong
	Kind      string    `json:"kind"`              // "login", "policy.set", "recording.view", ...
	Who       string    `json:"who,omitempty"`     // the person, or the tags of a machine
	Node      string    `json:"node,omitempty"`    // the node it came from
	Host      string    `json:"host,omitempty"`    // the node it was about
	LocalUser string    `json:"local_user,omitempty"`
	Session   string    `json:"session,omitempty"` // id of the session and of its recording
	Verdict   string    `json:"verdict,omitempty"`
	Rule      string    `json:"rule,omitempty"`
	Text      string    `json:"text,omitempty"`

	Extra map[string]string `json:"extra,omitempty"`
}

// bounded returns e with every string at most maxField bytes and Extra at most maxExtra keys.
func (e Entry) bounded() Entry {
	for _, s := range []*string{&e.Kind, &e.Who, &e.Node, &e.Host, &e.LocalUser, &e.Session, &e.Verdict, &e.Rule, &e.Text} {
		*s = cut(*s, maxField)
	}
	if len(e.Extra) == 0 {
		return e
	}
	extra := make(map[string]string, len(e.Extra))
	for k, v := range e.Extra {
		if len(extra) == maxExtra {
			extra["..."] = fmt.Sprintf("%d more keys not kept", len(e.Extra)-maxExtra)
			break
		}
		extra[cut(k, maxKey)] = cut(v, maxField)
	}
	e.Extra = extra
	return e
}

// cut shortens s to about n bytes without dividing a rune.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	end := n
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + fmt.Sprintf(cutReminder, len(s))
}

// Filter chooses entries. The zero Filter chooses all.
type Filter struct {
	Since   time.Time // not before
	Until   time.Time // before; zero means no end
	Kind    string    // this kind, or kinds below it: "policy" also means "policy.set"
	Who     string
	Session string
	Host    string // what it was about, or came from
}

// Match reports whether e is chosen.
func (f Filter) Match(e Entry) bool {
	switch {
	case !f.Since.IsZero() && e.Time.Before(f.Since):
		return false
	case !f.Until.IsZero() && !e.Time.Before(f.Until):
		return false
	case f.Kind != "" && e.Kind != f.Kind && !strings.HasPrefix(e.Kind, f.Kind+"."):
		return false
	case f.Who != "" && e.Who != f.Who:
		return false
	case f.Host != "" && e.Host != f.Host && e.Node != f.Host:
		return false
	case f.Session != "" && e.Session != f.Session:
		return false
	}
	return true
}
