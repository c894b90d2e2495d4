// Command golinks is a web service of the mesh in one file: short links that people share,
// http://go/NAME. It has no login: who a visitor is, is what the mesh says of the address
// they come from. Everybody may add a link; only who made one may change or remove it.
//
//	golinks --file links.json                              # on a host that runs tsshd, as root for port 80
//	golinks --file links.json --state DIR --join-file F    # as a node of its own, without root
//
// Both ask over the socket of a node, the second of one in this process; see docs/whois.md.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"html/template"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"tssh/netnode"
	"tssh/netnode/daemon"
	"tssh/netnode/localapi"
	"tssh/netnode/netmap"
)

type link struct{ URL, Owner string }

// service answers requests. who and hosts come from the mesh.
type service struct {
	file  string
	who   func(ctx context.Context, addrPort string) (string, error) // login or tags; an error is nobody
	hosts []string                                                   // the names and addresses of this site
	mu    sync.Mutex
	links map[string]link
}

var (
	linkName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
	page     = template.Must(template.New("").Parse(`<!doctype html><title>Links</title><h1>Links</h1><p>You are {{.Who}}.</p>
<form method=post action=/><input name=name placeholder=name required> <input name=url type=url placeholder=https://... size=50> <button>Save</button> (no URL: remove)</form>
<ul>{{range $name, $l := .Links}}<li><a href="/{{$name}}">{{$name}}</a> {{$l.URL}} ({{$l.Owner}})</li>{{end}}</ul>`))
)

// handler refuses what a page of somebody else's could have a visitor's browser send: an
// address is an identity that every request carries, so Host and origin are checked.
func (s *service) handler() http.Handler {
	m := http.NewServeMux()
	known := func(pattern string, f func(w http.ResponseWriter, r *http.Request, who string)) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			who, err := s.who(r.Context(), r.RemoteAddr)
			if err != nil || who == "" {
				http.Error(w, "the mesh does not know you", http.StatusForbidden)
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, 8<<10)
			f(w, r, who)
		})
	}
	known("GET /{$}", func(w http.ResponseWriter, _ *http.Request, who string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		page.Execute(w, map[string]any{"Who": who, "Links": s.links})
	})
	known("GET /{name}", func(w http.ResponseWriter, r *http.Request, _ string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l, ok := s.links[r.PathValue("name")]; ok {
			http.Redirect(w, r, l.URL, http.StatusFound)
			return
		}
		http.NotFound(w, r)
	})
	known("POST /{$}", s.save)
	same := http.NewCrossOriginProtection().Handler(m) // Sec-Fetch-Site and Origin of a POST
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(s.hosts, strings.Trim(strings.TrimSuffix(strings.ToLower(r.Host), ":80"), "[]")) {
			http.Error(w, "this site is not called that", http.StatusMisdirectedRequest)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		same.ServeHTTP(w, r)
	})
}

func (s *service) save(w http.ResponseWriter, r *http.Request, who string) {
	name, to := r.FormValue("name"), r.FormValue("url")
	u, err := url.Parse(to)
	if !linkName.MatchString(name) || len(to) > 2048 || to != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
		http.Error(w, "a name of a-z, 0-9 and dashes and an http or https URL are wanted", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was, ok := s.links[name]
	if ok && was.Owner != who {
		http.Error(w, "that link belongs to "+was.Owner, http.StatusForbidden)
		return
	}
	if s.links[name] = (link{to, who}); to == "" {
		delete(s.links, name)
	}
	if err := s.store(); err != nil || len(s.links) > 10_000 {
		log.Print("not saved: ", err)
		if delete(s.links, name); ok {
			s.links[name] = was
		}
		http.Error(w, "not saved", http.StatusInsufficientStorage)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// store replaces the file as a whole; a crash leaves the old one or the new one.
func (s *service) store() error {
	f, err := os.CreateTemp(filepath.Dir(s.file), ".links-*")
	if err == nil {
		defer os.Remove(f.Name())
		err = errors.Join(json.NewEncoder(f).Encode(s.links), f.Sync(), f.Close())
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), s.file)
}

// serve serves on l until ctx ends, as the node behind api.
func (s *service) serve(ctx context.Context, api *localapi.Client, listen func(netip.Addr) (net.Listener, error)) error {
	st, err := api.Status(ctx)
	if err != nil || len(st.Self.Addrs) == 0 {
		return errors.Join(err, errors.New("the node is not on the mesh"))
	}
	s.hosts = []string{st.Self.Name, st.Self.Name + "." + st.Mesh + ".internal"}
	for _, a := range st.Self.Addrs {
		s.hosts = append(s.hosts, a.String())
	}
	s.who = func(ctx context.Context, addrPort string) (string, error) {
		n, err := api.WhoIs(ctx, addrPort)
		if n.ID == st.Self.ID { // any local user of this computer, so nobody
			n = localapi.Node{}
		}
		return n.Who(), err
	}
	h := &http.Server{Handler: s.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { h.Close() })()
	l, err := listen(st.Self.Addrs[0])
	if err == nil {
		err = h.Serve(l)
	}
	return err
}

func main() {
	file, socket := flag.String("file", "links.json", "where the links are kept"), flag.String("socket", localapi.SystemPath, "socket of this computer's tsshd")
	state, join := flag.String("state", "", "folder of a node of its own; empty: tsshd's is used"), flag.String("join-file", "", "file with its join token")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *file, *socket, *state, *join); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, file, socket, state, join string) error {
	s := &service{file: file, links: map[string]link{}}
	if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &s.links) != nil {
		return errors.New(file + " holds no links")
	}
	if state == "" {
		return s.serve(ctx, localapi.NewClient(socket), func(a netip.Addr) (net.Listener, error) { return net.Listen("tcp", netip.AddrPortFrom(a, 80).String()) })
	}
	socket = filepath.Join(state, "golinks.sock")
	d, err := daemon.New(daemon.Config{State: state, Hostname: "go", Socket: socket, OwnerUID: os.Getuid(),
		Serve: func(ctx context.Context, n *netnode.Node, _ *netmap.Client) error {
			return s.serve(ctx, localapi.NewClient(socket), func(netip.Addr) (net.Listener, error) { return n.Listen("tcp", ":80") })
		}})
	if err == nil && !d.Joined() {
		b, unread := os.ReadFile(join)
		token, wrong := netmap.ParseToken(strings.TrimSpace(string(b)))
		if err = cmp.Or(unread, wrong); err == nil {
			err = d.Join(ctx, token, "")
		}
	}
	if err == nil {
		err = d.Run(ctx)
	}
	return err
}
