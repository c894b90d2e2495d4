package sshd

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/session/control"
	"tssh/session/launch"
)

// request is the question about a login, or with another ask about what is in it.
func (l *link) request(a policy.Ask, src policy.Identity, user policy.LocalUser, uid uint32, target string) policy.Request {
	return policy.Request{Ask: a, Src: src, SrcAddr: l.srcAddr, Dst: l.s.cfg.Self(), DstAddr: l.dstAddr, User: user, UID: uid, Target: target, Now: l.s.cfg.Now(), BreakGlass: l.glass()}
}

// peer is who is at the address now; false when that is nobody, or another node.
func (l *link) peer() (policy.Identity, bool) {
	now, ok := l.s.cfg.WhoIs(l.srcAddr)
	return now, ok && now.Valid() && now.ID == l.src.ID && now.Name == l.src.Name && now.User == l.src.User
}

// decide is the whole question of a login as an account: identity, policy, and what this
// host cannot do yet. No words means yes.
func (l *link) decide(user policy.LocalUser, uid uint32) (policy.Decision, string) {
	src, ok := l.peer()
	if !ok {
		return policy.Decision{Rule: -1, Reason: "the peer is not the node it was"}, sayGone
	}
	r := l.request(policy.AskLogin, src, user, uid, "")
	d := policy.Evaluate(l.s.cfg.Policy(), r)
	switch {
	case d.Verdict == policy.Check:
		return d, sayCheck
	case d.Verdict == policy.Approval:
		return d, sayApproval
	case d.Verdict != policy.Accept:
		return d, orElse(d.Sentence(r), sayDenied(user, l.s.cfg.Self().Name))
	}
	switch t := d.Terms(); {
	case t.Record == policy.RecordRemote && l.s.cfg.ShipNow == nil && !l.opened():
		return d, sayRecorder
	case l.s.cfg.SelfAttested && t.Record == policy.RecordRequired && !t.RecordDefault && !t.SelfAttested:
		return d, saySelfAttested
	}
	return d, ""
}

// auth answers one attempt to log in. The admitted name and its account replace those of
// an attempt before: begin is about the last.
func (l *link) auth(b *control.AuthMsg) (*control.VerdictMsg, error) {
	l.mu.Lock()
	l.auths++
	n := l.auths
	l.grant = nil
	l.mu.Unlock()
	if n > maxAuths {
		return nil, errors.Join(errProtocol, errors.New("too many attempts"))
	}
	g, d, say := l.admit(b.User)
	if say != "" {
		l.refused(clean(b.User, 256), d, say)
		return &control.VerdictMsg{Say: say, Hint: l.hint(d, b.User)}, nil
	}
	l.mu.Lock()
	l.grant = g
	l.mu.Unlock()
	return &control.VerdictMsg{OK: true}, nil
}

// nobody is the uid a question carries for an account that does not exist, so that only
// whom the policy would admit learns that it does not.
const nobody = math.MaxUint32

func (l *link) admit(name string) (*grant, policy.Decision, string) {
	user, err := policy.ParseLocalUser(name)
	if err != nil {
		return nil, policy.Decision{Rule: -1, Reason: err.Error()}, sayBadName
	}
	acc, err := l.s.cfg.Accounts.Lookup(context.Background(), string(user))
	switch {
	case errors.Is(err, launch.ErrNoAccount):
		d, say := l.decide(user, nobody)
		return nil, d, orElse(say, sayNoAccount(user))
	case err != nil:
		l.s.cfg.Log.Error("account", "as", user, "err", err)
		return nil, policy.Decision{Rule: -1, Reason: err.Error()}, sayLookup
	}
	d, say := l.decide(user, acc.UID)
	if say == "" && l.s.cfg.OwnUserOnly && acc.UID != uint32(os.Getuid()) {
		say = sayOwnUser("")
	}
	if say == "" {
		say = acc.Usable(l.s.cfg.Now())
	}
	if say == "" && l.s.cfg.Spool == nil && d.Terms().Record < policy.RecordBestEffort {
		say = sayNoSpool
	}
	return &grant{user, acc, d}, d, say
}

func (l *link) refused(user string, d policy.Decision, say string) {
	l.s.counters.add(countLogins, "result", "refused")
	e := audit.Entry{Kind: "session.refuse", Who: l.src.Who(), Node: l.src.Name, LocalUser: user, Verdict: d.Verdict.String(), Rule: ruleName(d), Text: say, Extra: map[string]string{"reason": d.Reason}}
	if l.s.hush.allow(l.src, &e) {
		l.s.cfg.Log.Info("login refused", "node", l.src.Name, "login", l.src.Who(), "as", user, "rule", ruleName(d), "reason", d.Reason)
		l.s.audit(e)
	}
}

