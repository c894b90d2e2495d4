package replay

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	_ "modernc.org/sqlite"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/find"
	"tssh/recording/transcript"
)

// searchable gives the world an index, as it is now.
func (w *world) searchable() {
	w.t.Helper()
	x, err := find.Open(find.Config{Path: filepath.Join(w.t.TempDir(), "search.db"), Store: w.store, Keys: w.viewer.cfg.Keys})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { x.Close() })
	if err := x.Update(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.viewer.cfg.Search = x
}

func TestSearchShowsOnlyWhatOneMaySee(t *testing.T) {
	w := newWorld(t)
	w.keep(meta("alice@example.com", "deploy", "web", w.now), ran("common-a"))
	w.keep(meta("bob@example.com", "bob", "web", w.now.Add(-time.Hour)), ran("common-b"))
	if res := w.ask("GET", hub+"/api/search?q=common", fromRoot); res.StatusCode != 404 {
		t.Errorf("without an index: %d", res.StatusCode)
	}
	w.searchable()
	for _, c := range []struct{ from, want string }{{fromAlice, "common-a"}, {fromBob, "common-b"}, {fromRoot, "common-a common-b"}} {
		found := decode[foundJSON](t, w.ask("GET", hub+"/api/search?q=common", c.from))
		var got []string
		for _, h := range found.Recordings {
			got = append(got, h.Command)
			if len(h.Lines) != 2 || h.Lines[1].Text != h.Command+" ran" || h.Lines[1].T != 1 {
				t.Errorf("%+v", h.Lines)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v", c.from, got)
		}
	}
	last := w.audited[len(w.audited)-1]
	if last.Kind != "recording.search" || last.Extra["q"] != "common" || last.Who != "root@example.com" {
		t.Errorf("audited: %+v", last)
	}
	w.failing = true
	if res := w.ask("GET", hub+"/api/search?q=common", fromRoot); res.StatusCode != 500 {
		t.Errorf("not audited and shown: %d", res.StatusCode)
	}
	w.failing = false
	for q, status := range map[string]int{"?q=": 400, "?q=--": 400, "?q=a&limit=0": 400, "?q=a&before=x": 400, "?q=" + strings.Repeat("a", 300): 400} {
		if res := w.ask("GET", hub+"/api/search"+q, fromAlice); res.StatusCode != status {
			t.Errorf("%s: %d", q, res.StatusCode)
		}
	}
}

// TestOneAnswerIsNotGivenForAnother: recordings of the same person on the same host, before and after the host
// got other tags, are of different rules, and in a list each is asked about.
func TestOneAnswerIsNotGivenForAnother(t *testing.T) {
	w := newWorld(t)
	p, problems := policy.Parse("test", []byte(`{"tagOwners": {"tag:dev": [], "tag:prod": []}, "ssh": [
		{"action": "accept", "src": ["bob@example.com"], "dst": ["tag:dev"], "users": ["bob"], "watch": ["alice@example.com"]},
		{"action": "accept", "src": ["bob@example.com"], "dst": ["tag:prod"], "users": ["bob"], "watch": []},
	]}`))
	if p == nil {
		t.Fatal(problems)
	}
	w.policy = p
	for i, of := range []struct {
		tag string
		uid uint32
	}{{"tag:dev", 1000}, {"tag:prod", 1000}, {"tag:dev", 0}} {
		m := meta("bob@example.com", "bob", "web", w.now.Add(-time.Duration(i)*time.Minute))
		m.HostTags, m.UID = []string{of.tag}, of.uid
		w.keep(m, ran(fmt.Sprintf("common-%s-%d", of.tag[4:], of.uid)))
	}
	w.searchable()
	if got := w.ids(fromAlice, ""); got != "common-dev-1000" {
		t.Errorf("list: %q", got)
	}
	var got []string
	for _, h := range decode[foundJSON](t, w.ask("GET", hub+"/api/search?q=common", fromAlice)).Recordings {
		got = append(got, h.Command)
	}
	if strings.Join(got, " ") != "common-dev-1000" {
		t.Errorf("search: %v", got)
	}
}

func TestTranscriptAndSearchInside(t *testing.T) {
	w := newWorld(t)
	id := w.keep(meta("alice@example.com", "deploy", "web", w.now), shell)
	path := hub + "/api/recordings/" + id
	tr := decode[transcriptJSON](t, w.ask("GET", path+"/transcript", fromAlice))
	var cmds []string
	for _, c := range tr.Commands {
		cmds = append(cmds, c.Source+" "+c.Text)
	}
	want := "guess systemctl status nginx|guess journalctl -u nginx | tail -3|guess find / -name '*.conf'|guess sudo systemctl restart nginx && echo all-good-again|guess exit"
	if got := strings.Join(cmds, "|"); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if len(tr.Marks) != 2 || tr.Marks[0].Kind != "resize" || tr.Marks[1].Kind != "exit" || tr.Marks[1].Text != "status 0" || tr.Total < 3000 || len(tr.Lines) != linesAtOnce {
		t.Errorf("%v, %d of %d lines", tr.Marks, len(tr.Lines), tr.Total)
	}
	rest := decode[transcriptJSON](t, w.ask("GET", path+fmt.Sprintf("/transcript?from=%d", linesAtOnce), fromAlice))
	if len(rest.Lines) != tr.Total-linesAtOnce || len(rest.Commands) != 0 {
		t.Errorf("%d lines of the rest", len(rest.Lines))
	}
	for q, n := range map[string]int{"q=ACKAGE-0123": 1, "q=" + url.QueryEscape(`^/usr.*-29[0-9]{2}/`) + "&re=1": 100, "q=gr%C3%B6%C3%9Fer": 1, "q=not-there": 0} {
		if got := decode[foundOneJSON](t, w.ask("GET", path+"/search?"+q, fromAlice)); len(got.Lines) != n {
			t.Errorf("%s: %d hits", q, len(got.Lines))
		}
	}
	if all := decode[foundOneJSON](t, w.ask("GET", path+"/search?q=package", fromAlice)); len(all.Lines) != hitsInOne || !all.More {
		t.Errorf("%d hits", len(all.Lines))
	}
	if res := w.ask("GET", path+"/search?re=1&q=%5B", fromAlice); res.StatusCode != 400 || !strings.Contains(body(t, res), "missing closing") {
		t.Errorf("%d", res.StatusCode)
	}
	for _, what := range []string{"/transcript", "/search?q=a", "/text", "/html", "/screen"} {
		if res := w.ask("GET", path+what, fromBob); res.StatusCode != 403 {
			t.Errorf("bob has %s: %d", what, res.StatusCode)
		}
	}
	text := body(t, w.ask("GET", path+"/text", fromAlice))
	if !strings.Contains(text, "journalctl -u nginx | tail -3 (guess)\n") || !strings.Contains(text, "größer als 🚀 erwartet\n") || strings.Contains(text, "\x1b") {
		t.Errorf("%.2000s", text)
	}
}

// TestOneTranscriptAtATime: whoever asks again and again about a recording that runs does not have it read many
// times over at once.
func TestOneTranscriptAtATime(t *testing.T) {
	w := newWorld(t)
	id := w.keep(meta("alice@example.com", "deploy", "web", w.now), shell)
	sum, err := w.store.Lookup(id)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		x := &texts{v: w.viewer, room: make(chan struct{}, madeAtOnce)}
		for range madeAtOnce {
			x.room <- struct{}{} // others are being made
		}
		got := make(chan *transcript.Transcript)
		for i := range 20 {
			grown := sum
			grown.Size += int64(i)
			go func() { // ends with the transcript
				tr, err := x.of(&grown)
				if err != nil {
					t.Error(err)
				}
				got <- tr
			}()
		}
		synctest.Wait()
		for range madeAtOnce {
			<-x.room
		}
		first := <-got
		for range 19 {
			if <-got != first {
				t.Error("it was made more than once")
			}
		}
	})
}

