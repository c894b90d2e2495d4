package sshd

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/session/control"
	"tssh/session/launch"
)

// link is the monitor's side of one connection.
type link struct {
	s       *Server
	src     policy.Identity // as it was at accept; asked again for every decision
	srcAddr netip.Addr
	dstAddr netip.Addr
	remote  string
	local   string
	survive bool  // the socket is the process's own
	pumped  *pump // nil when it survives
	proc    *process
	over    chan struct{} // closed when the link is finished or let go

	handshaking bool // guarded by s.mu

	dialogues sync.WaitGroup // control sockets being read

	mu       sync.Mutex
	ctl      *control.Conn // nil while the process is not connected
	state    control.State
	signs    int
	auths    int
	bucket   time.Time // of signatures after login: full at this time
	grant    *grant    // of the last attempt that was admitted
	client   string
	began    time.Time
	id       string             // of the session; "" before it began
	rec      *recording.Session // nil while nothing is recorded
	keep     keeping            // how it is to be recorded
	held     bool               // output is held back
	heldAt   time.Time          // since when
	waits    int                // times that the process said that its journal has no room
	token    [sha256.Size]byte
	denied   int // asks that were refused
	granted  int // and that were not
	asks     map[uint32][]ask
	ttys     map[uint32]string
	since    map[uint32]time.Time // when a terminal was opened; began where that was under a former monitor
	revoked  *control.RevokeMsg   // what it was told, or is to be told when it comes back
	slot     string               // among its owner's sessions of the rule
	timer    *time.Timer          // to what ends the session by the clock; nil when nothing does
	detached bool
	minor    int    // control.Minor of the process
	watchers string // as the person was told last

	watchNotes int  // notes of that in the recording
	ended      bool // the process; no further dialogue begins
	cause      string
	text       string
}

// grant is a login that was admitted.
type grant struct {
	user     policy.LocalUser
	account  launch.Account
	decision policy.Decision
}

// ask is something more that was granted.
type ask struct {
	Kind   string `json:"kind"`
	Target string `json:"target,omitempty"`
}

const (
	maxSignsBefore = 3  // key exchanges before login; clients do one
	maxAuths       = 10 // attempts
	signBurst      = 32
	signEvery      = 100 * time.Millisecond
)

// serve runs the link from a connected control socket to the end of the process.
func (l *link) serve() {
	l.mu.Lock()
	ctl := l.ctl
	l.mu.Unlock()
	if ctl != nil {
		l.startListening(ctl)
	}
	ended := l.proc.wait()
	if !ended {
		close(l.over)
		l.s.leave(l)
		l.disarm() // its file says what it had
		return     // let go: it lives on
	}
	l.proc.letGo() // from here on its number may be another's
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.dialogues.Wait() // its last words; the sockets ended with it
	if l.pumped != nil {
		// The process closed its end; what it wrote last is still to be carried.
		select {
		case <-l.pumped.done:
		case <-time.After(2 * time.Second):
			l.pumped.abort()
			<-l.pumped.done
		}
	}
	l.finish()
}

// orphanTime is how long a process may live on with its control socket closed, where it
// has no business to.
const orphanTime = 2 * time.Second

func (l *link) startListening(ctl *control.Conn) {
	l.mu.Lock()
	if l.ended { // a socket made in its last moment: nobody speaks on it
		l.mu.Unlock()
		ctl.Close()
		return
	}
	l.s.wg.Add(1)
	l.dialogues.Add(1)
	l.mu.Unlock()
	go func() { // ends with the socket
		defer l.s.wg.Done()
		l.listen(ctl)
	}()
}

// listen handles what the process says until its socket closes.
func (l *link) listen(ctl *control.Conn) {
	err := l.dialogue(ctl)
	l.dialogues.Done()
	ctl.Close()
	l.mu.Lock()
	if l.ctl == ctl {
		l.ctl = nil
	}
	detached := l.detached
	l.mu.Unlock()
	if detached {
		return
	}
	if errors.Is(err, errProtocol) {
		l.s.cfg.Log.Error("connection process broke the rules", "node", l.src.Name, "pid", l.proc.pid, "err", err)
		l.proc.kill(true)
		return
	}
	select {
	case <-l.over:
	case <-time.After(orphanTime):
		l.mu.Lock()
		back := l.ctl != nil
		l.mu.Unlock()
		if !back {
			l.proc.kill(true)
		}
	}
}

