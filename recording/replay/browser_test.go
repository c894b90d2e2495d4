package replay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/store"
)

// nasty is what somebody might have put on a screen, into a command or a file's name.
const nasty = `</script><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>`

// fill puts one recording of each kind into the world and returns their ids by name, and what
// brings the rest of the live one.
func fill(t *testing.T, w *world, clock *time.Time) (ids map[string]string, grow func()) {
	t.Helper()
	ids = map[string]string{}
	start := func(ago time.Duration) time.Time { return clock.Add(-ago).Truncate(time.Second) }
	add := func(name string, m recording.Meta, play func(*script)) {
		id, b := record(t, m, play)
		put(t, w.store, m.Host, id, b)
		ids[name] = id
	}
	part := func(name string, m recording.Meta, play func(*script)) []byte {
		id, b := record(t, m, play)
		ids[name] = id
		put(t, w.store, m.Host, id, b[:len(b)*6/10])
		return b
	}
	add("shell", meta("alice@example.com", "deploy", "web", start(26*time.Minute)), shell)
	add("exec", meta("alice@example.com", "backup", "db1", start(3*time.Hour)), func(s *script) {
		s.json(1, recording.KindOpen, recording.Open{Type: "exec", Command: "pg_dump --schema-only app"})
		s.wait(200*time.Millisecond).data(1, recording.KindOutput, "-- PostgreSQL database dump\nCREATE TABLE account (id bigint, name text);\n")
		s.wait(time.Second).data(1, recording.KindStderr, "pg_dump: warning: there are circular foreign-key constraints\n")
		s.wait(500*time.Millisecond).data(1, recording.KindOutput, "CREATE TABLE grö\xc3").data(1, recording.KindOutput, "\x9fe (x int);\n\x1b[31mnot red\x1b[0m "+nasty+"\n")
		s.wait(time.Second).json(1, recording.KindExit, recording.Exit{Status: 3}).data(1, recording.KindClose, "")
	})
	add("sftp", meta("alice@example.com", "deploy", "files", start(28*time.Hour)), func(s *script) {
		s.json(1, recording.KindOpen, recording.Open{Type: "sftp"})
		s.wait(time.Second).json(1, recording.KindFile, recording.File{Op: "list", Path: "/srv/www"})
		s.wait(2*time.Second).json(1, recording.KindFile, recording.File{Op: "put", Path: "/srv/www/index.html", Bytes: 18234, SHA256: strings.Repeat("ab12", 16)})
		s.wait(time.Second).json(1, recording.KindFile, recording.File{Op: "rename", Path: "/srv/www/a", Target: "/srv/www/b" + nasty})
		s.wait(time.Second).json(1, recording.KindFile, recording.File{Op: "get", Path: "/etc/shadow", Error: "permission denied"})
		s.wait(time.Second).json(1, recording.KindExit, recording.Exit{Status: 0}).data(1, recording.KindClose, "")
	})
	add("two", meta("carol@example.com", "ops", "gw", start(50*time.Hour)), func(s *script) {
		shell(s)
		s.json(2, recording.KindOpen, recording.Open{Type: "exec", Command: "uptime"})
		s.data(2, recording.KindOutput, "12:00:00 up 3 days, load average: 0.10\n").json(2, recording.KindExit, recording.Exit{Status: 0}).data(2, recording.KindClose, "")
	})
	add("lanes", meta("dora@example.com", "ops", "gw", start(80*time.Hour)), func(s *script) {
		s.json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Term: "xterm", Cols: 100, Rows: 20})
		prompt := "\x1b]133;A\x07ops@gw:~$ \x1b]133;B\x07"
		for i, c := range []struct {
			text   string
			takes  time.Duration
			status int
		}{{"make test", 20 * time.Second, 0}, {"tail -n 3 build.log", 0, 0}, {"grep -r TODO /nowhere", time.Second, 2}, {"./deploy.sh", 45 * time.Second, 1}} {
			s.wait(2*time.Second).data(1, recording.KindOutput, prompt).wait(time.Second).data(1, recording.KindOutput, c.text).wait(300 * time.Millisecond)
			s.data(1, recording.KindOutput, "\r\n\x1b]133;C\x07")
			if i == 0 {
				s.json(2, recording.KindForward, recording.Forward{State: "open", Type: "local", Target: "db1:5432", Origin: "127.0.0.1:40022"})
				s.json(0, recording.KindNote, recording.Note{What: "watched", Text: "this session is watched by bob@example.com"})
			}
			if i == 2 {
				s.json(0, recording.KindNote, recording.Note{What: "watched", Text: "nobody watches this session any more"})
			}
			for range 4 {
				s.wait(c.takes/4).data(1, recording.KindOutput, fmt.Sprintf("step of %s\r\n", c.text))
			}
			s.json(3, recording.KindFile, recording.File{Op: "put", Path: fmt.Sprintf("/srv/app/release-%d.tar.gz", i), Bytes: 4 << 20})
			s.data(1, recording.KindOutput, fmt.Sprintf("\x1b]133;D;%d\x07", c.status))
		}
		s.json(3, recording.KindFile, recording.File{Op: "get", Path: "/etc/shadow", Error: "permission denied"})
		s.json(4, recording.KindForward, recording.Forward{State: "refused", Type: "local", Target: "metadata:80", Error: "the rule has no such destination"})
		s.json(1, recording.KindResize, recording.Resize{Cols: 120, Rows: 30}).json(0, recording.KindNote, recording.Note{What: "limit", Text: "two minutes are left"})
		s.wait(30*time.Second).json(2, recording.KindForward, recording.Forward{State: "closed", Type: "local", Target: "db1:5432", Sent: 1200, Received: 88000, Millis: 100000})
		s.json(1, recording.KindExit, recording.Exit{Status: 1}).data(1, recording.KindClose, "")
	})
	add("nasty", meta("mallory@example.com", "mallory", "web", start(200*time.Hour)), func(s *script) {
		s.json(1, recording.KindOpen, recording.Open{Type: "exec", PTY: true, Cols: 90, Rows: 12, Command: "echo \u202e\x1b[31m'" + nasty + "'"})
		s.wait(time.Second).data(1, recording.KindOutput, nasty+"\r\n\x1b]0;"+nasty+"\x07\x1b]52;c;aGFja2Vk\x07\x1b]8;;javascript:window.hacked=1\x07click me\x1b]8;;\x07\r\n\xe2\x80").data(1, recording.KindOutput, "\xaeright to left \u2067isolated\u2069 \u05d0\u05d1\u05d2\r\n\x1b[c\x1b[6nend-of-story\r\n")
		s.wait(time.Second).json(1, recording.KindExit, recording.Exit{Signal: "TERM"}).data(1, recording.KindClose, "")
	})
	tagged := meta("", "root", "db1", start(400*time.Hour))
	tagged.Login, tagged.SrcTags, tagged.Src = "", []string{"tag:ci"}, "runner"
	add("tagged", tagged, func(s *script) {
		s.json(1, recording.KindOpen, recording.Open{Type: "exec", Command: "ansible-playbook site.yml"})
		s.wait(95*time.Minute).data(1, recording.KindOutput, "ok=42 changed=3\n").json(1, recording.KindExit, recording.Exit{Status: 0}).data(1, recording.KindClose, "")
	})
	for i := range 5 {
		m := meta("ci@example.com", "ci", "build", start(6*time.Hour+time.Duration(i)*time.Minute))
		m.HostTags = []string{"tag:build"}
		add(fmt.Sprintf("batch%d", i), m, ran("make check"))
	}
	part("cut", meta("bob@example.com", "bob", "web", start(5*time.Hour)), shell)
	*clock = clock.Add(10 * time.Minute)
	live := part("live", meta("alice@example.com", "deploy", "db1", start(4*time.Minute)), shell)
	return ids, func() { put(t, w.store, "db1", ids["live"], live) }
}

