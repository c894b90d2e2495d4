package localapi

import (
	"net/netip"
	"testing"
)

func TestParseAddr(t *testing.T) {
	for in, want := range map[string]string{
		"100.64.0.7":              "100.64.0.7",
		"100.64.0.7:53122":        "100.64.0.7",
		"::ffff:100.64.0.7":       "100.64.0.7",
		"[::ffff:100.64.0.7]:443": "100.64.0.7",
		"fd7a::1":                 "fd7a::1",
		"[fd7a::1]":               "fd7a::1",
		"[fd7a::1]:22":            "fd7a::1",
		"[fe80::1%eth0]:22":       "fe80::1",
		"fe80::1%eth0":            "fe80::1",
		"":                        "",
		"web":                     "",
		"web:22":                  "",
		"100.64.0.7:":             "",
		"100.64.0.7:99999":        "",
		"100.64.0.7:53122:1":      "",
		"[100.64.0.7]":            "",
		"[fd7a::1":                "",
		"[]":                      "",
	} {
		got, ok := ParseAddr(in)
		if ok != (want != "") || ok && got != netip.MustParseAddr(want) {
			t.Errorf("ParseAddr(%q) = %v, %v; want %q", in, got, ok, want)
		}
	}
}
