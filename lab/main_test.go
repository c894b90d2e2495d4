package lab

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// bin is where TestMain built the programs.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	// These tests wait far more than they compute: more at a time than there are processors.
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		flag.Set("test.parallel", "8")
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tssh-lab-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		os.Chmod(dir, 0o755)
		bin = filepath.Join(dir, "bin")
		build := exec.Command("go", "build", "-trimpath", "-o", bin+"/", "./cmd/tssh", "./cmd/tsshd", "./cmd/tsshub", "./lab/derper")
		build.Dir = ".."
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "lab: build:", err)
			return 1
		}
		shared.dir = dir
		defer func() {
			if shared.lab != nil {
				shared.lab.Close()
			}
		}()
		return m.Run()
	}())
}

// shared is the mesh most tests use: a hub, web with a host sshd beside tsshd, and laptop.
var shared struct {
	once sync.Once
	dir  string
	err  error
	mesh
}

type mesh struct {
	lab         *Lab
	hub         *Hub
	web, laptop *Node
	webAddr     string // IPv4 mesh address of web
}

const deployUID, guestUID = 4001, 4002

// basePolicy lets alice be anybody but root on web.
const basePolicy = `{
	"tagOwners": {"tag:web": ["alice@example.com"]},
	"acls": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:*"]}],
	"ssh":  [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["autogroup:nonroot"]}],
}`

// theMesh is the shared mesh, with its policy set back to basePolicy.
func theMesh(t *testing.T) *mesh {
	t.Helper()
	needRoot(t)
	shared.once.Do(func() { shared.err = shared.mesh.build(filepath.Join(shared.dir, "mesh")) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	shared.mesh.setPolicy(t, basePolicy)
	return &shared.mesh
}

// ownMesh is such a mesh for one test, which runs beside others: it may stop the hub, or
// take long.
func ownMesh(t *testing.T) *mesh {
	t.Helper()
	needRoot(t)
	t.Parallel()
	m := &mesh{}
	dir, err := os.MkdirTemp(shared.dir, "own-")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	t.Cleanup(func() {
		if m.lab != nil {
			if err := m.lab.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	if err := m.build(dir); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *mesh) build(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var err error
	if m.lab, err = New(dir, bin, true); err != nil {
		return err
	}
	accounts := []Account{{"deploy", deployUID}, {"guest", guestUID}}
	var hosts []*Host
	for _, name := range []string{"hub", "web", "laptop"} {
		h, err := m.lab.AddHost(name, accounts...)
		if err != nil {
			return err
		}
		hosts = append(hosts, h)
	}
	if err := startHostSSHD(hosts[1]); err != nil {
		return err
	}
	if m.hub, err = m.lab.StartHub(hosts[0], basePolicy, "--mesh", "lab"); err != nil {
		return err
	}
	if r := m.hub.Admin("user", "add", "alice@example.com"); r.Status != 0 {
		return fmt.Errorf("user add: %v", r)
	}
	if m.web, err = m.hub.Join(hosts[1], "tag:web"); err != nil {
		return err
	}
	if m.laptop, err = m.hub.Join(hosts[2], "alice@example.com"); err != nil {
		return err
	}
	st, err := m.web.Status()
	if err != nil {
		return err
	}
	m.webAddr = st.Self.Addrs[0].String()
	return nil
}

// startHostSSHD gives a host its own OpenSSH on 0.0.0.0:22 and [::]:22.
func startHostSSHD(h *Host, extra ...string) error {
	key := h.Path("own_host_key")
	if err := run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key); err != nil {
		return err
	}
	_, err := h.Start("sshd", "/usr/sbin/sshd", append([]string{"-D", "-e", "-f", "none", "-p", "22", "-h", key, "-o", "PidFile=none"}, extra...)...)
	return err
}

// setPolicy sets the mesh's policy and fails the test if the hub refuses it.
func (m *mesh) setPolicy(t *testing.T, text string) {
	t.Helper()
	f := m.hub.Host.Path("policy-next.hujson")
	if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := m.hub.Admin("policy", "set", f); r.Status != 0 {
		t.Fatalf("policy set: %v", r)
	}
}
