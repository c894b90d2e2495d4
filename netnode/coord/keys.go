package coord

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"tssh/netnode/netmap"
	"tssh/policy"
	"tssh/recording/audit"
)

// Refusal is an answer that is not yes, in words for the person who asked.
type Refusal struct {
	Code string // as in netmap.Problem
	Say  string
}

func (r *Refusal) Error() string { return r.Say }

func refuse(code, format string, args ...any) error {
	return &Refusal{Code: code, Say: fmt.Sprintf(format, args...)}
}

// Codes of Refusal that only administrators get.
const (
	CodeNotFound = "not-found"
	CodeExists   = "exists"
	CodePolicy   = "policy"
	CodeChanged  = "changed"
)

// KeyRequest asks for an auth key.
type KeyRequest struct {
	User      string        `json:"user,omitempty"` // or Tags
	Tags      []string      `json:"tags,omitempty"`
	Reusable  bool          `json:"reusable,omitempty"`
	Ephemeral bool          `json:"ephemeral,omitempty"`
	Suffix    bool          `json:"suffix,omitempty"` // a name that is taken becomes NAME-2, and so on
	Relay     bool          `json:"relay,omitempty"`  // for a relay that stands alone; neither User nor Tags
	Expiry    time.Duration `json:"expiry,omitempty"` // 0: 24 h
	// NodeExpiry is how long nodes that come in with it are members; 0: as the hub has it for
	// people, for ever for machines; negative: for ever.
	NodeExpiry time.Duration `json:"node_expiry,omitempty"`
}

// KeyInfo is an auth key as it may be shown. Token is there only when it was made just now.
type KeyInfo struct {
	ID        string    `json:"id"`
	Token     string    `json:"token,omitempty"`
	User      string    `json:"user,omitempty"`
	Tags      []string  `json:"tags,omitempty"`
	Reusable  bool      `json:"reusable"`
	Ephemeral bool      `json:"ephemeral"`
	Suffix    bool      `json:"suffix,omitempty"`
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires"`
	Uses      int       `json:"uses"`
}

// CreateKey makes an auth key. The token in the answer is the only copy there is.
func (s *Server) CreateKey(ctx context.Context, who string, r KeyRequest) (KeyInfo, error) {
	k := &authKey{Reusable: r.Reusable, Ephemeral: r.Ephemeral, Suffix: r.Suffix, NodeExpiry: r.NodeExpiry}
	if r.Relay && (r.User != "" || len(r.Tags) > 0 || r.Ephemeral) {
		return KeyInfo{}, refuse(netmap.CodeBad, "a key for a relay is for nothing else")
	}
	if r.Relay {
		k.Tags = []policy.Tag{netmap.RelayTag}
	} else if (r.User != "") == (len(r.Tags) > 0) {
		return KeyInfo{}, refuse(netmap.CodeBad, "a key is for a person (--user) or for tagged machines (--tag), one of the two")
	}
	for _, t := range r.Tags {
		tag, err := policy.ParseTag(t)
		if err != nil {
			return KeyInfo{}, refuse(netmap.CodeBad, "%s", strings.TrimPrefix(err.Error(), "policy: "))
		}
		if tag == netmap.HubTag {
			return KeyInfo{}, refuse(netmap.CodeBad, "%s is the hub's own tag", tag)
		}
		if tag == netmap.RelayTag {
			return KeyInfo{}, refuse(netmap.CodeBad, "%s is for relays: tsshub key create --relay", tag)
		}
		if !slices.Contains(k.Tags, tag) {
			k.Tags = append(k.Tags, tag)
		}
	}
	slices.Sort(k.Tags)
	k.User = policy.Login(r.User)
	switch {
	case r.NodeExpiry > maxValidity:
		return KeyInfo{}, refuse(netmap.CodeBad, "a membership lasts ten years at most, or for ever, not %s", r.NodeExpiry)
	case r.Expiry < 0 || r.Expiry > maxKeyLife:
		return KeyInfo{}, refuse(netmap.CodeBad, "a key lives from a moment to a year, not %s", r.Expiry)
	case r.Expiry == 0:
		r.Expiry = 24 * time.Hour
	case len(k.Tags) > 16:
		return KeyInfo{}, refuse(netmap.CodeBad, "at most 16 tags")
	}
	return s.createKey(ctx, who, k, r.Expiry, s.c.Host)
}

