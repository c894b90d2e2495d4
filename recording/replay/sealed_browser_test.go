package replay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	gossh "golang.org/x/crypto/ssh"

	"tssh/recording"
	"tssh/recording/store"
	"tssh/recording/transcript"
)

// marked is a session with shell marks, files, forwards, an editor's screen, a resize and notes.
func marked(s *script) {
	s.json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Term: "xterm", Cols: 60, Rows: 10})
	run := func(text string, status int, out ...string) {
		s.wait(400*time.Millisecond).data(1, recording.KindOutput, "\x1b]133;A\x07ops@gw:~$ \x1b]133;B\x07")
		for _, r := range text {
			s.wait(80*time.Millisecond).data(1, recording.KindOutput, string(r))
		}
		s.wait(100*time.Millisecond).data(1, recording.KindOutput, "\r\n\x1b]133;C\x07")
		for _, o := range out {
			s.wait(250*time.Millisecond).data(1, recording.KindOutput, o)
		}
		s.data(1, recording.KindOutput, fmt.Sprintf("\x1b]133;D;%d\x07", status))
	}
	run("make test", 0, "ok  \tone\r\nok  \ttwo\r\n", "\x1b[31mFAIL\x1b[0m three\rok   three\r\n")
	run("cat haiku", 0, "größer als 🚀 erwartet 漢字\r\n")
	s.json(2, recording.KindForward, recording.Forward{State: "open", Type: "local", Target: "db1:5432", Origin: "127.0.0.1:40022"})
	run("seq 40", 0, strings.Repeat("a line that scrolls away\r\n", 3), func() (all string) {
		for i := range 40 {
			all += fmt.Sprintf("line %d of many\r\n", i)
		}
		return all
	}())
	run("vi notes", 0, "\x1b[?1049h\x1b[H\x1b[2J~\r\n~\r\n~ in the editor\x1b[1;1H", "first words", "\x1b[?1049l")
	s.json(1, recording.KindResize, recording.Resize{Cols: 90, Rows: 6})
	run("grep -r TODO /nowhere", 2, "grep: /nowhere: No such file or directory\r\n")
	s.json(3, recording.KindFile, recording.File{Op: "put", Path: "/srv/app/release.tar.gz", Bytes: 4 << 20, SHA256: strings.Repeat("ab12", 16)})
	s.json(3, recording.KindFile, recording.File{Op: "get", Path: "/etc/shadow", Error: "permission denied"})
	s.json(0, recording.KindNote, recording.Note{What: "limit", Text: "two minutes are left"})
	s.json(2, recording.KindForward, recording.Forward{State: "closed", Type: "local", Target: "db1:5432", Sent: 1200, Received: 88000, Millis: 100000})
	s.json(4, recording.KindOpen, recording.Open{Type: "exec", Command: "pg_dump --schema-only app"})
	s.wait(time.Second).data(4, recording.KindOutput, "CREATE TABLE gr").data(4, recording.KindStderr, "pg_dump: warning\n").data(4, recording.KindOutput, "oups\nno end")
	s.wait(time.Second).json(4, recording.KindExit, recording.Exit{Status: 3}).data(4, recording.KindClose, "")
	s.wait(3*time.Second).json(1, recording.KindExit, recording.Exit{Signal: "HUP"}).data(1, recording.KindClose, "")
}

// listener keeps all that comes to a server.
type listener struct {
	http.Handler
	mu    sync.Mutex
	heard bytes.Buffer
}

func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	l.mu.Lock()
	fmt.Fprintf(&l.heard, "%s %s\n", r.Method, r.RequestURI)
	_ = r.Header.Write(&l.heard)
	l.heard.Write(append(body, '\n'))
	l.mu.Unlock()
	l.Handler.ServeHTTP(w, r)
}

