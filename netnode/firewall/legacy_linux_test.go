package firewall

import (
	"strings"
	"testing"

	"github.com/google/nftables"
)

// FuzzLegacy reads any text as a saved ruleset and judges by it. There is always an end.
func FuzzLegacy(f *testing.F) {
	f.Add("*filter\n:INPUT DROP [0:0]\n-A INPUT -p udp -m udp --dport 1:2 -j ACCEPT\n-A INPUT ! -s 10.0.0.0/8 -i eth+ -j LOG --log-prefix \"a \\\"b\"\nCOMMIT\n")
	f.Add("*filter\n:INPUT ACCEPT\n:a -\n:b -\n-A INPUT -j a\n-A a -g b\n-A b -j a\n")
	f.Add("*raw\n:PREROUTING ACCEPT\n-A PREROUTING -m multiport ! --dports 1,2:3,x -j DROP\n-A PREROUTING --tcp-flags FIN,SYN SYN -f ! -p 47 -j RETURN\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := &Rules{tables: map[tableKey]*table{}}
		r.parseLegacy(nftables.TableFamilyIPv4, text)
		r.Judge(udp("eth0", 41641))
		r.Judge(tcp("tssh0", 80))
	})
}

func TestLegacyWords(t *testing.T) {
	got := strings.Join(words(`INPUT -m comment --comment "a b \" c" "" -j X`), "|")
	if want := `INPUT|-m|comment|--comment|a b " c||-j|X`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
