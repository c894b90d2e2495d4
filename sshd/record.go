package sshd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/session/control"
)

// keeping is how a session is recorded.
type keeping struct {
	Remote bool   `json:"remote,omitempty"` // a recorder must take it while it runs
	Lossy  bool   `json:"lossy,omitempty"`  // it goes on when recording fails
	Pause  bool   `json:"pause,omitempty"`  // it is held until recording goes on
	Off    bool   `json:"off,omitempty"`    // not recorded, or not any more
	Glass  bool   `json:"glass,omitempty"`  // let in by a break-glass rule
	Asked  bool   `json:"asked,omitempty"`  // by a question to break-glass rules alone
	Why    string `json:"why,omitempty"`    // it is Off although it should not be
}

func keepingOf(d policy.Decision) keeping {
	t := d.Terms()
	return keeping{Remote: t.Record == policy.RecordRemote, Lossy: t.RecordFailure == policy.FailRefuse, Pause: t.RecordFailure == policy.FailPause, Off: t.Record == policy.RecordOff, Glass: t.BreakGlass}
}

func (k keeping) String() string {
	switch {
	case k.Off && k.Why != "":
		return "failed: " + k.Why
	case k.Off:
		return "off"
	case k.Remote:
		return "remote"
	}
	return "local"
}

// notice is what the person is told where the rule has showRecording.
func (k keeping) notice(input bool) string {
	switch {
	case k.Off:
		return sayNotRecorded
	case input:
		return sayInputToo
	}
	return sayRecorded
}

// glass reports whether the login was decided by break-glass rules alone. Called with mu
// held, or before the session began.
func (l *link) glass() bool { return l.keep.Asked }

// opened reports whether the session began. Called with mu held, or before it did.
func (l *link) opened() bool { return l.id != "" }

// startLocked opens the recording, where there is to be one, and makes the session
// Running. The journal is nil for one that is not recorded.
func (l *link) startLocked() (*os.File, error) {
	asked := l.keep.Asked
	l.keep = keepingOf(l.grant.decision)
	l.keep.Asked = asked
	var journal *os.File
	if !l.keep.Off {
		rec, f, err := l.recordUnlessLow()
		switch {
		case err == nil:
			l.rec, l.id, journal = rec, rec.ID(), f
		case l.grant.decision.Terms().Record != policy.RecordBestEffort:
			return nil, err
		default:
			l.keep.Off, l.keep.Why = true, sayUnrecorded(err)
			l.s.cfg.Log.Error("session goes on without a recording", "node", l.src.Name, "as", l.grant.user, "err", err)
		}
	}
	if l.keep.Off {
		l.id = recording.NewID(l.began, l.s.cfg.Self().ID)
	}
	l.state = control.Running
	if err := l.saveStateLocked(); err != nil {
		if journal != nil {
			journal.Close()
		}
		l.undoLocked("the host could not keep the state of the session")
		return nil, err
	}
	return journal, nil
}

// recordUnlessLow leaves what room there is to those that must be recorded.
func (l *link) recordUnlessLow() (*recording.Session, *os.File, error) {
	if l.grant.decision.Terms().Record == policy.RecordBestEffort && l.s.cfg.Spool != nil && l.s.cfg.Spool.Level() == recording.LevelLow {
		return nil, nil, errLow
	}
	return l.record()
}

// undoLocked takes a session back that did not begin after all.
func (l *link) undoLocked(why string) {
	if l.id != "" && l.survive {
		_ = os.Remove(l.statePath()) // it may not be there
	}
	if l.rec != nil {
		_ = l.rec.Finish(causeLost, why)
	}
	l.rec, l.id, l.state = nil, "", control.Open
}

