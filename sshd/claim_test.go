package sshd

import (
	"crypto/sha256"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"tssh/recording"
	"tssh/session/control"
	"tssh/session/launch"
)

// TestClaimProof lets this very process claim a session: everything right, and then each
// part of the proof wrong by itself.
func TestClaimProof(t *testing.T) {
	spool, err := recording.OpenSpool(recording.SpoolConfig{Dir: t.TempDir(), MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := spool.Begin(recording.Meta{Login: "alice@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Finish("closed", "")
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "sock")
	ln, err := net.Listen("unixpacket", name)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // ends with the listener
		for {
			if _, err := net.Dial("unixpacket", name); err != nil {
				return
			}
		}
	}()
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ctl, err := control.FromNet(nc, true)
	if err != nil {
		t.Fatal(err)
	}
	defer ctl.Close()
	token := []byte("only the process knows this")
	for what, c := range map[string]struct {
		spoil func(l *link, r *control.ResumeMsg)
		ok    bool
	}{
		"all right":     {func(*link, *control.ResumeMsg) {}, true},
		"token":         {func(_ *link, r *control.ResumeMsg) { r.Token = []byte("guess") }, false},
		"no token":      {func(_ *link, r *control.ResumeMsg) { r.Token = nil }, false},
		"token's sum":   {func(l *link, r *control.ResumeMsg) { r.Token = l.token[:] }, false},
		"id":            {func(_ *link, r *control.ResumeMsg) { r.ID = "other" }, false},
		"version":       {func(_ *link, r *control.ResumeMsg) { r.Version++ }, false},
		"pid":           {func(l *link, _ *control.ResumeMsg) { l.proc.pid++ }, false},
		"start":         {func(l *link, _ *control.ResumeMsg) { l.proc.start++ }, false},
		"uid":           {func(l *link, _ *control.ResumeMsg) { l.grant.account.UID++ }, false},
		"not surviving": {func(l *link, _ *control.ResumeMsg) { l.survive = false }, false},
		"ended":         {func(l *link, _ *control.ResumeMsg) { l.state = control.Ended }, false},
	} {
		s := &Server{cfg: Config{Log: slog.New(slog.DiscardHandler)}, links: map[*link]struct{}{}}
		l := &link{s: s, survive: true, state: control.Running, id: rec.ID(), rec: rec, token: sha256.Sum256(token), proc: &process{pid: os.Getpid(), start: start},
			grant: &grant{account: launch.Account{UID: uint32(os.Getuid())}}}
		s.links[l] = struct{}{}
		r := &control.ResumeMsg{Version: control.Version, ID: rec.ID(), Token: token}
		c.spoil(l, r)
		if got := s.claim(ctl, r); (got == l) != c.ok {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func TestDescendants(t *testing.T) {
	if d := descendants(1 << 30); len(d) != 0 {
		t.Errorf("of nobody: %v", d)
	}
	if _, err := holdProcess(os.Getpid(), 1); err == nil {
		t.Error("a process with another start was held")
	}
}
