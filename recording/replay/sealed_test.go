package replay

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"filippo.io/age"

	"tssh/recording"
)

func TestSealed(t *testing.T) {
	id1, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := recording.ParseRecipients(id1.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := recording.ParseKeys([]byte(id1.String()), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	m := meta("alice@example.com", "deploy", "web", w.now)
	id, b := recordTo(t, m, func() (*recording.Recipients, error) { return to, nil }, shell)
	put(t, w.store, "web", id, b)
	const from = "100.64.0.1:5"
	at := hub + "/api/recordings/" + id

	list := decode[listJSON](t, w.ask("GET", hub+"/api/recordings", from))
	if len(list.Recordings) != 1 || !list.Recordings[0].Sealed || list.Recordings[0].Type != "shell" || list.Recordings[0].Exit == nil {
		t.Errorf("list: %+v", list)
	}
	// What a sealed one holds nobody can filter by, and that is said; what is in the clear decides as ever.
	for q, want := range map[string][2]int{"cmd:ls": {0, 1}, "cmd:ls+host:web": {0, 1}, "cmd:ls+host:db1": {0, 0}, "host:web": {1, 0}, "cmd:ls+own": {0, 0}} {
		if l := decode[listJSON](t, w.ask("GET", hub+"/api/recordings?q="+q, from)); len(l.Recordings) != want[0] || l.Sealed != want[1] {
			t.Errorf("%s: %d listed, %d sealed, not %v", q, len(l.Recordings), l.Sealed, want)
		}
	}
	if l := decode[listJSON](t, w.ask("GET", hub+"/api/recordings?q=cmd:ls", fromBob)); len(l.Recordings) != 0 || l.Sealed != 0 {
		t.Errorf("bob is told of %d sealed recordings that are not his", l.Sealed)
	}
	d := decode[detailJSON](t, w.ask("GET", at, from))
	if !d.Locked || !d.Sealed || len(d.SealedTo) != 1 || d.SealedTo[0] != id1.Recipient().String() || len(d.Frames) == 0 || d.Duration == 0 {
		t.Errorf("detail: locked %v, to %v, %d frames", d.Locked, d.SealedTo, len(d.Frames))
	}
	paths := []string{"/frames/0", "/transcript", "/search?q=x", "/text", "/cast", "/screen"}
	for _, p := range paths {
		res := w.ask("GET", at+p, from)
		text, _ := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusLocked || !strings.Contains(string(text), "sealed") || !strings.Contains(string(text), "--identity") {
			t.Errorf("%s: %d %s", p, res.StatusCode, text)
		}
	}
	if _, pages := w.viewer.assets["share.js"]; pages {
		if res := w.ask("GET", at+"/html", from); res.StatusCode != http.StatusLocked {
			t.Errorf("html: %d", res.StatusCode)
		}
	}
	res := w.ask("GET", at+"/file", from)
	if got, _ := io.ReadAll(res.Body); res.StatusCode != 200 || string(got) != string(b) {
		t.Errorf("the file: %d, %d bytes of %d", res.StatusCode, len(got), len(b))
	}
	w.searchable()
	if r := decode[foundJSON](t, w.ask("GET", hub+"/api/search?q=welcome", from)); len(r.Recordings) != 0 {
		t.Errorf("found without a key: %+v", r)
	}

	w.viewer.cfg.Keys = keys
	w.viewer.open = newOpenFiles(w.store, keys)
	d = decode[detailJSON](t, w.ask("GET", at, from))
	if d.Locked || !d.Sealed {
		t.Errorf("with the key: locked %v sealed %v", d.Locked, d.Sealed)
	}
	for _, p := range paths {
		res := w.ask("GET", at+p, from)
		if text, _ := io.ReadAll(res.Body); res.StatusCode != 200 || len(text) < 10 {
			t.Errorf("%s with the key: %d %.80s", p, res.StatusCode, text)
		}
	}
	tr := decode[transcriptJSON](t, w.ask("GET", at+"/transcript", from))
	if len(tr.Lines) == 0 {
		t.Fatal("no lines")
	}
	word := ""
	for _, l := range tr.Lines {
		for _, f := range strings.Fields(l.Text) {
			if len(f) > len(word) && strings.Trim(f, "abcdefghijklmnopqrstuvwxyz") == "" {
				word = f
			}
		}
	}
	w.searchable()
	if r := decode[foundJSON](t, w.ask("GET", hub+"/api/search?q="+word, from)); len(r.Recordings) != 1 {
		t.Errorf("%q is not found with the key", word)
	}
	if _, pages := w.viewer.assets["share.js"]; pages {
		if res := w.ask("GET", at+"/html", from); res.StatusCode != 200 {
			t.Errorf("html with the key: %d", res.StatusCode)
		}
	}
}
