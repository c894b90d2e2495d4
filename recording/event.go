package recording

import "time"

// Kind says what an Event is. Numbers are part of the journal and frame formats and are never reused.
type Kind uint8

const (
	KindNone         Kind = 0
	KindOutput       Kind = 1  // bytes sent to the client: stdout, or a terminal's output
	KindStderr       Kind = 2  // bytes sent to the client as extended data 1
	KindInput        Kind = 3  // bytes received from the client (only where the rule asks for them)
	KindResize       Kind = 4  // Resize, JSON
	KindOpen         Kind = 5  // Open, JSON: a channel began to do something
	KindExit         Kind = 6  // Exit, JSON: its program ended
	KindClose        Kind = 7  // the channel is gone, no data
	KindSignal       Kind = 8  // the client sent a signal, data its name
	KindFile         Kind = 9  // File, JSON: an operation on a file by sftp or scp that is over
	KindGap          Kind = 10 // Gap, JSON: bytes that are not kept, on purpose or by a fault
	KindNote         Kind = 11 // Note, JSON: revocation, limit, refusal, adoption by a new monitor
	KindEnd          Kind = 12 // End, JSON: the connection is over; last event of a whole recording
	KindInputSummary Kind = 13 // client input counted, not kept: InputSummary, JSON
	KindForward      Kind = 14 // Forward, JSON: a forward began, ended, or was not made
	KindBulk         Kind = 15 // a stream beyond its budget, counted and hashed, not kept: Bulk, JSON
	KindHidden       Kind = 16 // keys typed while the terminal did not echo: Hidden, JSON
)

// Event is one thing that happened on one connection. Channel 0 is the connection
// itself; SSH channels count from 1 in the order they were opened.
type Event struct {
	At      time.Duration // since the recording's start, never decreasing
	Channel uint32
	Kind    Kind
	Data    []byte
}

// Open begins a channel's story.
type Open struct {
	Type    string `json:"type"`              // "shell", "exec", "sftp"
	Command string `json:"command,omitempty"` // of exec
	PTY     bool   `json:"pty,omitempty"`
	Term    string `json:"term,omitempty"`
	Cols    int    `json:"cols,omitempty"`
	Rows    int    `json:"rows,omitempty"`
}

// Forward is a listener or a connection that was carried between the client and the host;
// its bytes are not in the recording. It has a channel number of its own. One that came to be
// has two events, open and closed; one that did not has one, failed or refused.
type Forward struct {
	State  string `json:"state"`            // open, closed, failed, refused
	Type   string `json:"type"`             // local, remote, unix, remote-unix, agent, x11: a connection; with -listen: where such come from
	Target string `json:"target,omitempty"` // host:port, or a path: where the connection goes to, or the listener is
	Origin string `json:"origin,omitempty"` // where the client, or the host, says the connection comes from
	// Of a connection that is closed: bytes from the client to the host's side, and back.
	Sent     int64  `json:"sent,omitempty"`
	Received int64  `json:"received,omitempty"`
	Millis   int64  `json:"ms,omitempty"` // from open to closed
	Error    string `json:"error,omitempty"`
}

// Resize is a window-change.
type Resize struct {
	Cols int `json:"cols"`
	Rows int `json:"rows"`
}

// Exit is how a program ended: a status, or the signal that killed it (without SIG).
type Exit struct {
	Status int    `json:"status"`
	Signal string `json:"signal,omitempty"`
	Core   bool   `json:"core,omitempty"`
}

// File is an operation on files through sftp or scp, as the host calls it: get is from the host
// to the client, put the other way.
type File struct {
	Op     string `json:"op"` // get, put, remove, rename, mkdir, rmdir, symlink, link, setstat, list, stat, readlink, realpath, statvfs
	Path   string `json:"path"`
	Target string `json:"target,omitempty"` // rename, symlink, link, readlink, realpath
	Bytes  int64  `json:"bytes,omitempty"`
	// SHA256 is of the whole file when it was read or written once from start to end in
	// order; or, with the last of several handles, of the file as it then was, when as
	// many bytes as it has went through them; else empty.
	SHA256 string `json:"sha256,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Gap names bytes that happened and are not in the recording.
type Gap struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256,omitempty"`
	Why    string `json:"why"`
}