// TestSealedBrowser has the page open what is sealed, with keys that the recorder never sees; web/test/sealed.mjs has
// the steps.
func TestSealedBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("it drives a browser")
	}
	needBrowser(t)
	w := newWorld(t)
	if page(w) != 200 {
		t.Fatal(errNoPage)
	}
	clock := time.Now()
	s, err := store.Open(store.Config{Dir: t.TempDir(), Clock: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	w.store = s
	mine, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := gossh.MarshalPrivateKey(priv, "erin")
	if err != nil {
		t.Fatal(err)
	}
	locked, err := gossh.MarshalPrivateKeyWithPassphrase(priv, "erin", []byte("word"))
	if err != nil {
		t.Fatal(err)
	}
	sshPub, err := gossh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	sshKey := string(pem.EncodeToMemory(block))
	recipients := func(words ...string) *recording.Recipients {
		to, err := recording.ParseRecipients(strings.Join(words, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	both := recipients(mine.Recipient().String(), string(gossh.MarshalAuthorizedKey(sshPub)))
	keys, err := recording.ParseKeys([]byte(mine.String()), nil)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	changing := func() (*recording.Recipients, error) { // from some time on it is for somebody else
		if calls++; calls > 12 {
			return recipients(wrong.Recipient().String()), nil
		}
		return both, nil
	}
	steady := func() (*recording.Recipients, error) { return both, nil }
	ids, files := map[string]string{}, map[string][]byte{}
	for name, r := range map[string]struct {
		to   func() (*recording.Recipients, error)
		play func(*script)
	}{"shell": {steady, shell}, "marked": {steady, marked}, "partly": {changing, shell}} {
		m := meta("erin@example.com", "ops", name, clock.Add(-90*time.Minute).Truncate(time.Second))
		ids[name], files[name] = recordTo(t, m, r.to, r.play)
		put(t, w.store, m.Host, ids[name], files[name])
	}
	m := meta("erin@example.com", "ops", "running", clock.Add(-4*time.Minute).Truncate(time.Second))
	var live []byte
	ids["live"], live = recordTo(t, m, steady, shell)
	put(t, w.store, m.Host, ids["live"], live[:len(live)*6/10])

	shots := os.Getenv("SCREENSHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	heard := &listener{Handler: w.newViewer(root)}
	srv := httptest.NewServer(heard)
	defer srv.Close()
	input := map[string]any{
		"ids": ids, "shots": shots, "url": srv.URL, "token": token, "recipient": mine.Recipient().String(),
		"keys": map[string]string{"age": mine.String(), "file": "# created: today\n# public key: " + mine.Recipient().String() + "\n" + mine.String() + "\n",
			"wrong": wrong.String(), "ssh": sshKey, "sshLocked": string(pem.EncodeToMemory(locked))},
	}
	sealed := map[string]string{}
	for name, b := range files {
		sealed[name] = base64.StdEncoding.EncodeToString(b)
	}
	input["files"] = sealed
	drive(t, "sealed.mjs", input, func(line string) bool {
		if line == "GROW" {
			put(t, w.store, "running", ids["live"], live)
			return true
		}
		return false
	})

	for name, b := range files {
		samePage(t, shots, name, b, keys)
	}
	if os.Getenv("ONLY") != "" {
		return // the rest is about all steps
	}
	heard.mu.Lock()
	all := heard.heard.String()
	heard.mu.Unlock()
	if !strings.Contains(all, "/raw/0") || !strings.Contains(all, "/file?for=page") || !strings.Contains(all, "raw=1") {
		t.Errorf("the page did not take what is sealed from the recorder: %.4000s", all)
	}
	seed := base64.StdEncoding.EncodeToString(block.Bytes)
	for _, secret := range []string{mine.String()[16:40], wrong.String()[16:40], seed[len(seed)/2 : len(seed)/2+30], strings.Split(sshKey, "\n")[3], "systemctl", "package-", "all-good"} {
		if strings.Contains(strings.ToLower(all), strings.ToLower(secret)) {
			t.Errorf("%.12s... came to the recorder", secret)
		}
	}
	kinds := map[string]int{}
	for _, e := range w.audited {
		kinds[e.Kind+" "+e.Extra["as"]+" "+e.Extra["for"]]++
	}
	for _, want := range []string{"recording.open  ", "recording.view sealed ", "recording.download tsr page", "recording.download html ", "recording.watch  ", "recording.watched  "} {
		if kinds[want] == 0 {
			t.Errorf("nothing audited as %q: %v", want, kinds)
		}
	}
	if kinds["recording.view  "] != 0 || kinds["recording.search  "] != 0 {
		t.Errorf("audited as seen in the clear: %v", kinds)
	}
}

// samePage holds what the page read in a recording against what the recorder reads in it with the key.
func samePage(t *testing.T, dir, name string, b []byte, keys *recording.Keys) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "read-"+name+".json"))
	if err != nil {
		t.Error(err)
		return
	}
	var page struct {
		Transcript transcriptJSON
		Problems   []string
		Proven     float64
		Complete   bool
		Partly     bool
		Frames     []struct {
			N       int
			Screens int
			Events  []eventJSON
		}
	}
	if err := json.Unmarshal(text, &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Problems) > 0 || !page.Complete || page.Proven == 0 || page.Partly != (name == "partly") {
		t.Errorf("%s: problems %q, complete %v, proven %v, partly %v", name, page.Problems, page.Complete, page.Proven, page.Partly)
	}
	r, err := keys.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if len(page.Frames) != len(r.Index()) || len(page.Frames) < 3 {
		t.Fatalf("%s: %d frames, want %d", name, len(page.Frames), len(r.Index()))
	}
	gaps := 0
	for i, f := range page.Frames {
		events, key, err := r.Frame(i)
		if err != nil {
			t.Fatal(err)
		}
		want := encodeFrame(i, events, key)
		if len(want.Keyframes) != f.Screens || len(want.Events) != len(f.Events) {
			t.Fatalf("%s: frame %d has %d events, %d screens; want %d, %d", name, i, len(f.Events), f.Screens, len(want.Events), len(want.Keyframes))
		}
		for j, e := range want.Events {
			g := f.Events[j]
			if e.Kind == "gap" && name == "partly" {
				gaps++
				continue
			}
			if e.T-g.T > 1e-6 || g.T-e.T > 1e-6 || e.Channel != g.Channel || e.Kind != g.Kind || !bytes.Equal(e.Data, g.Data) || !sameJSON(e.JSON, g.JSON) {
				t.Fatalf("%s: frame %d event %d is %+v, want %+v", name, i, j, g, e)
			}
		}
	}
	if (gaps > 0) != (name == "partly") {
		t.Errorf("%s: %d parts are for others", name, gaps)
	}
	tr, err := transcript.Read(r, textLimits)
	if err != nil {
		t.Fatal(err)
	}
	want := transcriptOf(tr, 0, len(tr.Lines))
	if name == "partly" { // the words of a gap are the page's own
		return
	}
	if !reflect.DeepEqual(want.Commands, page.Transcript.Commands) {
		t.Errorf("%s: commands %s\nwant %s", name, js(page.Transcript.Commands), js(want.Commands))
	}
	if !reflect.DeepEqual(want.Marks, page.Transcript.Marks) {
		t.Errorf("%s: marks %s\nwant %s", name, js(page.Transcript.Marks), js(want.Marks))
	}
	for i := range max(len(want.Lines), len(page.Transcript.Lines)) {
		if i >= len(want.Lines) || i >= len(page.Transcript.Lines) || want.Lines[i] != page.Transcript.Lines[i] {
			t.Errorf("%s: of %d and %d lines, from line %d on: %s\nwant %s", name, len(page.Transcript.Lines), len(want.Lines), i,
				js(page.Transcript.Lines[min(i, len(page.Transcript.Lines)):min(i+3, len(page.Transcript.Lines))]), js(want.Lines[min(i, len(want.Lines)):min(i+3, len(want.Lines))]))
			break
		}
	}
	t.Logf("%s: %d frames, %d commands, %d marks, %d lines", name, len(page.Frames), len(want.Commands), len(want.Marks), len(want.Lines))
}

func js(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	if len(a) == 0 && len(b) == 0 {
		return true
	}
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func needBrowser(t *testing.T) {
	t.Helper()
	for program, pkg := range map[string]string{"node": "nodejs", "/usr/bin/chromium": "chromium"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("this test drives a browser and %s is missing: apt-get install -y %s (go test -short leaves it out)", program, pkg)
		}
	}
	if _, err := os.Stat("web/node_modules/playwright-core"); err != nil {
		t.Fatal("the page's parts are missing: run make, or (cd recording/replay/web && npm ci && npm run build)")
	}
}

// drive runs the steps of a file in web/test; what it prints goes to said first.
func drive(t *testing.T, file string, input map[string]any, said func(line string) bool) {
	t.Helper()
	text, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "test/"+file)
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
		if line := lines.Text(); !said(line) {
			t.Log(line)
			if strings.HasPrefix(line, "ok ") {
				steps++
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if steps == 0 {
		t.Fatal("no step was made")
	}
}