// hint is the next step of somebody whom the policy does not let in: the command that says what
// they may do instead. The name has passed the parser, or there is none.
func (l *link) hint(d policy.Decision, name string) string {
	user, err := policy.ParseLocalUser(name)
	if d.Verdict != policy.Deny || d.Say != "" || err != nil || l.src.User == "" {
		return ""
	}
	return "tssh why " + string(user) + "@" + l.s.cfg.Self().Name
}

func ruleName(d policy.Decision) string {
	if d.Section == "" || d.Rule < 0 {
		return ""
	}
	return d.Section + "[" + strconv.Itoa(d.Rule) + "]"
}

// begin opens the session of the attempt that succeeded.
func (l *link) begin(b *control.BeginMsg) (*control.GoMsg, *os.File, error) {
	l.mu.Lock()
	g := l.grant
	if g == nil || string(g.user) != b.User {
		l.mu.Unlock()
		return nil, nil, errors.Join(errProtocol, fmt.Errorf("begin as %.64q, which was not admitted", b.User))
	}
	// Under the lock, so that a review either waits for this or is seen by it.
	d, say := l.decide(g.user, g.account.UID)
	if say == "" && !d.Same(g.decision) {
		say = sayChanged
	}
	if say != "" {
		l.mu.Unlock()
		l.refused(b.User, d, say)
		return &control.GoMsg{Say: say}, nil, nil
	}
	g.decision = d
	if l.slot, say = l.s.takeSlot(l.src, d); say != "" {
		l.mu.Unlock()
		l.refused(b.User, d, say)
		return &control.GoMsg{Say: say}, nil, nil
	}
	l.client = clean(b.Client, 255)
	l.began = l.s.cfg.Now()
	token := make([]byte, 32)
	if _, err := rand.Read(token); err != nil {
		l.mu.Unlock()
		return nil, nil, fmt.Errorf("token: %w", err)
	}
	l.token = sha256.Sum256(token)
	journal, err := l.startLocked()
	l.mu.Unlock()
	if err == nil {
		err = l.awaitRecorder(journal)
	}
	if err != nil {
		l.s.cfg.Log.Error("recording", "node", l.src.Name, "as", g.user, "err", err)
		var glass bool
		if journal, glass = l.breakGlass(); !glass {
			say := sayUnrecorded(err)
			l.refused(b.User, d, say)
			return &control.GoMsg{Say: say}, nil, nil
		}
	}
	l.mu.Lock()
	id, keep := l.id, l.keep
	d = g.decision
	l.armLocked()
	l.mu.Unlock()
	l.s.loggedIn(l)
	l.watchRecording()
	l.s.counters.add(countLogins, "result", "accepted")
	l.s.cfg.Log.Info("session opened", "session", id, "node", l.src.Name, "login", l.src.Who(), "as", g.user, "rule", ruleName(d), "pid", l.proc.pid, "recording", keep.String())
	l.s.audit(audit.Entry{Kind: "session.open", Who: l.src.Who(), Node: l.src.Name, LocalUser: string(g.user), Session: id, Verdict: d.Verdict.String(), Rule: ruleName(d), Text: l.client,
		Extra: map[string]string{"recording": keep.String()}})
	a := g.account
	msg := &control.GoMsg{OK: true, Account: control.Account{Name: a.Name, UID: a.UID, GID: a.GID, Groups: a.Groups, Home: a.Home, Shell: a.Shell},
		ID: id, Start: l.began, Person: l.src.Who(), Node: l.src.Name, AcceptEnv: d.AcceptEnv, Input: d.Terms().RecordInput, Unrecorded: keep.Off, Lossy: keep.Lossy}
	if keep.Pause {
		msg.Pause = l.s.cfg.Limits.RecorderPause
	}
	msg.Idle = d.Terms().IdleLimit
	msg.Command, msg.Message, msg.Folder = d.Terms().Command, d.Terms().LoginMessage, d.Terms().SFTPFolder
	if d.Terms().ShowRecording {
		msg.Notices = append(msg.Notices, keep.notice(msg.Input))
	}
	if keep.Glass {
		l.remark("break-glass", "let in by "+ruleName(d)+": "+orElse(keep.Why, "a break-glass rule"))
		msg.Notices = append(msg.Notices, sayGlass)
		l.s.audit(audit.Entry{Kind: "session.breakglass", Who: l.src.Who(), Node: l.src.Name, LocalUser: string(g.user), Session: id, Verdict: d.Verdict.String(), Rule: ruleName(d), Text: keep.Why})
	}
	msg.Last = l.s.lastLogin(a)
	l.scope(msg)
	if l.survive {
		msg.Socket, msg.Token = l.s.socketPath(), token
	}
	return msg, journal, nil
}

