package sshd

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tssh/policy"
	"tssh/recording/audit"
	"tssh/session/control"
	"tssh/session/launch"
)

// stateFile is RunDir/conns/ID.json; doc.go has the format.
type stateFile struct {
	Version int               `json:"version"`
	ID      string            `json:"id"`
	PID     int               `json:"pid"`
	Start   uint64            `json:"start"`
	Token   string            `json:"token"`
	User    policy.LocalUser  `json:"user"`
	UID     uint32            `json:"uid"`
	GID     uint32            `json:"gid"`
	SrcID   string            `json:"src_id"`
	SrcName string            `json:"src_name"`
	SrcUser policy.Login      `json:"src_user,omitempty"`
	SrcTags []policy.Tag      `json:"src_tags,omitempty"`
	SrcAddr netip.Addr        `json:"src_addr"`
	DstAddr netip.Addr        `json:"dst_addr"`
	Remote  string            `json:"remote"`
	Local   string            `json:"local"`
	Client  string            `json:"client"`
	Shell   string            `json:"shell"`
	Began   time.Time         `json:"began"`
	Key     string            `json:"key"`
	Slot    string            `json:"slot,omitempty"`
	Section string            `json:"section"`
	Rule    int               `json:"rule"`
	Keep    keeping           `json:"keep"`
	Minor   int               `json:"minor,omitempty"`
	Asks    map[uint32][]ask  `json:"asks,omitempty"`
	TTYs    map[uint32]string `json:"ttys,omitempty"`
}

const (
	maxStateFile = 16 << 20
	stateVersion = 1
)

// errOtherVersion is about a session of another tsshd's, after a downgrade as a rule.
var errOtherVersion = errors.New("session of another version of tsshd")

func (s *Server) connsDir() string   { return filepath.Join(s.cfg.RunDir, "conns") }
func (s *Server) socketPath() string { return filepath.Join(s.cfg.RunDir, "resume.sock") }

func (l *link) statePath() string { return filepath.Join(l.s.connsDir(), l.id+".json") }

// saveLocked keeps the state of a connection that can outlive this process. A write that
// fails leaves the state before, which grants no more than this one did.
func (l *link) saveLocked() {
	if l.id == "" || l.detached {
		return
	}
	if err := l.saveStateLocked(); err != nil {
		l.s.cfg.Log.Error("state", "session", l.id, "err", err)
	}
}