// awaitRecorder waits until a recorder has the beginning of the recording, where the rule
// needs one.
func (l *link) awaitRecorder(journal *os.File) error {
	l.mu.Lock()
	rec, remote := l.rec, l.keep.Remote
	l.mu.Unlock()
	if rec == nil || !remote {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.s.cfg.Limits.RecorderWait)
	defer cancel()
	l.s.cfg.ShipNow()
	err := rec.WaitAcked(ctx)
	if err == nil {
		return nil
	}
	journal.Close()
	l.mu.Lock()
	l.undoLocked("no recorder took the beginning")
	l.mu.Unlock()
	return fmt.Errorf("%w: %w", errNoRecorder, err)
}

var (
	errNoRecorder = errors.New("no recorder")
	errLow        = errors.New("the spool is nearly full")
)

// sayUnrecorded are the words for a session that cannot be recorded.
func sayUnrecorded(err error) string {
	switch {
	case errors.Is(err, recording.ErrQuota):
		return sayQuota
	case errors.Is(err, errNoRecorder):
		return sayNoRecorder
	case errors.Is(err, errLow):
		return sayLow
	case errors.Is(err, recording.ErrSeal):
		return sayNoSeal
	}
	return sayNoSpool
}

// breakGlass asks the rules for that after a session could not be recorded as another rule
// demands.
func (l *link) breakGlass() (*os.File, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.revoked != nil {
		return nil, false
	}
	was := l.keep
	l.keep = keeping{Asked: true}
	d, say := l.decide(l.grant.user, l.grant.account.UID)
	if say == "" && d.Terms().BreakGlass {
		l.grant.decision = d
		if journal, err := l.startLocked(); err == nil {
			if l.keep.Why == "" {
				l.keep.Why = "another rule's recording could not be had"
			}
			return journal, true
		}
	}
	l.keep = was
	return nil, false
}

// recorderLook is how often a session that needs a recorder is compared with what it has.
const recorderLook = time.Second

// watchRecording ends the session when its recording cannot go on, or lets it go on without
// where the rule says so.
func (l *link) watchRecording() {
	l.mu.Lock()
	rec, keep := l.rec, l.keep
	l.mu.Unlock()
	if rec == nil {
		return
	}
	l.s.wg.Add(1)
	go func() { // ends with the link, or with the recording
		defer l.s.wg.Done()
		var look <-chan time.Time
		if keep.Remote && !keep.Lossy || keep.Pause {
			t := time.NewTicker(recorderLook)
			defer t.Stop()
			look = t.C
		}
		for {
			select {
			case err := <-rec.Failed():
				l.s.cfg.Log.Error("recording", "session", rec.ID(), "err", err)
				switch {
				case keep.Lossy:
					l.unrecorded(sayUnrecorded(err))
				case keep.Pause && !rec.Lost():
					l.compare(rec)
					continue
				default:
					l.revoke(causeRecorder, sayRecorderFailed)
				}
				return
			case <-look:
				l.compare(rec)
			case <-l.over:
				return
			}
		}
	}()
}

// compare holds output back while the recorder takes nothing, or the recording of a session
// that is to pause then does not go on, and ends the session when that goes on for long.
func (l *link) compare(rec *recording.Session) {
	limits := &l.s.cfg.Limits
	now := time.Now()
	why, say := "", ""
	l.mu.Lock()
	keep, since := l.keep, l.heldAt
	l.mu.Unlock()
	if keep.Remote {
		behind := rec.Behind()
		if behind > limits.RecorderHold {
			why = "the recorder takes nothing"
		}
		if !keep.Pause && behind > limits.RecorderEnd {
			say = sayRecorderAway
		}
	}
	if keep.Pause {
		if why == "" && rec.Trouble() != nil {
			why = "it cannot be recorded: the disk or the spool is full, or a limit was reached"
		}
		if why != "" && !since.IsZero() && now.Sub(since) > limits.RecorderPause {
			say = sayPausedLong
		}
	}
	if say != "" {
		l.revoke(causeRecorder, say)
		return
	}
	l.hold(rec, why)
}

