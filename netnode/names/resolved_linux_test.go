package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// These tests speak to a stand-in for systemd-resolved, which cannot run here: it has its
// name, path and calls on a bus of the test's own, with the same D-Bus signatures, and
// notes what it is told. What resolved then does with it is not tested.
type fakeResolved struct {
	mu    sync.Mutex
	calls []string
	old   bool // of before SetLinkDNSEx
	busy  bool // networkd has the link
}

func (f *fakeResolved) note(format string, a ...any) *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy {
		return dbus.NewError("org.freedesktop.resolve1.LinkBusy", []any{"Link lo is managed."})
	}
	f.calls = append(f.calls, fmt.Sprintf(format, a...))
	return nil
}

// take is what was said since the last time, once there is something of the kind wanted.
func (f *fakeResolved) take(t *testing.T, want string) []string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		for _, c := range f.calls {
			if strings.HasPrefix(c, want) {
				out := f.calls
				f.calls = nil
				f.mu.Unlock()
				return out
			}
		}
		f.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("no %s came: %v", want, f.calls)
		}
	}
}

func (f *fakeResolved) SetLinkDNS(link int32, s []linkDNS) *dbus.Error {
	return f.note("SetLinkDNS %d %v", link, s)
}
func (f *fakeResolved) SetLinkDNSEx(link int32, s []linkDNSEx) *dbus.Error {
	if f.old {
		return dbus.NewError("org.freedesktop.DBus.Error.UnknownMethod", []any{"Unknown method SetLinkDNSEx"})
	}
	return f.note("SetLinkDNSEx %d %v", link, s)
}
func (f *fakeResolved) SetLinkDomains(link int32, d []linkDomain) *dbus.Error {
	return f.note("SetLinkDomains %d %d %v %v", link, len(d), d[0], d[1])
}
func (f *fakeResolved) SetLinkDefaultRoute(link int32, on bool) *dbus.Error {
	return f.note("SetLinkDefaultRoute %d %v", link, on)
}
func (f *fakeResolved) SetLinkLLMNR(link int32, v string) *dbus.Error {
	return f.note("SetLinkLLMNR %d %v", link, v)
}
func (f *fakeResolved) SetLinkMulticastDNS(link int32, v string) *dbus.Error {
	return f.note("SetLinkMulticastDNS %d %v", link, v)
}
func (f *fakeResolved) SetLinkDNSSEC(link int32, v string) *dbus.Error {
	return f.note("SetLinkDNSSEC %d %v", link, v)
}
func (f *fakeResolved) SetLinkDNSOverTLS(link int32, v string) *dbus.Error {
	return f.note("SetLinkDNSOverTLS %d %v", link, v)
}
func (f *fakeResolved) RevertLink(link int32) *dbus.Error { return f.note("RevertLink %d", link) }

// privateBus is a message bus of the test's own.
func privateBus(t *testing.T) func() (*dbus.Conn, error) {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "bus")
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--address=unix:path="+sock)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (Debian: apt-get install dbus-daemon)", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	dial := func() (*dbus.Conn, error) { return dbus.Connect("unix:path=" + sock) }
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := dial()
		if err == nil {
			c.Close()
			return dial
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// serve puts f on the bus until the returned func is called.
func (f *fakeResolved) serve(t *testing.T, dial func() (*dbus.Conn, error)) func() {
	t.Helper()
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Export(f, resolvedPath, resolvedName+".Manager"); err != nil {
		t.Fatal(err)
	}
	if r, err := c.RequestName(resolvedName, dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(r, err)
	}
	return func() { c.Close() }
}

func etc(t *testing.T, resolvConf, nsswitch string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"hosts": theirs, "resolv.conf": resolvConf, "nsswitch.conf": nsswitch} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// loopbackTable is a mesh whose node has loopback addresses, so that a server can listen
// on them without a device.
func loopbackTable(hosts ...Host) (*Table, []netip.Addr) {
	own := addrs("127.77.0.1")
	return New("corp", []netip.Prefix{netip.MustParsePrefix("127.77.0.0/16")}, append([]Host{{"me", own}}, hosts...)), own
}

// run runs s and waits for words of its status that begin as wanted.
func run(t *testing.T, s *Service) (status func(want string), stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return func(want string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !strings.HasPrefix(s.Status(), want); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("status is %q, want %q", s.Status(), want)
			}
		}
	}, stop
}

func TestResolved(t *testing.T) {
	dial := privateBus(t)
	f := &fakeResolved{}
	gone := f.serve(t, dial)
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	dir := etc(t, "nameserver 127.0.0.53\n", "")
	s := NewService(Config{Mode: Auto, Link: "lo", Etc: dir, Port: 5453, Bus: dial})
	table, own := loopbackTable(Host{"web", addrs("127.77.0.2")})
	s.Set(table, own)
	status, stop := run(t, s)
	status("systemd-resolved")
	got := strings.Join(f.take(t, "SetLinkDNS"), "\n")
	want := strings.ReplaceAll(`SetLinkDefaultRoute LO false
SetLinkLLMNR LO no
SetLinkMulticastDNS LO no
SetLinkDNSOverTLS LO no
SetLinkDNSSEC LO no
SetLinkDomains LO 2 {corp.internal false} {77.127.in-addr.arpa true}
SetLinkDNSEx LO [{2 [127 77 0 1] 5453 }]`, "LO", fmt.Sprint(lo.Index))
	if got != want {
		t.Errorf("told:\n%s\nwant:\n%s", got, want)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "hosts")); string(b) != theirs {
		t.Errorf("the hosts file was written too:\n%s", b)
	}
	// What it was told is true: the server is there and knows the names.
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", "127.77.0.1:5453")
	}}
	if a, err := r.LookupHost(t.Context(), "web.corp.internal."); err != nil || a[0] != "127.77.0.2" {
		t.Errorf("%v %v", a, err)
	}
	// Names alone are no news for resolved; a resolved that starts anew is told all again.
	table, _ = loopbackTable()
	s.Set(table, own)
	gone()
	status(filepath.Join(dir, "hosts")) // meanwhile there is the file
	gone = f.serve(t, dial)
	status("systemd-resolved")
	if calls := f.take(t, "SetLinkDNSEx"); len(calls) != 7 {
		t.Errorf("told after its restart: %v", calls)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "hosts")); string(b) != theirs {
		t.Errorf("the block stays:\n%s", b)
	}
	stop()
	if calls := f.take(t, "RevertLink"); len(calls) != 1 {
		t.Errorf("at the end: %v", calls)
	}
	gone()
}

