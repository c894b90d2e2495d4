package recording_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	gossh "golang.org/x/crypto/ssh"

	"tssh/recording"
)

// pair makes an age identity: whom to seal to, and what opens it.
func pair(t testing.TB) (to string, keys *recording.Keys) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	must(t, err)
	keys, err = recording.ParseKeys([]byte("# mine\n"+id.String()+"\n"), nil)
	must(t, err)
	return id.Recipient().String(), keys
}

// sshPair is the same with an OpenSSH key.
func sshPair(t testing.TB, word string) (to string, key []byte) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(nil)
	must(t, err)
	sp, err := gossh.NewPublicKey(pub)
	must(t, err)
	var b *pem.Block
	if word == "" {
		b, err = gossh.MarshalPrivateKey(priv, "")
	} else {
		b, err = gossh.MarshalPrivateKeyWithPassphrase(priv, "", []byte(word))
	}
	must(t, err)
	return strings.TrimSpace(string(gossh.MarshalAuthorizedKey(sp))) + " alice@laptop", pem.EncodeToMemory(b)
}

func sealTo(t testing.TB, to ...string) func() (*recording.Recipients, error) {
	t.Helper()
	r, err := recording.ParseRecipients(strings.Join(to, "\n"))
	must(t, err)
	return func() (*recording.Recipients, error) { return r, nil }
}

func TestSealedRoundTrip(t *testing.T) {
	to, keys := pair(t)
	sshTo, sshKey := sshPair(t, "")
	sealed := madeWith(t, 11, 12, sealTo(t, to, sshTo))
	plain := made(t, 11)

	for name, k := range map[string]*recording.Keys{"age": keys, "ssh": parseKeys(t, sshKey, "")} {
		want, got := eventsOf(t, plain), eventsWith(t, sealed, k)
		if len(want) != len(got) {
			t.Fatalf("%s: %d events, want %d", name, len(got), len(want))
		}
		for i := range want {
			if want[i].At != got[i].At || want[i].Kind != got[i].Kind || !bytes.Equal(want[i].Data, got[i].Data) {
				t.Fatalf("%s: event %d is %v, want %v", name, i, got[i], want[i])
			}
		}
		rep, err := k.Verify(bytes.NewReader(sealed))
		must(t, err)
		if !rep.Sealed || !rep.Opened || len(rep.Problems) > 0 || !rep.Complete || rep.ProvenUntil != rep.Ends || len(rep.SealedTo) != 2 {
			t.Errorf("%s: %+v", name, rep)
		}
		// Any frame by itself, also backwards: a player jumps.
		r, err := k.NewReader(bytes.NewReader(sealed), int64(len(sealed)))
		must(t, err)
		for i := len(r.Index()) - 1; i >= 0; i -= 3 {
			if _, _, err := r.Frame(i); err != nil {
				t.Fatalf("%s: frame %d: %v", name, i, err)
			}
		}
		if s, open, _ := r.Sealed(); !s || !open {
			t.Errorf("%s: sealed %v, open %v", name, s, open)
		}
		r.Close()
	}
	t.Logf("%d bytes sealed, %d plain", len(sealed), len(plain))
	for _, secret := range []string{"line 3", "built", "make <all>", "make \\u003call"} {
		if bytes.Contains(sealed, []byte(secret)) {
			t.Errorf("%q is in the clear", secret)
		}
	}
}

func parseKeys(t *testing.T, b []byte, word string) *recording.Keys {
	t.Helper()
	k, err := recording.ParseKeys(b, func() ([]byte, error) { return []byte(word), nil })
	must(t, err)
	return k
}

