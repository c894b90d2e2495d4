package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	gossh "golang.org/x/crypto/ssh"

	"tssh/netnode/localapi"
)

// TestMain makes the test binary tssh itself, for the scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tssh": main})
}

// TestScripts runs every file of testdata: the real command, a real local API and a real
// SSH server on loopback; only the mesh between them is left out.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("XDG_RUNTIME_DIR", filepath.Join(e.WorkDir, "run"))
			e.Setenv("TERM", "xterm-test")
			e.Setenv("LANG", "C.UTF-8")
			if err := os.MkdirAll(filepath.Join(e.WorkDir, "home"), 0o700); err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Join(e.WorkDir, "run"), 0o700); err != nil {
				return err
			}
			return newScene(e)
		},
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("no condition %q", cond)
			}
			return os.Getuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":   wantStatus,
			"lastline": wantLastLine,
		},
	})
}

// wantStatus runs a command and compares its exit status: status N COMMAND...
func wantStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	var ee interface{ ExitCode() int }
	if errors.As(err, &ee) {
		code = itoa(ee.ExitCode())
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if code != args[0] {
		ts.Fatalf("exit status %s, want %s\n%s", code, args[0], ts.ReadFile("stderr"))
	}
}

func itoa(n int) string {
	if n < 0 {
		return "-" + itoa(-n)
	}
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

// wantLastLine compares the whole last line of standard error.
func wantLastLine(ts *testscript.TestScript, neg bool, args []string) {
	lines := strings.Split(strings.TrimRight(ts.ReadFile("stderr"), "\n"), "\n")
	if got := lines[len(lines)-1]; neg || len(args) != 1 || got != args[0] {
		ts.Fatalf("last line %q, want %q", got, args)
	}
}

// scene is one script's mesh.
type scene struct {
	signer gossh.Signer
	hosts  map[string]string // name: address of its SSH server
}

func newScene(e *testscript.Env) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	s := &scene{hosts: map[string]string{}}
	if s.signer, err = gossh.NewSignerFromKey(key); err != nil {
		return err
	}
	for _, name := range []string{"web", "changed", "keyless", "refuses", "recorder", "check", "full", "ends", "hub"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s.hosts[name] = l.Addr().String()
		if name == "hub" {
			go http.Serve(l, hubPages()) // ends with the listener
		} else {
			go serveHost(l, name, s.signer) // ends with the listener
		}
		e.Defer(func() { l.Close() })
	}
	s.hosts["away"] = ""
	free, err := net.Listen("tcp", "127.0.0.1:0") // a port for the script's own listener
	if err != nil {
		return err
	}
	e.Setenv("FREE", free.Addr().String())
	free.Close()
	for name, cfg := range s.sockets() {
		cfg.Path = filepath.Join(e.WorkDir, "sock", name)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- localapi.Serve(ctx, cfg) }()
		e.Defer(func() { cancel(); <-done })
		if err := waitFor(cfg.Path); err != nil {
			return err
		}
		e.Setenv(strings.ToUpper(name), cfg.Path)
	}
	return nil
}

