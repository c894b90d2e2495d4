package policy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// ruleList reads testdata/rules.txt: a line is the id of a rule, a blank, and the rule.
func ruleList(t *testing.T) (ids []string, says map[string]string) {
	t.Helper()
	text, err := os.ReadFile("testdata/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	says = map[string]string{}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		id, rule, _ := strings.Cut(line, " ")
		if _, twice := says[id]; twice || strings.TrimSpace(rule) == "" {
			t.Errorf("testdata/rules.txt: %q is there twice or says nothing", id)
		}
		ids, says[id] = append(ids, id), strings.TrimSpace(rule)
	}
	if len(ids) < 100 {
		t.Fatalf("testdata/rules.txt has %d rules only", len(ids))
	}
	return ids, says
}

// TestRules holds each rule of the language to its own table, testdata/rules/ID.txtar. At
// the top of one stand "Source:", where the rule is written or was seen, and "Rule:", as
// in testdata/rules.txt. Below it are a policy that loads, and the questions of TestTables
// in table, its warnings where they are the rule; or refused, a policy that does not load
// or whose own tests fail, and its problems; or both pairs.
func TestRules(t *testing.T) {
	ids, says := ruleList(t)
	var have []string
	for _, file := range archives(t, "rules") {
		have = append(have, strings.TrimSuffix(filepath.Base(file), ".txtar"))
	}
	for _, id := range ids {
		if !slices.Contains(have, id) {
			t.Errorf("the rule %s has no table", id)
		}
	}
	docs, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	d := testDirectory(t)
	for _, id := range have {
		t.Run(id, func(t *testing.T) {
			file := filepath.Join("testdata", "rules", id+".txtar")
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source, rest, _ := strings.Cut(string(a.Comment), "\n")
			rule, _, _ := strings.Cut(rest, "\n")
			where, ok := strings.CutPrefix(source, "Source: ")
			if !ok || !strings.Contains(where, "https://") && !strings.Contains(where, "headscale, ") && !strings.Contains(where, "docs/policy.md") {
				t.Errorf("the table does not begin with its source: %q", source)
			}
			if says[id] == "" {
				t.Error("testdata/rules.txt does not have this rule")
			} else if rule != "Rule: "+says[id] {
				t.Errorf("the rule of the table is not that of testdata/rules.txt\n\tgot  %s\n\twant Rule: %s", rule, says[id])
			}
			for s := range strings.SplitSeq(where, "; ") {
				if heading, ok := strings.CutPrefix(s, "docs/policy.md, "); ok && !strings.Contains(string(docs), "\n## "+heading+"\n") {
					t.Errorf("docs/policy.md has no heading %q", heading)
				}
			}
			shown := false
			if text, ok := section(t, a, "policy"); ok {
				shown = true
				askTable(t, a, text, d)
			}
			if text, ok := section(t, a, "refused"); ok {
				shown = true
				askRefused(t, file, a, text, d)
			}
			if !shown {
				t.Error("the table asks nothing")
			}
		})
	}
}

// TestRulesHaveEveryKey: a field that the language gets needs a table, too.
func TestRulesHaveEveryKey(t *testing.T) {
	schema, err := os.ReadFile("../docs/policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var top schemaNode
	if err := json.Unmarshal(schema, &top); err != nil {
		t.Fatal(err)
	}
	var tables strings.Builder
	for _, file := range archives(t, "rules") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tables.Write(text)
	}
	all := strings.ToLower(tables.String())
	keys := 0
	var look func(at string, n schemaNode)
	look = func(at string, n schemaNode) {
		for key, sub := range n.Properties {
			keys++
			if !strings.Contains(all, strings.ToLower(`"`+key+`"`)) {
				t.Errorf("no table of testdata/rules has %s%s", at, key)
			}
			look(at+key+".", sub)
		}
	}
	look("", top)
	for name, n := range top.Definitions {
		look(name+".", n)
	}
	if keys < 60 {
		t.Errorf("%d keys only", keys)
	}
}
