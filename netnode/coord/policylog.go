package coord

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"tssh/netnode/netmap"
	"tssh/policy"
	"tssh/recording/audit"
)

// kindVersion is a policy that is or was in force: its id is the revision.
const kindVersion = "policyversion"

// versionsKept is how many versions of the policy can be shown and put back.
const versionsKept = 100

// PolicyVersion is one version of the policy, the newest the one in force.
type PolicyVersion struct {
	Rev    int64     `json:"rev"`
	Time   time.Time `json:"time"`
	Who    string    `json:"who"`
	Name   string    `json:"name"` // of the file
	Bytes  int       `json:"bytes"`
	SHA256 string    `json:"sha256"`
	Text   string    `json:"text,omitempty"` // kept in the database only
}

// keepPolicy writes the version that is now in force and forgets the oldest.
func (c *change) keepPolicy(who, name, text string) error {
	v := PolicyVersion{Rev: c.rev, Time: c.now, Who: who, Name: name, Bytes: len(text), SHA256: sum([]byte(text)), Text: text}
	if err := c.putJSON(kindVersion, strconv.FormatInt(v.Rev, 10), v); err != nil {
		return err
	}
	kept := c.s.st.versions
	if former := c.s.st.policyRev; len(kept) == 0 && former > 0 { // of a database from before versions were kept
		f := PolicyVersion{Rev: former, Text: string(c.s.st.view.policy.Text())}
		f.Bytes, f.SHA256 = len(f.Text), sum([]byte(f.Text))
		if err := c.putJSON(kindVersion, strconv.FormatInt(former, 10), f); err != nil {
			return err
		}
		f.Text = ""
		kept = append(kept, f)
	}
	for len(kept) >= versionsKept {
		if err := c.tx.remove(kindVersion, strconv.FormatInt(kept[0].Rev, 10)); err != nil {
			return err
		}
		kept = kept[1:]
	}
	v.Text = ""
	kept = append(slices.Clone(kept), v)
	c.after = append(c.after, func(st *state) { st.versions = kept })
	return nil
}

// readVersion takes a version out of the database, without its text.
func (s *state) readVersion(o object) error {
	var v PolicyVersion
	if err := json.Unmarshal(o.body, &v); err != nil {
		return fmt.Errorf("coord: database: policy version %s: %w", o.id, err)
	}
	v.Text = ""
	i, _ := slices.BinarySearchFunc(s.versions, v, func(a, b PolicyVersion) int { return int(a.Rev - b.Rev) })
	s.versions = slices.Insert(s.versions, i, v)
	return nil
}

// PolicyLog is the versions that are kept, the newest first.
func (s *Server) PolicyLog() []PolicyVersion {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := slices.Clone(s.st.versions)
	slices.Reverse(out)
	return out
}

// PolicyAt is one version with its text.
func (s *Server) PolicyAt(ctx context.Context, rev int64) (PolicyVersion, error) {
	var v PolicyVersion
	err := s.store.each(ctx, `SELECT body FROM obj WHERE kind = ? AND id = ?`, func(scan func(...any) error) error {
		var body []byte
		if err := scan(&body); err != nil {
			return err
		}
		return json.Unmarshal(body, &v)
	}, kindVersion, strconv.FormatInt(rev, 10))
	if err != nil {
		return PolicyVersion{}, err
	}
	if v.Rev == 0 {
		return PolicyVersion{}, refuse(CodeNotFound, "there is no policy of revision %d; tsshub policy log lists them", rev)
	}
	return v, nil
}

// Directory is the people and machines of the mesh, as policies are tried on them.
func (s *Server) Directory() (*policy.Directory, error) { return s.directory() }

// DiffPolicy tells who would gain and lose what if text became the policy.
func (s *Server) DiffPolicy(name string, text []byte) ([]policy.Change, error) {
	next, problems := policy.Parse(name, text)
	if next == nil {
		return nil, refuse(CodePolicy, "%s", problems[0].Error())
	}
	d, err := s.directory()
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	old := s.st.view.policy
	s.mu.RUnlock()
	out := policy.Diff(old, next, d)
	if out == nil {
		out = []policy.Change{}
	}
	return out, nil
}

// lockouts warns of machines that no administrator, or not the editor, could log in to any more.
func (s *Server) lockouts(name string, next *policy.Policy, d *policy.Directory, e Editor) []string {
	s.mu.RLock()
	old := s.st.view.policy
	s.mu.RUnlock()
	var out []string
	if hosts := policy.LockedOut(old, next, d); len(hosts) > 0 {
		out = append(out, fmt.Sprintf("%s: warning: no administrator could log in on %s any more", name, policy.Few(hosts)))
	}
	return append(out, selfLockouts(name, old, next, d, e)...)
}

// maxBehind bounds how many hosts are named as too old.
const maxBehind = 20

// behind names the hosts that are there now and could not enforce the policy. One that is
// away and comes back too old to read it lets nobody do anything.
func (s *Server) behind(name string, next *policy.Policy) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []string
	for id, t := range s.streams {
		n := s.st.nodes[id]
		if n == nil {
			continue
		}
		if missing := next.Missing(t.says); len(missing) > 0 {
			out = append(out, fmt.Sprintf("%s: %s cannot enforce %s: upgrade it first", name, n.rec.Name, policy.Few(missing)))
		}
	}
	slices.Sort(out)
	if more := len(out) - maxBehind; more > 0 {
		out = append(out[:maxBehind], fmt.Sprintf("%s: and %d more hosts", name, more))
	}
	return out
}

// putPolicy puts a policy that was checked in force, unless it is no longer the one that
// its author started from; 0 does not ask.
func (s *Server) putPolicy(ctx context.Context, who, name string, text []byte, ifMatch int64) (rev int64, err error) {
	err = s.change(ctx, func(c *change) error {
		if ifMatch != 0 && ifMatch != s.st.policyRev {
			return refuse(CodeChanged, "the policy is at revision %d by now, not %d: see what changed with tsshub policy log and diff, then try again", s.st.policyRev, ifMatch)
		}
		if bytes.Equal(text, s.st.view.policy.Text()) {
			rev = s.st.policyRev
			return nil
		}
		if err := c.put(&netmap.Policy{Header: netmap.Header{Kind: netmap.KindPolicy, ID: "policy"}, Text: string(text)}); err != nil {
			return err
		}
		if err := c.keepPolicy(who, name, string(text)); err != nil {
			return err
		}
		rev = c.rev
		return c.audit(audit.Entry{Kind: "policy.set", Who: who, Text: name, Extra: map[string]string{
			"rev": fmt.Sprint(c.rev), "former": fmt.Sprint(s.st.policyRev), "bytes": fmt.Sprint(len(text)), "sha256": sum(text),
		}})
	})
	s.drainAudit(ctx)
	return rev, err
}
