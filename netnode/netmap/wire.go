package netmap

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Paths on the hub's TLS port.
const (
	PathJoin       = "/v1/join"
	PathStream     = "/v1/stream"
	PathEndpoints  = "/v1/endpoints"
	PathHostKeys   = "/v1/hostkeys"
	PathSuccession = "/v1/succession" // GET, for everybody: Successions
	PathLeave      = "/v1/leave"      // the node goes; an ephemeral one is removed at once
	PathRotate     = "/v1/rotate"     // the node has other keys; the connection shows the new control key
	// StreamProtocol is what PathStream is upgraded to.
	StreamProtocol = "tssh-stream/1"
)

// Bounds of the messages.
const (
	MaxFrame        = 1 << 20 // on the wire
	maxFrameRaw     = 4 << 20 // after decompression
	MaxFrameRecords = 256
	MaxEndpoints    = 16
	MaxCall         = 64 << 10 // body of a call, either way, except records
)

const frameZstd = 0x01

// JoinRequest is the body of PathJoin. The control key is not in it: the TLS handshake
// has proved it.
type JoinRequest struct {
	AuthKey     string            `json:"auth_key"`
	Name        string            `json:"name"`
	WG          WGPublic          `json:"wg"`
	Time        time.Time         `json:"time"` // by the node's clock
	HostKeys    []string          `json:"host_keys,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"`
	Understands []string          `json:"understands,omitempty"`
}

// JoinReply answers it.
type JoinReply struct {
	Mesh Envelope  `json:"mesh"`
	Node Envelope  `json:"node"`
	Time time.Time `json:"time"` // by the hub's clock
}

// Where is where a node can be reached: its WireGuard socket, and the relay it is at home
// at. It is the body of PathEndpoints, and travels in frames; it is never part of a record.
type Where struct {
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`
	Home      string           `json:"home,omitempty"` // id of a relay of the map
}

// Equal reports whether two are the same.
func (w Where) Equal(v Where) bool { return w.Home == v.Home && slices.Equal(w.Endpoints, v.Endpoints) }

// HostKeysRequest is the body of PathHostKeys.
type HostKeysRequest struct {
	HostKeys []string `json:"host_keys"`
}

// Problem is the body of every answer that is not 200, and of a stream's last frame.
type Problem struct {
	Code string `json:"code"`
	Say  string `json:"say"` // one sentence for the person
	// Proof is the signed record that a removed or an expired node can check the answer
	// with.
	Proof *Envelope `json:"proof,omitempty"`
}

// Codes of Problem.
const (
	CodeKeyUnknown   = "key-unknown"
	CodeKeyExpired   = "key-expired"
	CodeKeyUsed      = "key-used"
	CodeNameTaken    = "name-taken"
	CodeNameReserved = "name-reserved"
	CodeNameInvalid  = "name-invalid"
	CodeOwner        = "other-owner"
	CodeRemoved      = "removed"
	CodeExpired      = "expired"
	CodeUnknown      = "unknown-node"
	CodeBehind       = "behind"
	CodeBusy         = "busy"
	CodeBad          = "bad-request"
	CodeInternal     = "internal"
)

// Hello is a node's first frame on the stream.
type Hello struct {
	Epoch       string    `json:"epoch,omitempty"`
	Since       int64     `json:"since"`
	Time        time.Time `json:"time"`
	Understands []string  `json:"understands,omitempty"`
}

// Frame is one message on the stream, either way. From the hub it carries the changes
// after revision From up to Rev; a node that is not at From has missed something and
// asks again. A snapshot replaces everything; it may come in several frames, all but
// the last with More, and Count is the number of records in all of them together.
type Frame struct {
	Hello *Hello `json:"hello,omitempty"` // node to hub

	Epoch    string     `json:"epoch,omitempty"`
	From     int64      `json:"from,omitempty"`
	Rev      int64      `json:"rev,omitempty"`
	Snapshot bool       `json:"snapshot,omitempty"`
	Count    int        `json:"count,omitempty"`
	More     bool       `json:"more,omitempty"`
	Up       []Envelope `json:"up,omitempty"`
	// Rm are nodes and people that this node has nothing to do with any more. That one is
	// gone for good is said by a signed revocation.
	Rm []Ref `json:"rm,omitempty"`

	Endpoints map[string]Where `json:"endpoints,omitempty"` // by node id; in memory only

	Ping bool      `json:"ping,omitempty"` // answered with Pong
	Pong bool      `json:"pong,omitempty"`
	Time time.Time `json:"time,omitzero"` // by the sender's clock

	Problem *Problem `json:"problem,omitempty"` // the last frame
}

// Carries reports whether the frame moves the revision.
func (f *Frame) Carries() bool { return f.Snapshot || f.Rev > 0 }

// WriteFrame writes one frame with a single Write: a length of 4 bytes whose first is
// flags, and JSON. compress is for snapshots: keys and signatures do not get smaller,
// the rest does.
func WriteFrame(w io.Writer, f *Frame, compress bool) error {
	body, err := marshal(f)
	if err != nil {
		return fmt.Errorf("netmap: frame: %w", err)
	}
	var flags byte
	if compress {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			return fmt.Errorf("netmap: frame: %w", err)
		}
		body, flags = enc.EncodeAll(body, nil), frameZstd
	}
	if len(body) > MaxFrame {
		return fmt.Errorf("netmap: frame of %d bytes, at most %d", len(body), MaxFrame)
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body))|uint32(flags)<<24)
	_, err = w.Write(append(b, body...))
	return err
}

// ReadFrame reads one frame. limit bounds what is accepted on the wire.
func ReadFrame(r io.Reader, limit int) (*Frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	flags, n := head[0], int(binary.BigEndian.Uint32(head[:])&0xffffff)
	if n > limit || n > MaxFrame {
		return nil, fmt.Errorf("netmap: frame of %d bytes, at most %d", n, min(limit, MaxFrame))
	}
	if flags&^frameZstd != 0 {
		return nil, errors.New("netmap: frame with unknown flags")
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	if flags&frameZstd != 0 {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxFrameRaw), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("netmap: frame: %w", err)
		}
		defer dec.Close()
		if body, err = dec.DecodeAll(body, nil); err != nil {
			return nil, fmt.Errorf("netmap: frame: %w", err)
		}
	}
	f := new(Frame)
	if err := json.Unmarshal(body, f); err != nil {
		return nil, fmt.Errorf("netmap: frame: %w", err)
	}
	if len(f.Up) > MaxFrameRecords || len(f.Rm) > 16*MaxFrameRecords {
		return nil, errors.New("netmap: frame with too many records")
	}
	return f, nil
}
