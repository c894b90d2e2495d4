package replay

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tssh/policy"
	"tssh/recording"
)

const hub = "http://hub.demo.internal"

func decode[T any](t *testing.T, res *http.Response) T {
	t.Helper()
	var v T
	text := body(t, res)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", res.StatusCode, text)
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

func ran(text string) func(*script) {
	return func(s *script) {
		s.json(1, recording.KindOpen, recording.Open{Type: "exec", Command: text})
		s.wait(time.Second).data(1, recording.KindOutput, text+" ran\n").json(1, recording.KindExit, recording.Exit{Status: 0})
	}
}

// keep puts a recording into the world's store.
func (w *world) keep(m recording.Meta, play func(*script)) string {
	w.t.Helper()
	id, b := record(w.t, m, play)
	put(w.t, w.store, m.Host, id, b)
	return id
}

func (w *world) ids(from, query string) string {
	w.t.Helper()
	page := decode[listJSON](w.t, w.ask("GET", hub+"/api/recordings"+query, from))
	var s []string
	for _, r := range page.Recordings {
		s = append(s, r.Command)
	}
	return strings.Join(s, " ")
}

func TestEachSeesTheirOwn(t *testing.T) {
	w := newWorld(t)
	a := w.keep(meta("alice@example.com", "deploy", "web", w.now), ran("a1"))
	b := w.keep(meta("bob@example.com", "bob", "web", w.now.Add(-time.Hour)), ran("b1"))
	tagged := meta("", "root", "db", w.now.Add(-2*time.Hour))
	tagged.SrcTags = []string{"tag:ci"}
	c := w.keep(tagged, ran("c1"))

	for _, q := range []struct{ from, query, want string }{
		{fromAlice, "", "a1"},
		{fromAlice, "?own=1", "a1"},
		{fromBob, "", "b1"},
		{fromBob, "?q=a1", ""},
		{fromRoot, "", "a1 b1 c1"},
		{fromRoot, "?own=1", ""},
		{fromRoot, "?q=BOB", "b1"},
		{fromRoot, "?q=tag:ci", "c1"},
		{fromRoot, "?q=web+alice", "a1"},
		{fromRoot, "?q=web+tag:ci", ""},
	} {
		if got := w.ids(q.from, q.query); got != q.want {
			t.Errorf("%s%s: got %q, want %q", q.from, q.query, got, q.want)
		}
	}
	for _, id := range []string{b, c} {
		for _, what := range []string{"", "/frames/0", "/file", "/cast"} {
			res := w.ask("GET", hub+"/api/recordings/"+id+what, fromAlice)
			if text := body(t, res); res.StatusCode != 403 || !strings.Contains(text, `"error":"`) || strings.Contains(text, "bob") {
				t.Errorf("%s: %d %s", what, res.StatusCode, text)
			}
		}
	}
	for _, what := range []string{"", "/frames/0", "/file", "/cast"} {
		if res := w.ask("GET", hub+"/api/recordings/"+a+what, fromAlice); res.StatusCode != 200 {
			t.Errorf("own%s: %d %s", what, res.StatusCode, body(t, res))
		}
	}
	// No policy: nobody sees anything, an administrator neither.
	w.policy = nil
	if got := w.ids(fromRoot, ""); got != "" {
		t.Errorf("without a policy the list has %q", got)
	}
	if res := w.ask("GET", hub+"/api/recordings/"+a, fromAlice); res.StatusCode != 403 {
		t.Errorf("without a policy: %d", res.StatusCode)
	}
}

func TestPagesOfTheList(t *testing.T) {
	w := newWorld(t)
	for i := range pageSize + 7 {
		w.keep(meta("alice@example.com", "deploy", "web", w.now.Add(-time.Duration(i)*time.Minute)), ran(fmt.Sprintf("x%03d", i)))
	}
	first := decode[listJSON](t, w.ask("GET", hub+"/api/recordings", fromAlice))
	if len(first.Recordings) != pageSize || first.Next == "" || first.Recordings[0].Command != "x000" {
		t.Fatalf("%d recordings, next %q", len(first.Recordings), first.Next)
	}
	second := decode[listJSON](t, w.ask("GET", hub+"/api/recordings?before="+first.Next, fromAlice))
	if len(second.Recordings) != 7 || second.Next != "" || second.Recordings[0].Command != fmt.Sprintf("x%03d", pageSize) {
		t.Fatalf("%d recordings on the second page, next %q", len(second.Recordings), second.Next)
	}
}

func TestFramesGiveEveryByteBack(t *testing.T) {
	w := newWorld(t)
	var want strings.Builder
	id := w.keep(meta("alice@example.com", "deploy", "web", w.now), func(s *script) {
		s.json(1, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 80, Rows: 24})
		for i := range 40000 {
			line := fmt.Sprintf("line %d \xff\xc3\x28 \x1b[3%dm\r\n", i, i%8)
			want.WriteString(line)
			s.wait(time.Millisecond).data(1, recording.KindOutput, line)
		}
	})
	d := decode[detailJSON](t, w.ask("GET", hub+"/api/recordings/"+id, fromAlice))
	if len(d.Frames) < 3 || len(d.ChannelList) != 1 || !d.ChannelList[0].PTY || d.Duration < 39.9 {
		t.Fatalf("%d frames, channels %+v, %f s", len(d.Frames), d.ChannelList, d.Duration)
	}
	var got strings.Builder
	keys := 0
	for _, row := range d.Frames {
		f := decode[frameJSON](t, w.ask("GET", fmt.Sprintf("%s/api/recordings/%s/frames/%d", hub, id, row.N), fromAlice))
		keys += len(f.Keyframes)
		if row.Keyframe != (len(f.Keyframes) > 0) {
			t.Errorf("frame %d: the index says keyframe %v", row.N, row.Keyframe)
		}
		for _, e := range f.Events {
			if e.T < row.First || e.T > row.Last {
				t.Fatalf("event at %f in frame %f to %f", e.T, row.First, row.Last)
			}
			if e.Kind == "output" {
				got.Write(e.Data)
			}
		}
	}
	if got.String() != want.String() {
		t.Errorf("%d bytes came back of %d", got.Len(), want.Len())
	}
	if keys == 0 {
		t.Error("no keyframe in 40 s of output")
	}
	for _, n := range []string{fmt.Sprint(len(d.Frames)), "-1", "x", "99999999999999999999"} {
		if res := w.ask("GET", hub+"/api/recordings/"+id+"/frames/"+n, fromAlice); res.StatusCode != 404 {
			t.Errorf("frame %s: %d", n, res.StatusCode)
		}
	}
}

