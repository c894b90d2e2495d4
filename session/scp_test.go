package session

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"tssh/recording"
)

// scpTalk is what both sides said, in order; "<" is the host, ">" the client.
func scpEvents(command string, talk []string, cut func(string) []string) (events []recording.File) {
	w := watchSCP(command, "/home/u", func(f recording.File) { events = append(events, f) })
	if w == nil {
		return nil
	}
	for _, said := range talk {
		for _, piece := range cut(said[1:]) {
			if said[0] == '>' {
				w.fromClient([]byte(piece))
			} else {
				w.fromHost([]byte(piece))
			}
		}
	}
	w.end()
	return events
}

func whole(s string) []string   { return []string{s} }
func letters(s string) []string { return strings.Split(s, "") }

func sumOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

var scpCases = []struct {
	name, command string
	talk          []string
	want          []recording.File
}{
	{"a file up", "scp -t /srv/x", []string{"<\x00", ">C0644 5 a\n", "<\x00", ">hello\x00", "<\x00"},
		[]recording.File{{Op: "put", Path: "/srv/x", Bytes: 5, SHA256: sumOf("hello")}}},
	{"empty, relative, with times", "scp -p -t -- ~/x", []string{"<\x00", ">T1 0 1 0\n", "<\x00", ">C0644 0 a\n", "<\x00", ">\x00", "<\x00"},
		[]recording.File{{Op: "put", Path: "/home/u/x", SHA256: sumOf("")}, {Op: "setstat", Path: "/home/u/x"}}},
	{"folders up", "scp -rdt '/srv/a b'", []string{"<\x00", ">D0755 0 top\n", "<\x00", ">C0644 1 a\n", "<\x00", ">A\x00", "<\x00", ">D0755 0 sub\n", "<\x00", ">C0600 2 b\n", "<\x00", ">BB\x00", "<\x00", ">E\n", "<\x00", ">E\n", "<\x00"},
		[]recording.File{{Op: "put", Path: "/srv/a b/top/a", Bytes: 1, SHA256: sumOf("A")}, {Op: "put", Path: "/srv/a b/top/sub/b", Bytes: 2, SHA256: sumOf("BB")}}},
	{"refused, and the next", "scp -d -t /srv", []string{"<\x00", ">C0644 5 a\n", "<\x01scp: /srv/a: Permission denied\n", ">C0644 1 b\n", "<\x00", ">B\x00", "<\x00"},
		[]recording.File{{Op: "put", Path: "/srv/a", Error: "scp: /srv/a: Permission denied"}, {Op: "put", Path: "/srv/b", Bytes: 1, SHA256: sumOf("B")}}},
	{"no room", "scp -t /x", []string{"<\x00", ">C0644 3 a\n", "<\x00", ">abc\x00", "<\x01scp: /x: No space left on device\n"},
		[]recording.File{{Op: "put", Path: "/x", Bytes: 3, Error: "scp: /x: No space left on device"}}},
	{"files down", "scp -f /etc/hosts 'log/*'", []string{">\x00", "<C0644 2 hosts\n", ">\x00", "<hi\x00", ">\x00", "<C0644 1 app.log\n", ">\x00", "<x\x00", ">\x00"},
		[]recording.File{{Op: "get", Path: "/etc/hosts", Bytes: 2, SHA256: sumOf("hi")}, {Op: "get", Path: "/home/u/log/app.log", Bytes: 1, SHA256: sumOf("x")}}},
	{"none there", "scp -f nope", []string{">\x00", "<\x01scp: nope: No such file or directory\n"},
		[]recording.File{{Op: "get", Path: "nope", Error: "No such file or directory"}}},
	{"unreadable in the middle", "scp -f /f", []string{">\x00", "<C0644 3 f\n", ">\x00", "<\x00\x00\x00\x01scp: /f: Input/output error\n", ">\x00"},
		[]recording.File{{Op: "get", Path: "/f", Bytes: 3, Error: "scp: /f: Input/output error"}}},
	{"broken off", "scp -t /x", []string{"<\x00", ">C0644 30 a\n", "<\x00", ">abc"},
		[]recording.File{{Op: "put", Path: "/x", Bytes: 3, Error: "broken off"}}},
	{"not confirmed", "scp -f /f", []string{">\x00", "<C0644 2 f\n", ">\x00", "<ab\x00"},
		[]recording.File{{Op: "get", Path: "/f", Bytes: 2, Error: "the end of it was not confirmed"}}},
	{"all at once", "scp -t /x", []string{">C0644 5 a\nhello\x00", "<\x00\x00\x00"},
		[]recording.File{{Op: "put", Path: "/x", Bytes: 5, SHA256: sumOf("hello")}}},
	{"folder refused", "scp -r -t /x", []string{"<\x00", ">D0755 0 d\n", "<\x01scp: /x: Not a directory\n"},
		[]recording.File{{Op: "mkdir", Path: "/x", Error: "scp: /x: Not a directory"}}},
	{"no scp", "scp -t /x; rm /x", []string{"<\x00", ">C0644 0 a\n"}, nil},
	{"a shell's output before", "scp -t /x", []string{"<Welcome!\n\x00", ">C0644 1 a\n", "<\x00", ">x\x00", "<\x00"}, nil},
	{"no protocol", "scp -t /x", []string{"<\x00", ">GET / HTTP/1.1\r\n\r\n"}, nil},
}

