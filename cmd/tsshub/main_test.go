package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"tssh/netnode/netmap"
)

// The test binary is tsshub itself when it is started under that name.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tsshub": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			port, err := freePort()
			if err != nil {
				return err
			}
			// Sockets want short paths, and the script's own folder may be deep.
			short, err := os.MkdirTemp("", "hub")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(short) })
			e.Setenv("ADDR", "127.0.0.1:"+port)
			e.Setenv("S", filepath.Join(short, "state"))
			e.Setenv("SHORT", short)
			e.Setenv("XDG_STATE_HOME", filepath.Join(short, "xdg"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// ready waits until the hub on $S answers.
			"ready": func(ts *testscript.TestScript, neg bool, args []string) {
				deadline := time.Now().Add(20 * time.Second)
				for time.Now().Before(deadline) {
					c, err := net.Dial("unix", socketPath(ts.Getenv("S")))
					if err == nil {
						c.Close()
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
				ts.Fatalf("no hub came up on %s", ts.Getenv("S"))
			},
			// snapshot and unchanged compare a folder with what it was.
			"snapshot": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(listing(ts, ts.MkAbs(args[0]))), 0o600))
			},
			"unchanged": func(ts *testscript.TestScript, neg bool, args []string) {
				if got, want := listing(ts, ts.MkAbs(args[0])), ts.ReadFile(args[1]); got != want {
					ts.Fatalf("%s changed\nbefore:\n%safter:\n%s", args[0], want, got)
				}
			},
			// join lets a node in with the token in a file: join FILE NAME
			"join": func(ts *testscript.TestScript, neg bool, args []string) {
				tok, err := netmap.ParseToken(ts.ReadFile(args[0]))
				ts.Check(err)
				_, err = netmap.Join(context.Background(), netmap.JoinConfig{Dir: filepath.Join(ts.Getenv("SHORT"), args[1]), Token: tok, Name: args[1]})
				if (err != nil) != neg {
					ts.Fatalf("join gave %v", err)
				}
			},
		},
	})
}

func listing(ts *testscript.TestScript, dir string) string {
	var b strings.Builder
	ts.Check(filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, i.Mode(), p)
		if i.Mode().IsRegular() {
			body, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%q\n", body)
		}
		return nil
	}))
	return b.String()
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// lockedBuffer is a buffer that several may write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// process is a tsshub of its own, which can be killed.
type process struct {
	t      *testing.T
	state  string
	listen string
	more   []string // flags
	cmd    *exec.Cmd
	out    *lineLog
}

type lineLog struct {
	mu    sync.Mutex
	lines []string
	ready chan struct{}
}

func (p *process) start() {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(self, append([]string{"serve", "--state", p.state, "--listen", p.listen, "--mesh", "lab", "--roles", "coord"}, p.more...)...)
	p.cmd.Args[0] = "tsshub"
	p.cmd.Path = filepath.Join(filepath.Dir(p.state), "tsshub")
	if err := os.Symlink(self, p.cmd.Path); err != nil && !errors.Is(err, os.ErrExist) {
		p.t.Fatal(err)
	}
	r, err := p.cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	out := &lineLog{ready: make(chan struct{})}
	p.out = out
	go func() { // ends with the process
		sc := bufio.NewScanner(r)
		for sc.Scan() {
			out.mu.Lock()
			out.lines = append(out.lines, sc.Text())
			out.mu.Unlock()
			if strings.HasPrefix(sc.Text(), "tsshub: mesh ") {
				close(out.ready)
			}
		}
		io.Copy(io.Discard, r)
	}()
	select {
	case <-out.ready:
	case <-time.After(30 * time.Second):
		out.mu.Lock()
		defer out.mu.Unlock()
		p.t.Fatalf("the hub did not come up: %s", strings.Join(out.lines, "\n"))
	}
}

func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	p.cmd.Wait()
}

