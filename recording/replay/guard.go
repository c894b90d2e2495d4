package replay

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"tssh/policy"
)

// contentPolicy lets the page load its own script and style and talk to its own API, and
// nothing else. Text can become script nowhere: trusted types has no policy that would make it.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func harden(h http.Header) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), clipboard-read=()")
	h.Set("Cache-Control", "no-store")
}

// refusal is an answer with words for the person; why is for the log.
type refusal struct {
	status int
	say    string
	why    string
}

func (r *refusal) Error() string {
	if r.why != "" {
		return r.say + ": " + r.why
	}
	return r.say
}

// fromHere decides whether the request was made by our own page, by the person's own
// navigation, or by a program, and not by somebody else's page in the person's browser. An
// address is identity here, so this is what keeps other sites from borrowing it.
func (v *Viewer) fromHere(r *http.Request) *refusal {
	if !v.hostAllowed(r) {
		return &refusal{http.StatusMisdirectedRequest, "this address does not lead to this recorder: use the one it was given to you by", "host " + r.Host}
	}
	if o := r.Header.Get("Origin"); o != "" && !sameOrigin(o, r) {
		return &refusal{http.StatusForbidden, "requests from other sites are refused", "origin " + o}
	}
	site := r.Header.Get("Sec-Fetch-Site")
	switch {
	case site == "" || site == "same-origin" || site == "none":
	case r.Method == http.MethodGet && isPage(r.URL.Path) && navigates(r.Header):
		// A link to a recording from anywhere: the page is shown, and then asks by itself.
	default:
		return &refusal{http.StatusForbidden, "requests from other sites are refused", "sec-fetch-site " + site}
	}
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
	case r.Method != http.MethodPost || !changes(r.URL.Path):
		return &refusal{http.StatusMethodNotAllowed, "this recorder only shows", "method " + r.Method}
	case site != "" && site != "same-origin":
		// "none" is the person's own navigation, which never is a POST of ours.
		return &refusal{http.StatusForbidden, "requests from other sites are refused", "sec-fetch-site " + site}
	}
	return nil
}

// changes are the addresses at which something can be changed.
func changes(path string) bool {
	return strings.HasPrefix(path, "/api/recordings/") && (strings.HasSuffix(path, "/end") || strings.HasSuffix(path, "/delete"))
}

func navigates(h http.Header) bool {
	return h.Get("Sec-Fetch-Mode") == "navigate" && h.Get("Sec-Fetch-Dest") == "document"
}

func isPage(path string) bool {
	return path == "/" || path == "/search" || strings.HasPrefix(path, "/r/")
}

// hostAllowed compares the name the browser used with the allow-list, so that a foreign name
// that was made to point here (DNS rebinding) gets nothing. Who comes over loopback may also
// use loopback's own names.
func (v *Viewer) hostAllowed(r *http.Request) bool {
	host := strings.ToLower(strings.TrimSuffix(hostOnly(r.Host), "."))
	if host == "" {
		return false
	}
	for _, a := range v.cfg.AllowedHosts {
		if host == strings.ToLower(hostOnly(a)) {
			return true
		}
	}
	if !isLoopback(r.RemoteAddr) {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func hostOnly(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
}

func sameOrigin(origin string, r *http.Request) bool {
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host) && (u.Scheme == "http" || u.Scheme == "https")
}

func isLoopback(remote string) bool {
	ap, err := netip.ParseAddrPort(remote)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// who says who asks: over the mesh what WhoIs proved for the peer's address, over loopback the
// holder of the token. No header is consulted but the cookie this handler set itself.
func (v *Viewer) who(r *http.Request) (policy.Identity, *refusal) {
	if isLoopback(r.RemoteAddr) {
		if v.cfg.Token == "" {
			return policy.Identity{}, &refusal{http.StatusForbidden, "this recorder is not open on loopback", ""}
		}
		c, err := r.Cookie(v.cookie)
		if err != nil || !v.tokenIs(c.Value) {
			return policy.Identity{}, noToken
		}
		return v.cfg.TokenIdentity, nil
	}
	if v.cfg.WhoIs == nil {
		return policy.Identity{}, &refusal{http.StatusForbidden, "this recorder is open on loopback only", ""}
	}
	id, ok := v.cfg.WhoIs(r)
	if !ok || !id.Valid() {
		return policy.Identity{}, &refusal{http.StatusForbidden, "this mesh does not know who you are", "address " + r.RemoteAddr}
	}
	return id, nil
}

// tokenIs compares hashes, so that neither length nor content show in the time it takes.
func (v *Viewer) tokenIs(s string) bool {
	a, b := sha256.Sum256([]byte(s)), sha256.Sum256([]byte(v.cfg.Token))
	return v.cfg.Token != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// takeToken turns a token in the address into a cookie and sends the browser to the same
// address without it, so that the token does not stay in sight. It reports whether it answered.
func (v *Viewer) takeToken(w http.ResponseWriter, r *http.Request) bool {
	if !isPage(r.URL.Path) || !isLoopback(r.RemoteAddr) || !r.URL.Query().Has("token") {
		return false
	}
	q := r.URL.Query()
	if !v.tokenIs(q.Get("token")) {
		v.refuse(w, r, &refusal{http.StatusUnauthorized, "this token is not the one of this recorder: it changes each time it starts", ""})
		return true
	}
	http.SetCookie(w, &http.Cookie{Name: v.cookie, Value: v.cfg.Token, Path: v.place + "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil})
	q.Del("token")
	// Only path and query of this request: never a place somebody else could name.
	to := url.URL{Path: v.place + "/" + strings.TrimLeft(r.URL.Path, "/"), RawQuery: q.Encode()}
	http.Redirect(w, r, to.String(), http.StatusSeeOther)
	return true
}

var noToken = &refusal{http.StatusUnauthorized, "open the whole address that was printed, with its token", ""}

// cookieName differs by token, since several recorders may run on one host.
func cookieName(token string) string { return "tssh-viewer-" + ofToken("cookie", token)[:12] }

// placeOf is where on loopback everything is. Browsers send a host's cookies to all of its ports, and whoever else is
// on this computer can listen on one: the cookie is bound to a path that only this recorder and its page know.
func placeOf(token string) string { return "/" + ofToken("place", token)[:32] }

func ofToken(what, token string) string {
	h := sha256.Sum256([]byte("tssh viewer " + what + "\n" + token))
	return hex.EncodeToString(h[:])
}

// unplaced takes the place off the path of a request over loopback, and says whether it had it.
func (v *Viewer) unplaced(r *http.Request) (*http.Request, bool) {
	path, ok := strings.CutPrefix(r.URL.Path, v.place)
	if !ok || !strings.HasPrefix(path, "/") || v.cfg.Token == "" || !isLoopback(r.RemoteAddr) {
		return r, false
	}
	in := *r
	in.URL = new(url.URL)
	*in.URL = *r.URL
	in.URL.Path, in.URL.RawPath = path, strings.TrimPrefix(r.URL.RawPath, v.place)
	return &in, true
}

var errNoPage = errors.New("the page was not built into this program; run make and start it again")
