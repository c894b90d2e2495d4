package names

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var meshRanges = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fd7a:7373:6800::/48")}

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, x := range s {
		out = append(out, netip.MustParseAddr(x))
	}
	return out
}

func corp() *Table {
	return New("corp", meshRanges, []Host{
		{"web", addrs("100.64.0.7", "fd7a:7373:6800::7")},
		{"db-1", addrs("100.127.255.254")},
	})
}

func TestLookup(t *testing.T) {
	tb := corp()
	for name, want := range map[string]string{
		"web": "100.64.0.7", "WEB": "100.64.0.7", "web.": "100.64.0.7", "web.corp.internal": "100.64.0.7", "Web.Corp.Internal.": "100.64.0.7",
		"db-1": "100.127.255.254", "x.web.corp.internal": "", "corp.internal": "", "": "", "web.other.internal": "", "web..": "",
		"web.corp.internal.corp.internal": "",
	} {
		got := ""
		if a := tb.Lookup(name); len(a) > 0 {
			got = a[0].String()
		}
		if got != want {
			t.Errorf("Lookup(%q) = %q, want %q", name, got, want)
		}
	}
	if n := tb.Reverse(netip.MustParseAddr("::ffff:100.64.0.7")); n != "web.corp.internal" {
		t.Errorf("Reverse = %q", n)
	}
	var none *Table
	if none.Lookup("web") != nil || none.Reverse(addrs("100.64.0.7")[0]) != "" || none.Domain() != "" {
		t.Error("the nil table knows something")
	}
}

// A hub that lies about names gets nothing but the harmless ones in.
func TestHostileNames(t *testing.T) {
	bad := []string{"", "localhost", "wpad", "a b", "a\nb", "a\tb", "A", "a.b", "-a", "a-", "127", "0x7f", "a#b", "a/b", "é", "a\x00", strings.Repeat("a", 64), "metadata", "_x"}
	var hosts []Host
	for i, n := range bad {
		hosts = append(hosts, Host{n, addrs(fmt.Sprintf("100.64.1.%d", i+1))})
	}
	hosts = append(hosts,
		Host{"out", addrs("8.8.8.8", "127.0.0.1", "::1")},
		Host{"good", addrs("8.8.8.8", "100.64.2.1")},
		Host{"good", addrs("100.64.2.2")}, // the first one keeps its name
		Host{"thief", addrs("100.64.2.1")})
	tb := New("corp", meshRanges, hosts)
	if len(tb.hosts) != 1 || tb.hosts[0].Name != "good" || !slices.Equal(tb.hosts[0].Addrs, addrs("100.64.2.1")) {
		t.Errorf("taken: %v", tb.hosts)
	}
	for _, mesh := range []string{"", "a.b", "a\nb", "127", "A"} {
		if tb := New(mesh, meshRanges, hosts); tb.Domain() != "" || len(tb.hosts) > 0 {
			t.Errorf("mesh %q is taken", mesh)
		}
	}
}

func TestReverseZones(t *testing.T) {
	z := corp().reverseZones()
	if len(z) != 65 || z[0] != "64.100.in-addr.arpa" || z[63] != "127.100.in-addr.arpa" || z[64] != "0.0.8.6.3.7.3.7.a.7.d.f.ip6.arpa" {
		t.Errorf("%d zones: %v", len(z), z)
	}
	odd := New("m", []netip.Prefix{netip.MustParsePrefix("10.1.4.0/22"), netip.MustParsePrefix("fd00:8000::/18")}, nil)
	want := []string{"4.1.10.in-addr.arpa", "5.1.10.in-addr.arpa", "6.1.10.in-addr.arpa", "7.1.10.in-addr.arpa",
		"8.0.0.d.f.ip6.arpa", "9.0.0.d.f.ip6.arpa", "a.0.0.d.f.ip6.arpa", "b.0.0.d.f.ip6.arpa"}
	if got := odd.reverseZones(); !slices.Equal(got, want) {
		t.Errorf("odd ranges: %v", got)
	}
}

func TestArpaThereAndBack(t *testing.T) {
	for _, s := range []string{"100.64.0.7", "255.255.255.255", "0.0.0.0", "fd7a:7373:6800::7", "::", "2001:db8:1234:5678:9abc:def0:1:2"} {
		a := netip.MustParseAddr(s)
		p, ok := fromArpa(arpa(a.AsSlice(), a.BitLen()))
		if !ok || p.Addr() != a || !p.IsSingleIP() {
			t.Errorf("%s: %v %v", s, p, ok)
		}
	}
	for _, s := range []string{"in-addr.arpa", ".in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "256.in-addr.arpa", "01.in-addr.arpa", "a.in-addr.arpa",
		"1..in-addr.arpa", "g.ip6.arpa", "10.ip6.arpa", ".ip6.arpa", strings.Repeat("0.", 33) + "ip6.arpa", "web.corp.internal"} {
		if p, ok := fromArpa(s); ok {
			t.Errorf("%q is read as %v", s, p)
		}
	}
}
