package lab

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// client is one program that people use over SSH, and the script that uses it in every way
// it has.
type client struct {
	script string   // clients/SCRIPT.sh
	needs  []string // programs; the Makefile's list installs them
	heavy  bool     // only in `make matrix`, which installs more
}

var clients = []client{
	{"openssh", []string{"ssh", "scp", "sftp", "script"}, false},
	{"forwards", []string{"ssh", "python3"}, false},
	{"rsync", []string{"rsync"}, false},
	{"git", []string{"git"}, false},
	{"sshfs", []string{"sshfs", "fusermount3"}, false},
	{"putty", []string{"plink", "pscp", "psftp"}, false},
	{"dropbear", []string{"dbclient"}, false},
	{"curl", []string{"curl"}, false},
	{"lftp", []string{"lftp"}, false},
	{"paramiko", []string{"python3"}, false},
	{"asyncssh", []string{"python3"}, false},
	{"mosh", []string{"mosh"}, false},
	{"ssh2", []string{"node"}, false},
	{"tssh", nil, false},
	{"audit", []string{"ssh-audit"}, false},
	{"ansible", []string{"ansible-playbook"}, true},
	{"jsch", []string{"javac"}, true},
}

// ran is a row of docs/clients.md.
type ran struct {
	name, version string
	checks        []string
}

// TestClients is the client matrix: each of the programs that people use over SSH, with
// nothing set for tssh, over the mesh. TSSH_MATRIX=1 (`make matrix`) runs the heavy ones
// too, with large files, and prints the table of docs/clients.md.
func TestClients(t *testing.T) {
	m := theMesh(t)
	m.logsIn(t)
	matrix := os.Getenv("TSSH_MATRIX") != ""
	size := 3<<20 + 17
	if matrix {
		size = 64<<20 + 17
	}
	dir, err := os.MkdirTemp(m.laptop.Host.Dir, "clients-")
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Abs("clients")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(scripts, "node_modules/ssh2")); err != nil {
		if out, err := exec.Command("npm", "ci", "--prefix", scripts, "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error").CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v: %s", err, out)
		}
	}
	big := make([]byte, size)
	rand.Read(big)
	var all []byte
	for i := range 1 << 16 { // every byte after every other
		all = append(all, byte(i>>8), byte(i))
	}
	for name, data := range map[string][]byte{"big": big, "bin": all} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	known := filepath.Join(dir, "known_hosts")
	if err := Until(20*time.Second, func() error {
		r := m.laptop.Host.Run("ssh-keyscan", m.webAddr)
		if n := strings.Count(r.Stdout, "\n"); n < 3 {
			return fmt.Errorf("%d host keys: %v", n, r)
		}
		return os.WriteFile(known, []byte(r.Stdout), 0o644)
	}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var table []ran
	t.Run("all", func(t *testing.T) {
		for _, c := range clients {
			if c.heavy && !matrix {
				continue
			}
			t.Run(c.script, func(t *testing.T) {
				t.Parallel()
				for _, p := range c.needs {
					if _, err := exec.LookPath(p); err != nil {
						t.Fatalf("%s is not installed: lab/need.sh does that", p)
					}
				}
				work := filepath.Join(dir, c.script)
				if err := os.Mkdir(work, 0o755); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
				defer cancel()
				cmd := m.laptop.Host.CommandContext(ctx, "sh", "-euc", `. "$CLIENTS/lib.sh"; . "$CLIENTS/$0.sh"`, c.script)
				cmd.Env = append(slices.DeleteFunc(cmd.Env, func(s string) bool { return strings.HasPrefix(s, "SSH_") }),
					"ADDR="+m.webAddr, "USER_=deploy", "FAR="+m.web.Host.Home("deploy"), "WORK="+work, "BIG="+filepath.Join(dir, "big"), "BIN="+filepath.Join(dir, "bin"),
					"KNOWN="+known, "CLIENTS="+scripts, "SSH2="+filepath.Join(scripts, "node_modules"), "SOCKET="+m.laptop.Socket, "HOME="+work, "LC_ALL=C.UTF-8")
				r := Finish(cmd)
				row := ran{name: c.script}
				for line := range strings.Lines(r.Stdout) {
					word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
					switch word {
					case "version":
						row.version = rest
					case "ok":
						row.checks = append(row.checks, rest)
					case "skip":
						row.checks = append(row.checks, "not run: "+rest)
					}
				}
				if r.Status != 0 || len(row.checks) == 0 || row.version == "" {
					t.Fatalf("%v", r)
				}
				mu.Lock()
				table = append(table, row)
				mu.Unlock()
			})
		}
	})
	if !matrix {
		return
	}
	slices.SortFunc(table, func(a, b ran) int { return strings.Compare(a.name, b.name) })
	fmt.Println("| client | what held |\n|---|---|")
	for _, r := range table {
		fmt.Printf("| %s | %s |\n", r.version, strings.Join(r.checks, "; "))
	}
}