func waitFor(path string) error {
	for range 300 {
		if c, err := net.Dial("unix", path); err == nil {
			return c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("no socket at " + path)
}

// sockets are the nodes of a script: $NODE works, the others are each in one bad state.
func (s *scene) sockets() map[string]localapi.Config {
	status := func(st localapi.Status) func(context.Context) (localapi.Status, error) {
		return func(context.Context) (localapi.Status, error) { return st, nil }
	}
	node := localapi.Config{
		OwnerUID: os.Getuid(), Userspace: true,
		Status: status(localapi.Status{State: localapi.StateRunning, Version: "test", Mesh: "lab", Hub: "hub.example:8443", HubOnline: true, Userspace: true, Self: s.node("laptop"),
			Peers: []localapi.Peer{{Node: s.node("web"), SSH: true, Path: "192.0.2.7:41641", LatencyMS: 3.1, RxBytes: 10, TxBytes: 20, LastHandshake: time.Now()}, {Node: s.node("away")}, {Node: s.node("far"), Relay: "hub"}}, HomeRelay: "hub", Drops: map[string]uint64{"denied": 3, "lan": 2, "malformed": 1},
			Notices: []localapi.Notice{{Words: "ufw on this host keeps peers from UDP port 41641\x1b[2J", Mend: "ufw allow 41641/udp"}}}),
		WhoIs: func(_ context.Context, a netip.Addr) (localapi.Node, error) {
			if n := s.node("web"); a == n.Addrs[0] {
				return n, nil
			}
			return localapi.Node{}, localapi.Errorf(localapi.CodeNotFound, "no node of the mesh has the address %s", a)
		},
		Resolve: s.resolve,
		Dial: func(ctx context.Context, host string, port uint16) (net.Conn, error) {
			for name, addr := range s.hosts {
				if host == s.node(name).Addrs[0].String() && addr != "" {
					return net.Dial("tcp", addr)
				}
			}
			return nil, localapi.Errorf(localapi.CodeUnreachable, "it does not answer on port %d: no answer in time", port)
		},
		Why: func(_ context.Context, r localapi.WhyRequest) (localapi.Why, error) {
			if r.User == "root" {
				return localapi.Why{Verdict: "deny", Say: "policy does not let you log in as root on web", Reason: "no-login", Host: r.Host, User: r.User, Instead: []string{"deploy", "www"}}, nil
			}
			if r.User == "nobody" {
				return localapi.Why{Verdict: "deny", Say: "policy does not let you log in as nobody on web", Host: r.Host, User: r.User}, nil
			}
			return localapi.Why{Verdict: "accept", Host: r.Host, User: r.User}, nil
		},
		Ping: func(_ context.Context, host string) (localapi.Pong, error) {
			n := s.node(host)
			switch host {
			case "web":
				return localapi.Pong{Host: host, Node: n.Name, Address: n.Addrs[0], Via: localapi.ViaDirect, Endpoint: "192.0.2.7:41641", LatencyMS: 3.14}, nil
			case "far":
				return localapi.Pong{Host: host, Node: n.Name, Address: n.Addrs[0], Via: localapi.ViaRelay, Relay: "hub", LatencyMS: 120.4}, nil
			}
			return localapi.Pong{}, localapi.Errorf(localapi.CodeUnreachable, "%s does not answer", host)
		},
		Netcheck: func(context.Context) (localapi.Netcheck, error) {
			return localapi.Netcheck{UDP: true, IPv4: true, Mapped: []netip.AddrPort{netip.MustParseAddrPort("203.0.113.9:41641")}, NAT: "endpoint-independent", PortMapping: "pcp", Home: "hub",
				Relays: []localapi.RelayStatus{{ID: "hub", Address: "hub.example:8443", Connected: true, LatencyMS: 1.2}, {ID: "fra1", Address: "fra.example:443", Error: "connection refused"}}}, nil
		},
		ServePort: func(_ context.Context, uid int, r localapi.ServeRequest) (localapi.Served, error) {
			if r.Port == 0 {
				r.Port = r.Target
			}
			switch {
			case uid != os.Getuid():
				return localapi.Served{}, fmt.Errorf("uid %d", uid)
			case r.Port == 25:
				return localapi.Served{}, localapi.Errorf(localapi.CodeConflict, "port 25 is served for somebody else already")
			case r.Port == 26:
				return localapi.Served{}, localapi.Errorf(localapi.CodeForbidden, "on a machine with tags only root may serve at ports below 1024")
			}
			return localapi.Served{Port: r.Port, Target: r.Target, TCP: r.TCP, Keep: r.Keep, UID: uid, URL: fmt.Sprintf("http://laptop:%d", r.Port), Problem: "ufw on this host keeps peers from it"}, nil
		},
		Served: func(context.Context) ([]localapi.Served, error) {
			return []localapi.Served{{Port: 3000, Target: 3000, Keep: true, URL: "http://laptop:3000", Open: 2, Total: 7, Refused: 1}, {Port: 25, Target: 26, TCP: true, URL: "tcp://laptop:25", Problem: "this node is not up"}}, nil
		},
		ServeOff: func(_ context.Context, _ int, port uint16) (int, error) {
			if port == 4000 {
				return 0, localapi.Errorf(localapi.CodeNotFound, "port 4000 is not served")
			}
			return map[bool]int{true: 0, false: 1}[port == 0], nil
		},
		Join: func(_ context.Context, r localapi.JoinRequest) error {
			return localapi.Errorf(localapi.CodeDenied, "the hub does not know this join token, or it has expired")
		},
	}
	bad := func(st localapi.Status) localapi.Config {
		st.Userspace = true
		return localapi.Config{OwnerUID: os.Getuid(), Userspace: true, Status: status(st), Up: func(context.Context) error {
			return localapi.Errorf(localapi.CodeNotJoined, "x")
		}}
	}
	return map[string]localapi.Config{
		"node":    node,
		"fresh":   bad(localapi.Status{State: localapi.StateNotJoined}),
		"down":    bad(localapi.Status{State: localapi.StateDown, Mesh: "lab"}),
		"removed": bad(localapi.Status{State: localapi.StateConnecting, Problem: "this node was removed from the mesh"}),
		"expired": bad(localapi.Status{State: localapi.StateConnecting, Problem: "this node's membership has expired"}),
	}
}

func (s *scene) node(name string) localapi.Node {
	sum := 0
	for _, c := range name {
		sum = (sum*7 + int(c)) % 250
	}
	return localapi.Node{ID: "n-" + name, Name: name, Tags: []string{"tag:" + name}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{100, 64, byte(len(name)), byte(sum)})}}
}