func TestFilterTerms(t *testing.T) {
	w := newWorld(t)
	ended := func(cmd string, status int) func(*script) {
		return func(s *script) {
			s.json(1, recording.KindOpen, recording.Open{Type: "exec", Command: cmd}).wait(time.Minute).json(1, recording.KindExit, recording.Exit{Status: status})
		}
	}
	w.keep(meta("alice@example.com", "deploy", "web", w.now.Add(-time.Minute)), ended("make", 2))
	w.keep(meta("bob@example.com", "root", "db", w.now.Add(-50*time.Hour)), ended("ls", 0))
	m := meta("", "root", "web", w.now.Add(-100*time.Hour))
	m.SrcTags = []string{"tag:ci"}
	w.keep(m, ended("deploy.sh", 1))
	w.keep(meta("carol@example.com", "web", "files", w.now.Add(-200*time.Hour)), func(s *script) {
		s.json(1, recording.KindOpen, recording.Open{Type: "sftp", Command: "copy"})
		s.json(1, recording.KindFile, recording.File{Op: "put", Path: "/srv/100%_done/Index.html", Bytes: 3})
		s.wait(time.Minute).json(1, recording.KindFile, recording.File{Op: "rename", Path: "/srv/a", Target: "/srv/secret/b.conf"})
	})
	if res := w.ask("GET", hub+"/api/recordings?q=path:/srv", fromRoot); res.StatusCode != 400 || !strings.Contains(body(t, res), "no index of files") {
		t.Errorf("path: without an index: %d", res.StatusCode)
	}
	w.searchable()
	for q, want := range map[string]string{
		"who:alice": "make", "host:web": "make deploy.sh", "host:we": "", "as:root": "ls deploy.sh", "tag:ci": "deploy.sh", "tag:nope": "",
		"exit:0": "ls", "exit:!0": "make deploy.sh", "exit:2": "make", "cmd:deploy": "deploy.sh", "kind:exec": "make ls deploy.sh", "kind:shell": "",
		"after:48h": "make", "after:2d": "make", "before:48h": "ls deploy.sh copy", "after:2026-11-17 before:2026-11-19": "ls", "longer:30s": "make ls deploy.sh copy", "longer:2m": "",
		"host:web host:db": "make ls deploy.sh", "host:web as:root": "deploy.sh", "is:live": "", "is:interactive": "", "from:laptop bob@": "ls",
		"path:/srv/100%_done/": "copy", "path:INDEX": "copy", "path:/srv/*/b.conf": "copy", "path:nope": "", "path:100_": "", "path:/srv/a host:web": "", "path:nope path:secret": "copy", "kind:sftp path:x*y": "",
	} {
		if got := w.ids(fromRoot, "?q="+url.QueryEscape(q)); got != want {
			t.Errorf("%s: %q, want %q", q, got, want)
		}
	}
	for q, says := range map[string]string{
		"exit:x": "takes a number", "after:soon": "takes a day", "after:9d9": "takes a day", "before:-1d": "takes a day", "is:odd": "live, interactive or unsealed", "longer:1": "takes a time", "Kind:files": "shell, exec or sftp",
	} {
		if res := w.ask("GET", hub+"/api/recordings?q="+q, fromRoot); res.StatusCode != 400 || !strings.Contains(body(t, res), says) {
			t.Errorf("%s: %d, without %q", q, res.StatusCode, says)
		}
	}
}

func TestSearchInOneRecordingIsBoundedInTime(t *testing.T) {
	tr := &transcript.Transcript{}
	for i := range 100 {
		tr.Lines = append(tr.Lines, transcript.Line{At: time.Duration(i) * time.Second, Text: "line"})
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	out := fitting(ctx, tr, func(string) bool {
		if n++; n == 10 {
			cancel()
		}
		return true
	})
	if len(out.Lines) != 10 || out.Until != 10 {
		t.Errorf("%d lines, until %v", len(out.Lines), out.Until)
	}
}
