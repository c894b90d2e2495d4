package replay

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/recording/find"
	"tssh/recording/live"
	"tssh/recording/store"
)

// Config is how a Viewer is set up. The zero value of each field shows less, never more.
type Config struct {
	Store *store.Store
	// Policy gives the policy in force; it is asked for every recording that would be shown.
	Policy func() *policy.Policy
	// WhoIs gives the identity that the mesh proved for the remote address of a request. nil
	// means the viewer is not open over the mesh.
	WhoIs func(*http.Request) (policy.Identity, bool)
	// AllowedHosts are the names and addresses, with or without a port, under which browsers
	// may reach the viewer. Over loopback, loopback's own names are allowed as well.
	AllowedHosts []string
	// Token opens the viewer over loopback, to TokenIdentity. Empty: not open over loopback.
	Token         string
	TokenIdentity policy.Identity
	// Keys open recordings that are sealed; nil: those are listed, and shown to nobody.
	Keys *recording.Keys
	// Search looks through what was on the screens; nil means that there is no search over all recordings.
	Search *find.Index
	// Live is the way to the hosts of sessions that run; nil: none can be ended here.
	Live *live.Hub
	// Node is who a node is; nil: of sessions that are not recorded nothing is shown.
	Node func(id string) (policy.Identity, bool)
	// CannotEnd says why sessions are not ended from here although Live is there; "": they are.
	CannotEnd string
	// Audit writes one entry; what cannot be audited is not shown.
	Audit func(audit.Entry) error
	Clock func() time.Time // nil is time.Now
	Log   *slog.Logger     // nil discards
}

// Viewer is the web page and its API, an http.Handler.
type Viewer struct {
	cfg    Config
	assets map[string]asset
	cookie string
	place  string // before every path on loopback
	mux    *http.ServeMux
	open   *openFiles
	seen   *seen
	pace   pace
	texts  *texts
	ranges ranges

	streams  streams
	pictures pictures
}

// New makes a Viewer.
func New(cfg Config) (*Viewer, error) {
	if cfg.Store == nil || cfg.Policy == nil || cfg.Audit == nil {
		return nil, errors.New("replay: a viewer needs a store, a policy and an audit log")
	}
	if cfg.Token != "" && (len(cfg.Token) < 16 || !cfg.TokenIdentity.Valid()) {
		return nil, errors.New("replay: a token needs at least 16 characters and somebody whom it identifies")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	assets, err := loadAssets()
	if err != nil {
		return nil, fmt.Errorf("replay: page: %w", err)
	}
	v := &Viewer{
		cfg: cfg, assets: assets, cookie: cookieName(cfg.Token), place: placeOf(cfg.Token),
		open: newOpenFiles(cfg.Store, cfg.Keys), seen: newSeen(cfg.Clock), mux: http.NewServeMux(),
	}
	v.pictures.most = picturesKept
	v.texts = &texts{v: v, room: make(chan struct{}, madeAtOnce)}
	for pattern, h := range v.api() {
		v.mux.HandleFunc(pattern, v.known(h))
	}
	page := v.known(func(w http.ResponseWriter, r *http.Request, _ policy.Identity) error {
		v.serveAsset(w, r, "index.html")
		return nil
	})
	v.mux.HandleFunc("GET /{$}", page)
	v.mux.HandleFunc("GET /r/{id}", page)
	v.mux.HandleFunc("GET /search", page)
	v.mux.HandleFunc("GET /assets/{name}", v.known(func(w http.ResponseWriter, r *http.Request, _ policy.Identity) error {
		v.serveAsset(w, r, r.PathValue("name"))
		return nil
	}))
	return v, nil
}

// api is every address of the API and what answers there.
func (v *Viewer) api() map[string]func(http.ResponseWriter, *http.Request, policy.Identity) error {
	return map[string]func(http.ResponseWriter, *http.Request, policy.Identity) error{
		"GET /api/recordings":                 v.list,
		"GET /api/recordings/{id}":            v.detail,
		"GET /api/recordings/{id}/frames/{n}": v.frame,
		"GET /api/recordings/{id}/file":       v.file,
		"GET /api/recordings/{id}/heads":      v.heads,
		"GET /api/recordings/{id}/raw/{n}":    v.rawFrame,
		"GET /api/recordings/{id}/exported":   v.exported,
		"GET /api/recordings/{id}/cast":       v.cast,
		"GET /api/recordings/{id}/transcript": v.transcript,
		"GET /api/recordings/{id}/search":     v.searchOne,
		"GET /api/recordings/{id}/text":       v.text,
		"GET /api/recordings/{id}/html":       v.share,
		"GET /api/recordings/{id}/screen":     v.screen,
		"GET /api/recordings/{id}/why":        v.why,
		"GET /api/search":                     v.search,
		"GET /api/recordings/{id}/live":       v.stream,
		"POST /api/recordings/{id}/end":       v.end,
		"POST /api/recordings/{id}/delete":    v.remove,
	}
}

// Close gives open files back, and writes down how far each look went. Requests that come later open them again.
func (v *Viewer) Close() {
	v.endViews(0)
	v.open.close()
}

// ServeHTTP checks where the request comes from before anything looks at what it wants.
func (v *Viewer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	harden(w.Header())
	r, placed := v.unplaced(r)
	if no := v.fromHere(r); no != nil {
		v.refuse(w, r, no)
		return
	}
	if v.takeToken(w, r) {
		return
	}
	if isLoopback(r.RemoteAddr) && v.cfg.Token != "" && !placed {
		v.refuse(w, r, noToken)
		return
	}
	if _, pattern := v.mux.Handler(r); pattern == "" {
		v.refuse(w, r, &refusal{http.StatusNotFound, "there is nothing at this address", ""})
		return
	}
	v.mux.ServeHTTP(w, r)
}

// known asks who it is before h runs, and puts h's refusal into words.
func (v *Viewer) known(h func(http.ResponseWriter, *http.Request, policy.Identity) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, no := v.who(r)
		if no != nil {
			v.refuse(w, r, no)
			return
		}
		err := h(w, r, id)
		if err == nil {
			return
		}
		var sealed *recording.SealedError
		if errors.As(err, &sealed) {
			no = &refusal{http.StatusLocked, saySealed, ""}
		}
		if no != nil || errors.As(err, &no) {
			v.refuse(w, r, no)
			return
		}
		v.cfg.Log.Error("viewer", "path", r.URL.Path, "viewer", id.Who(), "err", err)
		v.refuse(w, r, &refusal{http.StatusInternalServerError, "the recorder has trouble of its own; its log says which", ""})
	}
}

// saySealed are the words for what is sealed to others.
const saySealed = "this recording is sealed, and this recorder has no key that opens it: its page asks for one, which stays in the browser; or download the .tsr, and play it with tssh play FILE --identity KEYFILE"

// refuse answers in JSON under /api, and with a plain line everywhere else.
func (v *Viewer) refuse(w http.ResponseWriter, r *http.Request, no *refusal) {
	if no.status != http.StatusNotFound && no.status != http.StatusInternalServerError {
		v.cfg.Log.Info("viewer refused", "path", r.URL.Path, "remote", r.RemoteAddr, "status", no.status, "err", no)
	}
	say := sentence(no.say)
	if strings.HasPrefix(r.URL.Path, "/api/") {
		respond(w, no.status, map[string]string{"error": say})
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(no.status)
	fmt.Fprintln(w, say)
}

// sentence makes a sentence for the page of words that follow the rules for error values.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

func respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body) // a browser that went away is no concern here
}
