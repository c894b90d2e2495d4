package sshconfig

import (
	"crypto/ed25519"
	"crypto/rand"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"
)

func input() Input {
	return Input{
		Mesh: "lab", Tssh: "/usr/local/bin/tssh",
		Hosts: []Host{
			{"web", []netip.Addr{netip.MustParseAddr("100.64.0.7"), netip.MustParseAddr("fd7a::7")}},
			{"router", []netip.Addr{netip.MustParseAddr("100.64.0.8")}},
			{"evil\n    ProxyCommand touch /tmp/x", nil},
			{"* ", nil}, {"localhost", nil},
		},
		Taken: func(n string) bool { return n == "router" },
	}
}

// ask has ssh say what it would do for a name.
func ask(t *testing.T, conf, name string) map[string]string {
	t.Helper()
	out, err := exec.Command("ssh", "-F", conf, "-G", "--", name).CombinedOutput()
	if strings.Contains(string(out), "invalid characters") {
		return map[string]string{"user": "fallback"} // newer versions refuse such names themselves
	}
	if err != nil {
		t.Fatalf("ssh -G %q: %v %s", name, err, out)
	}
	m := map[string]string{}
	for l := range strings.Lines(string(out)) {
		k, v, _ := strings.Cut(strings.TrimSpace(l), " ")
		m[k] = v
	}
	return m
}

func TestStockSSHUnderstands(t *testing.T) {
	text, err := Text(input())
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(conf, append(text, "Host *\n    User fallback\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, mesh := range map[string]bool{
		"web.lab.internal": true, "anything.lab.internal": true, "WEB.lab.internal": true, "web": true, "100.64.0.7": true, "fd7a::7": true, "100.64.0.8": true,
		"router": false, "example.com": false, "web.other.internal": false, "lab.internal": false, "localhost": false, "evil": false, "webx": false,
		"$(id).lab.internal": false, "`id`.lab.internal": false, "a;id.lab.internal": false, "a|id.lab.internal": false, "a&b.lab.internal": false,
		"a'b.lab.internal": false, "a b.lab.internal": false, "a>b.lab.internal": false, "a#b.lab.internal": false, "a(b.lab.internal": false,
	} {
		got := ask(t, conf, name)
		if strings.HasPrefix(got["proxycommand"], "/usr/local/bin/tssh proxy") != mesh {
			t.Errorf("%q: proxycommand %q, want mesh %v", name, got["proxycommand"], mesh)
		}
		if mesh && (got["stricthostkeychecking"] != "true" || got["userknownhostsfile"] != "none" || got["globalknownhostsfile"] != "none" || got["updatehostkeys"] != "false" ||
			got["knownhostscommand"] != "/usr/local/bin/tssh config --known-hosts %H") {
			t.Errorf("%q: %v", name, got)
		}
		if got["user"] != "fallback" {
			t.Errorf("%q: settings after ours do not count", name)
		}
	}
}

// The name that a shell would act on reaches no shell.
func TestNoShellSeesAHostileName(t *testing.T) {
	in := input()
	in.Tssh = "/bin/echo"
	text, err := Text(in)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	conf, mark := filepath.Join(dir, "conf"), filepath.Join(dir, "mark")
	os.WriteFile(conf, text, 0o600)
	for _, evil := range []string{"$(touch${IFS}" + mark + ").lab.internal", "`touch\t" + mark + "`.lab.internal", "a;touch\t" + mark + ";b.lab.internal"} {
		exec.Command("ssh", "-F", conf, "-o", "ConnectTimeout=1", "-o", "BatchMode=yes", "--", evil, "true").Run()
		if _, err := os.Stat(mark); err == nil {
			t.Fatalf("%q was run by a shell", evil)
		}
	}
}

func TestOptions(t *testing.T) {
	opts, err := Options("/opt/my tools/tssh", "/run/x.sock")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ssh", append(append([]string{"-F", "none"}, opts...), "-G", "web")...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `proxycommand "/opt/my tools/tssh" --socket /run/x.sock proxy %h %p`) || !strings.Contains(string(out), "stricthostkeychecking true") {
		t.Fatalf("%v %s", err, out)
	}
	for _, bad := range []string{"relative", "/a\nb", "/a\"b", "/a$b", "/a`b", "/a%b", "/a'b", ""} {
		if _, err := Options(bad, ""); err == nil {
			t.Errorf("path %q was taken", bad)
		}
	}
	if _, err := Text(Input{Mesh: "lab\n", Tssh: "/x"}); err == nil {
		t.Error("mesh name with a line end was taken")
	}
}