func (l *link) saveStateLocked() error {
	if !l.survive {
		return nil
	}
	g := l.grant
	b, err := json.Marshal(stateFile{Version: stateVersion, ID: l.id, PID: l.proc.pid, Start: l.proc.start, Token: hex.EncodeToString(l.token[:]),
		User: g.user, UID: g.account.UID, GID: g.account.GID, SrcID: l.src.ID, SrcName: l.src.Name, SrcUser: l.src.User, SrcTags: l.src.Tags,
		SrcAddr: l.srcAddr, DstAddr: l.dstAddr, Remote: l.remote, Local: l.local, Client: l.client, Shell: g.account.Shell, Began: l.began,
		Key: g.decision.Key(), Slot: l.slot, Section: g.decision.Section, Rule: g.decision.Rule,
		Minor: l.minor, Keep: l.keep, Asks: l.asks, TTYs: l.ttys})
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	// Not synced: after a loss of power there is no process to take over.
	tmp := l.statePath() + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if err := os.Rename(tmp, l.statePath()); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

func (l *link) forgetState() {
	if err := os.Remove(l.statePath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		l.s.cfg.Log.Error("state", "err", err)
	}
}

// recover takes over what a monitor before left, finishes what has no process any more,
// and listens for those that come back. The returned group ends with ctx.
func (s *Server) recover(ctx context.Context) (*sync.WaitGroup, error) {
	var back sync.WaitGroup
	files, err := filepath.Glob(filepath.Join(s.connsDir(), "*.json"))
	if err != nil {
		return nil, fmt.Errorf("sshd: %w", err)
	}
	for _, f := range files {
		if err := s.takeOver(f); err != nil {
			s.cfg.Log.Info("not taken over", "file", filepath.Base(f), "err", err)
			if rerr := os.Remove(f); rerr != nil {
				return nil, fmt.Errorf("sshd: %w", rerr)
			}
		}
	}
	if s.cfg.Spool != nil {
		if err := s.finishOrphans(); err != nil {
			return nil, err
		}
	}
	sock := s.socketPath()
	if err := os.Remove(sock); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("sshd: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: sock, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("sshd: %w", err)
	}
	l.SetUnlinkOnClose(false) // the next monitor may have its own there already
	if err := os.Chmod(sock, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("sshd: %w", err)
	}
	back.Go(func() { s.listenBack(ctx, l) })
	context.AfterFunc(ctx, func() { l.Close() })
	s.review()
	return &back, nil
}

// unrecorded reports whether a session goes on whose recording has ended.
func (s *Server) unrecorded(id string) bool {
	for _, l := range s.all() {
		if l.id == id {
			return true
		}
	}
	return false
}

func (s *Server) finishOrphans() error {
	ids, err := s.cfg.Spool.Orphans()
	if err != nil {
		return fmt.Errorf("sshd: recordings without a session: %w", err)
	}
	for _, id := range ids {
		rec, err := s.cfg.Spool.Adopt(id)
		if err == nil {
			err = rec.Finish(causeLost, "the host stopped, or the connection process ended while the daemon was away")
		}
		if s.unrecorded(id) {
			continue // it goes on, without
		}
		if err != nil {
			s.cfg.Log.Error("recording without a session", "session", id, "err", err)
			continue
		}
		s.audit(audit.Entry{Kind: "session.close", Session: id, Verdict: causeLost, Text: "finished after the fact"})
	}
	return nil
}

// takeOver makes a link of a state file. On an error the process, if it is the one, is
// killed: a session that nobody records and nobody can revoke must not go on.
func (s *Server) takeOver(name string) error {
	st, err := readState(name)
	if errors.Is(err, errOtherVersion) {
		// Number and start of the process have been in every version's.
		if p, herr := holdProcess(st.PID, st.Start); herr == nil {
			p.kill(true)
			p.letGo()
			s.cfg.Log.Warn("a session ends: it is of another version of tsshd", "session", st.ID, "pid", st.PID, "err", err)
		}
	}
	if err != nil {
		return err
	}
	p, err := holdProcess(st.PID, st.Start)
	if err != nil {
		return err
	}
	if st.Minor > control.Minor {
		// What is newer is only what the monitor may send; it does not.
		s.cfg.Log.Info("session of a newer tsshd", "session", st.ID, "minor", st.Minor, "own", control.Minor)
	}
	fail := func(err error) error {
		p.kill(true)
		p.letGo()
		return err
	}
	l := &link{s: s, src: policy.Identity{ID: st.SrcID, Name: st.SrcName, User: st.SrcUser, Tags: st.SrcTags}, srcAddr: st.SrcAddr, dstAddr: st.DstAddr,
		remote: st.Remote, local: st.Local, survive: true, proc: p, over: make(chan struct{}), state: control.Running, client: st.Client, began: st.Began,
		asks: st.Asks, ttys: st.TTYs, minor: st.Minor}
	if l.asks == nil {
		l.asks = map[uint32][]ask{}
	}
	if l.ttys == nil {
		l.ttys = map[uint32]string{}
	}
	l.grant = &grant{user: st.User, account: launch.Account{Name: string(st.User), UID: st.UID, GID: st.GID, Shell: st.Shell},
		decision: policy.Recalled(st.Section, st.Rule, st.Key)}
	token, err := hex.DecodeString(st.Token)
	if err != nil || len(token) != sha256.Size {
		return fail(errors.New("state: token is malformed"))
	}
	l.token = [sha256.Size]byte(token)
	if s.cfg.Spool == nil {
		return fail(errors.New("no spool"))
	}
	l.id, l.keep = st.ID, st.Keep
	if !l.keep.Off {
		if l.rec, err = s.cfg.Spool.Adopt(st.ID); err != nil {
			return fail(err)
		}
	}
	s.mu.Lock()
	s.links[l] = struct{}{}
	if l.slot = st.Slot; l.slot != "" {
		s.slots[l.slot]++
	}
	u := s.byPeer[owner(l.src)]
	if u == nil {
		u = &usage{}
		s.byPeer[owner(l.src)] = u
	}
	u.conns++
	s.mu.Unlock()
	l.watchRecording()
	s.cfg.Log.Info("session taken over", "session", st.ID, "node", st.SrcName, "as", st.User, "pid", st.PID)
	s.audit(audit.Entry{Kind: "session.adopt", Who: l.src.Who(), Node: l.src.Name, LocalUser: string(st.User), Session: st.ID})
	s.wg.Go(l.serve)
	return nil
}

func readState(name string) (stateFile, error) {
	var st stateFile
	f, err := os.Open(name)
	if err != nil {
		return st, fmt.Errorf("state: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStateFile))
	if err != nil {
		return st, fmt.Errorf("state: %w", err)
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return st, fmt.Errorf("state: %s: %w", filepath.Base(name), err)
	}
	if st.Version != stateVersion && st.PID > 1 {
		return st, fmt.Errorf("%w: state %d, this daemon knows %d", errOtherVersion, st.Version, stateVersion)
	}
	if st.Version != stateVersion || st.ID != strings.TrimSuffix(filepath.Base(name), ".json") || st.PID <= 1 {
		return st, fmt.Errorf("state: %s is not one of ours", filepath.Base(name))
	}
	return st, nil
}

// left holds the connection processes that a monitor left in a run directory.
func left(runDir string) map[string]*process {
	out := map[string]*process{}
	files, _ := filepath.Glob(filepath.Join(runDir, "conns", "*.json")) // the pattern is good
	for _, f := range files {
		if st, err := readState(f); err == nil || errors.Is(err, errOtherVersion) {
			if p, err := holdProcess(st.PID, st.Start); err == nil {
				out[f] = p
			}
		}
	}
	return out
}

// Left counts the connections that are open under a run directory.
func Left(runDir string) int {
	all := left(runDir)
	for _, p := range all {
		p.letGo()
	}
	return len(all)
}

// EndLeft ends the connections that are open under a run directory which no monitor will
// serve again, and returns how many these were. Whoever has their spool next ends the recordings.
func EndLeft(runDir string) int {
	all := left(runDir)
	for f, p := range all {
		p.kill(true)
		p.letGo()
		_ = os.Remove(f)
	}
	return len(all)
}

// maxKnocking bounds connections to the resume socket that have not proven anything.
const maxKnocking = 64

// listenBack lets connection processes come back until ctx ends.
func (s *Server) listenBack(ctx context.Context, ln *net.UnixListener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, maxKnocking)
	for {
		nc, err := ln.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return
		}
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			nc.Close()
			return
		}
		wg.Go(func() {
			s.comeBack(nc)
			<-room
		})
	}
}

