package lab

import (
	"context"
	"crypto/rand"
	"errors"
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
}

var clients = []client{
	{"openssh", []string{"ssh", "scp", "sftp", "script"}},
	{"forwards", []string{"ssh", "python3"}},
	{"jump", []string{"ssh", "scp"}},
	{"x11", []string{"ssh", "Xvfb", "xauth", "xdpyinfo", "xmessage", "xwininfo"}},
	{"vscode", []string{"ssh", "scp", "python3"}},
	{"tssh", []string{"python3"}},
	{"rsync", []string{"rsync"}},
	{"git", []string{"git"}},
	{"sshfs", []string{"sshfs", "fusermount3"}},
	{"putty", []string{"plink", "pscp", "psftp"}},
	{"dropbear", []string{"dbclient"}},
	{"curl", []string{"curl"}},
	{"lftp", []string{"lftp"}},
	{"paramiko", []string{"python3"}},
	{"asyncssh", []string{"python3"}},
	{"mosh", []string{"mosh"}},
	{"ssh2", []string{"node"}},
	{"ansible", []string{"ansible-playbook"}},
	{"jsch", []string{"javac"}},
	{"audit", []string{"ssh-audit"}},
}

// clientsPolicy is basePolicy with what some of the clients need: X11 for guest, a way on
// from web to db, and a git host for guest on db. For deploy nothing is set.
const clientsPolicy = `{
	"tagOwners": {"tag:web": ["alice@example.com"], "tag:db": ["alice@example.com"]},
	"acls": [
		{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:*", "tag:db:22"]},
		{"action": "accept", "src": ["tag:web"], "dst": ["tag:db:22"]},
	],
	"ssh": [
		{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["guest"], "permit": {"pty": true, "shell": true, "exec": true, "x11": true}},
		{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:db"], "users": ["guest"], "acceptEnv": ["GIT_PROTOCOL"], "command": "git-shell -c \"$SSH_ORIGINAL_COMMAND\""},
		{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["autogroup:nonroot"]},
		{"action": "accept", "src": ["tag:web"], "dst": ["tag:db"], "users": ["deploy"]},
	],
}`

// ran is a row of docs/clients.md.
type ran struct {
	name, version string
	checks        []string
	skipped       string // why the rest was not run on this machine
}

// TestClients is the client matrix: each of the programs that people use over SSH, with
// nothing set for tssh, over the mesh. What held is compared with the table of
// docs/clients.md. TSSH_MATRIX=1 (`make matrix`) uses large files and writes the table.
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
	db, old, key := m.farHosts(t, dir)
	known := filepath.Join(dir, "known_hosts")
	if err := Until(20*time.Second, func() error {
		r := m.laptop.Host.Run("ssh-keyscan", m.webAddr, db.addr)
		if n := strings.Count(r.Stdout, "\n"); n < 6 {
			return fmt.Errorf("%d host keys: %v", n, r)
		}
		return os.WriteFile(known, []byte(r.Stdout), 0o644)
	}); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	var mu sync.Mutex
	var table []ran
	t.Run("all", func(t *testing.T) {
		for _, c := range clients {
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
					"KNOWN="+known, "CLIENTS="+scripts, "SSH2="+filepath.Join(scripts, "node_modules"), "SOCKET="+m.laptop.Socket, "HOME="+work, "LC_ALL=C.UTF-8",
					"DB="+db.addr, "GITHOME="+db.node.Host.Home("guest"), "OLD="+old.Addr.String(), "KEY="+key)
				r := Finish(cmd)
				row, err := readRow(c.script, r.Stdout)
				if r.Status != 0 || err != nil {
					t.Fatalf("%v: %v", err, r)
				}
				mu.Lock()
				table = append(table, row)
				mu.Unlock()
			})
		}
	})
	t.Logf("%d clients took %.0f s", len(table), time.Since(begun).Seconds())
	if t.Failed() || len(table) < len(clients) { // with -run some are left out
		return
	}
	doc := filepath.Join("..", "docs", "clients.md")
	if matrix {
		if err := writeTable(doc, table); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := compareTable(doc, table); err != nil {
		t.Fatal(err)
	}
}

// far is a host of the mesh behind web.
type far struct {
	node *Node
	addr string
}

