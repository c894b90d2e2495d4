package coord

import (
	"net/netip"
	"strings"
	"testing"
)

func TestCheckRange4(t *testing.T) {
	for r, want := range map[string]string{
		"100.64.0.0/10": "", "100.64.0.0/24": "", "10.77.0.0/16": "", "10.0.0.0/8": "", "172.20.0.0/14": "", "192.168.5.0/24": "", "198.18.0.0/15": "",
		"10.77.0.1/16": "first address", "10.77.0.0/25": "too small", "8.8.8.0/24": "private", "0.0.0.0/0": "private", "172.0.0.0/8": "private",
		"100.0.0.0/9": "private", "fd00::/48": "not an IPv4", "100.115.92.0/24": "something else", "100.100.100.0/24": "something else",
	} {
		err := CheckRange4(netip.MustParsePrefix(r))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", r, err, want)
			continue
		}
		for range 20 {
			if want != "" {
				break
			}
			a, err := random4(netip.MustParsePrefix(r))
			if err != nil || !netip.MustParsePrefix(r).Contains(a) {
				t.Errorf("an address of %s: %v %v", r, a, err)
			}
		}
	}
	if err := CheckRange4(netip.Prefix{}); err == nil {
		t.Error("no range at all")
	}
}