// TestKill9 kills the hub again and again while nodes join, people are added and nodes
// are removed: what was answered with yes is there afterwards, revisions have no gap,
// no address is given twice, and nodes that were connected take up where they were.
func TestKill9(t *testing.T) {
	short, err := os.MkdirTemp("", "hub")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(short)
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, state: filepath.Join(short, "s"), listen: "127.0.0.1:" + port}
	p.start()
	defer func() { p.kill() }()
	c := func(args ...string) (string, error) {
		var out, errs strings.Builder
		code := run(append(args, "--state", p.state), strings.NewReader(""), &out, &errs)
		if code != 0 {
			return "", fmt.Errorf("%v: %s", args, errs.String())
		}
		return out.String(), nil
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := c(args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	must("user", "add", "alice@example.com")
	tok, err := netmap.ParseToken(must("key", "create", "--user", "alice@example.com", "--reusable"))
	if err != nil {
		t.Fatal(err)
	}
	// Two nodes that stay connected all the time.
	var members []*netmap.Client
	history := new(lockedBuffer) // of what the nodes went through, shown when it goes wrong
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for _, name := range []string{"one", "two"} {
		s, err := netmap.Join(ctx, netmap.JoinConfig{Dir: filepath.Join(short, name), Token: tok, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		m, err := netmap.NewClient(netmap.ClientConfig{State: s, Log: slog.New(slog.NewTextHandler(history, nil)), BackoffMin: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, m)
		wg.Go(func() { m.Run(ctx) })
	}
	var answered atomic.Int64
	joined, removed := map[string]bool{"one": true, "two": true}, map[string]bool{}
	people := map[string]bool{"alice@example.com": true}
	for round := range 6 {
		var work sync.WaitGroup
		var mu sync.Mutex
		end := make(chan struct{})
		for g := range 3 {
			work.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-end:
						return
					default:
					}
					name := fmt.Sprintf("n%d-%d-%d", round, g, i)
					_, err := netmap.Join(ctx, netmap.JoinConfig{Dir: filepath.Join(short, name), Token: tok, Name: name, Timeout: 2 * time.Second})
					if err == nil {
						mu.Lock()
						joined[name] = true
						mu.Unlock()
						answered.Add(1)
					}
					if _, err := c("user", "add", name+"@example.com"); err == nil {
						mu.Lock()
						people[name+"@example.com"] = true
						mu.Unlock()
						answered.Add(1)
					}
					if err == nil && i%3 == 0 {
						if _, err := c("node", "remove", name); err == nil {
							mu.Lock()
							removed[name] = true
							mu.Unlock()
						}
					}
				}
			})
		}
		// Once enough was answered, at a moment that is in the middle of a write or not.
		for deadline := time.Now().Add(20 * time.Second); answered.Load() < int64(8*(round+1)) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		p.kill()
		close(end)
		work.Wait()
		p.start()
		nodes, users := must("node", "list"), must("user", "list")
		for n := range joined {
			switch there := strings.Contains(nodes, "\n"+n+" "); {
			case !there && !removed[n] && !maybeRemoved(n):
				t.Errorf("round %d: node %s was let in and is gone", round, n)
			case there && removed[n]:
				t.Errorf("round %d: node %s was removed and is back", round, n)
			}
		}
		for u := range people {
			if !strings.Contains(users, u+" ") {
				t.Errorf("round %d: %s was added and is gone", round, u)
			}
		}
		addrs := map[string]string{}
		for _, l := range strings.Split(strings.TrimSpace(nodes), "\n")[1:] {
			f := strings.Fields(l)
			for _, a := range f[2:4] {
				if o, dup := addrs[a]; dup {
					t.Errorf("%s and %s both have %s", o, f[0], a)
				}
				addrs[a] = f[0]
			}
		}
		want := len(addrs)/2 - 1
		deadline := time.Now().Add(60 * time.Second)
		for _, m := range members {
			for len(m.Map().Peers) != want {
				if time.Now().After(deadline) {
					t.Fatalf("round %d: %d peers in the map, %d nodes at the hub; %+v\n%s\nhub:\n%s", round, len(m.Map().Peers), want+1, m.Status(), history, must("node", "list")+must("status"))
				}
				time.Sleep(5 * time.Millisecond)
			}
			if d := m.Status().Dropped; d != 0 {
				t.Errorf("%d records dropped", d)
			}
		}
	}
	if len(joined) < 10 || len(removed) == 0 {
		t.Fatalf("too little happened to mean anything: %d joined, %d removed", len(joined), len(removed))
	}
	t.Logf("%d joined, %d removed, %d people, 6 kills", len(joined), len(removed), len(people))
	if out := must("audit"); strings.Count(out, " node.join ") < len(joined) {
		t.Errorf("%d joins in the audit log, %d nodes were let in", strings.Count(out, " node.join "), len(joined))
	}
}

// maybeRemoved: a removal that was cut off before its answer may have been done.
func maybeRemoved(name string) bool {
	var r, g, i int
	n, err := fmt.Sscanf(name, "n%d-%d-%d", &r, &g, &i)
	return err == nil && n == 3 && i%3 == 0
}
