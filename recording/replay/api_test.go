package replay

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/recording/live"
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
	var viewed []audit.Entry
	said := func() string {
		var s []string
		for _, e := range w.audited {
			at := e.Extra["from"]
			if e.Session != "" && e.Session != id {
				t.Errorf("entry names recording %q", e.Session)
			}
			s = append(s, strings.TrimSpace(e.Kind+" "+e.Who+" "+at))
			if e.Kind == "recording.viewed" {
				viewed = append(viewed, e)
			}
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
		"; recording.viewed alice@example.com " + from(0) + "; recording.open root@example.com; recording.view alice@example.com " + from(last) + "; recording.viewed alice@example.com " + from(0))
	for _, e := range viewed {
		if want := fmt.Sprintf("%.1f", d.Frames[3].Last); e.Extra["until"] != want {
			t.Errorf("viewed until %s, want %s", e.Extra["until"], want)
		}
	}
	w.now = w.now.Add(seenAgain)
	get(fmt.Sprintf("/%s/frames/%d", id, last), fromAlice)
	expect("recording.viewed alice@example.com " + from(last) + "; recording.view alice@example.com " + from(last))
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
	w.viewer.Close()
	expect("recording.viewed alice@example.com " + from(last) + "; recording.viewed root@example.com " + from(1))
}

// TestEveryAddressIsAudited: each address of the API leaves what it says it does in the audit log, with who, of what and
// which part.
func TestEveryAddressIsAudited(t *testing.T) {
	w := newWorld(t)
	id := w.keep(meta("alice@example.com", "deploy", "web", w.now), shell)
	w.searchable()
	w.hosted(func(live.End) error { return nil })
	run := w.running(meta("alice@example.com", "deploy", "web", w.now), shell)
	want := map[string]struct{ path, audited string }{
		"GET /api/recordings":                 {"?q=alice", "recording.list q=alice"},
		"GET /api/recordings/{id}":            {"", "recording.open"},
		"GET /api/recordings/{id}/frames/{n}": {"", "recording.view from=0.0"},
		"GET /api/recordings/{id}/file":       {"", "recording.download as=tsr from=0.0"},
		"GET /api/recordings/{id}/heads":      {"", "recording.open"},
		"GET /api/recordings/{id}/raw/{n}":    {"", "recording.view as=sealed from=0.0"},
		"GET /api/recordings/{id}/exported":   {"?as=gif&channel=1&from=1&until=2.5", "recording.download as=gif channel=1 from=1.0 until=2.5"},
		"GET /api/recordings/{id}/cast":       {"?channel=1", "recording.download as=cast channel=1 from=0.0"},
		"GET /api/recordings/{id}/transcript": {"", "recording.transcript from=2.5 until="},
		"GET /api/recordings/{id}/search":     {"?q=nginx&re=1", "recording.search q=nginx re=1"},
		"GET /api/recordings/{id}/text":       {"", "recording.download as=text from=0.0"},
		"GET /api/recordings/{id}/html":       {"", "recording.download as=html from=0.0"},
		"GET /api/recordings/{id}/screen":     {"", "recording.view as=picture from=end"},
		"GET /api/recordings/{id}/why":        {"", "recording.why"},
		"GET /api/search":                     {"?q=nginx", "recording.search q=nginx"},
		"GET /api/recordings/{id}/live":       {"?from=0", "recording.watch from="},
		"POST /api/recordings/{id}/end":       {"", "session.end person=alice@example.com"},
		"POST /api/recordings/{id}/delete":    {"", "recording.delete person=alice@example.com"}, // refused; what is done the store has audited first
	}
	for pattern := range w.viewer.api() {
		c, ok := want[pattern]
		if !ok {
			t.Errorf("%s: what it leaves in the audit log is not said here", pattern)
			continue
		}
		method, path, _ := strings.Cut(pattern, " ")
		of, status := id, 200
		if strings.HasSuffix(path, "/delete") {
			status = 403
		}
		if method == "POST" {
			of = run
		}
		w.audited = nil
		w.viewer.seen = newSeen(w.viewer.cfg.Clock) // some are of one kind, which is written down once
		path = strings.NewReplacer("{id}", of, "{n}", "0").Replace(path) + c.path
		var res *http.Response
		if method == "POST" {
			res = w.post(path, fromRoot, `{"reason":"enough"}`)
		} else {
			res = w.ask(method, hub+path, fromRoot)
		}
		if res.StatusCode != status && !(strings.HasSuffix(path, "/html") && page(w) != 200) {
			t.Errorf("%s: %d", pattern, res.StatusCode)
			continue
		}
		if len(w.audited) == 0 {
			t.Errorf("%s leaves nothing", pattern)
			continue
		}
		e := w.audited[0]
		got := e.Kind
		for _, k := range slices.Sorted(maps.Keys(e.Extra)) {
			if v := e.Extra[k]; v != "" && k != "reason" {
				got += " " + k + "=" + v
			}
		}
		if !strings.HasPrefix(got, c.audited) || e.Who != "root@example.com" || e.Node != "desk" {
			t.Errorf("%s: %q by %s at %s, want %q", pattern, got, e.Who, e.Node, c.audited)
		}
		if strings.Contains(pattern, "{id}") && (e.Session != of || e.Host != "web" || e.LocalUser != "deploy") {
			t.Errorf("%s: about %+v", pattern, e)
		}
		if strings.HasSuffix(pattern, "/live") && (len(w.audited) != 2 || w.audited[1].Kind != "recording.watched" || w.audited[1].Extra["until"] == "") {
			t.Errorf("%s: %+v", pattern, w.audited)
		}
	}
}