// farHosts are db, a host of the mesh that web may log in to, and old, which is not of the
// mesh and has a stock sshd that takes the key.
func (m *mesh) farHosts(t *testing.T, dir string) (db far, old *Host, key string) {
	t.Helper()
	m.setPolicy(t, clientsPolicy)
	accounts := []Account{{"deploy", deployUID}, {"guest", guestUID}}
	h, err := m.lab.AddHost("db", accounts...)
	if err != nil {
		t.Fatal(err)
	}
	if db.node, err = m.hub.Join(h, "tag:db"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the shared mesh is others' too
		if r := m.hub.Admin("node", "remove", "db"); r.Status != 0 {
			t.Error(r)
		}
		db.node.Proc.Stop()
	})
	st, err := db.node.Status()
	if err != nil {
		t.Fatal(err)
	}
	db.addr = st.Self.Addrs[0].String()
	if old, err = m.lab.AddHost("old", accounts...); err != nil {
		t.Fatal(err)
	}
	key = filepath.Join(dir, "key")
	if err := run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key); err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	authorized := old.Path("authorized_keys")
	if err := os.WriteFile(authorized, pub, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := startHostSSHD(old, "-o", "AuthorizedKeysFile="+authorized, "-o", "StrictModes=no", "-o", "Subsystem=sftp internal-sftp"); err != nil {
		t.Fatal(err)
	}
	return db, old, key
}

// readRow takes the row out of what a script printed.
func readRow(name, out string) (ran, error) {
	row := ran{name: name}
	for line := range strings.Lines(out) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "version":
			row.version = rest
		case "ok":
			row.checks = append(row.checks, rest)
		case "skip":
			row.skipped = rest
		}
	}
	if row.version == "" || len(row.checks) == 0 && row.skipped == "" {
		return row, errors.New("no version, or nothing that held")
	}
	return row, nil
}

const tableBegin, tableEnd = "<!-- written by `make matrix`, compared by `make test` -->", "<!-- end -->"

// tableOf is the table between the two marks, and what is around it.
func tableOf(doc string) (before, table, after string, err error) {
	b, err := os.ReadFile(doc)
	if err != nil {
		return "", "", "", err
	}
	before, rest, ok := strings.Cut(string(b), tableBegin)
	table, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return "", "", "", fmt.Errorf("%s: the marks of the table are gone", doc)
	}
	return before, table, after, nil
}

func (r ran) row() string {
	return fmt.Sprintf("| %s | %s | %s |", r.name, r.version, strings.Join(r.checks, "; "))
}

// writeTable writes what held into the document.
func writeTable(doc string, rows []ran) error {
	before, _, after, err := tableOf(doc)
	if err != nil {
		return err
	}
	slices.SortFunc(rows, func(a, b ran) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	b.WriteString("\n| script | client | what held |\n|---|---|---|\n")
	for _, r := range rows {
		if r.skipped != "" {
			return fmt.Errorf("%s was not run here (%s): the table stays as it is", r.name, r.skipped)
		}
		fmt.Fprintln(&b, r.row())
	}
	fmt.Print(b.String())
	return os.WriteFile(doc, []byte(before+tableBegin+"\n"+b.String()+"\n"+tableEnd+after), 0o644)
}

// compareTable says where the document's table is not what held here. Versions may differ:
// the table has those of where `make matrix` was run.
func compareTable(doc string, rows []ran) error {
	_, table, _, err := tableOf(doc)
	if err != nil {
		return err
	}
	documented := map[string]string{}
	for line := range strings.Lines(table) {
		if f := strings.SplitN(strings.Trim(strings.TrimSpace(line), "| "), " | ", 3); len(f) == 3 && f[0] != "script" {
			documented[f[0]] = f[2]
		}
	}
	var errs []error
	for _, r := range rows {
		held, there := documented[r.name], strings.Join(r.checks, "; ")
		delete(documented, r.name)
		if r.skipped == "" && held != there {
			errs = append(errs, fmt.Errorf("%s: the table of %s says of %s [%s], and what held is [%s]: make matrix writes it anew", doc, doc, r.name, held, there))
		}
	}
	for name := range documented {
		errs = append(errs, fmt.Errorf("%s: the table has %s, which is not run", doc, name))
	}
	return errors.Join(errs...)
}