// hold holds the session back for a reason; "" lets it go on.
func (l *link) hold(rec *recording.Session, why string) {
	l.mu.Lock()
	same := l.held == (why != "") || l.revoked != nil
	if !same {
		l.held = why != ""
		if l.heldAt = (time.Time{}); l.held {
			l.heldAt = time.Now()
		}
	}
	ctl, pause := l.ctl, l.keep.Pause
	l.mu.Unlock()
	if same {
		return
	}
	if ctl != nil {
		_ = ctl.Send(control.Message{Type: control.Keep, Body: &control.KeepMsg{Held: why != "", Paused: pause && why != ""}}, nil) // a dead socket shows in listen
	}
	what, text := "resumed", "the recording goes on; output flows"
	switch {
	case why != "" && pause:
		what, text = "paused", "the session is held: "+why
	case why != "":
		what, text = "held", "output is held back: "+why
	}
	if rec.Trouble() == nil { // else it is what does not work
		_ = rec.Note(what, text)
	}
	l.auditRecording("session."+what, text)
}

// maxWaits bounds what a process can have audited about its journal.
const maxWaits = 20

// processWaits hears that the process waits for room for its journal, or that it has it. It is
// the process that holds everything then, and is held to the time by itself and by us.
func (l *link) processWaits(b *control.UnkeptMsg) {
	l.mu.Lock()
	pause := l.keep.Pause
	l.waits++
	n := l.waits
	l.mu.Unlock()
	switch {
	case !pause:
		l.revoke(causeRecorder, sayRecorderFailed)
	case n > maxWaits:
	case b.Over:
		l.auditRecording("session.resumed", "the journal has room again; output flows")
	default:
		l.auditRecording("session.paused", "the session is held: its journal has no room: "+clean(b.Why, 256))
	}
}

func (l *link) auditRecording(kind, text string) {
	l.mu.Lock()
	id, user := l.id, l.grant.user
	l.mu.Unlock()
	l.s.cfg.Log.Warn(text, "session", id, "node", l.src.Name, "as", user)
	l.s.audit(audit.Entry{Kind: kind, Who: l.src.Who(), Node: l.src.Name, LocalUser: string(user), Session: id, Text: text})
}

// unrecorded lets the session go on without a recording; the recording is closed and says
// so. A process that says it without the right to is ended.
func (l *link) unrecorded(why string) {
	l.mu.Lock()
	rec, ctl, lossy := l.rec, l.ctl, l.keep.Lossy
	if rec != nil && lossy {
		l.rec, l.keep.Off, l.keep.Why = nil, true, why
		l.saveLocked()
	}
	l.mu.Unlock()
	switch {
	case !lossy:
		l.revoke(causeRecorder, sayRecorderFailed)
		return
	case rec == nil:
		return
	}
	if ctl != nil {
		_ = ctl.Send(control.Message{Type: control.Keep, Body: &control.KeepMsg{Drop: true}}, nil) // a dead socket shows in listen
	}
	if err := rec.Abandon(why); err != nil {
		l.s.cfg.Log.Error("recording", "session", rec.ID(), "err", err) // the spool goes on trying
	}
	l.auditRecording("session.unrecorded", "the session goes on and is not recorded: "+why)
}

// reminder is what a process that comes back is told about its recording; nil for nothing.
func (l *link) reminder() *control.KeepMsg {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := (control.KeepMsg{Held: l.held, Paused: l.held && l.keep.Pause, Drop: l.keep.Off && l.keep.Lossy}); k.Drop || l.keep.Remote || l.keep.Pause {
		return &k
	}
	return nil
}

// spoolLevel has it audited when the spool is at another level than it was.
func (s *Server) spoolLevel(was recording.Level) recording.Level {
	if s.cfg.Spool == nil {
		return was
	}
	now := s.cfg.Spool.Level()
	if now == was {
		return was
	}
	used, most := s.cfg.Spool.Usage()
	text := fmt.Sprintf("recordings take %d of %d bytes here", used, most)
	s.cfg.Log.Warn("spool is at another level", "level", now.String(), "was", was.String(), "used", used, "most", most)
	s.audit(audit.Entry{Kind: "spool." + now.String(), Text: text})
	return now
}