// comeBack checks one process that says it is a connection of ours.
func (s *Server) comeBack(nc *net.UnixConn) {
	_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
	ctl, err := control.FromNet(nc, true)
	if err != nil {
		return
	}
	// Anybody can connect. Whoever is none of the processes that may is sent away at once,
	// so that he cannot take their places by waiting.
	if cred, err := ctl.Peer(); err != nil || !s.expects(int(cred.Pid)) {
		ctl.Close()
		return
	}
	m, _, err := ctl.Receive()
	r, ok := m.Body.(*control.ResumeMsg)
	if err != nil || !ok {
		ctl.Close()
		return
	}
	l := s.claim(ctl, r)
	if l == nil {
		say := sayMonitorChanged
		if r.Version != control.Version {
			say = sayOtherVersion
			cred, _ := ctl.Peer() // it was looked at above
			s.cfg.Log.Warn("a session ends: it speaks another version of the table of messages", "session", r.ID, "pid", cred.Pid, "version", r.Version, "own", control.Version)
		}
		_ = ctl.Send(control.Message{Type: control.Resumed, N: m.N, Body: &control.ResumedMsg{Say: say}}, nil)
		ctl.Close()
		return
	}
	_ = nc.SetDeadline(time.Time{})
	if err := ctl.Send(control.Message{Type: control.Resumed, N: m.N, Body: &control.ResumedMsg{OK: true}}, nil); err != nil {
		ctl.Close()
		return
	}
	l.mu.Lock()
	old := l.ctl
	l.ctl = ctl
	revoked := l.revoked
	l.mu.Unlock()
	if old != nil {
		old.Close()
	}
	if revoked != nil {
		_ = ctl.Send(control.Message{Type: control.Revoke, Body: revoked}, nil)
	}
	if k := l.reminder(); k != nil {
		_ = ctl.Send(control.Message{Type: control.Keep, Body: k}, nil)
	}
	l.startListening(ctl)
	s.cfg.Log.Info("session is back", "session", r.ID, "pid", l.proc.pid)
}

// expects reports whether a connection process has this number.
func (s *Server) expects(pid int) bool {
	for _, l := range s.all() {
		if l.survive && l.proc.pid == pid {
			return true
		}
	}
	return false
}

// claim finds the link that a process proves to be: by the token, which only it has, and
// by what the kernel says about who connected.
func (s *Server) claim(ctl *control.Conn, r *control.ResumeMsg) *link {
	cred, err := ctl.Peer()
	if err != nil || r.Version != control.Version {
		return nil
	}
	sum := sha256.Sum256(r.Token)
	for _, l := range s.all() {
		l.mu.Lock()
		match := l.id != "" && l.id == r.ID && l.state == control.Running && l.survive
		token, uid := l.token, uint32(0)
		if match {
			uid = l.grant.account.UID
		}
		l.mu.Unlock()
		if !match {
			continue
		}
		start, err := startTime(int(cred.Pid))
		if err != nil || subtle.ConstantTimeCompare(sum[:], token[:]) != 1 || int(cred.Pid) != l.proc.pid || cred.Uid != uid || start != l.proc.start {
			s.cfg.Log.Error("a process claimed a session that is not its own", "session", r.ID, "pid", cred.Pid, "uid", cred.Uid)
			return nil
		}
		return l
	}
	return nil
}
