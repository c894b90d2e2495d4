package names

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	resolvedName = "org.freedesktop.resolve1"
	resolvedPath = "/org/freedesktop/resolve1"
	busTimeout   = 5 * time.Second
)

// resolved is systemd-resolved behind the system bus.
type resolved struct {
	conn    *dbus.Conn
	signals chan *dbus.Signal // it came or went
}

// openResolved connects to the bus and asks to be told when resolved comes and goes.
func openResolved(dial func() (*dbus.Conn, error)) (*resolved, error) {
	if dial == nil {
		dial = func() (*dbus.Conn, error) { return dbus.ConnectSystemBus() }
	}
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	err = conn.AddMatchSignalContext(ctx, dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchInterface("org.freedesktop.DBus"),
		dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, resolvedName))
	if err != nil {
		conn.Close()
		return nil, err
	}
	r := &resolved{conn: conn, signals: make(chan *dbus.Signal, 4)}
	conn.Signal(r.signals)
	return r, nil
}

func (r *resolved) close() { r.conn.Close() }

// runs reports whether resolved has its name on the bus.
func (r *resolved) runs(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	var has bool
	err := r.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, resolvedName).Store(&has)
	return err == nil && has
}

func (r *resolved) call(ctx context.Context, method string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	// No call may start resolved: an administrator has stopped it.
	return r.conn.Object(resolvedName, resolvedPath).CallWithContext(ctx, resolvedName+".Manager."+method, dbus.FlagNoAutoStart, args...).Err
}

// The structs of resolved's calls, signatures (iay), (iayqs) and (sb).
type (
	linkDNS struct {
		Family  int32
		Address []byte
	}
	linkDNSEx struct {
		Family  int32
		Address []byte
		Port    uint16
		Name    string
	}
	linkDomain struct {
		Domain      string
		RoutingOnly bool
	}
)

// set has resolved ask our servers for the names of the mesh and its reverse zones on the
// link, and for nothing else. The domain is a search domain as well, so that short names
// work; a search domain routes too, and naming it twice would only make the second one win.
func (r *resolved) set(ctx context.Context, link int, servers []netip.AddrPort, t *Table) error {
	var plain []linkDNS
	var ex []linkDNSEx
	all53 := true
	for _, s := range servers {
		family := int32(2) // AF_INET as Linux numbers it
		if s.Addr().Is6() {
			family = 10
		}
		plain = append(plain, linkDNS{family, s.Addr().AsSlice()})
		ex = append(ex, linkDNSEx{family, s.Addr().AsSlice(), s.Port(), ""})
		all53 = all53 && s.Port() == 53
	}
	domains := []linkDomain{{t.Domain(), false}}
	for _, z := range t.reverseZones() {
		domains = append(domains, linkDomain{z, true})
	}
	i := int32(link)
	// First what keeps other names away from us, then the servers.
	for _, c := range []struct {
		method string
		value  any
		must   bool
	}{
		{"SetLinkDefaultRoute", false, false}, // not before systemd 240; there the routing domains do it
		{"SetLinkLLMNR", "no", false},
		{"SetLinkMulticastDNS", "no", false},
		{"SetLinkDNSOverTLS", "no", false},
		{"SetLinkDNSSEC", "no", false}, // the root zone proves that .internal does not exist
		{"SetLinkDomains", domains, true},
	} {
		if err := r.call(ctx, c.method, i, c.value); err != nil && (c.must || !isUnknownMethod(err)) {
			return fmt.Errorf("names: systemd-resolved: %s: %w", c.method, err)
		}
	}
	var err error
	if all53 {
		err = r.call(ctx, "SetLinkDNS", i, plain)
	} else if err = r.call(ctx, "SetLinkDNSEx", i, ex); isUnknownMethod(err) {
		err = errors.New("port 53 of the mesh address is taken, and this systemd-resolved knows no other")
	}
	if err != nil {
		r.revert(ctx, link)
		return fmt.Errorf("names: systemd-resolved: %w", err)
	}
	return nil
}

// revert makes resolved forget the link.
func (r *resolved) revert(ctx context.Context, link int) error {
	return r.call(ctx, "RevertLink", int32(link))
}

func isUnknownMethod(err error) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == "org.freedesktop.DBus.Error.UnknownMethod"
}

// asksResolved reports whether the programs of this computer come to resolved with their
// names: through the stub in resolv.conf or through nss-resolve. Where resolved runs but
// nobody asks it, it is no way to make names known.
func asksResolved(etc string) bool {
	if target, err := filepath.EvalSymlinks(filepath.Join(etc, "resolv.conf")); err == nil && strings.HasSuffix(target, "/systemd/resolve/stub-resolv.conf") {
		return true
	}
	if b, _, err := read(filepath.Join(etc, "resolv.conf")); err == nil {
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" && (f[1] == "127.0.0.53" || f[1] == "127.0.0.54") {
				return true
			}
		}
	}
	b, err := os.ReadFile(filepath.Join(etc, "nsswitch.conf"))
	if err != nil || len(b) > maxFile {
		return false
	}
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 0 && f[0] == "hosts:" {
			for _, m := range f[1:] {
				if m == "resolve" {
					return true
				}
			}
		}
	}
	return false
}
