package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// Directory is the people and nodes that questions are asked about when there is no mesh
// to ask: policy eval, policy check, and the hub before it accepts a policy.
type Directory struct {
	Users []DirectoryUser `json:"users"`
	Nodes []DirectoryNode `json:"nodes"`

	roles  map[Login]Role
	byName map[string]int
	byAddr map[netip.Addr]int
	nodes  []Identity // as Nodes
}

// DirectoryUser is a person of the mesh.
type DirectoryUser struct {
	Login Login `json:"login"`
	Role  Role  `json:"role"`
}

// DirectoryNode is a node: a person's (User) or a tagged one.
type DirectoryNode struct {
	Name       string            `json:"name"`
	User       Login             `json:"user"`
	Tags       []Tag             `json:"tags"`
	Addresses  []netip.Addr      `json:"addresses"`
	Routes     []netip.Prefix    `json:"routes"` // approved
	Exit       bool              `json:"exit"`
	External   bool              `json:"external"`
	Attributes map[string]string `json:"attributes"`
	LocalUsers map[string]uint32 `json:"localUsers"` // account to uid
}

// ReadDirectory reads the JSON form and checks it.
func ReadDirectory(text []byte) (*Directory, error) {
	d := &Directory{}
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("policy: directory: %w", err)
	}
	return NewDirectory(d.Users, d.Nodes)
}

// NewDirectory checks the people and nodes and makes them ready to be asked.
func NewDirectory(users []DirectoryUser, nodes []DirectoryNode) (*Directory, error) {
	d := &Directory{
		Users: users, Nodes: nodes, nodes: make([]Identity, 0, len(nodes)),
		roles: map[Login]Role{}, byName: map[string]int{}, byAddr: map[netip.Addr]int{},
	}
	for _, u := range users {
		if _, err := ParseLogin(string(u.Login)); err != nil {
			return nil, fmt.Errorf("policy: directory: user %q: %w", u.Login, err)
		}
		switch {
		case u.Role == "":
			u.Role = RoleMember
		case u.Role != RoleMember && roleIndex(u.Role) < 0:
			return nil, fmt.Errorf("policy: directory: user %q: unknown role %q", u.Login, u.Role)
		}
		if _, dup := d.roles[u.Login]; dup {
			return nil, fmt.Errorf("policy: directory: user %q is there twice", u.Login)
		}
		d.roles[u.Login] = u.Role
	}
	for i, n := range nodes {
		if n.Name == "" || (n.User == "") == (len(n.Tags) == 0) {
			return nil, fmt.Errorf("policy: directory: node %d %q needs a name and either a user or tags", i, n.Name)
		}
		if n.User != "" {
			if _, err := ParseLogin(string(n.User)); err != nil {
				return nil, fmt.Errorf("policy: directory: node %q: %w", n.Name, err)
			}
		}
		for _, t := range n.Tags {
			if _, err := ParseTag(string(t)); err != nil {
				return nil, fmt.Errorf("policy: directory: node %q: %w", n.Name, err)
			}
		}
		if _, dup := d.byName[n.Name]; dup {
			return nil, fmt.Errorf("policy: directory: node %q is there twice", n.Name)
		}
		d.byName[n.Name] = i
		id := Identity{
			ID: n.Name, Name: n.Name, User: n.User, Role: d.Role(n.User), Tags: n.Tags, Routes: n.Routes,
			Exit: n.Exit, External: n.External, Attributes: n.Attributes,
		}
		for _, a := range n.Addresses {
			a = a.Unmap()
			if _, dup := d.byAddr[a]; dup || !a.IsValid() || a.Zone() != "" {
				return nil, fmt.Errorf("policy: directory: node %q: address %v cannot be its own", n.Name, a)
			}
			d.byAddr[a] = i
			id.Addrs = append(id.Addrs, a)
		}
		d.nodes = append(d.nodes, id)
	}
	return d, nil
}

// Role is the role of a person; who is not in the directory is a member.
func (d *Directory) Role(l Login) Role {
	switch {
	case l == "":
		return ""
	case d != nil && d.roles[l] != "":
		return d.roles[l]
	}
	return RoleMember
}

// Node gives the node of that name.
func (d *Directory) Node(name string) (Identity, bool) {
	i, ok := d.index(name)
	if !ok {
		return Identity{}, false
	}
	return d.nodes[i], true
}

func (d *Directory) index(name string) (int, bool) {
	if d == nil {
		return 0, false
	}
	i, ok := d.byName[name]
	return i, ok
}

func (d *Directory) owner(a netip.Addr) (int, bool) {
	if d == nil {
		return 0, false
	}
	i, ok := d.byAddr[a]
	return i, ok
}

// hasDomain reports whether any person's login is of the domain.
func (d *Directory) hasDomain(domain string) bool {
	for l := range d.roles {
		if strings.HasSuffix(string(l), "@"+domain) {
			return true
		}
	}
	for i := range d.nodes {
		if strings.HasSuffix(string(d.nodes[i].User), "@"+domain) {
			return true
		}
	}
	return false
}

// parties gives the ends that an address can stand for: the node that has it, the nodes
// that route it, or the address alone.
func (d *Directory) parties(a netip.Addr, dst bool) []party {
	if i, ok := d.owner(a); ok {
		return []party{{id: &d.nodes[i], addr: a, own: true, mesh: true}}
	}
	var out []party
	if d != nil {
		for i := range d.nodes {
			for _, r := range d.nodes[i].Routes {
				if r.Bits() > 0 && r.Contains(a) {
					out = append(out, party{id: &d.nodes[i], addr: a, mesh: true})
					break
				}
			}
		}
	}
	if out == nil {
		out = []party{{addr: a, mesh: dst || inMesh(a), public: dst && internet().Contains(a)}}
	}
	return out
}

// meshPrefixes are the ranges that "*" means as a source when an address is asked about
// that no node has.
var meshPrefixes = [...]netip.Prefix{
	netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, 0}), 10),
	netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0}), 48),
}

func inMesh(a netip.Addr) bool {
	reserved := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 115, 92, 0}), 23)
	return (meshPrefixes[0].Contains(a) || meshPrefixes[1].Contains(a)) && !reserved.Contains(a)
}