// HubToken makes a key that lets the hub's own node in, once and soon. host is where
// this process is reached from itself.
func (s *Server) HubToken(ctx context.Context, host string) (netmap.Token, error) {
	info, err := s.createKey(ctx, "hub", &authKey{Tags: []policy.Tag{netmap.HubTag}}, 5*time.Minute, host)
	if err != nil {
		return netmap.Token{}, err
	}
	return netmap.ParseToken(info.Token)
}

func (s *Server) createKey(ctx context.Context, who string, k *authKey, life time.Duration, host string) (KeyInfo, error) {
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return KeyInfo{}, fmt.Errorf("coord: %w", err)
	}
	text := base64.RawURLEncoding.EncodeToString(secret[:])
	k.hash = hashKey(text)
	k.ID = k.hash[:12]
	err := s.change(ctx, func(c *change) error {
		if k.User != "" && s.st.users[k.User] == nil {
			return refuse(CodeNotFound, "there is no user %s", k.User)
		}
		k.Created, k.Expires = c.now, c.now.Add(life)
		if err := c.putKey(k); err != nil {
			return err
		}
		return c.audit(audit.Entry{Kind: "key.create", Who: who, Text: k.owner(), Extra: map[string]string{
			"key": k.ID, "expires": k.Expires.UTC().Format(time.RFC3339), "reusable": fmt.Sprint(k.Reusable), "ephemeral": fmt.Sprint(k.Ephemeral), "suffix": fmt.Sprint(k.Suffix), "node_expiry": k.NodeExpiry.String(),
		}})
	})
	if err != nil {
		return KeyInfo{}, err
	}
	s.drainAudit(ctx)
	info := k.info()
	info.Token = netmap.Token{Host: host, AuthKey: text, Pin: s.c.Key.Public()}.String()
	return info, nil
}

func hashKey(text string) string {
	h := sha256.Sum256([]byte("tssh auth key\x00" + text))
	return hex.EncodeToString(h[:])
}

func (k *authKey) owner() string {
	if k.User != "" {
		return string(k.User)
	}
	return strings.Join(tagNames(k.Tags), ",")
}

func tagNames(tags []policy.Tag) []string {
	var out []string
	for _, t := range tags {
		out = append(out, string(t))
	}
	return out
}

func (k *authKey) info() KeyInfo {
	return KeyInfo{ID: k.ID, User: string(k.User), Tags: tagNames(k.Tags), Reusable: k.Reusable, Ephemeral: k.Ephemeral, Suffix: k.Suffix, Created: k.Created, Expires: k.Expires, Uses: k.Uses}
}

func (c *change) putKey(k *authKey) error {
	if err := c.putJSON(kindKey, k.hash, k); err != nil {
		return err
	}
	c.after = append(c.after, func(st *state) { st.keys[k.hash] = k })
	return nil
}

func (c *change) removeKey(k *authKey) error {
	if err := c.tx.remove(kindKey, k.hash); err != nil {
		return err
	}
	c.after = append(c.after, func(st *state) { delete(st.keys, k.hash) })
	return nil
}

// Keys lists the auth keys that still let somebody in.
func (s *Server) Keys() []KeyInfo {
	now := s.c.Clock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := []KeyInfo{}
	for _, k := range s.st.keys {
		if now.Before(k.Expires) && (k.Reusable || k.Uses == 0) {
			out = append(out, k.info())
		}
	}
	slices.SortFunc(out, func(a, b KeyInfo) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

// RevokeKey ends an auth key. Nodes that came in with it stay.
func (s *Server) RevokeKey(ctx context.Context, who, id string) error {
	err := s.change(ctx, func(c *change) error {
		for _, k := range s.st.keys {
			if k.ID != id {
				continue
			}
			if err := c.removeKey(k); err != nil {
				return err
			}
			return c.audit(audit.Entry{Kind: "key.revoke", Who: who, Text: k.owner(), Extra: map[string]string{"key": k.ID}})
		}
		return refuse(CodeNotFound, "there is no key %q", id)
	})
	s.drainAudit(ctx)
	return err
}
