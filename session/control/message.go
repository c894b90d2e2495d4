package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"tssh/policy"
)

// MaxMessage bounds a message, both ways.
const MaxMessage = 64 << 10

// Version of the table. A daemon that was upgraded speaks to conn processes of the
// version before it, so a change that is not an addition needs a new number.
const Version = 1

// Minor counts what was added for the monitor to send. A process is of the version of the
// monitor that started it, which notes it: 1 knows notice.
const Minor = 1

// Type names a message.
type Type string

const (
	Hello   Type = "hello"
	Welcome Type = "welcome"
	Sign    Type = "sign"
	Prove   Type = "prove"
	Signed  Type = "signed"
	Auth    Type = "auth"
	Verdict Type = "verdict"
	Begin   Type = "begin"
	Go      Type = "go"
	Ask     Type = "ask"
	Answer  Type = "answer"
	TTY     Type = "tty"
	Gone    Type = "gone"
	Done    Type = "done"
	Resume  Type = "resume"
	Resumed Type = "resumed"
	Revoke  Type = "revoke"
	Keep    Type = "keep"
	Unkept  Type = "unkept"
	Notice  Type = "notice"
	Ping    Type = "ping"
	Pong    Type = "pong"
)

// State of a connection as the monitor keeps it.
type State uint8

const (
	Start State = 1 << iota
	Open
	Running
	Ended
)

// entry is a row of the table.
type entry struct {
	fromConn bool
	in       State // states in which conn may send it
	next     State // state after it, 0 for the same
	body     func() any
}

// table is never written to.
var table = map[Type]entry{
	Hello:   {true, Start, Open, func() any { return new(HelloMsg) }},
	Resume:  {true, Start, 0, func() any { return new(ResumeMsg) }}, // Running once the token was right
	Sign:    {true, Open | Running, 0, func() any { return new(SignMsg) }},
	Prove:   {true, Running, 0, func() any { return new(ProveMsg) }},
	Auth:    {true, Open, 0, func() any { return new(AuthMsg) }},
	Begin:   {true, Open, 0, func() any { return new(BeginMsg) }}, // Running once it was granted
	Ask:     {true, Running, 0, func() any { return new(AskMsg) }},
	TTY:     {true, Running, 0, func() any { return new(TTYMsg) }},
	Gone:    {true, Running, 0, func() any { return new(GoneMsg) }},
	Pong:    {true, Open | Running, 0, func() any { return new(PongMsg) }},
	Unkept:  {true, Running, 0, func() any { return new(UnkeptMsg) }},
	Done:    {true, Open | Running, Ended, func() any { return new(DoneMsg) }},
	Welcome: {false, 0, 0, func() any { return new(WelcomeMsg) }},
	Signed:  {false, 0, 0, func() any { return new(SignedMsg) }},
	Verdict: {false, 0, 0, func() any { return new(VerdictMsg) }},
	Go:      {false, 0, 0, func() any { return new(GoMsg) }},
	Answer:  {false, 0, 0, func() any { return new(AnswerMsg) }},
	Resumed: {false, 0, 0, func() any { return new(ResumedMsg) }},
	Revoke:  {false, 0, 0, func() any { return new(RevokeMsg) }},
	Keep:    {false, 0, 0, func() any { return new(KeepMsg) }},
	Notice:  {false, 0, 0, func() any { return new(NoticeMsg) }},
	Ping:    {false, 0, 0, func() any { return new(PingMsg) }},
}

// Message is one datagram. Body is a pointer to the struct the table names for Type.
type Message struct {
	Type Type
	N    uint64
	Body any
}

// HelloMsg is conn's first word.
type HelloMsg struct {
	Version int `json:"version"`
}

// WelcomeMsg tells conn what it needs for the handshake.
type WelcomeMsg struct {
	Version  int           `json:"version"`
	HostKeys [][]byte      `json:"host_keys"` // public, SSH wire format; the place is the key's number
	Remote   string        `json:"remote"`    // the peer's address and port, as accepted
	Local    string        `json:"local"`
	Grace    time.Duration `json:"grace"`    // until login
	Sessions int           `json:"sessions"` // channels open at once
	Forwards int           `json:"forwards"` // forwards open at once, listeners included
	// ClientAlive is how long a client may be silent when asked for life; 0 is the default.
	ClientAlive time.Duration `json:"client_alive,omitempty"`
	Survive     bool          `json:"survive"` // the socket is the kernel's: go on without a monitor
	Linger      time.Duration `json:"linger"`  // without a monitor, at most this long
}

