package replay

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
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
		res := w.ask("GET", at+"/html", from)
		text, _ := io.ReadAll(res.Body)
		if res.StatusCode != 200 || !strings.Contains(string(text), base64.StdEncoding.EncodeToString(b)) {
			t.Errorf("html: %d", res.StatusCode)
		}
		if d := sharedData(t, text); !d.Detail.Locked || len(d.Frames) > 0 || len(d.Transcript.Lines) > 0 || len(d.Detail.SealedTo) != 1 {
			t.Errorf("html without a key: locked %v, %d frames, %d lines", d.Detail.Locked, len(d.Frames), len(d.Transcript.Lines))
		}
	}
	res := w.ask("GET", at+"/file", from)
	if got, _ := io.ReadAll(res.Body); res.StatusCode != 200 || string(got) != string(b) {
		t.Errorf("the file: %d, %d bytes of %d", res.StatusCode, len(got), len(b))
	}
	heads, _ := io.ReadAll(w.ask("GET", at+"/heads", from).Body)
	blocks := 0
	for rest := heads; len(rest) > 0; blocks++ {
		off, n := binary.LittleEndian.Uint64(rest), binary.LittleEndian.Uint32(rest[8:])
		if block := rest[12 : 12+n]; !bytes.Equal(block, b[off:off+uint64(n)]) || block[4] != []byte{1, 6}[blocks] {
			t.Errorf("head %d at %d is not what is in the file", blocks, off)
		}
		rest = rest[12+n:]
	}
	if blocks != 2 {
		t.Errorf("%d heads", blocks)
	}
	for i := range d.Frames {
		raw, _ := io.ReadAll(w.ask("GET", at+"/raw/"+strconv.Itoa(i), from).Body)
		if len(raw) < 96 || raw[4] != 2 || !bytes.Contains(b, raw) {
			t.Errorf("raw %d: %d bytes", i, len(raw))
		}
	}
	for path, status := range map[string]int{"/raw/x": 404, "/raw/-1": 404, "/raw/" + strconv.Itoa(len(d.Frames)): 404,
		"/exported?as=gif&channel=1&from=1&until=2.5": 200, "/exported?as=gif&channel=1&from=3&until=2": 400, "/exported?as=gif&channel=1&from=NaN&until=2": 400, "/exported?as=tsr&channel=1&from=1&until=2": 400} {
		if res := w.ask("GET", at+path, from); res.StatusCode != status {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, status)
		}
		if res := w.ask("GET", at+path, "100.64.0.2:5"); res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d for somebody else", path, res.StatusCode)
		}
	}
	last := ""
	for _, e := range w.audited {
		if e.Kind == "recording.download" && e.Extra["as"] == "gif" {
			last = e.Who + " " + e.Extra["from"] + " " + e.Extra["until"]
		}
	}
	if last != "alice@example.com 1.0 2.5" {
		t.Errorf("a GIF is audited as %q", last)
	}
	w.failing = true
	for _, path := range []string{"/raw/0", "/heads", "/exported?as=gif&channel=1&from=1&until=2", "/file?for=page"} {
		w.viewer.seen = newSeen(w.viewer.cfg.Clock)
		if res := w.ask("GET", at+path, from); res.StatusCode != http.StatusInternalServerError {
			t.Errorf("%s: %d though it cannot be audited", path, res.StatusCode)
		}
	}
	w.failing = false
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
		for path, locked := range map[string]bool{"/html": false, "/html?sealed=1": true} {
			text, _ := io.ReadAll(w.ask("GET", at+path, from).Body)
			if d := sharedData(t, text); d.Detail.Locked != locked || len(d.Frames) > 0 == locked || len(d.Transcript.Lines) > 0 == locked || d.Detail.Command != "" {
				t.Errorf("%s with the key: locked %v, %d frames", path, d.Detail.Locked, len(d.Frames))
			}
		}
	}
}

// sharedData is what a shared page has beside the recording.
func sharedData(t *testing.T, page []byte) (out sharedJSON) {
	t.Helper()
	_, rest, _ := strings.Cut(string(page), `id="data">`)
	text, _, _ := strings.Cut(rest, "<")
	packed, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	zr, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(zr).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}
