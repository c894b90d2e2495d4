package netmap

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tssh/policy"
)

// JoinConfig is what a node needs to become a member.
type JoinConfig struct {
	// Dir is the state folder. It is made, if need be, and written only once the hub has
	// said yes. One that holds a membership of the same mesh keeps its keys, which is how
	// an expired node comes back.
	Dir        string
	Token      Token
	Name       string // the node's name, see CheckName
	HostKeys   []string
	Attributes map[string]string
	Timeout    time.Duration // for the whole; 0: 30 s
	Clock      func() time.Time
	Dial       func(ctx context.Context, network, addr string) (net.Conn, error) // nil: plain TCP
}

// JoinError is why a node did not get in.
type JoinError struct {
	Code string // one of Problem's codes, or of those below
	Say  string // what is wrong, for the person
	Hint string // what to do about it
	Err  error  // for the log, may be nil
}

// Codes of a JoinError that come from this side.
const (
	CodeUnreachable = "unreachable"
	CodeWrongPin    = "wrong-pin"
	CodeNotHub      = "not-a-hub"
	CodeOtherMesh   = "other-mesh"
	CodeState       = "state"
)

func (e *JoinError) Error() string {
	if e.Err != nil {
		return "netmap: join: " + e.Say + ": " + e.Err.Error()
	}
	return "netmap: join: " + e.Say
}

func (e *JoinError) Unwrap() error { return e.Err }

const clockTolerance = 5 * time.Minute

// Join makes the node a member of the token's mesh. When it fails, with a *JoinError,
// the folder is as it was before.
func Join(ctx context.Context, c JoinConfig) (*State, error) {
	if c.Timeout <= 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	s, err := prepare(ctx, &c)
	if err != nil {
		return nil, err
	}
	reply, err := askJoin(ctx, &c, s)
	var je *JoinError
	if errors.As(err, &je) && je.Code == CodeRemoved && s.NodeID != "" {
		// The keys of a removed node are of no more use; the machine may come back with new ones.
		if s, err = newState(&c); err != nil {
			return nil, err
		}
		reply, err = askJoin(ctx, &c, s)
	}
	if err != nil {
		return nil, err
	}
	if err := s.accept(reply); err != nil {
		return nil, &JoinError{Code: CodeNotHub, Say: "the hub's answer does not add up", Hint: "update this program or the hub, whichever is older", Err: err}
	}
	if d := c.Clock().Sub(reply.Time); d.Abs() > clockTolerance {
		s.Warnings = append(s.Warnings, fmt.Sprintf("this computer's clock is %s %s the hub's: times in recordings and logs will be wrong until it is set", d.Abs().Round(time.Second), map[bool]string{true: "behind", false: "ahead of"}[d < 0]))
	}
	if err := s.write(reply, c.Clock()); err != nil {
		return nil, stateError(c.Dir, err)
	}
	return s, nil
}

// prepare checks everything that can be checked without the hub.
func prepare(ctx context.Context, c *JoinConfig) (*State, error) {
	if c.Token.AuthKey == "" || c.Token.Pin.IsZero() {
		return nil, &JoinError{Code: CodeKeyUnknown, Say: "the token has no key to join with", Hint: "get one with 'tsshub key create'"}
	}
	if err := CheckName(c.Name); err != nil && !(c.Name == HubName && errors.Is(err, ErrNameReserved)) {
		code := CodeNameInvalid
		if errors.Is(err, ErrNameReserved) {
			code = CodeNameReserved
		}
		return nil, &JoinError{Code: code, Say: err.Error(), Hint: "choose another name with --hostname"}
	}
	if err := CheckHostKeys(c.HostKeys); err != nil {
		return nil, &JoinError{Code: CodeBad, Say: err.Error(), Hint: "mend the host keys"}
	}
	if err := CheckAttributes(c.Attributes); err != nil {
		return nil, &JoinError{Code: CodeBad, Say: err.Error(), Hint: "fewer or shorter attributes"}
	}
	if err := writable(c.Dir); err != nil {
		return nil, stateError(c.Dir, err)
	}
	old, err := LoadState(c.Dir)
	switch {
	case errors.Is(err, ErrNoState):
		return newState(c)
	case err != nil:
		return nil, &JoinError{Code: CodeState, Say: "the state folder " + c.Dir + " is not a node's", Hint: "choose another folder with --state", Err: err}
	case !old.Knows(c.Token.Pin):
		// The token may be newer than what this node has heard of the hub's key.
		next, passed, ferr := succeed(ctx, c.Token.Host, old.Control, old.Pin, old.MeshID, c.Dial)
		if ferr == nil && (next == c.Token.Pin || slices.Contains(passed, c.Token.Pin)) {
			old.adopt(next, passed)
			break
		}
		return nil, &JoinError{Code: CodeOtherMesh, Say: fmt.Sprintf("the state folder %s belongs to another mesh (%s, hub %s)", c.Dir, old.Mesh, old.Hub), Hint: "choose another folder with --state, or remove this one to leave that mesh"}
	}
	old.Hub = c.Token.Host // the hub may have moved
	old.Next = nil         // joining gives it keys anyway
	if old.WG, err = rejoinKey(old.Control, c.Token.AuthKey); err != nil {
		return nil, stateError(c.Dir, err)
	}
	return old, nil
}

