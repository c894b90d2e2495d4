package netmap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"tssh/policy"
)

// Kind says what a record is about.
type Kind string

const (
	KindMesh       Kind = "mesh"
	KindNode       Kind = "node"
	KindUser       Kind = "user"
	KindPolicy     Kind = "policy"
	KindRevocation Kind = "revocation"
	// KindSuccession records are asked for, never part of the stream.
	KindSuccession Kind = "succession"
	KindRelays     Kind = "relays"
)

// Ref names a record.
type Ref struct {
	Kind Kind   `json:"kind"`
	ID   string `json:"id"`
}

// Header begins every record. Being signed with the rest it binds the record to one
// mesh, one thing and one revision: it cannot pass as another, nor as newer than it is.
type Header struct {
	Mesh string `json:"mesh"` // id of the mesh
	Kind Kind   `json:"kind"`
	ID   string `json:"id"`
	Rev  int64  `json:"rev"`
	// Extra are fields that this version does not know. They are kept when the record is
	// written again.
	Extra map[string]json.RawMessage `json:"-"`
}

func (h *Header) header() *Header { return h }

// Ref is the record's name.
func (h *Header) Ref() Ref { return Ref{h.Kind, h.ID} }

// MeshInfo is what the mesh is; its id is "mesh".
type MeshInfo struct {
	Header
	Name   string        `json:"name"`
	Range4 netip.Prefix  `json:"range4"`
	Range6 netip.Prefix  `json:"range6"`
	HubKey ControlPublic `json:"hub_key"`
	// Hubs are the hub's addresses, host:port, the first one to be tried first. None: the
	// one that a node joined at.
	Hubs []string `json:"hubs,omitempty"`
	// FormerKeys are the keys that the hub had before, the oldest first.
	FormerKeys []FormerKey `json:"former_keys,omitempty"`
	Created    time.Time   `json:"created"`
}

