package replay

import (
	"slices"
	"strings"
	"time"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/live"
	"tssh/recording/store"
)

// maxUnrecorded bounds how many sessions that are not recorded one list has.
const maxUnrecorded = 500

// unrecordedJSON is a session that runs and is not recorded: that it is there, and no more.
type unrecordedJSON struct {
	ID        string    `json:"id"`
	Start     time.Time `json:"start"`
	Host      string    `json:"host"`
	Src       string    `json:"src"`
	Who       string    `json:"who"`
	LocalUser string    `json:"local_user"`
	Mine      bool      `json:"mine"`
	Why       string    `json:"why,omitempty"` // where it should be recorded
	MayEnd    bool      `json:"may_end,omitempty"`
}

// describeOpen is what is known of a session that is not recorded, as of one that is, so that the same questions can be
// asked. Whose host it is the hub knows itself, and whose the peer is where it has that node; where the
// host says otherwise it is not believed at all.
func (c *Config) describeOpen(o *live.Running) (store.Summary, bool) {
	host, ok := c.Node(o.Host)
	if !ok || !recording.ValidID(o.Session) || !recording.OfHost(o.Session, o.Host) {
		return store.Summary{}, false
	}
	if src, known := c.Node(o.Of.ID); known && (string(src.User) != o.Of.Login || !slices.Equal(sorted(src.Tags), slices.Sorted(slices.Values(o.Of.Tags)))) {
		return store.Summary{}, false
	}
	m := recording.Meta{ID: o.Session, Start: o.Since, Host: host.Name, HostID: host.ID, HostTags: sorted(host.Tags), Src: o.Of.Node, SrcID: o.Of.ID, SrcAddr: o.Addr,
		Login: o.Of.Login, Role: o.Of.Role, SrcTags: o.Of.Tags, LocalUser: o.LocalUser, UID: o.UID}
	if len(host.Tags) == 0 {
		m.HostUser = string(host.User)
	}
	return store.Summary{Meta: m, Live: true}, true
}

func sorted(tags []policy.Tag) []string {
	var out []string
	for _, t := range tags {
		out = append(out, string(t))
	}
	slices.Sort(out)
	return out
}

// open is a session that runs and is not recorded, or not any more.
func (c *Config) open(session string) (store.Summary, bool) {
	if c.Live == nil || c.Node == nil {
		return store.Summary{}, false
	}
	for _, o := range c.Live.Open() {
		if o.Session == session {
			return c.describeOpen(&o)
		}
	}
	return store.Summary{}, false
}

// Unrecorded is a session that runs and is not recorded; Why says why, where it should be.
type Unrecorded struct {
	store.Summary
	Why string
}

// Open lists the sessions that run and are not recorded and in which all of words occur, of which may says yes.
func Open(c Config, words string, may func(*store.Summary) bool) []Unrecorded {
	if c.Live == nil || c.Node == nil {
		return nil
	}
	var out []Unrecorded
	for _, o := range c.Live.Open() {
		s, ok := c.describeOpen(&o)
		if !ok || !s.Has(words) || !may(&s) {
			continue
		}
		if out = append(out, Unrecorded{s, o.Why}); len(out) == maxUnrecorded {
			break
		}
	}
	return out
}

// unrecorded is what the list has of them: what one may watch, if it were recorded, or end.
func (v *Viewer) unrecorded(id policy.Identity, words string, fits func(*store.Summary) bool) []unrecordedJSON {
	p, now := v.cfg.Policy(), v.cfg.Clock()
	mayEnd := func(s *store.Summary) bool { return mayOver(p, policy.AskEnd, id, s, now).Verdict == policy.Accept }
	var out []unrecordedJSON
	for _, u := range Open(v.cfg, words, func(s *store.Summary) bool { return fits(s) && (v.may(p, id, s).Verdict == policy.Accept || mayEnd(s)) }) {
		m := &u.Meta
		out = append(out, unrecordedJSON{ID: m.ID, Start: m.Start, Host: m.Host, Src: m.Src, Who: person(&u.Summary), LocalUser: m.LocalUser, Mine: mine(id, &u.Summary),
			Why: strings.TrimSpace(oneLine(u.Why)), MayEnd: mayEnd(&u.Summary)})
	}
	return out
}