func TestResolvedRefuses(t *testing.T) {
	dial := privateBus(t)
	f := &fakeResolved{busy: true}
	defer f.serve(t, dial)()
	dir := etc(t, "nameserver 127.0.0.53\n", "")
	table, own := loopbackTable()
	s := NewService(Config{Mode: Resolved, Link: "lo", Etc: dir, Port: 5454, Bus: dial})
	s.Set(table, own)
	status, stop := run(t, s)
	status("off: systemd-resolved: SetLinkDefaultRoute: Link lo is managed.")
	stop()
	// auto takes the file instead.
	s = NewService(Config{Mode: Auto, Link: "lo", Etc: dir, Port: 5454, Bus: dial})
	s.Set(table, own)
	status, _ = run(t, s)
	status(filepath.Join(dir, "hosts"))
}

func TestOldResolvedNeedsPort53(t *testing.T) {
	dial := privateBus(t)
	f := &fakeResolved{old: true}
	defer f.serve(t, dial)()
	r, err := openResolved(dial)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	table, own := loopbackTable()
	if err := r.set(t.Context(), 1, []netip.AddrPort{netip.AddrPortFrom(own[0], 5300)}, table); err == nil || !strings.Contains(err.Error(), "port 53 of the mesh address is taken") {
		t.Errorf("another port: %v", err)
	}
	f.take(t, "RevertLink")
	if err := r.set(t.Context(), 1, []netip.AddrPort{netip.AddrPortFrom(own[0], 53)}, table); err != nil {
		t.Error(err)
	}
	if calls := f.take(t, "SetLinkDNS "); calls[len(calls)-1] != "SetLinkDNS 1 [{2 [127 77 0 1]}]" {
		t.Errorf("%v", calls)
	}
}

func TestAsksResolved(t *testing.T) {
	for _, c := range []struct {
		resolv, nss string
		want        bool
	}{
		{"", "", false},
		{"nameserver 127.0.0.53\noptions edns0\n", "", true},
		{"nameserver 192.0.2.1\n", "hosts: files dns\n", false},
		{"nameserver 192.0.2.1\n", "hosts: files resolve [!UNAVAIL=return] dns\n", true},
		{"# nameserver 127.0.0.53\nnameserver 127.0.0.1\n", "# hosts: resolve\nhosts: files # resolve\n", false},
	} {
		if got := asksResolved(etc(t, c.resolv, c.nss)); got != c.want {
			t.Errorf("%q %q: %v", c.resolv, c.nss, got)
		}
	}
}

func TestServiceWithHostsFile(t *testing.T) {
	noBus := func() (*dbus.Conn, error) { return nil, errors.New("no bus") }
	dir := etc(t, "nameserver 192.0.2.1\n", "")
	file := filepath.Join(dir, "hosts")
	read := func() string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	// A block that a killed daemon left goes even when names are off now.
	old := &File{Path: file, ID: "lo"}
	if _, err := old.Apply(corp()); err != nil {
		t.Fatal(err)
	}
	s := NewService(Config{Mode: Off, Link: "lo", Etc: dir, Bus: noBus})
	status, stop := run(t, s)
	status("off")
	if read() != theirs {
		t.Errorf("left:\n%s", read())
	}
	stop()

	s = NewService(Config{Mode: Auto, Link: "lo", Etc: dir, Port: 5455, Bus: noBus})
	table, own := loopbackTable(Host{"web", addrs("127.77.0.2")})
	s.Set(table, own)
	status, stop = run(t, s)
	status(file)
	if !strings.Contains(read(), "127.77.0.2 web.corp.internal web # tssh:lo\n") {
		t.Errorf("%s", read())
	}
	table, own = loopbackTable(Host{"renamed", addrs("127.77.0.2")})
	s.Set(table, own)
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(read(), "127.77.0.2 renamed.corp.internal renamed # tssh:lo\n"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s", read())
		}
	}
	if strings.Contains(read(), "web.corp.internal") {
		t.Errorf("the old name stays:\n%s", read())
	}
	stop()
	if read() != theirs {
		t.Errorf("at the end:\n%s", read())
	}
	// It can be run again: a node that was down and is up.
	s.Set(table, own)
	status, stop = run(t, s)
	status(file)
	stop()
	if read() != theirs {
		t.Errorf("at the second end:\n%s", read())
	}

	s = NewService(Config{Mode: Resolved, Link: "lo", Etc: dir, Port: 5455, Bus: noBus})
	s.Set(table, own)
	status, _ = run(t, s)
	status("off: systemd-resolved does not run here")
}
