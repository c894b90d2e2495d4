package policy

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	sealAge = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p" // of age's README
	sealSSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN0pZ2LRrs0yzdR1vX3iG1hN8uWlZ9m0b4m9cBq3y1Zk"
)

func TestSealTo(t *testing.T) {
	p, ps := Parse("p", []byte(`{"acls": [], "ssh": [], "sealRecordingsTo": ["`+sealAge+`", "`+sealSSH+` auditors", "`+sealAge+`"]}`))
	if p == nil {
		t.Fatal(ps)
	}
	if got := p.SealTo(); !slices.Equal(got, []string{sealAge, sealSSH}) {
		t.Errorf("%q", got)
	}
	if m := p.Missing([]string{"policy/1"}); len(m) != 1 || !strings.Contains(m[0], `"sealRecordingsTo" on line 1`) {
		t.Errorf("%q", m)
	}
	if m := p.Missing(Understands()); len(m) != 0 {
		t.Errorf("%q", m)
	}
	for _, none := range []string{`null`, `[]`} {
		if p, ps := Parse("p", []byte(`{"acls": [], "ssh": [], "sealRecordingsTo": `+none+`}`)); p == nil || len(p.SealTo()) != 0 || len(p.Missing([]string{"policy/1"})) != 0 {
			t.Errorf("%s: %v", none, ps)
		}
	}
	if (*Policy)(nil).SealTo() != nil {
		t.Error("nil")
	}
	for i := range sealAge { // any one letter wrong
		c := byte('q')
		if sealAge[i] == c {
			c = 'p'
		}
		bad := sealAge[:i] + string(c) + sealAge[i+1:]
		if p, _ := Parse("p", []byte(`{"sealRecordingsTo": ["`+bad+`"]}`)); p != nil {
			t.Errorf("%s passed", bad)
		}
	}
	for word, want := range map[string]string{
		"":                              "a recipient is",
		"alice@example.com":             "a recipient is",
		sealAge[:50]:                    "no age recipient",
		"ssh-ed25519 AAAA":              "no ssh-ed25519",
		"ssh-rsa AAAA":                  "a recipient is",
		"AGE-SECRET-KEY-1QQQQQQQQQQQQQ": "private key",
	} {
		_, ps := Parse("p", []byte(`{"sealRecordingsTo": ["`+word+`"]}`))
		if !slices.ContainsFunc(ps, func(p Problem) bool { return strings.Contains(p.Error(), want) }) {
			t.Errorf("%q: %v, want %q", word, ps, want)
		}
	}
}

func TestRecordFailureNames(t *testing.T) {
	for word, want := range map[string]RecordFailure{"terminate": FailTerminate, "end": FailTerminate, "refuse": FailRefuse, "continue": FailRefuse, "pause": FailPause} {
		for _, record := range []string{"required", "required-remote"} {
			d := ruleWith(t, `, "record": "`+record+`", "onRecordFailure": "`+word+`"`, time.Time{})
			if got := d.Terms().RecordFailure; got != want {
				t.Errorf("%s %s: %v, want %v", record, word, got, want)
			}
		}
	}
}