// record opens the recording. Called with mu held.
func (l *link) record() (*recording.Session, *os.File, error) {
	self := l.s.cfg.Self()
	g := l.grant
	meta := recording.Meta{Version: 1, Start: l.began, Mesh: l.s.cfg.Mesh, Host: self.Name, HostID: self.ID, HostTags: tagWords(self.Tags), HostUser: string(self.User),
		Src: l.src.Name, SrcID: l.src.ID, SrcAddr: l.srcAddr.String(), Login: string(l.src.User), Role: string(l.src.Role), SrcTags: tagWords(l.src.Tags),
		LocalUser: string(g.user), UID: g.account.UID, Rule: ruleName(g.decision), Client: l.client, SelfAttested: l.s.cfg.SelfAttested, Recorders: tagWords(g.decision.Recorder)}
	rec, err := l.s.cfg.Spool.Begin(meta)
	if err != nil {
		return nil, nil, err
	}
	f, err := rec.JournalFile()
	if err != nil {
		_ = rec.Finish(causeLost, "the journal could not be opened")
		return nil, nil, err
	}
	return rec, f, nil
}

func tagWords(tags []policy.Tag) []string {
	var out []string
	for _, t := range tags {
		out = append(out, string(t))
	}
	return out
}

// maxDeniedAudit bounds the audit entries about what one connection was refused; how much
// it was in all is in the entry of its end.
const maxDeniedAudit = 50

// ask answers for a channel, a subsystem, a forward.
func (l *link) ask(b *control.AskMsg) *control.AnswerMsg {
	l.mu.Lock()
	say := l.askLocked(b)
	if say != "" {
		l.denied++
	} else {
		l.granted++
	}
	n, granted := l.denied, l.granted
	l.mu.Unlock()
	if say != "" {
		l.s.counters.add(countRefused, "kind", kindOf(b.Kind))
	} else {
		l.s.counters.add(countChannels, "kind", kindOf(b.Kind))
		l.logGranted(b, granted)
	}
	if say != "" && n <= maxDeniedAudit {
		l.s.cfg.Log.Info("refused", "session", l.id, "what", b.Kind, "target", clean(b.Target, 256), "say", say)
		l.s.audit(audit.Entry{Kind: "session.channel", Who: l.src.Who(), Node: l.src.Name, LocalUser: string(l.grant.user), Session: l.id, Verdict: "deny", Text: clean(b.Kind+" "+b.Target, 512)})
	}
	return &control.AnswerMsg{OK: say == "", Say: say}
}

// maxGrantedLog bounds the lines about what one connection opened: the recording has it all.
const maxGrantedLog = 50

func (l *link) logGranted(b *control.AskMsg, n int) {
	switch {
	case n <= maxGrantedLog:
		target := clean(b.Target, 256)
		if b.Kind == "exec" {
			target = "" // a command may have a password in it; logs travel
		}
		l.s.cfg.Log.Info("opened", "session", l.id, "channel", b.Channel, "what", b.Kind, "target", target)
	case n == maxGrantedLog+1:
		l.s.cfg.Log.Info("more was opened, which is in the recording", "session", l.id)
	}
}

func (l *link) askLocked(b *control.AskMsg) string {
	n := 0
	for _, a := range l.asks {
		n += len(a)
	}
	if l.revoked != nil {
		return sayRevoked
	}
	if l.held && l.keep.Pause {
		return sayPaused
	}
	if n >= l.s.cfg.Limits.AsksPerConn {
		return sayTooMany
	}
	if b.Kind == "sftp" && !launch.LoginShell(l.grant.account.Shell) {
		return sayNoSFTP
	}
	if say := l.may(ask{b.Kind, b.Target}); say != "" {
		return say
	}
	if b.Channel != 0 {
		l.asks[b.Channel] = append(l.asks[b.Channel], ask{b.Kind, b.Target})
		l.saveLocked()
	}
	return ""
}

