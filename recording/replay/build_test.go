package replay

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"tssh/recording"
	"tssh/recording/store"
	"tssh/recording/term"
)

// script plays a session in a bubble of fake time.
type script struct {
	t *testing.T
	j *recording.Journal
}

func (s *script) wait(d time.Duration) *script {
	time.Sleep(d)
	return s
}

func (s *script) data(ch uint32, k recording.Kind, data string) *script {
	if err := s.j.Append(ch, k, []byte(data)); err != nil {
		s.t.Fatal(err)
	}
	return s
}

func (s *script) json(ch uint32, k recording.Kind, v any) *script {
	if err := s.j.AppendJSON(ch, k, v); err != nil {
		s.t.Fatal(err)
	}
	return s
}

// meta is a description of a session of login on host as local.
func meta(login, local, host string, start time.Time) recording.Meta {
	return recording.Meta{
		Version: 1, Start: start, Mesh: "demo", Host: host, HostID: "n-" + host, Src: "laptop", SrcID: "n-laptop-" + login,
		SrcAddr: "100.64.0.7", Login: login, LocalUser: local, UID: 1000, Rule: "ssh[0]", Client: "SSH-2.0-OpenSSH_9.2",
	}
}

// hubKey countersigns what record makes.
var hubKey = ed25519.NewKeyFromSeed([]byte("the hub of the tests, 32 bytes..")[:ed25519.SeedSize])

// record makes a recording of what play does and returns its id and bytes.
func record(t *testing.T, m recording.Meta, play func(*script)) (id string, b []byte) {
	t.Helper()
	return recordTo(t, m, nil, play)
}

func recordTo(t *testing.T, m recording.Meta, to func() (*recording.Recipients, error), play func(*script)) (id string, b []byte) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		sp, err := recording.OpenSpool(recording.SpoolConfig{
			Dir: dir, SealTo: to, Keyframer: func(cols, rows int) recording.Keyframer { return term.New(cols, rows) }, MinFree: 1,
			Clock: func() time.Time { return m.Start.Add(time.Since(began)) },
			Countersign: func(_ context.Context, s recording.Start) (recording.Countersignature, error) {
				return recording.Countersign(hubKey, s, m.Start.Add(time.Since(began)))
			},
			Witness: func(_ context.Context, s recording.Seen) (recording.Countersignature, error) {
				return recording.CountersignSeen(hubKey, s, m.Start.Add(time.Since(began)))
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- sp.Run(ctx) }()
		x, err := sp.Begin(m)
		if err != nil {
			t.Fatal(err)
		}
		f, err := x.JournalFile()
		if err != nil {
			t.Fatal(err)
		}
		acks := make(chan struct{})
		go func() { // a hub that has all there is, twice a minute
			defer close(acks)
			for {
				select {
				case <-ctx.Done():
					return
				case <-time.After(30 * time.Second):
				}
				if st, err := os.Stat(filepath.Join(dir, x.ID(), "recording.tsr")); err == nil {
					_ = sp.Acked(x.ID(), st.Size(), false) // one that has ended needs none
				}
			}
		}()
		play(&script{t: t, j: recording.NewJournal(f, began)})
		f.Close()
		if err := x.Finish("closed", ""); err != nil {
			t.Fatal(err)
		}
		cancel()
		<-done
		<-acks
		id = x.ID()
	})
	b, err := os.ReadFile(filepath.Join(dir, id, "recording.tsr"))
	if err != nil {
		t.Fatal(err)
	}
	return id, b
}

// put stores what the store does not have of b yet, as far as there are whole blocks.
func put(t *testing.T, s *store.Store, host, id string, b []byte) {
	t.Helper()
	from, _, err := s.Size("n-"+host, id)
	if err != nil {
		t.Fatal(err)
	}
	for from < int64(len(b)) {
		size, _, err := s.Append("n-"+host, id, from, b[from:min(int64(len(b)), from+1<<20)])
		if err != nil {
			t.Fatal(err)
		}
		if size == from {
			return
		}
		from = size
	}
}

// shell is a session in a terminal: colours, a resize, a long pause, a screenful of output.
func shell(s *script) {
	s.json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Term: "xterm-256color", Cols: 80, Rows: 24})
	prompt := "\x1b[1;32mdeploy@web\x1b[0m:\x1b[1;34m~\x1b[0m$ "
	s.wait(300*time.Millisecond).data(1, recording.KindOutput, prompt)
	typing := func(text string) {
		for _, r := range text {
			s.wait(90*time.Millisecond).data(1, recording.KindOutput, string(r))
		}
		s.wait(200*time.Millisecond).data(1, recording.KindOutput, "\r\n")
	}
	typing("systemctl status nginx")
	s.wait(150*time.Millisecond).data(1, recording.KindOutput, "\x1b[1;32m●\x1b[0m nginx.service - A high performance web server\r\n"+
		"     Loaded: loaded (/lib/systemd/system/nginx.service; \x1b[1;32menabled\x1b[0m)\r\n"+
		"     Active: \x1b[1;31mfailed\x1b[0m (Result: exit-code) since Mon 09:12:44 UTC; 3min ago\r\n"+prompt)
	s.wait(42 * time.Second)
	typing("journalctl -u nginx | tail -3")
	s.wait(time.Second).data(1, recording.KindOutput, "nginx[812]: \x1b[38;2;250;180;90m[emerg]\x1b[0m unknown directive \"servr\" in /etc/nginx/nginx.conf:31\r\n"+
		"systemd[1]: nginx.service: Control process exited, status=1/FAILURE\r\n"+
		"systemd[1]: Failed to start nginx.service – größer als 🚀 erwartet\r\n"+prompt)
	s.wait(4*time.Second).json(1, recording.KindResize, recording.Resize{Cols: 100, Rows: 30})
	typing("find / -name '*.conf'")
	for i := range 3000 {
		s.wait(6*time.Millisecond).data(1, recording.KindOutput, fmt.Sprintf("/usr/share/\x1b[36mpackage-%04d\x1b[0m/etc/example-%d.conf\r\n", i, i*7))
	}
	s.data(1, recording.KindOutput, prompt)
	s.wait(95 * time.Second)
	typing("sudo systemctl restart nginx && echo all-good-again")
	s.wait(700*time.Millisecond).data(1, recording.KindOutput, "all-good-again\r\n"+prompt)
	s.wait(3 * time.Second)
	typing("exit")
	s.json(1, recording.KindExit, recording.Exit{Status: 0})
	s.data(1, recording.KindClose, "")
}