func stateError(dir string, err error) *JoinError {
	return &JoinError{Code: CodeState, Say: "the state folder " + dir + " cannot be written", Hint: "mend its rights or make room, or choose another with --state", Err: err}
}

// newState is a membership to be: new keys, nothing written.
func newState(c *JoinConfig) (*State, error) {
	wg, err := NewWGPrivate()
	if err != nil {
		return nil, err
	}
	ck, err := NewControlKey()
	if err != nil {
		return nil, err
	}
	return &State{Dir: c.Dir, Hub: c.Token.Host, Pin: c.Token.Pin, WG: wg, Control: ck}, nil
}

// askJoin asks the hub. A connection lost on the way is tried again with the same
// keys: the hub may have said yes already, and then says it once more.
func askJoin(ctx context.Context, c *JoinConfig, s *State) (*JoinReply, error) {
	hc, base, err := pinnedClient(s, func() ControlPublic { return s.Pin }, c.Dial)
	if err != nil {
		return nil, err
	}
	defer hc.CloseIdleConnections()
	followed := false
	for try := 1; ; try++ {
		var reply JoinReply
		err := call(ctx, hc, base+PathJoin, JoinRequest{
			AuthKey: c.Token.AuthKey, Name: c.Name, WG: s.WG.Public(), Time: c.Clock(), HostKeys: c.HostKeys,
			Attributes: c.Attributes, Understands: understands(),
		}, &reply)
		if err == nil {
			return &reply, nil
		}
		if errors.Is(err, ErrPin) && !followed {
			// A token, or a folder, of before the hub had another key.
			if next, passed, ferr := succeed(ctx, s.Hub, s.Control, s.Pin, s.MeshID, c.Dial); ferr == nil {
				followed = true
				s.adopt(next, passed)
				continue
			}
		}
		je, again := joinError(s.Hub, c.Name, err)
		if !again || try == 4 || !sleep(ctx, time.Duration(try)*500*time.Millisecond) {
			return nil, je
		}
	}
}

func understands() []string { return policy.Understands() }

// accept checks the answer as a hostile one and fills in the state.
func (s *State) accept(r *JoinReply) error {
	m, err := Open(r.Mesh, s.Pin, "")
	if err != nil {
		return err
	}
	if m.Mesh == nil || m.Mesh.HubKey != s.Pin {
		return errors.New("netmap: the hub did not say what mesh this is")
	}
	if s.MeshID != "" && s.MeshID != m.Header.Mesh {
		return errors.New("netmap: the hub has become one of another mesh")
	}
	n, err := Open(r.Node, s.Pin, m.Header.Mesh)
	if err != nil {
		return err
	}
	if n.Node == nil || n.Node.Control != s.Control.Public() || n.Node.WG != s.WG.Public() {
		return errors.New("netmap: the hub's record is not of this node")
	}
	for _, a := range n.Node.Addrs {
		if !m.Mesh.Range4.Contains(a) && !m.Mesh.Range6.Contains(a) {
			return fmt.Errorf("netmap: address %s is not of the mesh", a)
		}
	}
	s.MeshID, s.Mesh, s.NodeID, s.Name = m.Header.Mesh, m.Mesh.Name, n.ID, n.Node.Name
	return nil
}

// write makes the membership durable, node.json last; a failure puts back what was
// there. The cache begins anew: the hub has just been reached and will fill it.
func (s *State) write(r *JoinReply, now time.Time) (err error) {
	made, err := makeDirs(s.Dir)
	if err != nil {
		return err
	}
	old, rerr := readFile(filepath.Join(s.Dir, cacheFile), maxCacheFile)
	defer func() {
		if err == nil {
			return
		}
		if rerr == nil {
			err = errors.Join(err, writeFile(s.Dir, cacheFile, old))
		} else {
			os.Remove(filepath.Join(s.Dir, cacheFile))
		}
		for _, d := range made {
			os.Remove(d)
		}
	}()
	if err := s.saveCache(cache{Offset: r.Time.Sub(now), Records: []Envelope{r.Mesh, r.Node}}); err != nil {
		return err
	}
	return s.save()
}

