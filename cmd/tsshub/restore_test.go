package main

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tssh/netnode/netmap"
)

// TestRestore is the recipe of docs/hub.md with real processes: a backup, nodes that join
// and one that is removed after it, kill -9, the folder lost, the backup put in its place
// with --restored. Nodes of the backup come back by themselves, one that is newer has to
// join again, one that was removed stays removed for those who saw it, and no address is
// two nodes'.
func TestRestore(t *testing.T) {
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
	must := func(args ...string) string {
		t.Helper()
		var out, errs strings.Builder
		if run(append(args, "--state", p.state), strings.NewReader(""), &out, &errs) != 0 {
			t.Fatalf("%v: %s", args, errs.String())
		}
		return out.String()
	}
	must("user", "add", "alice@example.com")
	token := func() netmap.Token {
		t.Helper()
		tok, err := netmap.ParseToken(must("key", "create", "--user", "alice@example.com", "--reusable"))
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	tok := token()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	join := func(name string, tok netmap.Token) *netmap.Client {
		t.Helper()
		s, err := netmap.Join(ctx, netmap.JoinConfig{Dir: filepath.Join(short, name), Token: tok, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		m, err := netmap.NewClient(netmap.ClientConfig{State: s, Log: slog.New(slog.DiscardHandler), BackoffMin: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { m.Run(ctx) })
		return m
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no %s\nhub: %s", what, must("node", "list"))
			}
		}
	}
	names := func(m *netmap.Client) (out []string) {
		for _, x := range m.Map().Peers {
			out = append(out, x.Name)
		}
		return out
	}
	sees := func(m *netmap.Client, want ...string) func() bool {
		return func() bool { return m.Status().Phase == netmap.PhaseConnected && slices.Equal(names(m), want) }
	}
	one, two := join("one", tok), join("two", tok)
	join("gone", tok)
	until("three nodes", sees(one, "gone", "two"))

	must("backup", filepath.Join(short, "b.tar"), "--with-key")
	late := join("late", tok)
	until("the late one", sees(one, "gone", "late", "two"))
	must("node", "remove", "gone")
	until("the removal", sees(one, "late", "two"))
	until("the removal at the other", sees(two, "late", "one"))
	until("the removal at the late one", sees(late, "one", "two"))
	epoch, addr := one.Map().Epoch, one.Map().SelfAddrs

	p.kill()
	if err := os.RemoveAll(p.state); err != nil {
		t.Fatal(err)
	}
	unpack(t, filepath.Join(short, "b.tar"), p.state)
	p.more = []string{"--restored"}
	p.start()
	until("one in the new epoch", func() bool { return one.Map().Epoch != epoch && sees(one, "two")() })
	until("two in the new epoch", func() bool { return two.Map().Epoch != epoch && sees(two, "one")() })
	if !slices.Equal(one.Map().SelfAddrs, addr) {
		t.Errorf("addresses %v, were %v", one.Map().SelfAddrs, addr)
	}
	until("word to the late one", func() bool { return strings.Contains(late.Status().Say, "join again") })
	if got := names(late); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("the late one has %v in its map and keeps what it had", got)
	}
	// Tokens of before let nobody in: which of them were used, or taken back, this hub cannot know.
	_, err = netmap.Join(ctx, netmap.JoinConfig{Dir: filepath.Join(short, "old-token"), Token: tok, Name: "old-token"})
	var je *netmap.JoinError
	if !errors.As(err, &je) || je.Code != netmap.CodeKeyUnknown {
		t.Errorf("a token of before the backup: %v", err)
	}
	tok = token()
	for _, name := range []string{"late", "later"} {
		join(name, tok)
	}
	until("all", sees(one, "late", "later", "two"))
	seen := map[string]bool{}
	for _, l := range strings.Split(strings.TrimSpace(must("node", "list")), "\n")[1:] {
		for _, a := range strings.Fields(l)[2:4] {
			if seen[a] {
				t.Errorf("%s is two nodes'", a)
			}
			seen[a] = true
		}
	}
	for _, m := range []*netmap.Client{one, two} {
		if d := m.Status().Dropped; d != 0 {
			t.Logf("%d records of what was removed were left out", d)
		}
	}
}

func unpack(t *testing.T, file, dir string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(h.Name)), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