func TestSealedWithoutTheKey(t *testing.T) {
	to, _ := pair(t)
	_, wrong := pair(t)
	b := madeWith(t, 12, 6, sealTo(t, to))
	for name, k := range map[string]*recording.Keys{"none": nil, "a wrong one": wrong} {
		rep, err := k.Verify(bytes.NewReader(b))
		must(t, err)
		if !rep.Sealed || rep.Opened || len(rep.Problems) > 0 || !rep.Complete || rep.ProvenUntil != rep.Ends || rep.SealedTo[0] != to {
			t.Errorf("%s: %+v", name, rep)
		}
		r, err := k.NewReader(bytes.NewReader(b), int64(len(b)))
		must(t, err)
		_, _, err = r.Frame(2)
		var se *recording.SealedError
		if !errors.As(err, &se) || se.To[0] != to || !strings.Contains(err.Error(), to) {
			t.Errorf("%s: %v", name, err)
		}
		if s, open, whom := r.Sealed(); !s || open || whom[0] != to {
			t.Errorf("%s: sealed %v, open %v, to %v", name, s, open, whom)
		}
		var kinds []string
		_, err = r.Outline(0, func(ev recording.Event) error {
			kinds = append(kinds, fmt.Sprintf("%d:%d:%s", ev.Channel, ev.Kind, ev.Data))
			return nil
		})
		must(t, err)
		got := strings.Join(kinds, " ")
		want := `1:5:{"type":"shell","pty":true,"cols":40,"rows":10} 2:5:{"type":"exec"} 1:6:{"status":0} 0:12:{"cause":"closed"}`
		if got != want {
			t.Errorf("%s: outline %s\nwant %s", name, got, want)
		}
		r.Close()
	}
}

func TestSealedTampering(t *testing.T) {
	to, keys := pair(t)
	whom := sealTo(t, to)
	b, other := madeWith(t, 13, 12, whom), madeWith(t, 14, 12, whom)
	namesTheSecond(t, b, other)
	t.Run("bytes", func(t *testing.T) { everyByte(t, madeWith(t, 15, 2, whom)) })
	t.Run("cuts", func(t *testing.T) { everyCut(t, madeWith(t, 16, 2, whom)) })

	// Whoever makes the chain anew, and had he the signing key, cannot make a frame: one in
	// another place, or of another recording sealed to the same, does not open.
	fs, ofs := frames(t, b), frames(t, other)
	payload := func(b []byte, f recording.FrameInfo) []byte { return b[f.Offset+96 : f.Offset+f.Size] }
	for name, p := range map[string][]byte{"another place": payload(b, fs[6]), "another recording": payload(other, ofs[4])} {
		bad := recording.Rechain(b, fs[4].Offset, func([]byte) []byte { return p })
		rep, err := keys.Verify(bytes.NewReader(bad))
		must(t, err)
		if len(rep.Problems) == 0 || !strings.HasPrefix(rep.Problems[0], recording.Clock(fs[4].Last)+":") || !strings.Contains(rep.Problems[0], "seal is broken") {
			t.Errorf("%s: %q", name, rep.Problems)
		}
		r, err := keys.NewReader(bytes.NewReader(bad), int64(len(bad)))
		must(t, err)
		if _, _, err := r.Frame(4); err == nil {
			t.Errorf("%s: opened", name)
		}
		r.Close()
	}
}

// plaintextIn finds a marker in any file of a folder.
func plaintextIn(t *testing.T, dir, marker string) (where []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(marker)) {
			where = append(where, path)
		}
		return err
	}))
	return where
}

func TestHostCannotReadItsSpool(t *testing.T) {
	const marker = "correct horse battery staple"
	for _, sealed := range []bool{false, true} {
		to, _ := pair(t)
		cfg := recording.SpoolConfig{Dir: t.TempDir()}
		if sealed {
			cfg.SealTo = sealTo(t, to)
		}
		s := openSpool(t, cfg)
		x, j := begin(t, s, testMeta())
		must(t, j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "exec", Command: marker}))
		must(t, j.Append(1, recording.KindOutput, []byte(marker)))
		if len(plaintextIn(t, cfg.Dir, marker)) == 0 {
			t.Fatal("the marker is not in the journal: this test looks at the wrong place")
		}
		must(t, x.Flush())
		if where := plaintextIn(t, cfg.Dir, marker); sealed != (len(where) == 0) {
			t.Errorf("sealed %v, after framing it is in %v", sealed, where)
		}
		must(t, j.Append(1, recording.KindOutput, []byte(marker)))
		// The next monitor frames what is left.
		s = openSpool(t, cfg)
		x, err := s.Adopt(x.ID())
		must(t, err)
		must(t, x.Note("mark", ""))
		if where := plaintextIn(t, cfg.Dir, marker); sealed != (len(where) == 0) {
			t.Errorf("sealed %v, after another monitor framed it is in %v", sealed, where)
		}
		must(t, x.Finish("closed", ""))
		b, err := os.ReadFile(filepath.Join(cfg.Dir, x.ID(), "recording.tsr"))
		must(t, err)
		if m := bytes.Contains(b, []byte(marker)); sealed && m {
			t.Error("in the recording")
		}
	}
}