// makeDirs makes dir, 0700, and returns what it made, innermost first.
func makeDirs(dir string) (made []string, err error) {
	var missing []string
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil || filepath.Dir(d) == d {
			break
		}
		missing = append(missing, d)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o700); err != nil && !os.IsExist(err) {
			for _, d := range made {
				os.Remove(d)
			}
			return nil, err
		}
		made = append([]string{missing[i]}, made...)
	}
	return made, nil
}

// pinnedClient speaks HTTP/1.1 to the hub with both keys checked.
func pinnedClient(s *State, pin func() ControlPublic, dial func(context.Context, string, string) (net.Conn, error)) (*http.Client, string, error) {
	conf, err := clientTLS(s.Control, pin)
	if err != nil {
		return nil, "", err
	}
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	t := &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    2,
		MaxResponseHeaderBytes: 16 << 10,
		DisableCompression:     true,
	}
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, "https://" + s.Hub, nil
}

// call posts a JSON body and reads a JSON answer. A refusal is a *Refused.
func call(ctx context.Context, hc *http.Client, url string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxFrame+1))
	if err != nil {
		return err
	}
	if len(body) > MaxFrame {
		return errors.New("netmap: the hub's answer is too long")
	}
	if resp.StatusCode != http.StatusOK {
		return refusal(resp.StatusCode, body)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("netmap: the hub's answer: %w", err)
	}
	return nil
}

// Refused is an answer of the hub's that is not yes.
type Refused struct {
	Status int
	Problem
}

func (r *Refused) Error() string { return fmt.Sprintf("netmap: hub: %s (%s)", r.Say, r.Code) }

func refusal(status int, body []byte) error {
	r := &Refused{Status: status}
	if json.Unmarshal(body, &r.Problem) != nil || r.Code == "" {
		r.Code, r.Say = CodeNotHub, fmt.Sprintf("status %d without a reason", status)
	}
	r.Say = plain(r.Say)
	return r
}

// plain takes out what could act on a terminal.
func plain(s string) string {
	if len(s) > 500 {
		s = s[:500]
	}
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e {
			return -1
		}
		return r
	}, bytes.ToValidUTF8([]byte(s), nil)))
}

// joinError puts an error of askJoin into words; again says that trying once more may help.
func joinError(hub, name string, err error) (je *JoinError, again bool) {
	var ref *Refused
	var rec tls.RecordHeaderError
	var op *net.OpError
	var alert tls.AlertError
	const newKey = "ask for a new token: tsshub key create"
	switch {
	case errors.As(err, &ref):
		je = &JoinError{Code: ref.Code, Say: ref.Say}
		switch ref.Code {
		case CodeKeyUnknown, CodeKeyExpired, CodeKeyUsed:
			je.Hint = newKey
		case CodeNameTaken:
			je.Hint = fmt.Sprintf("choose another name with --hostname, or free it on the hub: tsshub node rename %s NEW, or node remove %s; a key made with --suffix numbers such names", name, name)
		case CodeNameReserved, CodeNameInvalid:
			je.Hint = "choose another name with --hostname"
		case CodeOwner:
			je.Hint = "choose another folder with --state, or remove the node on the hub first"
		case CodeBusy:
			je.Hint = "try again in a minute"
		case CodeNotHub:
			je.Say = "what answers at " + hub + " does not speak as a tsshub"
			je.Hint = "check the address in the token"
		default:
			je.Hint = "look at the hub's log"
		}
		return je, ref.Code == CodeBusy
	case errors.Is(err, ErrPin):
		return &JoinError{Code: CodeWrongPin, Say: "the server at " + hub + " is not the hub that this token is from (its key differs)",
			Hint: "the hub was set up anew, or somebody is in between: get a new token from the hub itself", Err: err}, false
	case errors.As(err, &rec), errors.As(err, &alert):
		return &JoinError{Code: CodeNotHub, Say: "what answers at " + hub + " is not a tsshub", Hint: "check the address and the port in the token", Err: err}, false
	case errors.As(err, &op) && op.Op == "dial", errors.Is(err, context.DeadlineExceeded):
		return &JoinError{Code: CodeUnreachable, Say: "the hub at " + hub + " cannot be reached",
			Hint: "check that tsshub runs there and that this TCP port is let through", Err: err}, false
	}
	return &JoinError{Code: CodeUnreachable, Say: "the connection to the hub at " + hub + " broke off",
		Hint: "check that tsshub runs there, and its log", Err: err}, true
}

// sleep waits; false means that ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