func (s *scene) resolve(_ context.Context, name string) (localapi.Resolved, error) {
	name = strings.TrimSuffix(name, ".lab.internal")
	if _, ok := s.hosts[name]; !ok {
		return localapi.Resolved{}, localapi.Errorf(localapi.CodeNotFound, "no host called %q in the mesh, or none that you may reach", name)
	}
	r := localapi.Resolved{Node: s.node(name)}
	switch name {
	case "keyless":
	case "changed":
		pub, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return r, err
		}
		k, err := gossh.NewPublicKey(pub)
		if err != nil {
			return r, err
		}
		r.HostKeys = []string{string(gossh.MarshalAuthorizedKey(k))}
	default:
		r.HostKeys = []string{string(gossh.MarshalAuthorizedKey(s.signer.PublicKey()))}
	}
	return r, nil
}

// hubPages is as much of the viewer as the list and one recording need.
func hubPages() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /api/recordings", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("q") == "host:db exit:!0" {
			io.WriteString(w, `{"recordings":[{"id":"rec-0009","start":"2026-01-02T03:04:05Z","duration":1,"host":"db","who":"alice@example.com","local_user":"me","type":"exec","command":"false"}]}`)
			return
		}
		if r.URL.Query().Get("q") == "cmd:reboot" {
			io.WriteString(w, `{"recordings":[],"sealed":12}`)
			return
		}
		if r.URL.Query().Get("before") == "" {
			io.WriteString(w, `{"recordings":[{"id":"rec-0001","start":"2026-01-02T03:04:05Z","duration":61.2,"host":"web","who":"alice@example.com","local_user":"deploy","type":"shell","complete":true}],"next":"x"}`)
			return
		}
		io.WriteString(w, `{"recordings":[{"id":"rec-0002","start":"2026-01-02T03:04:05Z","duration":1,"host":"web\u001b[2J","who":"bob@example.com","local_user":"bob","type":"exec","command":"id\u001b[31m","live":true}]}`)
	})
	m.HandleFunc("GET /api/search", func(w http.ResponseWriter, r *http.Request) {
		switch q := r.URL.Query(); q.Get("q") {
		case `disk "no space left"`:
			io.WriteString(w, `{"recordings":[{"id":"rec-0001","start":"2026-01-02T03:04:05Z","duration":61.2,"host":"web","who":"alice@example.com","local_user":"deploy","type":"shell","lines":[{"t":61.25,"ch":1,"text":"disk: no space left \u001b[2Jhere"}],"more":true}],"next":"7"}`)
		default:
			io.WriteString(w, `{"recordings":[]}`)
		}
	})
	m.HandleFunc("GET /api/recordings/{id}/why", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") == "rec-0001" {
			io.WriteString(w, `{"id":"rec-0001","may":[{"what":"watch","yes":true,"because":"role: the viewer is auditor\u001b[2J"},{"what":"end","yes":false,"say":"policy does not let you end this session"}]}`)
			return
		}
		io.WriteString(w, `{"id":"rec-0002","may":[{"what":"watch","yes":false,"say":"policy does not let you see this recording"}]}`)
	})
	m.HandleFunc("POST /api/recordings/{id}/delete", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.PathValue("id") != "rec-0001" || string(b) != `{"reason":"asked to"}` {
			w.WriteHeader(403)
			io.WriteString(w, `{"error":"Policy does not let you delete this recording."}`)
			return
		}
		io.WriteString(w, `{"deleted":true}`)
	})
	m.HandleFunc("GET /api/recordings/{id}/file", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != "rec-0001" {
			w.WriteHeader(403)
			io.WriteString(w, `{"error":"policy does not let you see this recording"}`)
			return
		}
		io.WriteString(w, "not really a recording")
	})
	return m
}