// may evaluates one more thing. Called with mu held.
func (l *link) may(a ask) string {
	src, ok := l.peer()
	if !ok {
		return sayGone
	}
	r := l.request(control.KindAsk(a.Kind), src, l.grant.user, l.grant.account.UID, a.Target)
	d := policy.Evaluate(l.s.cfg.Policy(), r)
	if d.Verdict != policy.Accept {
		return orElse(d.Sentence(r), sayChannelRevoked)
	}
	return ""
}

// review evaluates everything open on the link anew, and ends what no longer holds.
func (l *link) review() {
	l.mu.Lock()
	if l.state != control.Running || l.revoked != nil {
		l.mu.Unlock()
		return
	}
	d, say := l.decide(l.grant.user, l.grant.account.UID)
	cause, remark := causeRevoked, ""
	switch {
	case say == "" && !d.Same(l.grant.decision):
		say = sayChanged
	case say == "":
		if was, is := ruleName(l.grant.decision), ruleName(d); was != is {
			remark = "the policy is another one; the session goes on by " + is + ", was " + was
		}
		l.grant.decision = d
		l.armLocked()
	case outOfHours(d):
		cause, say = causeExpired, sayHoursOver
	case say != sayGone:
		say = sayRevoked + ": " + say
	}
	var channels []*control.RevokeMsg
	if say == "" {
		for ch, asks := range l.asks {
			for _, a := range asks {
				if no := l.may(a); no != "" {
					channels = append(channels, &control.RevokeMsg{Channel: ch, Cause: causeRevoked, Say: no})
					l.s.counters.add(countRevoked, "kind", kindOf(a.Kind))
					l.s.cfg.Log.Info("no longer allowed", "session", l.id, "channel", ch, "what", a.Kind, "target", clean(a.Target, 256), "say", no)
					break
				}
			}
		}
	}
	ctl := l.ctl
	l.mu.Unlock()
	if ctl == nil {
		channels = nil
	}
	if say == "" && len(channels) == 0 && remark == "" {
		return
	}
	// By itself: neither a stopped process nor a slow disk may delay the next link's turn.
	l.s.wg.Add(1)
	l.s.revoking.Add(1)
	go func() { // ends within the control socket's time for sending, or a sync
		defer l.s.wg.Done()
		defer l.s.revoking.Done()
		if say != "" {
			l.revoke(cause, say)
			return
		}
		if remark != "" {
			l.remark("policy", remark)
		}
		for _, m := range channels {
			if ctl.Send(control.Message{Type: control.Revoke, Body: m}, nil) != nil {
				l.revoke(causeRevoked, sayChannelRevoked)
				return
			}
		}
	}()
}

// remark adds words of the monitor's to the recording, where there is one that runs.
func (l *link) remark(what, text string) {
	l.mu.Lock()
	rec := l.rec
	l.mu.Unlock()
	if rec == nil {
		return
	}
	if err := rec.Note(what, text); err != nil {
		l.s.cfg.Log.Error("recording", "session", rec.ID(), "err", err) // ends the session by Failed
	}
}

// obeyTime is what a connection process gets to end itself.
const obeyTime = 2 * time.Second

// revoke ends the connection because a right is gone, or a limit reached.
func (l *link) revoke(cause, say string) { l.end(cause, say, nil) }

// end ends the connection: the process is told, and made to. e is the audit entry of what it
// ends by, nil for the loss of a right. It reports whether this was what ended it.
func (l *link) end(cause, say string, e *audit.Entry) bool {
	l.mu.Lock()
	if l.revoked != nil || l.id == "" || l.state == control.Ended {
		l.mu.Unlock()
		return false
	}
	l.revoked = &control.RevokeMsg{Cause: cause, Say: say}
	ctl, rec, id := l.ctl, l.rec, l.id
	msg := *l.revoked
	l.mu.Unlock()
	if ctl != nil {
		go func() { // ends with the socket, which a full buffer cannot outlive: the process is killed
			_ = ctl.Send(control.Message{Type: control.Revoke, Body: &msg}, nil)
		}()
	}
	if rec != nil {
		_ = rec.Note(cause, say)
	}
	if e == nil {
		e = &audit.Entry{Kind: "session.revoke", Who: l.src.Who(), Node: l.src.Name, LocalUser: string(l.grant.user), Session: id, Verdict: cause, Text: say}
	}
	l.s.cfg.Log.Info("session revoked", "session", id, "node", l.src.Name, "as", l.grant.user, "cause", cause, "say", say)
	l.s.audit(*e)
	l.s.wg.Add(1)
	go func() { // ends with the process
		defer l.s.wg.Done()
		select {
		case <-l.over:
		case <-time.After(obeyTime):
			l.proc.kill(true)
		}
	}()
	return true
}
