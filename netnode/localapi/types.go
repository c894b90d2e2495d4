package localapi

import (
	"fmt"
	"net/netip"
	"time"
)

// The structs of this file are what goes over the socket, and nothing else: they are filled
// from the node's own types field by field.

// States of a node.
const (
	StateNotJoined  = "not-joined" // the state directory holds no enrolment
	StateDown       = "down"       // enrolled, and told to be down
	StateConnecting = "connecting" // up, with no netmap yet
	StateRunning    = "running"
	StateExpired    = "expired" // the membership has ended; a new token brings it back
	StateRemoved    = "removed" // from the mesh, for good
)

// Node is who is at an address.
type Node struct {
	ID    string       `json:"id"`
	Name  string       `json:"name"`
	User  string       `json:"user,omitempty"` // empty when the node has tags
	Tags  []string     `json:"tags,omitempty"`
	Addrs []netip.Addr `json:"addresses"`
}

// Who is the owner in words: the login, or the tags.
func (n Node) Who() string {
	if n.User != "" {
		return n.User
	}
	s := ""
	for i, t := range n.Tags {
		if i > 0 {
			s += ","
		}
		s += t
	}
	return s
}

// Peer is another node of the mesh and how it is reached.
type Peer struct {
	Node
	Path          string    `json:"path,omitempty"`  // address and port in use, "" when there is no direct path
	Relay         string    `json:"relay,omitempty"` // the relay in use, "" when not talking or directly
	LatencyMS     float64   `json:"latency_ms,omitempty"`
	LastHandshake time.Time `json:"last_handshake,omitzero"`
	RxBytes       uint64    `json:"rx_bytes"`
	TxBytes       uint64    `json:"tx_bytes"`
	SSH           bool      `json:"ssh"` // the node has published SSH host keys
	Expires       time.Time `json:"expires,omitzero"`
}

// Status is the node as a whole.
type Status struct {
	State         string            `json:"state"`
	Version       string            `json:"version"`
	Mesh          string            `json:"mesh,omitempty"`
	Hub           string            `json:"hub,omitempty"`             // host:port of the coordination server
	HubKey        string            `json:"hub_key,omitempty"`         // its Ed25519 key, base64: the pin
	FormerHubKeys []string          `json:"former_hub_keys,omitempty"` // keys that it had before, for what they signed then
	Recorders     []Recorder        `json:"recorders,omitempty"`       // nodes that rules name as recorders
	HubOnline     bool              `json:"hub_online"`                // its stream is open
	Revision      int64             `json:"revision,omitempty"`        // of the netmap in force
	Drops         map[string]uint64 `json:"drops,omitempty"`           // packets dropped, by reason
	Problem       string            `json:"problem,omitempty"`         // one line: what is wrong, if anything
	Notices       []Notice          `json:"notices,omitempty"`         // what on this host is in the way
	Userspace     bool              `json:"userspace,omitempty"`       // no kernel TUN: stock programs need `tssh proxy`
	// Names is how other programs on this computer learn the mesh's names: "systemd-resolved",
	// the path of the hosts file, "off", or why not. Empty: this daemon does not offer it.
	Names     string           `json:"names,omitempty"`
	Self      Node             `json:"self"`
	Expires   time.Time        `json:"expires,omitzero"`     // when the membership ends; zero: it does not
	KeysSince time.Time        `json:"keys_since,omitzero"`  // since when it has its keys
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`  // where the node can be reached
	HomeRelay string           `json:"home_relay,omitempty"` // where it can be reached by way of a relay
	Peers     []Peer           `json:"peers"`
	MayDial   bool             `json:"may_dial"`   // whether the caller of this status may dial
	MayManage bool             `json:"may_manage"` // whether the caller may join, up and down
}

// Recorder is a node that takes recordings, beside the hub.
type Recorder struct {
	Node
	Key string `json:"key"` // the Ed25519 key that it signs with, base64
}

// Notice is something on the host that is in the way of the mesh.
type Notice struct {
	Words string `json:"words"`
	Mend  string `json:"mend,omitempty"` // a command, or what else to do
}

// Resolved is what a name means.
type Resolved struct {
	Node     Node     `json:"node"`
	HostKeys []string `json:"host_keys"` // lines of authorized_keys form, without comment
}

// JoinRequest enrols the node.
type JoinRequest struct {
	Token    string `json:"token"` // secret: it travels in the body only
	Hostname string `json:"hostname,omitempty"`
}

// Settings are what of a node can be changed while it runs, and is kept. What is nil stays.
type Settings struct {
	PortMapping *bool `json:"port_mapping,omitempty"` // ask the router to let peers in
}

// Session is one SSH connection that this host serves.
type Session struct {
	ID        string    `json:"id"`
	Peer      string    `json:"peer"`
	Node      string    `json:"node"`
	Login     string    `json:"login"`
	LocalUser string    `json:"local_user"`
	Start     time.Time `json:"start"`
	PID       int       `json:"pid"`
}

// WhyRequest asks whether this node may log in as User on Host.
type WhyRequest struct {
	Host string
	User string
}

// Why is the answer. Reason, Section and Rule are empty for callers who may not see them.
type Why struct {
	Verdict string `json:"verdict"` // accept, check or deny
	Say     string `json:"say"`
	Terms   string `json:"terms,omitempty"` // what the session may not, or has to, beyond the default
	Reason  string `json:"reason,omitempty"`
	Section string `json:"section,omitempty"`
	Rule    *int   `json:"rule,omitempty"`
	Host    string `json:"host"`
	User    string `json:"user"`

	// Of a login that is denied: the accounts that rules let the asker in as there, and whether
	// they do for any other but root.
	Instead []string `json:"instead,omitempty"`
	Others  bool     `json:"others,omitempty"`
}

// Codes of an Error.
const (
	CodeBadRequest  = "bad-request"
	CodeForbidden   = "forbidden"   // the caller's uid may not do this
	CodeNotFound    = "not-found"   // no such name or address in the mesh
	CodeNotJoined   = "not-joined"  // the node is not enrolled
	CodeDown        = "down"        // the node is told to be down
	CodeConflict    = "conflict"    // already joined
	CodeUnreachable = "unreachable" // the peer or the hub does not answer
	CodeDenied      = "denied"      // the mesh refused: a wrong token, a closed port
	CodeRevoked     = "revoked"
	CodeExpired     = "expired"
	CodeLimit       = "limit"
	CodeUnsupported = "unsupported" // this daemon does not offer it
	CodeInternal    = "internal"
)

// Error is an answer that is not the one asked for. Words are for people and safe to print.
type Error struct {
	Code  string `json:"code"`
	Words string `json:"error"`
}

func (e *Error) Error() string { return e.Words }

// Errorf makes an Error.
func Errorf(code, format string, a ...any) *Error {
	return &Error{Code: code, Words: fmt.Sprintf(format, a...)}
}

func statusOf(code string) int {
	switch code {
	case CodeBadRequest:
		return 400
	case CodeForbidden, CodeDenied, CodeRevoked, CodeExpired:
		return 403
	case CodeNotFound:
		return 404
	case CodeConflict, CodeNotJoined, CodeDown:
		return 409
	case CodeLimit:
		return 429
	case CodeUnsupported:
		return 501
	case CodeUnreachable:
		return 502
	}
	return 500
}
