package sshd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/session/launch"
)

// Limits bounds what peers may use up. A zero field takes the default.
type Limits struct {
	LoginGrace        time.Duration // from accept to login: 30 s
	Handshakes        int           // connections not logged in yet, of all peers: 100
	HandshakesPerPeer int           // of one person, or one tagged machine: 60
	Conns             int           // connections of all peers: 2000
	ConnsPerPeer      int           // of one person, or one tagged machine: 200
	SessionsPerConn   int           // channels open at once on a connection: 64
	ForwardsPerConn   int           // forwards open at once on a connection, listeners included: 256
	AsksPerConn       int           // granted and not yet gone: 768
	ClientAlive       time.Duration // a client that is silent for this long when asked for life is gone: 15 min
	Linger            time.Duration // without a monitor a connection goes on for: 10 min
	RecorderWait      time.Duration // for a recorder to take the beginning, where the rule needs one: 10 s
	RecorderHold      time.Duration // with nothing acknowledged, output is held back after: 15 s
	RecorderEnd       time.Duration // and the session ended after: 2 min
	RecorderPause     time.Duration // a session that is paused is ended after: 10 min
}

// DefaultLimits is what a zero Limits means.
func DefaultLimits() Limits { return Limits{}.withDefaults() }

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.Handshakes, 100)
	def(&l.HandshakesPerPeer, 60)
	def(&l.Conns, 2000)
	def(&l.ConnsPerPeer, 200)
	def(&l.SessionsPerConn, 64)
	def(&l.ForwardsPerConn, 256)
	def(&l.AsksPerConn, 768)
	if l.LoginGrace <= 0 {
		l.LoginGrace = 30 * time.Second
	}
	if l.ClientAlive <= 0 {
		l.ClientAlive = 15 * time.Minute
	}
	if l.Linger <= 0 {
		l.Linger = 10 * time.Minute
	}
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&l.RecorderWait, 10 * time.Second}, {&l.RecorderHold, 15 * time.Second}, {&l.RecorderEnd, 2 * time.Minute}, {&l.RecorderPause, 10 * time.Minute}} {
		if *d.v <= 0 {
			*d.v = d.d
		}
	}
	return l
}

// Config is what a Server is made of.
type Config struct {
	Self         func() policy.Identity                   // this host, as the mesh has it now
	WhoIs        func(netip.Addr) (policy.Identity, bool) // the node whose own address this is, exactly
	Policy       func() *policy.Policy                    // nil: nobody may do anything
	Changed      <-chan struct{}                          // policy or netmap changed; nil: never
	HostSigners  []gossh.Signer                           // host keys; they stay in this process
	Spool        *recording.Spool                         // nil: no session that must be recorded
	ShipNow      func()                                   // hurries what is in the spool to a recorder; nil: there is none
	ConnCommand  []string                                 // starts a connection process: {"/proc/self/exe", "conn"}
	Spare        bool                                     // keep one connection process ready, in Serve
	RunDir       string                                   // state of open connections, and the socket they come back to
	Audit        func(audit.Entry)                        // nil: nothing is audited
	Limits       Limits                                   //
	Log          *slog.Logger                             // nil: slog.Default()
	Mesh         string                                   // its name, for the recording
	SelfAttested bool                                     // this process has the uid of its sessions
	OwnUserOnly  bool                                     // not root: only the own uid can be logged in to
	Accounts     launch.Accounts                          // where accounts are looked up
	Utmp, Wtmp   string                                   // login records; "" means the system's
	Lastlog      string                                   //
	Databases    *launch.Databases                        // login records of newer systems; nil: none
	Logind       *launch.Logind                           // opens a session there for each login; nil: does not
	FallThrough  string                                   // address of the host's own SSH server, for peers no ssh rule is about; "": they are refused
	Now          func() time.Time                         // nil: time.Now
}

// Server is the monitor.
type Server struct {
	cfg    Config
	logins *launch.Logins // nil with OwnUserOnly
	mesh   string
	hush   *hush
	spares spares

	counters   counters
	mu         sync.Mutex
	links      map[*link]struct{}
	handed     map[*handed]struct{}
	handshakes int
	byPeer     map[string]*usage // by owner
	slots      map[string]int    // sessions of an owner under a rule that counts them
	watchers   int               // Serve and ServeConn calls that are on; the first one watches
	stopWatch  context.CancelFunc
	watchDone  chan struct{}

	wg       sync.WaitGroup // one for each link, and its helpers
	revoking sync.WaitGroup // what a review has to take back
}

// usage is what one person, or one tagged machine, has open.
type usage struct{ conns, handshakes int }