// errProtocol marks what only a process that was taken over would send.
var errProtocol = errors.New("protocol violation")

func (l *link) dialogue(ctl *control.Conn) error {
	for {
		m, file, err := ctl.Receive()
		if file != nil {
			file.Close()
		}
		if err != nil {
			var sys syscall.Errno
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &sys) {
				return err
			}
			return errors.Join(errProtocol, err)
		}
		l.mu.Lock()
		l.state, err = control.Step(l.state, m.Type)
		l.mu.Unlock()
		if err != nil {
			return errors.Join(errProtocol, err)
		}
		answer, file, err := l.answer(m)
		if err != nil {
			return err
		}
		if answer.Type == "" {
			continue
		}
		answer.N = m.N
		err = ctl.Send(answer, file)
		if file != nil {
			file.Close()
		}
		if g, ok := answer.Body.(*control.GoMsg); ok && g.Scope != nil {
			g.Scope.Close() // it is the process's now
		}
		if err != nil {
			return err
		}
	}
}

// answer does what one message asks for.
func (l *link) answer(m control.Message) (control.Message, *os.File, error) {
	switch b := m.Body.(type) {
	case *control.HelloMsg:
		if b.Version != control.Version {
			return control.Message{}, nil, errors.Join(errProtocol, errors.New("another version"))
		}
		return control.Message{Type: control.Welcome, Body: l.welcome()}, nil, nil
	case *control.SignMsg:
		s, err := l.sign(b)
		return control.Message{Type: control.Signed, Body: s}, nil, err
	case *control.ProveMsg:
		s, err := l.prove(b)
		return control.Message{Type: control.Signed, Body: s}, nil, err
	case *control.AuthMsg:
		v, err := l.auth(b)
		return control.Message{Type: control.Verdict, Body: v}, nil, err
	case *control.BeginMsg:
		g, file, err := l.begin(b)
		return control.Message{Type: control.Go, Body: g}, file, err
	case *control.AskMsg:
		return control.Message{Type: control.Answer, Body: l.ask(b)}, nil, nil
	case *control.TTYMsg:
		l.tty(b)
	case *control.GoneMsg:
		l.countBytes(b)
		l.gone(b.Channel)
	case *control.UnkeptMsg:
		if b.Paused {
			l.processWaits(b)
			break
		}
		l.unrecorded(clean(b.Why, 256))
	case *control.DoneMsg:
		l.mu.Lock()
		l.cause, l.text = clean(b.Cause, 32), clean(b.Text, 512)
		l.mu.Unlock()
	}
	return control.Message{}, nil, nil
}

// clean bounds words of a process that may be anybody's before they reach a log.
func clean(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}

func (l *link) welcome() *control.WelcomeMsg {
	w := &control.WelcomeMsg{Version: control.Version, Remote: l.remote, Local: l.local, Grace: l.s.cfg.Limits.LoginGrace,
		Sessions: l.s.cfg.Limits.SessionsPerConn, Forwards: l.s.cfg.Limits.ForwardsPerConn, ClientAlive: l.s.cfg.Limits.ClientAlive, Survive: l.survive, Linger: l.s.cfg.Limits.Linger}
	for _, k := range l.s.cfg.HostSigners {
		w.HostKeys = append(w.HostKeys, k.PublicKey().Marshal())
	}
	return w
}

// sign signs what has the shape of an exchange hash: 32, 48 or 64 bytes, the sizes of the
// hashes of RFC 4253 key exchanges. Everything else that host keys sign, and everything
// clients sign to log in, is longer. Before login few are made; after it, slowly.
func (l *link) sign(b *control.SignMsg) (*control.SignedMsg, error) {
	if !exchangeHash(b.Data) {
		return nil, errors.Join(errProtocol, errors.New("not an exchange hash"))
	}
	return l.signed(b.Key, b.Alg, b.Data)
}