func TestRecipientsChange(t *testing.T) {
	old, oldKeys := pair(t)
	to, keys := pair(t)
	whom := sealTo(t, old)
	dir := t.TempDir()
	s := openSpool(t, recording.SpoolConfig{Dir: dir, SealTo: func() (*recording.Recipients, error) { return whom() }})
	x, j := begin(t, s, testMeta())
	must(t, j.Append(1, recording.KindOutput, []byte("before")))
	must(t, x.Note("mark", ""))
	whom = sealTo(t, to)
	must(t, j.Append(1, recording.KindOutput, []byte("after")))
	must(t, x.Note("mark", ""))
	whom = func() (*recording.Recipients, error) { return nil, errors.New("nobody knows") }
	must(t, j.Append(1, recording.KindOutput, []byte("still")))
	must(t, x.Finish("closed", ""))
	if _, err := s.Begin(testMeta()); !errors.Is(err, recording.ErrSeal) {
		t.Errorf("a host that cannot seal began: %v", err)
	}
	path := filepath.Join(dir, x.ID(), "recording.tsr")
	if _, evs := verifiedWith(t, path, oldKeys.And(keys)); output(evs, 1) != "beforeafterstill" {
		t.Errorf("both: %q", output(evs, 1))
	}
	b, err := os.ReadFile(path)
	must(t, err)
	read := func(k *recording.Keys) (out string) {
		r, err := k.NewReader(bytes.NewReader(b), int64(len(b)))
		must(t, err)
		defer r.Close()
		for i := range r.Index() {
			evs, _, err := r.Frame(i)
			var sealed *recording.SealedError
			if err != nil && !errors.As(err, &sealed) {
				t.Fatal(err)
			}
			out += output(evs, 1)
		}
		return out
	}
	if got := read(oldKeys); got != "before" {
		t.Errorf("the former recipient reads %q", got)
	}
	if got := read(keys); got != "afterstill" {
		t.Errorf("the new recipient reads %q", got)
	}
}

func TestSealedRestartGoesOn(t *testing.T) {
	to, keys := pair(t)
	cfg := recording.SpoolConfig{Dir: t.TempDir(), SealTo: sealTo(t, to)}
	x, j := begin(t, openSpool(t, cfg), testMeta())
	open := func(ch uint32) {
		must(t, j.AppendJSON(ch, recording.KindOpen, recording.Open{Type: "shell", PTY: true, Cols: 80, Rows: 24}))
	}
	open(1)
	var want strings.Builder
	for i := range 5 {
		for k := range 40 {
			line := fmt.Sprintf("monitor %d line %d %s\r\n", i, k, strings.Repeat("=", 1000))
			want.WriteString(line)
			must(t, j.Append(1, recording.KindOutput, []byte(line)))
		}
		if i%2 == 0 {
			must(t, x.Flush())
		}
		if i == 3 { // not configured any more: it stays sealed, to those of before
			cfg.SealTo = nil
		}
		var err error
		x, err = openSpool(t, cfg).Adopt(x.ID())
		must(t, err)
	}
	// The first terminal's screen is not known any more; a keyframe would lack it. With it
	// gone there are keyframes again.
	must(t, x.Note("mark", ""))
	keyframesNow := func() (n int) {
		b, err := os.ReadFile(filepath.Join(cfg.Dir, x.ID(), "recording.tsr"))
		must(t, err)
		for _, f := range frames(t, b) {
			if f.Keyframe {
				n++
			}
		}
		return n
	}
	was := keyframesNow()
	fill := func(ch uint32) {
		for range 3 {
			must(t, j.Append(ch, recording.KindOutput, bytes.Repeat([]byte("x"), 70<<10)))
			must(t, x.Note("mark", ""))
		}
	}
	open(2)
	fill(2)
	if n := keyframesNow(); n != was {
		t.Errorf("%d keyframes, with a terminal that cannot be in them", n-was)
	}
	must(t, j.Append(1, recording.KindClose, nil))
	must(t, x.Note("mark", ""))
	fill(2)
	if n := keyframesNow(); n == was {
		t.Error("no keyframes any more")
	}
	must(t, j.AppendJSON(0, recording.KindEnd, recording.End{Cause: "closed"}))
	must(t, x.Finish("lost", ""))
	_, evs := verifiedWith(t, filepath.Join(cfg.Dir, x.ID(), "recording.tsr"), keys)
	if output(evs, 1) != want.String() {
		t.Error("output is not what was written")
	}
	if last := evs[len(evs)-1]; last.Kind != recording.KindEnd || !strings.Contains(string(last.Data), "closed") {
		t.Errorf("ends with %s", last.Data)
	}
}