func TestDownloads(t *testing.T) {
	w := newWorld(t)
	id, b := record(t, meta("alice@example.com", "deploy", "web", w.now), shell)
	put(t, w.store, "web", id, b)
	res := w.ask("GET", hub+"/api/recordings/"+id+"/file", fromAlice)
	if body(t, res) != string(b) || !strings.HasPrefix(res.Header.Get("Content-Disposition"), "attachment") {
		t.Error("the file is not the one that was recorded")
	}
	res = w.ask("GET", hub+"/api/recordings/"+id+"/cast?version=2", fromAlice)
	if text := body(t, res); !strings.HasPrefix(text, `{"version":2`) || res.Header.Get("Content-Type") != "application/x-asciicast" {
		t.Errorf("cast: %.80q", text)
	}
	for _, q := range []string{"version=4", "version=x", "channel=-1", "channel=77"} {
		if res := w.ask("GET", hub+"/api/recordings/"+id+"/cast?"+q, fromAlice); res.StatusCode < 400 || res.StatusCode >= 500 {
			t.Errorf("%s: %d", q, res.StatusCode)
		}
	}
}

func TestLooksAreAudited(t *testing.T) {
	w := newWorld(t)
	id := w.keep(meta("alice@example.com", "deploy", "web", w.now), shell)
	api := hub + "/api/recordings"
	get := func(path, from string) { body(t, w.ask("GET", api+path, from)) }
	said := func() string {
		var s []string
		for _, e := range w.audited {
			at := e.Extra["from"]
			if e.Session != "" && e.Session != id {
				t.Errorf("entry names recording %q", e.Session)
			}
			s = append(s, strings.TrimSpace(e.Kind+" "+e.Who+" "+at))
		}
		w.audited = nil
		return strings.Join(s, "; ")
	}
	expect := func(want string) {
		t.Helper()
		if got := said(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	get("", fromAlice)
	get("", fromAlice) // the page refreshes itself
	get("?q=x", fromAlice)
	expect("recording.list alice@example.com; recording.list alice@example.com")
	for range 2 {
		get("/"+id, fromAlice)
		for _, n := range []int{0, 0, 1, 2, 3} {
			get(fmt.Sprintf("/%s/frames/%d", id, n), fromAlice)
		}
	}
	d := decode[detailJSON](t, w.ask("GET", api+"/"+id, fromRoot))
	last := len(d.Frames) - 1
	get(fmt.Sprintf("/%s/frames/%d", id, last), fromAlice) // a jump
	from := func(n int) string { return fmt.Sprintf("%.1f", d.Frames[n].First) }
	expect("recording.open alice@example.com; recording.view alice@example.com " + from(0) + "; recording.view alice@example.com " + from(0) +
		"; recording.open root@example.com; recording.view alice@example.com " + from(last))
	w.now = w.now.Add(seenAgain)
	get(fmt.Sprintf("/%s/frames/%d", id, last), fromAlice)
	expect("recording.view alice@example.com " + from(last))
	get("/"+id+"/file", fromRoot)
	get("/"+id+"/file", fromRoot)
	get("/"+id+"/cast", fromRoot)
	expect("recording.download root@example.com 0.0; recording.download root@example.com 0.0; recording.download root@example.com 0.0")
	get("/"+id, fromBob)
	expect("recording.denied bob@example.com")

	// What cannot be audited is not shown, and once it can it is.
	w.failing = true
	for _, path := range []string{"?q=y", "/" + id + "/file", fmt.Sprintf("/%s/frames/1", id)} {
		if res := w.ask("GET", api+path, fromRoot); res.StatusCode != 500 {
			t.Errorf("%s without audit log: %d", path, res.StatusCode)
		}
	}
	w.failing = false
	get(fmt.Sprintf("/%s/frames/1", id), fromRoot)
	expect("recording.view root@example.com " + from(1))
}

// TestEveryAddressIsGuarded asks each address of the API as somebody else's page would, as somebody who may not, and with
// an audit log that takes nothing.
func TestEveryAddressIsGuarded(t *testing.T) {
	w := newWorld(t)
	secret := "a-command-nobody-else-knows"
	id := w.keep(meta("alice@example.com", "deploy", "web", w.now), ran(secret))
	w.searchable()
	attacks := map[string][]string{
		"a rebound name":           {"Host: evil.example"},
		"a foreign form":           {"Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Content-Type: application/x-www-form-urlencoded"},
		"a form without an origin": {"Origin: null", "Sec-Fetch-Site: cross-site"},
		"a foreign script":         {"Origin: http://evil.example"},
		"another port":             {"Origin: http://hub.demo.internal:9999", "Sec-Fetch-Site: same-site"},
		"a foreign image":          {"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"},
		"a foreign WebSocket":      {"Origin: http://evil.example", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="},
		"a foreign event stream":   {"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors", "Accept: text/event-stream"},
	}
	for pattern := range w.viewer.api() {
		method, path, _ := strings.Cut(pattern, " ")
		path = strings.NewReplacer("{id}", id, "{n}", "0").Replace(path)
		if path == "/api/search" || strings.HasSuffix(path, "/search") {
			path += "?q=" + secret
		}
		if strings.HasSuffix(path, "/live") {
			path += "?from=0"
		}
		before := len(w.audited)
		for name, headers := range attacks {
			r := httptest.NewRequest(method, hub+path, strings.NewReader(`{"reason":"because"}`))
			r.RemoteAddr = fromRoot
			for _, h := range headers {
				name, value, _ := strings.Cut(h, ": ")
				if name == "Host" {
					r.Host = value
				}
				r.Header.Set(name, value)
			}
			rec := httptest.NewRecorder()
			w.viewer.ServeHTTP(rec, r)
			if rec.Code != 403 && rec.Code != 421 || strings.Contains(rec.Body.String(), secret) || strings.Contains(rec.Body.String(), "alice") {
				t.Errorf("%s, %s: %d %s", pattern, name, rec.Code, rec.Body)
			}
		}
		if len(w.audited) != before {
			t.Errorf("%s: a refused request did something: %v", pattern, w.audited[before:])
		}
		if method != "GET" {
			continue // end_test.go has it
		}
		res := w.ask(method, hub+path, fromBob)
		text := body(t, res)
		if strings.Contains(text, secret) || strings.Contains(text, "alice") || strings.Contains(path, id) && len(w.audited) != before+1 {
			t.Errorf("%s shows somebody who may not: %d %s, audited %v", pattern, res.StatusCode, text, w.audited[before:])
		}
		if strings.Contains(path, id) && res.StatusCode != 403 && !strings.HasSuffix(path, "/why") {
			t.Errorf("%s for somebody who may not: %d", pattern, res.StatusCode)
		}
		w.viewer.seen = newSeen(w.viewer.cfg.Clock)
		w.failing = true
		if res := w.ask(method, hub+path, fromRoot); res.StatusCode != 500 || strings.Contains(body(t, res), secret) {
			t.Errorf("%s without an audit log: %d", pattern, res.StatusCode)
		}
		w.failing = false
	}
}

func TestWhySomebodyMay(t *testing.T) {
	w := newWorld(t)
	id := w.keep(meta("alice@example.com", "deploy", "web", w.now), ran("x"))
	for from, want := range map[string]string{
		fromAlice: `{"id":"ID","may":[{"what":"watch","yes":true,"because":"own: the viewer's own session"},{"what":"end","yes":true,"because":"own: the viewer's own session"},{"what":"delete","yes":false,"say":"nobody may delete the recordings of their own sessions"}]}`,
		fromRoot:  `{"id":"ID","may":[{"what":"watch","yes":true,"because":"role: the viewer is admin"},{"what":"end","yes":true,"because":"role: the viewer is admin"},{"what":"delete","yes":false,"say":"policy does not let you delete this recording"}]}`,
		fromBob:   `{"id":"ID","may":[{"what":"watch","yes":false,"say":"policy does not let you see this recording"}]}`,
	} {
		if got := strings.TrimSpace(strings.ReplaceAll(body(t, w.ask("GET", hub+"/api/recordings/"+id+"/why", from)), id, "ID")); got != want {
			t.Errorf("%s: %s", from, got)
		}
	}
}

func TestManyRecordingsAtOnceKeepFewFilesOpen(t *testing.T) {
	w := newWorld(t)
	var ids []string
	for i := range maxOpen + 10 {
		ids = append(ids, w.keep(meta("alice@example.com", "deploy", "web", w.now.Add(-time.Duration(i)*time.Minute)), ran("x")))
	}
	for range 2 {
		for _, id := range ids {
			decode[detailJSON](t, w.ask("GET", hub+"/api/recordings/"+id, fromAlice))
		}
	}
	if n := len(w.viewer.open.files); n > maxOpen {
		t.Errorf("%d recordings are open", n)
	}
}

func TestRolesAreThoseOfTheMoment(t *testing.T) {
	w := newWorld(t)
	id := w.keep(meta("alice@example.com", "deploy", "web", w.now), ran("x"))
	role := policy.RoleAuditor
	w.viewer.cfg.WhoIs = func(*http.Request) (policy.Identity, bool) {
		return policy.Identity{ID: "n9", Name: "desk", User: "eve@example.com", Role: role}, true
	}
	if res := w.ask("GET", hub+"/api/recordings/"+id, fromRoot); res.StatusCode != 200 {
		t.Errorf("auditor: %d", res.StatusCode)
	}
	role = policy.RoleMember
	if res := w.ask("GET", hub+"/api/recordings/"+id, fromRoot); res.StatusCode != 403 {
		t.Errorf("member: %d", res.StatusCode)
	}
}

// TestLookingWithoutEnd: who asks again and again does not fill the audit log, by what is shown to them or by what is
// refused, and others are shown what they ask for meanwhile.
func TestLookingWithoutEnd(t *testing.T) {
	w := newWorld(t)
	mine := w.keep(meta("alice@example.com", "deploy", "web", w.now), ran("x"))
	theirs := w.keep(meta("bob@example.com", "bob", "web", w.now.Add(-time.Hour)), ran("y"))
	last := 0
	for i := range looksBurst + 100 {
		path := []string{"/api/recordings?q=w" + fmt.Sprint(i), "/api/recordings/" + theirs, "/api/recordings/" + mine + "/search?q=x"}[i%3]
		last = w.ask("GET", hub+path, fromAlice).StatusCode
	}
	if last != http.StatusTooManyRequests || len(w.audited) != looksBurst {
		t.Errorf("%d, %d entries", last, len(w.audited))
	}
	if res := w.ask("POST", hub+"/api/recordings/"+mine+"/end", fromAlice, "Content-Type: application/json"); res.StatusCode == 200 {
		t.Errorf("an end: %d", res.StatusCode)
	}
	if res := w.ask("GET", hub+"/api/recordings/"+theirs, fromBob); res.StatusCode != 200 {
		t.Errorf("another person: %d", res.StatusCode)
	}
	w.now = w.now.Add(time.Second)
	if res := w.ask("GET", hub+"/api/recordings/"+mine, fromAlice); res.StatusCode != 200 {
		t.Errorf("a second later: %d", res.StatusCode)
	}
}
