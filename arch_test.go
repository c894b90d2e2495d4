// Package tssh holds no code: only the rules of the house, as tests.
package tssh

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// imports is the import table: what each package of ours may import of ours. "x/*"
// means x's sub-packages. ARCHITECTURE.md shows the same table to people.
var imports = map[string][]string{
	"policy":               {},
	"recording":            {},
	"recording/term":       {},
	"recording/ship":       {"recording", "recording/audit"},
	"recording/store":      {"recording", "recording/term"},
	"recording/transcript": {"recording", "recording/term"},
	"recording/find":       {"recording", "recording/store", "recording/transcript"},
	"recording/live":       {},
	"recording/replay":     {"recording", "recording/*", "policy"},
	"recording/audit":      {},
	"session":              {"recording", "session/*"},
	"session/control":      {"policy"},
	"session/launch":       {},
	"sshd":                 {"policy", "recording", "recording/audit", "recording/term", "session/control", "session/launch"},
	"ssh":                  {"ssh/socks"},
	"ssh/socks":            {},
	"ssh/proxy":            {"ssh/socks"},
	"ssh/sshconfig":        {},
	"netnode":              {"policy", "netnode/path", "netnode/filter", "netnode/netmap", "netnode/relay", "netnode/names", "netnode/portmap", "netnode/firewall"},
	"netnode/firewall":     {},
	"netnode/path":         {"netnode/relay"},
	"netnode/relay":        {},
	"netnode/portmap":      {},
	"netnode/relay/server": {"netnode/relay"},
	"netnode/filter":       {"policy"},
	"netnode/names":        {},
	"netnode/netmap":       {"policy"},
	"netnode/coord":        {"policy", "netnode/netmap", "netnode/relay", "recording/audit"},
	"netnode/localapi":     {"policy", "netnode/netmap"},
	"netnode/meshtest":     {"policy", "netnode", "netnode/*"},
	"netnode/serve":        {"policy"},
	"netnode/daemon":       {"policy", "netnode", "netnode/localapi", "netnode/netmap", "netnode/relay", "netnode/serve"},
	"cmd/tssh":             {"*"},
	"cmd/tsshd":            {"*"},
	"cmd/tsshub":           {"*"},
	"cmd/tsshub/console":   {"*"},
	"lab":                  {"*"},
	"lab/demo":             {"lab"},
	"lab/bench":            {"lab", "policy", "netnode/filter", "netnode/netmap"},
	"lab/wgalone":          {},
	"lab/regress":          {},
	"lab/derper":           {"netnode/relay"},
}

// unlinked is what a program must not link, however it got there: a daemon that runs
// as root on every host stays lean.
var unlinked = map[string][]string{
	"cmd/tsshd": {"modernc.org/sqlite", "database/sql", "tssh/recording/replay", "tssh/recording/find", "tssh/recording/store", "tssh/netnode/coord", "tailscale.com/derp/derpserver", "gocloud.dev", "github.com/minio", "github.com/aws"},
	"cmd/tssh":  {"modernc.org/sqlite", "database/sql", "tssh/netnode/coord", "tssh/sshd"},
	"session":   {"tssh/recording/term", "tssh/policy/", "golang.zx2c4.com/wireguard"},
}

const maxLines = 800

func allowed(pkg, dep string) bool {
	for _, a := range imports[pkg] {
		if a == "*" || a == dep {
			return true
		}
		if base, ok := strings.CutSuffix(a, "/*"); ok && strings.HasPrefix(dep, base+"/") {
			return true
		}
	}
	return false
}

// room is the package that a folder belongs to in the table: programs under testserver
// and examples folders answer to no import table but stay within the other rules.
func room(dir string) string {
	for _, extra := range []string{"/testserver", "/examples"} {
		if i := strings.Index(dir, extra); i > 0 {
			return ""
		}
	}
	return dir
}

func TestImportTable(t *testing.T) {
	seen := map[string]bool{}
	walkGo(t, func(file, dir string) {
		if room(dir) == "" || dir == "." || strings.HasSuffix(file, "_test.go") {
			return
		}
		if _, ok := imports[dir]; !ok {
			t.Errorf("%s: package %s is not in the import table", file, dir)
			return
		}
		seen[dir] = true
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range f.Imports {
			dep, ours := strings.CutPrefix(strings.Trim(s.Path.Value, `"`), "tssh/")
			if ours && !allowed(dir, dep) {
				t.Errorf("%s: %s may not import %s", file, dir, dep)
			}
		}
	})
	if len(seen) < 15 {
		t.Fatalf("only %d packages seen: the walk is wrong", len(seen))
	}
}

func TestLinked(t *testing.T) {
	for pkg, banned := range unlinked {
		out, err := exec.Command("go", "list", "-deps", "./"+pkg).CombinedOutput()
		if err != nil {
			t.Fatalf("go list %s: %v\n%s", pkg, err, out)
		}
		for dep := range strings.FieldsSeq(string(out)) {
			for _, b := range banned {
				if strings.HasPrefix(dep, b) {
					t.Errorf("%s links %s", pkg, dep)
				}
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for n := 0; ; n++ {
		var p struct{ ImportPath, Doc string }
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			if n < 15 {
				t.Fatalf("only %d packages listed", n)
			}
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Doc == "" && p.ImportPath != "tssh" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func TestFileLength(t *testing.T) {
	walkGo(t, func(file, _ string) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), "\n"); n > maxLines {
			t.Errorf("%s has %d lines, more than %d", file, n, maxLines)
		}
	})
}

func TestTopLevel(t *testing.T) {
	want := []string{"policy", "recording", "session", "sshd", "ssh", "netnode", "cmd", "lab", "docs", ".ci",
		"go.mod", "go.sum", "README.md", "ARCHITECTURE.md", "Makefile", "arch_test.go", ".gitignore"}
	out, err := exec.Command("git", "ls-tree", "--name-only", "HEAD").Output()
	if err != nil {
		t.Fatalf("git ls-tree: %v", err)
	}
	have := strings.Fields(string(out))
	for _, h := range have {
		if !slices.Contains(want, h) {
			t.Errorf("%s does not belong at the top level", h)
		}
	}
	for _, w := range want {
		if !slices.Contains(have, w) {
			t.Errorf("%s is missing at the top level", w)
		}
	}
}

func TestArchitectureIsShortAndNamesEveryPackage(t *testing.T) {
	b, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "\n"); n > 150 {
		t.Errorf("ARCHITECTURE.md has %d lines, more than 150", n)
	}
	walkGo(t, func(file, dir string) {
		if r := room(dir); r != "" && r != "." && !strings.Contains(string(b), "`"+r+"`") {
			t.Errorf("ARCHITECTURE.md does not name `%s` (%s)", r, file)
		}
	})
}

// walkGo calls f for every Go file of ours with its folder, slash-separated.
func walkGo(t *testing.T, f func(file, dir string)) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "node_modules" || name == "testdata" || p != "." && strings.HasPrefix(name, ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(p, ".go") {
			n++
			f(filepath.ToSlash(p), path.Dir(filepath.ToSlash(p)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 30 {
		t.Fatal(fmt.Sprintf("only %d Go files found", n))
	}
}