func TestSealedKillNine(t *testing.T) {
	to, keys := pair(t)
	t.Setenv("TSSH_RECORDING_SEAL", to)
	killNine(t, recording.SpoolConfig{SealTo: sealTo(t, to)}, keys)
}

func TestParseRecipients(t *testing.T) {
	a, _ := pair(t)
	s, _ := sshPair(t, "")
	r, err := recording.ParseRecipients("# the auditors\n\n" + a + "\n" + s + "\n" + a + "\n")
	must(t, err)
	if w := r.Words(); len(w) != 2 || w[0] != a || strings.Contains(w[1], "alice") {
		t.Errorf("%q", w)
	}
	id, err := age.GenerateX25519Identity()
	must(t, err)
	for text, want := range map[string]string{
		"":                         "there is none",
		"# nobody\n":               "there is none",
		"age1xyz":                  "line 1",
		a + "\nssh-rsa AAAA":       "line 2",
		"ssh-ed25519 AAAA":         "line 1",
		id.String():                "identity",
		"alice@example.com":        "a recipient is",
		strings.Repeat(a+"x\n", 1): "line 1",
	} {
		_, err := recording.ParseRecipients(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "AGE-SECRET") {
			t.Errorf("%v", err)
		}
	}
}

func TestParseKeys(t *testing.T) {
	_, locked := sshPair(t, "sesame")
	if parseKeys(t, locked, "sesame") == nil {
		t.Error("no keys")
	}
	ask := func() ([]byte, error) { return []byte("wrong"), nil }
	for name, c := range map[string]struct {
		text string
		ask  func() ([]byte, error)
		want string
	}{
		"a wrong passphrase": {string(locked), ask, "passphrase"},
		"nobody to ask":      {string(locked), nil, "nobody to ask"},
		"rubbish":            {"AGE-SECRET-KEY-1QQ", nil, "neither"},
		"a recipient":        {"age1qqq", nil, "neither"},
		"an encrypted file":  {"age-encryption.org/v1\n-> scrypt", nil, "itself encrypted"},
		"nothing":            {"", nil, "neither"},
	} {
		_, err := recording.ParseKeys([]byte(c.text), c.ask)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "SECRET-KEY-1QQ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLaterFormat says what a reader of today says about a file of tomorrow.
func TestLaterFormat(t *testing.T) {
	b := []byte("tsshrecording9\r\n and so on")
	if _, err := recording.Verify(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "later version") {
		t.Error(err)
	}
	if _, err := recording.NewReader(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), "later version") {
		t.Error(err)
	}
}

// FuzzSealed reads what claims to be sealed with a key that fits.
func FuzzSealed(f *testing.F) {
	id, err := age.GenerateX25519Identity()
	must(f, err)
	keys, err := recording.ParseKeys([]byte(id.String()), nil)
	must(f, err)
	dir := f.TempDir()
	s := openSpool(f, recording.SpoolConfig{Dir: dir, SealTo: sealTo(f, id.Recipient().String())})
	x, j := begin(f, s, testMeta())
	must(f, j.AppendJSON(1, recording.KindOpen, recording.Open{Type: "exec", Command: "ls"}))
	must(f, j.Append(1, recording.KindOutput, []byte("a\n")))
	must(f, x.Finish("closed", ""))
	whole, err := os.ReadFile(filepath.Join(dir, x.ID(), "recording.tsr"))
	must(f, err)
	f.Add(whole)
	f.Fuzz(func(t *testing.T, b []byte) {
		rep, err := keys.Verify(bytes.NewReader(b))
		if err != nil {
			return
		}
		if _, err := json.Marshal(rep); err != nil {
			t.Error(err)
		}
		r, err := keys.NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		defer r.Close()
		_, _ = r.Outline(0, func(recording.Event) error { return nil })
		for i := range r.Index() {
			_, _, _ = r.Frame(i)
		}
	})
}