func TestSCP(t *testing.T) {
	for _, c := range scpCases {
		for how, cut := range map[string]func(string) []string{"whole": whole, "byte by byte": letters} {
			if got := scpEvents(c.command, c.talk, cut); !slices.Equal(got, c.want) {
				t.Errorf("%s, %s:\n got %+v\nwant %+v", c.name, how, got, c.want)
			}
		}
	}
}

func TestShellWords(t *testing.T) {
	for in, want := range map[string]string{
		`scp  -t  a`: "scp|-t|a", `scp -t 'a b'\''c'`: "scp|-t|a b'c", `scp -t "a \"b\" \c $x"`: `scp|-t|a "b" \c $x`, `scp -t ''`: "scp|-t|",
		`scp -t a\ b`: "scp|-t|a b", `scp -t a; b`: "", "scp -t `b`": "", `scp -t 'a`: "", `scp \`: "", "scp\n-t": "", `scp -t a | b`: "", `scp -t ~/x*`: "scp|-t|~/x*",
	} {
		if got := strings.Join(shellWords(in), "|"); got != want {
			t.Errorf("%s: %q, not %q", in, got, want)
		}
	}
}

// FuzzSCP says anything to both sides, in pieces: the same whatever the pieces are, and no
// more events than there were lines.
func FuzzSCP(f *testing.F) {
	for i, c := range scpCases {
		f.Add(c.command, strings.Join(c.talk, "\xff"), uint64(i))
	}
	f.Fuzz(func(t *testing.T, command, talk string, seed uint64) {
		var said []string
		for _, s := range strings.Split(talk, "\xff") {
			if len(s) > 0 && (s[0] == '<' || s[0] == '>') {
				said = append(said, s)
			}
		}
		r := rand.New(rand.NewPCG(seed, 1))
		pieces := func(s string) (out []string) {
			for len(s) > 0 {
				n := 1 + r.IntN(len(s))
				out = append(out, s[:n])
				s = s[n:]
			}
			return out
		}
		a, b := scpEvents(command, said, whole), scpEvents(command, said, pieces)
		if !slices.Equal(a, b) {
			t.Fatalf("%q in pieces:\n%+v\n%+v", said, a, b)
		}
		if most := 2*strings.Count(talk, "\n") + 2; len(a) > most {
			t.Fatalf("%d events of %d lines", len(a), most)
		}
		for _, e := range a {
			if len(e.Path) > 4096 || len(fmt.Sprint(e.Error)) > maxSCPWords+64 {
				t.Fatalf("%+v", e)
			}
		}
	})
}
