package main

import (
	"strings"
	"testing"

	"tssh/recording/store"
)

func TestSealedWrong(t *testing.T) {
	a, b := "age1a", "ssh-ed25519 AAAA"
	for _, c := range []struct {
		want   []string
		sealed bool
		to     []string
		say    string
	}{
		{nil, false, nil, ""},
		{nil, true, []string{a}, ""}, // tsshd run --seal-to
		{[]string{a}, false, nil, "not sealed, though the policy asks for it"},
		{[]string{a}, true, nil, ""}, // no key block yet
		{[]string{a}, true, []string{a}, ""},
		{[]string{a}, true, []string{b, a}, ""},
		{[]string{a, b}, true, []string{a}, "not sealed to all whom the policy names"},
		{[]string{a}, true, []string{b}, "not sealed to all whom the policy names"},
	} {
		if got := sealedWrong(c.want, c.sealed, c.to); got != c.say {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestStoreMetrics(t *testing.T) {
	got := storeMetrics(store.Stats{Recordings: 3, Live: 1, Unsealed: 2, Bytes: 4096, Refused: map[string]int64{"disk": 1, "bytes": 2}})
	for _, line := range []string{"tssh_hub_recordings 3\n", "tssh_hub_recordings_live 1\n", "tssh_hub_recordings_unsealed 2\n", "tssh_hub_recordings_bytes 4096\n",
		"tssh_hub_recordings_refused_total{limit=\"bytes\"} 2\ntssh_hub_recordings_refused_total{limit=\"disk\"} 1\n"} {
		if !strings.Contains(got, line) {
			t.Errorf("%q is not in\n%s", line, got)
		}
	}
}