func exchangeHash(b []byte) bool { return len(b) == 32 || len(b) == 48 || len(b) == 64 }

// prove signs what OpenSSH's hostkeys-prove-00 wants: words of ours, the identifier of the
// session, which is an exchange hash, and the key. It is signed like one and counted with them.
func (l *link) prove(b *control.ProveMsg) (*control.SignedMsg, error) {
	if !exchangeHash(b.Session) || b.Key < 0 || b.Key >= len(l.s.cfg.HostSigners) {
		return nil, errors.Join(errProtocol, errors.New("not a session identifier, or no such key"))
	}
	return l.signed(b.Key, b.Alg, gossh.Marshal(struct {
		What, Session, Key string
	}{"hostkeys-prove-00@openssh.com", string(b.Session), string(l.s.cfg.HostSigners[b.Key].PublicKey().Marshal())}))
}

func (l *link) signed(n int, alg string, data []byte) (*control.SignedMsg, error) {
	if n < 0 || n >= len(l.s.cfg.HostSigners) {
		return nil, errors.Join(errProtocol, errors.New("no such host key"))
	}
	l.mu.Lock()
	l.signs++
	made, running := l.signs, l.state == control.Running
	pause := time.Duration(0)
	if running {
		now := time.Now()
		if l.bucket.Before(now.Add(-signBurst * signEvery)) {
			l.bucket = now.Add(-signBurst * signEvery)
		}
		l.bucket = l.bucket.Add(signEvery)
		pause = max(0, l.bucket.Sub(now))
	}
	l.mu.Unlock()
	if !running && made > maxSignsBefore {
		return nil, errors.Join(errProtocol, errors.New("too many signatures before login"))
	}
	time.Sleep(pause) // at most signEvery: one message is handled at a time
	key := l.s.cfg.HostSigners[n]
	sig, err := signWith(key, data, alg)
	if err != nil {
		l.s.cfg.Log.Error("host key", "type", key.PublicKey().Type(), "err", err)
		return &control.SignedMsg{Err: "could not sign"}, nil
	}
	return &control.SignedMsg{Format: sig.Format, Blob: sig.Blob}, nil
}

func signWith(key gossh.Signer, data []byte, alg string) (*gossh.Signature, error) {
	typ := key.PublicKey().Type()
	if typ != gossh.KeyAlgoRSA {
		if alg != "" && alg != typ {
			return nil, errors.New("algorithm of another key")
		}
		return key.Sign(rand.Reader, data)
	}
	as, ok := key.(gossh.AlgorithmSigner)
	if !ok || alg != gossh.KeyAlgoRSASHA256 && alg != gossh.KeyAlgoRSASHA512 {
		return nil, errors.New("RSA only with SHA-2")
	}
	return as.SignWithAlgorithm(rand.Reader, data, alg)
}

// ptsName accepts the name of a terminal and no other path.
func ptsName(s string) bool {
	n, ok := strings.CutPrefix(s, "/dev/pts/")
	return ok && n != "" && len(n) < 10 && strings.Trim(n, "0123456789") == ""
}

// tty records a terminal that the process opened, once it is seen to be the account's.
func (l *link) tty(b *control.TTYMsg) {
	if !ptsName(b.Name) {
		return // and no other path is looked at as root
	}
	st, err := os.Lstat(b.Name)
	if err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return
	}
	l.mu.Lock()
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Uid != l.grant.account.UID || len(l.ttys) >= l.s.cfg.Limits.SessionsPerConn {
		l.mu.Unlock()
		return
	}
	now := l.s.cfg.Now()
	l.ttys[b.Channel] = b.Name
	if l.since == nil {
		l.since = map[uint32]time.Time{}
	}
	l.since[b.Channel] = now
	rec := l.loginLocked(b.Name, b.PID)
	l.saveLocked()
	l.mu.Unlock()
	l.s.loginOpened(rec, now)
}