// TestWhatIsNotWatching: who only knows of a session that runs does not count as watching it; who is shown a part of it does.
func TestWhatIsNotWatching(t *testing.T) {
	w := newWorld(t)
	w.hosted(func(live.End) error { return nil })
	w.searchable()
	id := w.running(meta("alice@example.com", "deploy", "web", w.now), shell)
	if err := w.viewer.cfg.Search.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/api/recordings", "/api/recordings?q=is:live", "/api/recordings/" + id, "/api/recordings/" + id + "/why", "/api/recordings/" + id + "/screen", "/api/search?q=nginx"} {
		if res := w.ask("GET", hub+path, fromRoot); res.StatusCode != 200 {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
		if got := w.viewer.cfg.Live.Watchers(id); len(got) != 0 {
			t.Fatalf("%s counts as watching: %+v", path, got)
		}
	}
	for i, path := range []string{"/frames/0", "/transcript", "/search?q=nginx", "/file", "/cast", "/text"} {
		id := w.running(meta("alice@example.com", "deploy", "web", w.now.Add(time.Duration(i+1)*time.Second)), shell)
		if res := w.ask("GET", hub+"/api/recordings/"+id+path, fromRoot); res.StatusCode != 200 {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
		if got := w.viewer.cfg.Live.Watchers(id); len(got) != 1 || got[0].By.Login != "root@example.com" {
			t.Errorf("%s does not count as watching: %+v", path, got)
		}
	}
}

// TestRefusedAndMissing: who may not see a recording is told so and nothing about it, at every address alike. That it is there is no
// secret from whoever has its address: an id cannot be guessed.
func TestRefusedAndMissing(t *testing.T) {
	w := newWorld(t)
	id := w.keep(meta("alice@example.com", "deploy", "web", w.now), ran("secret-command"))
	w.searchable()
	for pattern := range w.viewer.api() {
		method, path, _ := strings.Cut(pattern, " ")
		if !strings.Contains(path, "{id}") || method != "GET" || strings.HasSuffix(path, "/why") {
			continue
		}
		for of, c := range map[string]struct {
			status int
			say    string
		}{
			id:                              {403, `{"error":"Policy does not let you see this recording."}`},
			recording.NewID(w.now, "n-web"): {404, `{"error":"There is no recording with this id here; it may have been deleted, be kept by another recorder (tssh sessions says where), or the address is incomplete."}`},
		} {
			res := w.ask("GET", hub+strings.NewReplacer("{id}", of, "{n}", "0").Replace(path)+"?q=x&from=0", fromBob)
			if text := strings.TrimSpace(body(t, res)); res.StatusCode != c.status || text != c.say {
				t.Errorf("%s of %s: %d %s", pattern, of, res.StatusCode, text)
			}
		}
	}
	// The page itself is the same for all, and says it by the API.
	if a, b := w.ask("GET", hub+"/r/"+id, fromBob), w.ask("GET", hub+"/r/no-such", fromBob); a.StatusCode != b.StatusCode || body(t, a) != body(t, b) {
		t.Error("the page of a recording that one may not see is another than that of none")
	}
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
		if strings.HasSuffix(path, "/exported") {
			path += "?as=gif&channel=1&from=0&until=1"
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