// New checks the configuration and makes the run directory.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Self == nil || cfg.WhoIs == nil || cfg.Policy == nil:
		return nil, errors.New("sshd: Self, WhoIs and Policy are needed")
	case len(cfg.HostSigners) == 0:
		return nil, errors.New("sshd: no host key")
	case len(cfg.ConnCommand) == 0:
		return nil, errors.New("sshd: no command for connection processes")
	case !filepath.IsAbs(cfg.RunDir):
		return nil, fmt.Errorf("sshd: run directory %q is not absolute", cfg.RunDir)
	case os.Getuid() != 0 && !cfg.OwnUserOnly:
		return nil, errors.New("sshd: without root only the own user can be served")
	}
	cfg.Limits = cfg.Limits.withDefaults()
	if cfg.Audit == nil {
		cfg.Audit = func(audit.Entry) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{cfg: cfg, links: map[*link]struct{}{}, slots: map[string]int{}, handed: map[*handed]struct{}{}, byPeer: map[string]*usage{}, hush: newHush()}
	s.spares = spares{s: s, wake: make(chan struct{}, 1), done: true}
	if !cfg.OwnUserOnly {
		s.logins = &launch.Logins{Utmp: orElse(cfg.Utmp, "/run/utmp"), Wtmp: orElse(cfg.Wtmp, "/var/log/wtmp"), Lastlog: orElse(cfg.Lastlog, "/var/log/lastlog")}
	}
	// Others may pass through to the socket; what is in conns is root's alone.
	if err := os.MkdirAll(s.connsDir(), 0o700); err != nil {
		return nil, fmt.Errorf("sshd: %w", err)
	}
	mode := os.FileMode(0o711)
	if cfg.OwnUserOnly {
		mode = 0o700
	}
	if err := os.Chmod(cfg.RunDir, mode); err != nil {
		return nil, fmt.Errorf("sshd: %w", err)
	}
	for _, dir := range []string{cfg.RunDir, s.connsDir()} {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil {
			return nil, fmt.Errorf("sshd: %s: %w", dir, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o022 != 0 {
			return nil, fmt.Errorf("sshd: %s belongs to somebody else, or others may write to it", dir)
		}
	}
	return s, nil
}

func orElse(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

// Serve takes over the connections of the monitor before, accepts new ones until ctx
// ends, and returns after its last goroutine. Connections on kernel sockets go on then;
// others are ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.watch()
	defer s.unwatch()
	back, err := s.recover(ctx)
	if err != nil {
		l.Close()
		return err
	}
	defer back.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	if s.cfg.Spare {
		s.spares.mu.Lock()
		s.spares.done = false
		s.spares.mu.Unlock()
		s.wg.Go(func() { s.spares.run(ctx.Done()) })
	}
	err = s.accept(ctx, l)
	cancel()
	s.review() // what ended this may have ended everybody's right, as when the host itself is out of its mesh
	s.revoking.Wait()
	s.detachAll()
	s.wg.Wait()
	return err
}

func (s *Server) accept(ctx context.Context, l net.Listener) error {
	pause := 5 * time.Millisecond
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("sshd: accept: %w", err)
		}
		if err != nil {
			// Out of descriptors, or a connection that was gone before it was here.
			s.cfg.Log.Warn("accept", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		s.wg.Go(func() { s.handle(c) })
	}
}

// ServeConn serves one connection and returns when it is over.
func (s *Server) ServeConn(ctx context.Context, c net.Conn) error {
	s.watch()
	defer s.unwatch()
	done := make(chan struct{})
	s.wg.Add(1)
	go func() { // ends with the connection
		defer s.wg.Done()
		defer close(done)
		s.handle(c)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.detachAll()
		<-done
		return ctx.Err()
	}
}

// reviewEvery evaluates all that is open even without a change: an expiry is not always
// a change, and a signal may be lost.
const reviewEvery = 30 * time.Second

func (s *Server) watch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers++
	if s.watchers > 1 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.stopWatch, s.watchDone = cancel, done
	go func() { // ends with the last Serve or ServeConn
		defer close(done)
		tick := time.NewTicker(reviewEvery)
		defer tick.Stop()
		look := time.NewTicker(connLogEvery)
		defer look.Stop()
		changed := s.cfg.Changed
		level := s.spoolLevel(recording.LevelRoom)
		for {
			select {
			case <-ctx.Done():
				return
			case <-look.C:
				s.boundConnLog()
				continue
			case _, ok := <-changed:
				if !ok {
					changed = nil
				}
			case <-tick.C:
				level = s.spoolLevel(level)
			}
			s.review()
		}
	}()
}

func (s *Server) unwatch() {
	s.mu.Lock()
	s.watchers--
	last := s.watchers == 0
	stop, done := s.stopWatch, s.watchDone
	s.mu.Unlock()
	if last {
		stop()
		<-done
	}
}

// Session is one logged-in connection.
type Session struct {
	ID        string
	Peer      netip.Addr
	Node      string // the peer's name
	Login     string // the person, or the tags of a machine
	LocalUser policy.LocalUser
	Start     time.Time
	PID       int
	Channels  int
	Away      bool // of a former monitor, and not back yet
}

// Sessions lists the connections that are logged in.
func (s *Server) Sessions() []Session {
	var out []Session
	for _, l := range s.all() {
		if v, ok := l.view(); ok {
			out = append(out, v)
		}
	}
	return out
}

func (s *Server) all() []*link {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*link, 0, len(s.links))
	for l := range s.links {
		out = append(out, l)
	}
	return out
}

// review evaluates everything open anew.
func (s *Server) review() {
	for _, l := range s.all() {
		l.review()
	}
	s.reviewHanded(false)
}

// detachAll lets go of every connection: those that can go on do, the others end.
func (s *Server) detachAll() {
	for _, l := range s.all() {
		l.detach()
	}
	s.reviewHanded(true)
}