// SignMsg asks for a signature with a host key over an exchange hash (RFC 4253 section 8).
type SignMsg struct {
	Key  int    `json:"key"`
	Alg  string `json:"alg"`
	Data []byte `json:"data"`
}

// ProveMsg asks for the proof that a host key is this host's, for one SSH session; the
// monitor makes what is signed itself.
type ProveMsg struct {
	Key     int    `json:"key"`
	Alg     string `json:"alg"`
	Session []byte `json:"session"` // its identifier
}

// SignedMsg is the signature, or why there is none.
type SignedMsg struct {
	Format string `json:"format,omitempty"`
	Blob   []byte `json:"blob,omitempty"`
	Err    string `json:"err,omitempty"`
}

// AuthMsg asks whether the peer may be User.
type AuthMsg struct {
	User   string `json:"user"`
	Method string `json:"method"`
}

// VerdictMsg admits, or says in words for the person why not.
type VerdictMsg struct {
	OK   bool   `json:"ok"`
	Say  string `json:"say,omitempty"`
	Hint string `json:"hint,omitempty"` // a command that says more
}

// BeginMsg says the SSH handshake is over and User is who it ended with.
type BeginMsg struct {
	User   string `json:"user"`
	Client string `json:"client"` // the client's version line
}

// Account is whom to become; the monitor looked it up once.
type Account struct {
	Name   string   `json:"name"`
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
	Home   string   `json:"home"`
	Shell  string   `json:"shell"`
}

// GoMsg lets the session start. The journal's descriptor comes with it.
type GoMsg struct {
	OK        bool      `json:"ok"`
	Say       string    `json:"say,omitempty"` // when not OK
	Account   Account   `json:"account"`
	ID        string    `json:"id"`    // of the recording
	Start     time.Time `json:"start"` // of the recording
	Person    string    `json:"person"`
	Node      string    `json:"node"`
	AcceptEnv []string  `json:"accept_env,omitempty"`
	Input     bool      `json:"input,omitempty"` // keep keys that the terminal echoes
	// Unrecorded comes without a journal: nothing is kept. Lossy goes on when the journal
	// takes no more, and says so with unkept; without it the connection ends then.
	Unrecorded bool          `json:"unrecorded,omitempty"`
	Lossy      bool          `json:"lossy,omitempty"`
	Pause      time.Duration `json:"pause,omitempty"`   // a journal without room is waited for so long; 0: not
	Idle       time.Duration `json:"idle,omitempty"`    // end the connection when nothing happened for so long
	Notices    []string      `json:"notices,omitempty"` // lines for the person, where a terminal opens
	Socket     string        `json:"socket,omitempty"`  // where to resume; "" when this connection cannot
	Token      []byte        `json:"token,omitempty"`
	Command    string        `json:"command,omitempty"` // the rule's, run instead of whatever is asked for
	Folder     string        `json:"folder,omitempty"`  // the rule's: sftp sees it as /, and nothing else; ~ is the home
	Message    string        `json:"message,omitempty"` // the rule's, shown when a terminal opens
	Last       string        `json:"last,omitempty"`    // when and from where the account was last used
	Env        []string      `json:"env,omitempty"`     // of the session that logind opened
	Scoped     bool          `json:"scoped,omitempty"`  // there is a Scope: it comes as the last descriptor
	Scope      *os.File      `json:"-"`                 // logind's session lasts as long as this is open; the receiver owns it
}

// AskMsg asks for one more thing: Kind is one of the words of Kinds.
type AskMsg struct {
	Channel uint32 `json:"channel"`
	Kind    string `json:"kind"`
	Target  string `json:"target,omitempty"`
}

// AnswerMsg grants it, or says in words why not.
type AnswerMsg struct {
	OK  bool   `json:"ok"`
	Say string `json:"say,omitempty"`
}

// TTYMsg tells which terminal a channel got, for the login records.
type TTYMsg struct {
	Channel uint32 `json:"channel"`
	Name    string `json:"name"` // /dev/pts/N
	PID     int    `json:"pid"`
}

// GoneMsg tells that a channel, with everything asked for it, is closed.
type GoneMsg struct {
	Channel uint32 `json:"channel"`
	// Bytes from the client and to it, for the metrics.
	In  int64 `json:"in,omitempty"`
	Out int64 `json:"out,omitempty"`
}

// DoneMsg is conn's last word.
type DoneMsg struct {
	Cause string `json:"cause"`
	Text  string `json:"text,omitempty"`
}