// Node binds a machine's keys to its name, its addresses and its owner.
type Node struct {
	Header
	Name       string            `json:"name"`
	WG         WGPublic          `json:"wg"`
	Control    ControlPublic     `json:"control"`
	Addrs      []netip.Addr      `json:"addrs"`
	User       policy.Login      `json:"user,omitempty"` // or Tags, never both
	Tags       []policy.Tag      `json:"tags,omitempty"`
	From       time.Time         `json:"from"`
	Until      time.Time         `json:"until,omitzero"` // zero: for good
	HostKeys   []string          `json:"host_keys,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Created    time.Time         `json:"created"`
	Rotated    time.Time         `json:"rotated,omitzero"` // when the node last changed its keys by itself
}

// User is a person; the record's id is the login.
type User struct {
	Header
	Login policy.Login `json:"login"`
	Role  policy.Role  `json:"role"`
}

// Policy is the policy file, as its author wrote it; its id is "policy".
type Policy struct {
	Header
	Text string `json:"text"`
}

// Revocation ends a node for good, or all nodes of a person that are older than it. Its
// id is "node:" and the node's id, or "user:" and the login.
type Revocation struct {
	Header
	Node string       `json:"node,omitempty"`
	User policy.Login `json:"user,omitempty"`
	When time.Time    `json:"when"`
	// Control is the ended node's control key, by which the hub knows it should it call again.
	Control ControlPublic `json:"control,omitzero"`
}

// Relays are the relays of the mesh, in the order in which they are tried; its id is "relays".
type Relays struct {
	Header
	Relays []Relay `json:"relays"`
}

// Relay is one relay: one of ours, known by its key, or a stock derper, known by its
// certificate's hash or by its name and the public authorities.
type Relay struct {
	ID       string        `json:"id"` // what people see
	Host     string        `json:"host"`
	Port     uint16        `json:"port"`
	Addrs    []netip.Addr  `json:"addrs,omitempty"` // in place of looking Host up
	Pin      ControlPublic `json:"pin,omitzero"`
	CertHash []byte        `json:"cert_sha256,omitempty"`
	STUN     uint16        `json:"stun,omitempty"` // UDP port; 0: none
}

// Record is a verified record: exactly one of the pointers is set, none for a kind
// that this version does not know.
type Record struct {
	Header
	Envelope   Envelope
	Mesh       *MeshInfo
	Node       *Node
	User       *User
	Policy     *Policy
	Revocation *Revocation
	Succession *Succession
	Relays     *Relays
}

// Bounds of what a record may hold. Hosts check them too.
const (
	MaxHostKeys   = 8
	MaxHostKey    = 2048
	MaxAttributes = 64
	MaxAttribute  = 512
	MaxPolicy     = 256 << 10
	MaxRelays     = 64
	maxRelayID    = 32
	maxID         = 300
)

// Body is a pointer to one of the structs above.
type Body interface {
	Ref() Ref
	Stamp(mesh string, rev int64)
	header() *Header
}

// Seal signs a record whose Header is filled in.
func Seal(k ControlKey, rec Body) (Envelope, error) {
	h := rec.header()
	if h.Mesh == "" || h.Kind == "" || h.ID == "" || h.Rev <= 0 {
		return Envelope{}, errors.New("netmap: seal: header not complete")
	}
	b, err := encodeRecord(rec, h.Extra)
	if err != nil {
		return Envelope{}, fmt.Errorf("netmap: seal %s %s: %w", h.Kind, h.ID, err)
	}
	e, err := sign(k, b)
	if err != nil {
		return Envelope{}, err
	}
	// Never hand out what nobody would accept.
	if _, err := Open(e, k.Public(), h.Mesh); err != nil {
		return Envelope{}, err
	}
	return e, nil
}

// Open verifies an envelope with the hub's pinned key and takes the record out. mesh is
// the id of the mesh that the record must be of; empty accepts any, for a node that is
// only about to join.
func Open(e Envelope, pin ControlPublic, mesh string) (Record, error) {
	r := Record{Envelope: e}
	if err := e.verify(pin); err != nil {
		return Record{}, fmt.Errorf("netmap: record: %w", err)
	}
	if err := json.Unmarshal(e.Payload, &r.Header); err != nil {
		return Record{}, fmt.Errorf("netmap: record: %w", err)
	}
	if mesh != "" && r.Header.Mesh != mesh {
		return Record{}, fmt.Errorf("netmap: record %s %.80q: of another mesh", r.Kind, r.ID)
	}
	if r.Header.Mesh == "" || r.ID == "" || len(r.ID) > maxID || r.Rev <= 0 {
		return Record{}, errors.New("netmap: record: header not complete")
	}
	var err error
	switch r.Kind {
	case KindMesh:
		r.Mesh = new(MeshInfo)
		err = decodeRecord(e.Payload, r.Mesh, r.Mesh.check)
	case KindNode:
		r.Node = new(Node)
		err = decodeRecord(e.Payload, r.Node, r.Node.check)
	case KindUser:
		r.User = new(User)
		err = decodeRecord(e.Payload, r.User, r.User.check)
	case KindPolicy:
		r.Policy = new(Policy)
		err = decodeRecord(e.Payload, r.Policy, r.Policy.check)
	case KindRevocation:
		r.Revocation = new(Revocation)
		err = decodeRecord(e.Payload, r.Revocation, r.Revocation.check)
	case KindSuccession:
		r.Succession = new(Succession)
		err = decodeRecord(e.Payload, r.Succession, r.Succession.check)
	case KindRelays:
		r.Relays = new(Relays)
		err = decodeRecord(e.Payload, r.Relays, r.Relays.check)
	}
	if err != nil {
		return Record{}, fmt.Errorf("netmap: record %s %.80q: %w", r.Kind, r.ID, err)
	}
	return r, nil
}

func (m *MeshInfo) check() error {
	switch {
	case m.ID != "mesh":
		return errors.New("its id is not mesh")
	case !m.Range4.IsValid() || !m.Range4.Addr().Is4() || m.Range4.Masked() != m.Range4:
		return errors.New("no IPv4 range")
	case !m.Range6.IsValid() || !m.Range6.Addr().Is6() || m.Range6.Masked() != m.Range6:
		return errors.New("no IPv6 range")
	case !PrivateRange(m.Range4) || !PrivateRange(m.Range6):
		return fmt.Errorf("its ranges %s and %s are not private ones", m.Range4, m.Range6)
	case len(m.FormerKeys) > MaxSuccessions:
		return errors.New("too many former keys")
	}
	if err := checkHubs(m.Hubs); err != nil {
		return err
	}
	return CheckMeshName(m.Name)
}

// private reports whether a range may be a mesh's. Hosts send all that goes there into the
// mesh, so no hub, whoever has it now, may claim the internet, loopback, link-local
// addresses, or all private networks of a kind that a host could be in.
// PrivateRange reports whether the addresses of p are nobody's on the Internet. Hosts refuse a
// mesh of other ones.
func PrivateRange(p netip.Prefix) bool {
	for _, s := range []string{"100.64.0.0/10", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15"} {
		if in := netip.MustParsePrefix(s); in.Contains(p.Addr()) && p.Bits() >= in.Bits() {
			return true
		}
	}
	return netip.MustParsePrefix("fc00::/7").Contains(p.Addr()) && p.Bits() >= 32
}

func (n *Node) check() error {
	if (n.User != "") == (len(n.Tags) > 0) {
		return errors.New("it has to belong to a person or to carry tags, not both")
	}
	if n.User != "" {
		if _, err := policy.ParseLogin(string(n.User)); err != nil {
			return err
		}
	}
	for _, t := range n.Tags {
		if _, err := policy.ParseTag(string(t)); err != nil {
			return err
		}
	}
	if err := CheckName(n.Name); err != nil && !(n.Name == HubName && n.Hub()) {
		return err
	}
	if n.WG.IsZero() || n.Control.IsZero() {
		return errors.New("a key is missing")
	}
	if len(n.Addrs) == 0 || len(n.Addrs) > 4 {
		return fmt.Errorf("%d addresses", len(n.Addrs))
	}
	for _, a := range n.Addrs {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			return errors.New("an address that is none")
		}
	}
	if err := CheckHostKeys(n.HostKeys); err != nil {
		return err
	}
	return CheckAttributes(n.Attributes)
}

// Hub reports whether the node is the hub's own, which everyone sees.
func (n *Node) Hub() bool { return len(n.Tags) == 1 && n.Tags[0] == HubTag }

// Relay reports whether the node is a relay that stands alone.
func (n *Node) Relay() bool { return len(n.Tags) == 1 && n.Tags[0] == RelayTag }

func (u *User) check() error {
	if u.ID != string(u.Login) {
		return errors.New("its id is not its login")
	}
	_, err := policy.ParseLogin(string(u.Login))
	return err
}

func (p *Policy) check() error {
	if p.ID != "policy" || len(p.Text) > MaxPolicy {
		return fmt.Errorf("not a policy of at most %d bytes", MaxPolicy)
	}
	return nil
}

func (r *Revocation) check() error {
	if r.Node != "" && r.User == "" && r.ID == "node:"+r.Node || r.User != "" && r.Node == "" && r.ID == "user:"+string(r.User) {
		return nil
	}
	return errors.New("it has to name one node or one person")
}

func (r *Relays) check() error {
	if r.ID != "relays" || len(r.Relays) > MaxRelays {
		return fmt.Errorf("not a list of at most %d relays", MaxRelays)
	}
	seen := map[string]bool{}
	for _, x := range r.Relays {
		if err := x.Check(); err != nil {
			return err
		}
		if seen[x.ID] {
			return fmt.Errorf("two relays are called %s", x.ID)
		}
		seen[x.ID] = true
	}
	return nil
}

// Check bounds what a relay says of itself: its names are shown to people and dialled.
func (r Relay) Check() error {
	switch {
	case len(r.ID) > maxRelayID || checkLabel(r.ID) != nil:
		return errors.New("a relay's name is not one of letters, digits and dashes")
	case r.Port == 0:
		return fmt.Errorf("relay %s has no port", r.ID)
	case len(r.CertHash) != 0 && len(r.CertHash) != 32:
		return fmt.Errorf("relay %s: the certificate's hash is not SHA-256", r.ID)
	case len(r.Addrs) > 8:
		return fmt.Errorf("relay %s has too many addresses", r.ID)
	}
	if _, err := netip.ParseAddr(r.Host); err == nil {
		return nil
	}
	if r.Host == "" || len(r.Host) > 253 {
		return fmt.Errorf("relay %s has no host", r.ID)
	}
	for label := range strings.SplitSeq(r.Host, ".") {
		if checkLabel(strings.ToLower(label)) != nil {
			return fmt.Errorf("relay %s: its host is not a name", r.ID)
		}
	}
	return nil
}

// CheckHostKeys bounds what a node says its SSH host keys are. That each is a key is
// for the one who uses it to check; here it is one line of a known shape.
func CheckHostKeys(keys []string) error {
	if len(keys) > MaxHostKeys {
		return fmt.Errorf("%d host keys, at most %d", len(keys), MaxHostKeys)
	}
	for _, k := range keys {
		typ, b64, ok := strings.Cut(k, " ")
		if len(k) > MaxHostKey || !ok || typ == "" || b64 == "" {
			return errors.New("a host key is not of the form: type base64")
		}
		for i := range len(k) {
			if c := k[i]; c != ' ' && (c <= ' ' || c >= 0x7f || c == '"' || c == ',' || c == '\\') {
				return errors.New("a host key has a character that keys do not have")
			}
		}
		if strings.Count(k, " ") > 1 {
			return errors.New("a host key has more than a type and base64")
		}
	}
	return nil
}

// CheckAttributes bounds what a node says about itself.
func CheckAttributes(m map[string]string) error {
	if len(m) > MaxAttributes {
		return fmt.Errorf("%d attributes, at most %d", len(m), MaxAttributes)
	}
	for k, v := range m {
		if k == "" || len(k) > MaxAttribute || len(v) > MaxAttribute {
			return errors.New("an attribute is empty or too long")
		}
	}
	return nil
}

// encodeRecord is v's JSON with the fields of extra added that v does not have itself.
func encodeRecord(v any, extra map[string]json.RawMessage) ([]byte, error) {
	b, err := marshal(v)
	if err != nil || len(extra) == 0 {
		return b, err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	known := fieldNames(reflect.TypeOf(v).Elem())
	for k, x := range extra {
		if !known[k] {
			m[k] = x
		}
	}
	return marshal(m)
}

// decodeRecord fills v, keeps what it does not know in its Header and runs check.
func decodeRecord(b []byte, v Body, check func() error) error {
	if err := json.Unmarshal(b, v); err != nil {
		return err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	for k := range fieldNames(reflect.TypeOf(v).Elem()) {
		delete(m, k)
	}
	if len(m) > 0 {
		v.header().Extra = m
	}
	return check()
}

// fieldNames are the JSON names of a record's own fields.
func fieldNames(t reflect.Type) map[string]bool {
	out := map[string]bool{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			out[name] = true
		}
	}
	return out
}

// marshal is JSON without the escapes meant for HTML, which would make a policy longer.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Stamp sets what the hub alone decides: the mesh and the revision.
func (h *Header) Stamp(mesh string, rev int64) { h.Mesh, h.Rev = mesh, rev }