func TestInstallAndUninstall(t *testing.T) {
	const mine = "# my own\nHost db router\n    User me\nHost *.corp\n    Port 2222"
	home := t.TempDir()
	dir := filepath.Join(home, ".ssh")
	os.Mkdir(dir, 0o700)
	// A link into a folder of dotfiles, with a mode of its own.
	dot := filepath.Join(home, "dotfiles")
	os.Mkdir(dot, 0o700)
	target := filepath.Join(dot, "sshconfig")
	os.WriteFile(target, []byte(mine), 0o640)
	path := filepath.Join(dir, "config")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	text, err := Text(input())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} { // the second time nothing changes
		if changed, err := Install(dir, text); err != nil || changed != want {
			t.Fatalf("install %d: %v %v", i, changed, err)
		}
	}
	got, _ := os.ReadFile(target)
	if !strings.HasSuffix(string(got), mine) || strings.Count(string(got), "Include") != 1 {
		t.Fatalf("config is now:\n%s", got)
	}
	if fi, _ := os.Lstat(path); fi.Mode()&os.ModeSymlink == 0 {
		t.Error("the link is gone")
	}
	if fi, _ := os.Stat(target); fi.Mode().Perm() != 0o640 {
		t.Errorf("mode %o", fi.Mode().Perm())
	}
	if g := ask(t, path, "web.lab.internal"); !strings.Contains(g["proxycommand"], "tssh proxy") {
		t.Errorf("not included: %v", g["proxycommand"])
	}
	if g := ask(t, path, "x.corp"); g["port"] != "2222" || g["proxycommand"] != "" {
		t.Errorf("own settings are lost: %v", g)
	}
	if changed, err := Uninstall(dir); err != nil || !changed {
		t.Fatal(changed, err)
	}
	if got, _ = os.ReadFile(target); string(got) != mine {
		t.Fatalf("after uninstall:\n%q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
		t.Error("tssh.conf is still there")
	}
	if changed, err := Uninstall(dir); err != nil || changed {
		t.Fatal(changed, err)
	}
}

func TestInstallFromNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), ".ssh")
	if _, err := Install(dir, []byte("Match all\n")); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "config")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatal(fi, err)
	}
	if _, err := Uninstall(dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBrokenMarkersAreNotTouched(t *testing.T) {
	for _, text := range []string{begin + "x\n", end + begin, begin + begin + end, "x " + begin + end} {
		dir := t.TempDir()
		path := filepath.Join(dir, "config")
		os.WriteFile(path, []byte(text), 0o600)
		if _, err := Install(dir, []byte("Match all\n")); err == nil {
			t.Errorf("%q was changed", text)
		}
		if got, _ := os.ReadFile(path); string(got) != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestHostNames(t *testing.T) {
	got := HostNames([]byte(begin + "Host hidden\n" + end + "Host a \"B\" *.x !c\n host=d\nHostName e\nMatch host f\n"))
	if len(got) != 3 || !got["a"] || !got["b"] || !got["d"] {
		t.Errorf("%v", got)
	}
}

func key(t testing.TB) string {
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := gossh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(gossh.MarshalAuthorizedKey(k)))
}

func TestKnownHosts(t *testing.T) {
	k := key(t)
	for asked, ok := range map[string]bool{"web": true, "[web]:2222": true, "web.lab.internal": true, "100.64.0.1": true, "fd7a::1": true, "WEB": true,
		"": false, "a b": false, "*": false, "web,*": false, "|1|x": false, "@cert-authority": false, "a\n* ": false, "[web": false, "!x": false} {
		out, err := KnownHosts(asked, []string{"junk", k + " comment\n* evil", "\n"})
		if (err == nil) != ok {
			t.Errorf("%q: %v", asked, err)
		}
		if ok && string(out) != asked+" "+k+"\n" {
			t.Errorf("%q: %q", asked, out)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("lab", "web", "/usr/bin/tssh", "/run/s")
	f.Add("lab", "a\nHost *", "/x y", "")
	f.Fuzz(func(t *testing.T, mesh, host, tssh, socket string) {
		text, err := Text(Input{Mesh: mesh, Hosts: []Host{{Name: host}}, Tssh: tssh, Socket: socket})
		if err != nil {
			return
		}
		want := []string{"# ", "Host ", "    ProxyCommand ", "    KnownHostsCommand ", "    StrictHostKeyChecking yes", "    UserKnownHostsFile none", "    GlobalKnownHostsFile none",
			"    UpdateHostKeys no", "    VerifyHostKeyDNS no", "    CheckHostIP no", "    CanonicalizeHostname no", "Match all"}
		lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		if len(lines) != len(want) {
			t.Fatalf("%d lines:\n%s", len(lines), text)
		}
		for i, l := range lines {
			if !strings.HasPrefix(l, want[i]) || strings.ContainsAny(l, "\r\x00") {
				t.Fatalf("line %d is %q", i, l)
			}
		}
	})
}

func FuzzKnownHosts(f *testing.F) {
	k := key(f)
	f.Add("web", k)
	f.Add("[web]:22", "* "+k)
	f.Fuzz(func(t *testing.T, asked, line string) {
		out, err := KnownHosts(asked, []string{line, k})
		if err != nil {
			return
		}
		for l := range strings.Lines(string(out)) {
			fields := strings.Split(strings.TrimSuffix(l, "\n"), " ")
			if len(fields) != 3 || fields[0] != asked || strings.ContainsAny(asked, "*?,!|@# \t\r\n") {
				t.Fatalf("line %q for %q", l, asked)
			}
		}
	})
}