func (l *link) loginLocked(name string, pid int) launch.Login {
	return launch.Login{User: l.grant.account.Name, UID: l.grant.account.UID, Line: strings.TrimPrefix(name, "/dev/"), Host: l.src.Name, Addr: l.srcAddr, PID: pid}
}

// gone forgets what a channel had.
func (l *link) gone(ch uint32) {
	l.mu.Lock()
	delete(l.asks, ch)
	name, had := l.ttys[ch]
	since, known := l.since[ch]
	delete(l.ttys, ch)
	delete(l.since, ch)
	var rec launch.Login
	if had {
		rec = l.loginLocked(name, 0)
	}
	if !known {
		since = l.began
	}
	l.saveLocked()
	l.mu.Unlock()
	if had {
		l.s.loginClosed(rec, since)
	}
}

// graceOver ends a process that has not logged in.
func (l *link) graceOver() {
	l.mu.Lock()
	late := l.state != control.Running && l.state != control.Ended
	l.mu.Unlock()
	if late {
		l.proc.kill(true)
		if e := (audit.Entry{Kind: "session.limit", Who: l.src.Who(), Node: l.src.Name, Verdict: "deny", Text: "no login within the grace time"}); l.s.hush.allow(l.src, &e) {
			l.s.counters.add(countLimits, "limit", "login-grace")
			l.s.cfg.Log.Info("no login in time", "node", l.src.Name)
			l.s.audit(e)
		}
	}
}

// detach lets the process go on without this monitor, or ends it where it cannot.
func (l *link) detach() {
	l.mu.Lock()
	ctl := l.ctl
	goesOn := l.survive && l.state == control.Running && l.revoked == nil
	l.detached = goesOn
	if !goesOn && l.cause == "" {
		l.cause, l.text = causeShutdown, "the daemon stopped"
	}
	l.mu.Unlock()
	if goesOn {
		if ctl != nil {
			ctl.Close()
		}
		l.proc.letGo()
		return
	}
	if ctl != nil {
		ctl.Close() // it says goodbye and ends
	}
	l.s.wg.Add(1)
	go func() { // ends with the process
		defer l.s.wg.Done()
		select {
		case <-l.over:
		case <-time.After(orphanTime):
			l.proc.kill(true)
		}
	}()
}

// finish closes the books of a connection whose process has ended.
func (l *link) finish() {
	defer close(l.over)
	l.mu.Lock()
	l.state = control.Ended
	if l.ctl != nil {
		l.ctl.Close()
		l.ctl = nil
	}
	id, rec, g, denied := l.id, l.rec, l.grant, l.denied
	cause, text := l.cause, l.text
	if l.revoked != nil {
		cause, text = l.revoked.Cause, l.revoked.Say
	}
	if cause == "" {
		cause, text = causeLost, "the connection process ended without a word"
	}
	var open []uint32
	for ch := range l.ttys {
		open = append(open, ch)
	}
	l.mu.Unlock()
	for _, ch := range open {
		l.gone(ch)
	}
	l.s.leave(l)
	l.disarm()
	if id == "" {
		return
	}
	if rec != nil {
		if err := rec.Finish(cause, text); err != nil {
			l.s.cfg.Log.Error("recording", "session", id, "err", err)
		}
	}
	l.forgetState()
	l.s.counters.add(countEnds, "cause", causeOf(cause))
	l.s.cfg.Log.Info("session closed", "session", id, "node", l.src.Name, "as", g.user, "cause", cause)
	l.s.audit(audit.Entry{Kind: "session.close", Who: l.src.Who(), Node: l.src.Name, LocalUser: string(g.user), Session: id, Verdict: cause, Text: text, Extra: map[string]string{"refused": strconv.Itoa(denied)}})
}

// view is the link as a Session; false when nobody is logged in on it.
func (l *link) view() (Session, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id == "" || l.state == control.Ended {
		return Session{}, false
	}
	return Session{ID: l.id, Peer: l.srcAddr, Node: l.src.Name, Login: l.src.Who(), LocalUser: l.grant.user, Start: l.began, PID: l.proc.pid, Channels: len(l.asks), Away: l.ctl == nil}, true
}