// Note is a remark of the host's in the recording.
type Note struct {
	What string `json:"what"` // revoked, limit, refused, adopted, ...
	Text string `json:"text,omitempty"`
}

// InputSummary counts what the client sent on a channel in all, kept or not.
type InputSummary struct {
	Bytes int64 `json:"bytes"`
	// SHA256 is of all of it, where the channel had no terminal.
	SHA256 string `json:"sha256,omitempty"`
}

// Streams of a channel, as Bulk names them.
const (
	StreamOutput = "output"
	StreamStderr = "stderr"
)

// Bulk says that a stream of a channel without a terminal has brought more than is kept of
// one. The first says so before the first byte that is left out was sent; more follow while
// it goes on, each with all that was left out so far, and the last (Ends) when it is over.
// Right after the last, an event of the stream's own kind holds its Tail last bytes, which are
// counted and hashed as well.
//
//	Output ... Output  Bulk{0}  Bulk{n} ... Bulk{n, Ends, Tail: t}  Output (t bytes)
//	\__ the head ___/
type Bulk struct {
	Stream string `json:"stream"`           // StreamOutput or StreamStderr
	Head   int64  `json:"head"`             // bytes of the stream that are in the recording before
	Bytes  int64  `json:"bytes"`            // left out after these, so far
	SHA256 string `json:"sha256,omitempty"` // of the Bytes left out
	Ends   bool   `json:"ends,omitempty"`   // the stream is over
	Tail   int64  `json:"tail,omitempty"`   // of Bytes, so many at the end follow
}

// Hidden counts keys that are not kept because the terminal did not show them, as at a
// question for a password.
type Hidden struct {
	Keys int64 `json:"keys"`
}

// End closes a recording. Cause is "closed" for an ordinary end.
type End struct {
	Cause string `json:"cause"`
	Text  string `json:"text,omitempty"`
}

// Meta is what a recording says about itself, in its first frame; it stands alone
// without the mesh it was made in.
type Meta struct {
	Version   int       `json:"version"` // 1
	ID        string    `json:"id"`
	Start     time.Time `json:"start"`
	Mesh      string    `json:"mesh"`
	Host      string    `json:"host"`    // node name of the host
	HostID    string    `json:"host_id"` // node id of the host
	HostTags  []string  `json:"host_tags,omitempty"`
	HostUser  string    `json:"host_user,omitempty"` // whose host it is, when it has no tags; unset in recordings of earlier versions
	Src       string    `json:"src"`                 // node name of the peer
	SrcID     string    `json:"src_id"`
	SrcAddr   string    `json:"src_addr"`
	Login     string    `json:"login,omitempty"` // the person, empty for a tagged peer
	Role      string    `json:"role,omitempty"`  // of the person, when the session began
	SrcTags   []string  `json:"src_tags,omitempty"`
	LocalUser string    `json:"local_user"`
	UID       uint32    `json:"uid"`
	Rule      string    `json:"rule"`   // which rule let it in, "ssh[0]"
	Client    string    `json:"client"` // SSH version string of the client
	// SelfAttested is set where the host runs as the same uid as the session, so that
	// the person recorded could have altered the recording before it left the host.
	SelfAttested bool `json:"self_attested,omitempty"`
	// Sealed is set where the frames are encrypted; to whom is in the key blocks.
	Sealed bool `json:"sealed,omitempty"`
	// Recorders are the tags of the recorders that the rule names, in its order; none: the hub.
	Recorders []string `json:"recorders,omitempty"`
	PublicKey []byte   `json:"public_key"` // Ed25519, first signing key of the recording
}