// TestBrowser drives the page in headless Chromium; web/test/viewer.mjs has the steps.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("the browser test takes half a minute")
	}
	for program, pkg := range map[string]string{"node": "nodejs", "/usr/bin/chromium": "chromium"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("this test drives a browser and %s is missing: apt-get install -y %s (go test -short leaves it out)", program, pkg)
		}
	}
	if _, err := os.Stat("web/node_modules/playwright-core"); err != nil {
		t.Fatal("the page's parts are missing: run make, or (cd recording/replay/web && npm ci && npm run build)")
	}
	w := newWorld(t)
	p, problems := policy.Parse("test", []byte(`{"tagOwners": {"tag:build": []}, "acls": [], "ssh": [
		{"action": "accept", "src": ["ci@example.com"], "dst": ["tag:build"], "users": ["ci"], "delete": ["root@example.com"]}]}`))
	if p == nil {
		t.Fatal(problems)
	}
	w.policy = p
	if page(w) != 200 {
		t.Fatal(errNoPage)
	}
	clock := time.Now()
	s, err := store.Open(store.Config{Dir: t.TempDir(), Clock: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	w.store = s
	ids, grow := fill(t, w, &clock)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := recording.ParseRecipients(id.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := recording.ParseKeys([]byte(id.String()), nil)
	if err != nil {
		t.Fatal(err)
	}
	m := meta("erin@example.com", "ops", "vault", clock.Add(-90*time.Hour).Truncate(time.Second))
	sealed, b := recordTo(t, m, func() (*recording.Recipients, error) { return to, nil }, shell)
	put(t, w.store, m.Host, sealed, b)
	ids["sealed"] = sealed
	w.searchable()
	shots := os.Getenv("SCREENSHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	input := map[string]any{"ids": ids, "nasty": nasty, "shots": shots, "profile": filepath.Join(t.TempDir(), "profile")}
	for name, who := range map[string]policy.Identity{"admin": root, "alice": alice} {
		v := w.newViewer(who)
		v.cfg.Search = w.viewer.cfg.Search
		v.cfg.Keys, v.open = keys, newOpenFiles(w.store, keys)
		srv := httptest.NewServer(v)
		defer srv.Close()
		input[name] = srv.URL
	}
	input["token"] = token
	input["hubKey"] = base64.StdEncoding.EncodeToString(hubKey.Public().(ed25519.PublicKey))
	text, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "test/viewer.mjs")
	cmd.Dir = "web"
	cmd.Stdin = bytes.NewReader(text)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	steps := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch line := lines.Text(); {
		case line == "GROW": // the page follows the live recording: let it go on
			grow()
		case strings.HasPrefix(line, "VERIFIED "):
			sameAsVerify(t, shots, line)
		default:
			t.Log(line)
			if strings.HasPrefix(line, "ok ") {
				steps++
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if steps < 25 {
		t.Fatalf("only %d steps were made", steps)
	}
}

// sameAsVerify holds what a shared page found in a recording against what tssh verify finds in it.
func sameAsVerify(t *testing.T, dir, line string) {
	t.Helper()
	var page struct {
		File     string
		Problems []string
		Proven   float64
		Class    string
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "VERIFIED ")), &page); err != nil {
		t.Error(err)
		return
	}
	b, err := os.ReadFile(filepath.Join(dir, page.File))
	if err != nil {
		t.Error(err)
		return
	}
	rep, err := recording.Verify(bytes.NewReader(b))
	if err != nil {
		t.Error(err)
		return
	}
	// The seconds must be the same; words may lag behind.
	at := func(problems []string) (out []string) {
		for _, p := range problems {
			second, _, _ := strings.Cut(p, ": ")
			out = append(out, second)
		}
		return out
	}
	if !slices.Equal(at(page.Problems), at(rep.Problems)) || math.Abs(page.Proven-rep.ProvenUntil.Seconds()) > 1e-6 {
		t.Errorf("%s: the page says %q, proven %v; tssh verify %q, %v", page.File, page.Problems, page.Proven, rep.Problems, rep.ProvenUntil)
	}
	if good := len(rep.Problems) == 0; good != (page.Class == "proof ok") {
		t.Errorf("%s: problems %q, and the page is %q", page.File, rep.Problems, page.Class)
	}
	t.Logf("%s: proven until %v, %q, page %q", page.File, rep.ProvenUntil, rep.Problems, page.Problems)
}