// ResumeMsg asks a new monitor to take the connection over.
type ResumeMsg struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Token   []byte `json:"token"`
}

// ResumedMsg takes it, or tells conn to end.
type ResumedMsg struct {
	OK  bool   `json:"ok"`
	Say string `json:"say,omitempty"`
}

// RevokeMsg orders the end of one channel, or with Channel 0 of the connection.
type RevokeMsg struct {
	Channel uint32 `json:"channel"`
	Cause   string `json:"cause"`
	Say     string `json:"say"`
}

// KeepMsg tells conn about the recording of its session.
type KeepMsg struct {
	Held bool `json:"held,omitempty"` // no output until this is taken back
	Drop bool `json:"drop,omitempty"` // keep nothing any more; for good
	// Paused, with Held: and take nothing from the client either, and tell the person. Only to
	// a process whose GoMsg had Pause.
	Paused bool `json:"paused,omitempty"`
}

// UnkeptMsg tells that the journal took no more and the session goes on without; or, Paused,
// that it waits until the journal takes more, and, Over, that it does.
type UnkeptMsg struct {
	Why    string `json:"why"`
	Paused bool   `json:"paused,omitempty"`
	Over   bool   `json:"over,omitempty"`
}

// NoticeMsg is a line for the person, on every terminal that is open.
type NoticeMsg struct {
	Line string `json:"line"`
}

// PingMsg asks for a sign of life.
type PingMsg struct{}

// PongMsg is the sign of life.
type PongMsg struct{}

// kinds maps AskMsg.Kind to the policy's questions. Never written to.
var kinds = map[string]policy.Ask{
	"pty": policy.AskPTY, "shell": policy.AskShell, "exec": policy.AskExec, "sftp": policy.AskSFTP, "subsystem": policy.AskSubsystem,
	"forward-local": policy.AskForwardLocal, "forward-remote": policy.AskForwardRemote, "forward-unix": policy.AskForwardUnix,
	"agent": policy.AskAgent, "x11": policy.AskX11,
}

// KindAsk returns the policy's question for a kind; an unknown one is AskNothing, which
// every policy denies.
func KindAsk(kind string) policy.Ask { return kinds[kind] }

// wire is a Message on its way.
type wire struct {
	Type Type            `json:"t"`
	N    uint64          `json:"n"`
	Body json.RawMessage `json:"b"`
}

var (
	errTooLong = errors.New("control: message too long")
	errState   = errors.New("control: message not allowed in this state")
)

// Encode makes the datagram of a message.
func Encode(m Message) ([]byte, error) {
	e, ok := table[m.Type]
	if !ok {
		return nil, fmt.Errorf("control: unknown message %q", m.Type)
	}
	if got, want := fmt.Sprintf("%T", m.Body), fmt.Sprintf("%T", e.body()); got != want {
		return nil, fmt.Errorf("control: %s with a body of type %s", m.Type, got)
	}
	body, err := json.Marshal(m.Body)
	if err != nil {
		return nil, fmt.Errorf("control: %s: %w", m.Type, err)
	}
	b, err := json.Marshal(wire{m.Type, m.N, body})
	if err == nil && len(b) > MaxMessage {
		err = errTooLong
	}
	return b, err
}

// Decode reads a datagram. fromConn says which side must have sent it.
func Decode(b []byte, fromConn bool) (Message, error) {
	if len(b) > MaxMessage {
		return Message{}, errTooLong
	}
	var w wire
	if err := strict(b, &w); err != nil {
		return Message{}, fmt.Errorf("control: %w", err)
	}
	e, ok := table[w.Type]
	if !ok || e.fromConn != fromConn {
		return Message{}, fmt.Errorf("control: no such message from this side: %.40q", string(w.Type))
	}
	body := e.body()
	if err := strict(w.Body, body); err != nil {
		return Message{}, fmt.Errorf("control: %s: %w", w.Type, err)
	}
	return Message{w.Type, w.N, body}, nil
}

func strict(b []byte, into any) error {
	if t := bytes.TrimSpace(b); len(t) == 0 || t[0] != '{' {
		return errors.New("not an object")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the object")
	}
	return nil
}

// Step checks that conn may send the message in a state, and returns the state after it.
func Step(s State, t Type) (State, error) {
	e, ok := table[t]
	if !ok || !e.fromConn || s&e.in == 0 {
		return s, fmt.Errorf("%w: %s", errState, t)
	}
	if e.next != 0 {
		return e.next, nil
	}
	return s, nil
}
