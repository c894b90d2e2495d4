package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var lintNow = time.Date(2026, 7, 6, 12, 0, 0, 0, time.UTC)

// TestLint holds each policy of testdata/lint to exactly what is found in it; the section
// directory, where there is one, is the mesh.
func TestLint(t *testing.T) {
	for _, file := range archives(t, "lint") {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := section(t, a, "policy")
		want, ok := section(t, a, "found")
		if !ok {
			t.Fatalf("%s: the section found is missing", file)
		}
		var d *Directory
		if raw, ok := section(t, a, "directory"); ok {
			if d, err = ReadDirectory([]byte(raw)); err != nil {
				t.Fatal(err)
			}
		}
		p, problems := Parse("policy", []byte(text))
		if p == nil {
			t.Fatalf("%s: %v", file, problems)
		}
		var got strings.Builder
		for _, q := range Lint(p, d, lintNow) {
			got.WriteString(q.Error() + "\n")
		}
		if *update {
			writeSection(t, file, a, "found", got.String())
			continue
		}
		if diff := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(got.String())); diff != "" {
			t.Errorf("%s (-want +got)\n%s", file, diff)
		}
	}
}

// TestLintIsQuiet wants nothing said of a policy that is as it should be, and no panic on
// any other.
func TestLintIsQuiet(t *testing.T) {
	p := team(t, `["root", "autogroup:nonroot"]`, `["www"]`, `"80,443"`, `"22,80,443"`, `"users": ["root"], "checkPeriod": "30m"`, `"users": ["deploy"], "checkPeriod": "30m"`,
		`"tag:web:80,443"`, `"tag:web:22,80,443"`)
	for _, d := range []*Directory{nil, teamDirectory(t)} {
		for _, q := range Lint(p, d, lintNow) {
			t.Errorf("with a directory %v: %s", d != nil, q.Error())
		}
	}
	for seed := range uint64(30) {
		Lint(randomPolicy(t, seed), nil, lintNow)
		Lint(randomPolicy(t, seed), worldDirectory(t), lintNow)
	}
}
