package serve

import (
	"mime"
	"net/http"
	"net/http/httptest"
	"testing"

	"tssh/policy"
)

// TestPagesOfOtherAccounts: on a machine with tags any account can listen for the mesh. A page of such a one does
// nothing, in the name of who has it open, to what root serves.
func TestPagesOfOtherAccounts(t *testing.T) {
	s := New(Config{})
	at := func(port uint16, uid int) *served {
		p := newServed(s, Port{Port: port, Target: port, UID: uid})
		s.ports[port] = p
		return p
	}
	app := at(3000, Root)
	at(3001, Root)
	at(3002, 1000)
	at(80, Root)
	for _, c := range []struct {
		origin         string
		person, tagged int
	}{
		{"http://web:3000", 0, 0}, {"http://web:3001", 0, 0}, {"http://web", 0, 0}, {"http://web:80", 0, 0},
		{"http://web:3002", 0, 403}, {"http://web:9000", 0, 403}, {"https://web", 0, 403}, {"http://web.test.internal:9000", 0, 403}, {"http://web:+3000", 403, 403},
		{"http://other:3000", 403, 403}, {"null", 403, 403},
	} {
		for who, want := range map[*policy.Identity]int{{Name: "web", User: "alice@example.com"}: c.person, {Name: "web", Tags: []policy.Tag{"tag:web"}}: c.tagged} {
			h := &handler{p: app, m: &Mesh{Self: func() (policy.Identity, string) { return *who, "test" }}}
			r := httptest.NewRequest("POST", "http://web:3000/", nil)
			r.Header.Set("Origin", c.origin)
			if got, _ := h.refuse(r); got != want {
				t.Errorf("%s at a node of %s: %d, not %d", c.origin, who.Who(), got, want)
			}
		}
	}
}

// TestLoginsAreReadAsTheyAre: no login is read by a program that decodes headers as another one.
func TestLoginsAreReadAsTheyAre(t *testing.T) {
	for _, login := range []string{"alice@example.com", "jürgen@example.com", "=?utf-8?q?admin=40example.com?=@example.com", "=?utf-8?q?admin@example.com?=", "a=?b@example.com"} {
		if _, err := policy.ParseLogin(login); err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		identify(h, policy.Identity{User: policy.Login(login), Name: "laptop"})
		got, err := new(mime.WordDecoder).DecodeHeader(h.Get(HeaderLogin))
		if err != nil || got != login {
			t.Errorf("%q is sent as %q and read as %q, %v", login, h.Get(HeaderLogin), got, err)
		}
	}
}
