package live

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Protocol is the name of the connection in its Upgrade header, and Path where it is asked for.
const (
	Protocol = "tssh-live/1"
	Path     = "/v1/live"
)

// MaxLine bounds one message.
const MaxLine = 256 << 10

const (
	// MaxReason is how long the words of an end may be, in bytes.
	MaxReason = 300
	// maxWatchers and maxWatched bound what a host is told.
	maxWatchers = 64
	maxWatched  = 512
	maxOrders   = 32
	maxOpen     = 256 // sessions that a host tells of
	queued      = 256
)

// By is somebody: a node, and whose it is.
type By struct {
	ID    string   `json:"id,omitempty"` // of the node; none of a hub's administrator
	Node  string   `json:"node,omitempty"`
	Login string   `json:"login,omitempty"`
	Role  string   `json:"role,omitempty"`
	Tags  []string `json:"tags,omitempty"`
}

func (b By) same(o By) bool { return b.ID == o.ID && b.Login == o.Login && b.Node == o.Node }

// Watcher is somebody who watches.
type Watcher struct {
	By    By        `json:"by"`
	Since time.Time `json:"since"`
}

// Watched is a session and who watches it.
type Watched struct {
	Session  string    `json:"session"`
	Watchers []Watcher `json:"watchers"`
}

// End is the wish to end a session.
type End struct {
	Session string `json:"session"`
	By      By     `json:"by"`
	Reason  string `json:"reason"`
}

// Open is a session that runs and is not recorded, by its host's word.
type Open struct {
	Session   string    `json:"session"`
	Of        By        `json:"of"`
	Addr      string    `json:"addr,omitempty"`
	LocalUser string    `json:"local_user"`
	UID       uint32    `json:"uid"`
	Since     time.Time `json:"since"`
	Why       string    `json:"why,omitempty"` // where it should be recorded
}

// maxOpenWord bounds each word of an Open, and maxOpenTags its tags.
const (
	maxOpenWord = 300
	maxOpenTags = 32
)

// bounded reports whether a host keeps to what an honest one would say.
func (o *Open) bounded() bool {
	if len(o.Of.Tags) > maxOpenTags {
		return false
	}
	for _, w := range append([]string{o.Session, o.Of.ID, o.Of.Node, o.Of.Login, o.Of.Role, o.Addr, o.LocalUser, o.Why}, o.Of.Tags...) {
		if len(w) > maxOpenWord {
			return false
		}
	}
	return true
}

// Codes of an End that was not carried out.
const (
	CodeDenied = "denied"
	CodeGone   = "gone"
	CodeFailed = "failed"
)

// Refused is why a host did not do it; Say is for the person who asked.
type Refused struct{ Code, Say string }

func (r *Refused) Error() string { return "live: " + r.Code + ": " + r.Say }

// toHost and toHub are the lines.
type toHost struct {
	N     uint64     `json:"n,omitempty"`
	End   *End       `json:"end,omitempty"`
	Watch *Watched   `json:"watch,omitempty"`
	State *[]Watched `json:"state,omitempty"`
	Ping  bool       `json:"ping,omitempty"`
}

type toHub struct {
	N    uint64  `json:"n,omitempty"`
	Done bool    `json:"done,omitempty"`
	Code string  `json:"code,omitempty"`
	Say  string  `json:"say,omitempty"`
	Pong bool    `json:"pong,omitempty"`
	Open *[]Open `json:"open,omitempty"`
}

// line encodes a message.
func line(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err == nil && len(b) >= MaxLine {
		err = errLong
	}
	return append(b, '\n'), err
}

var errLong = errors.New("live: message too long")

// lines reads messages.
type lines struct{ s *bufio.Scanner }

func newLines(r io.Reader) lines {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 1024), MaxLine)
	return lines{s}
}

// next reads one message into v.
func (l lines) next(v any) error {
	if !l.s.Scan() {
		if err := l.s.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	if err := json.Unmarshal(l.s.Bytes(), v); err != nil {
		return fmt.Errorf("live: %w", err)
	}
	return nil
}
