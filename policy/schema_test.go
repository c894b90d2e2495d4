package policy

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

type schemaNode struct {
	Properties  map[string]schemaNode `json:"properties"`
	Definitions map[string]schemaNode `json:"definitions"`
	Enum        []any                 `json:"enum"`
	Closed      any                   `json:"additionalProperties"`
}

// TestSchema holds the schema for editors to the parser: the same keys at each level, and
// the same words where a value is one of a few.
func TestSchema(t *testing.T) {
	text, err := os.ReadFile("../docs/policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var top schemaNode
	if err := json.Unmarshal(text, &top); err != nil {
		t.Fatal(err)
	}
	unknown := func(doc string) []string {
		_, problems := Parse("p", []byte(doc))
		var out []string
		for _, p := range problems {
			if strings.Contains(p.Words, "unknown key") {
				out = append(out, p.Words)
			}
		}
		return out
	}
	for _, level := range []struct {
		keys map[string]schemaNode
		doc  string // %q is the key, with null for its value
	}{
		{top.Properties, `{%q: null}`},
		{top.Definitions["ssh"].Properties, `{"ssh": [{%q: null}]}`},
		{top.Definitions["ssh"].Properties["permit"].Properties, `{"ssh": [{"permit": {%q: null}}]}`},
		{top.Definitions["acl"].Properties, `{"acls": [{%q: null}]}`},
		{top.Definitions["grant"].Properties, `{"grants": [{%q: null}]}`},
		{top.Definitions["test"].Properties, `{"tests": [{%q: null}]}`},
		{top.Definitions["sshTest"].Properties, `{"sshTests": [{%q: null}]}`},
		{top.Properties["autoApprovers"].Properties, `{"autoApprovers": {%q: null}}`},
	} {
		if len(level.keys) == 0 || len(unknown(fmt.Sprintf(level.doc, "noSuchKey"))) != 1 {
			t.Errorf("%s: nothing is tried", level.doc)
		}
		for key := range level.keys {
			if u := unknown(fmt.Sprintf(level.doc, key)); len(u) > 0 {
				t.Errorf("the schema has a key that the parser has not: %s", u)
			}
		}
	}
	has := func(keys map[string]schemaNode, key string) {
		if _, ok := keys[key]; !ok {
			t.Errorf("the parser has the key %q, which the schema has not", key)
		}
	}
	for _, s := range sections {
		has(top.Properties, s.key)
	}
	ssh := top.Definitions["ssh"].Properties
	for key := range newFile("p", nil).newTerms("ssh").fields() {
		has(ssh, key)
	}
	for _, key := range []string{"action", "src", "dst", "users", "checkPeriod", "acceptEnv", "recorder", "enforceRecorder", "srcPosture"} {
		has(ssh, key)
	}
	for _, c := range []struct {
		node  schemaNode
		words []string
	}{
		{ssh["record"], recordModes}, {ssh["permit"].Properties["sftp"], fileAccess}, {ssh["onRecordFailure"], []string{"terminate", "pause", "refuse", "end", "continue"}}, {ssh["action"], []string{"accept", "check", "request"}},
	} {
		var got []string
		for _, e := range c.node.Enum {
			if s, ok := e.(string); ok {
				got = append(got, s)
			}
		}
		if !slices.Equal(got, c.words) {
			t.Errorf("the schema has %q, the parser %q", got, c.words)
		}
	}
}
