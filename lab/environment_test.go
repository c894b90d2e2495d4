package lab

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// aroundMe prints KEY=VALUE lines about the process it runs in, for bash and for sh.
const aroundMe = `
for k in Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp SigBlk SigIgn; do
	echo "status.$k=$(grep "^$k:" /proc/self/status | tr -s '\t ' ' ')"
done
while read -r line; do echo "limit.$(echo "$line" | cut -c1-25 | tr -d ' ')=$(echo "$line" | cut -c26- | tr -s ' ')"; done </proc/self/limits
for f in 0 1 2; do
	case $(readlink /proc/$$/fd/$f) in pipe:*) k=pipe;; socket:*) k=socket;; /dev/pts/*) k=terminal;; *) k=$(readlink /proc/$$/fd/$f);; esac
	echo "fd.$f=$k"
done
echo "fd.others=$(ls /proc/$$/fd | grep -vx -e 0 -e 1 -e 2 -e 255 | wc -l)"
echo "umask=$(umask)"
echo "cwd=$PWD"
echo "oom_score_adj=$(cat /proc/self/oom_score_adj)"
echo "nice=$(cut -d' ' -f19 /proc/self/stat)"
echo "policy=$(cut -d' ' -f41 /proc/self/stat)"
echo "coredump_filter=$(cat /proc/self/coredump_filter)"
echo "timerslack=$(cat /proc/self/timerslack_ns 2>/dev/null)"
echo "personality=$(cat /proc/self/personality 2>/dev/null)"
echo "loginuid=$(cat /proc/self/loginuid 2>/dev/null)"
echo "parent is hidden=$(readlink /proc/$PPID/exe >/dev/null 2>&1 && echo no || echo yes)"
set -- $(cat /proc/$$/stat)
[ "$1" = "$6" ] && echo 'session leader=yes' || echo 'session leader=no'
[ "$1" = "$5" ] && echo 'group leader=yes' || echo 'group leader=no'
for n in cgroup ipc mnt net pid time user uts; do echo "ns.$n=$(readlink /proc/self/ns/$n)"; done
echo "argv0=$0"
env | while IFS='=' read -r k v; do echo "env.$k=$v"; done
`

// wanted are the differences between a login through tsshd and one through this machine's
// own sshd without PAM, with the reason for each. One that is not here, and one here that
// is not seen, fails the test.
var wanted = map[string]string{
	"env.PATH":           "login.defs(5) says what it is, as login(1) and PAM do; sshd has its own",
	"env.TSSH_USER":      "who the mesh proved",
	"env.TSSH_NODE":      "and from which node",
	"env.TSSH_SESSION":   "the recording",
	"env.SSH_CLIENT":     "addresses of the mesh",
	"env.SSH_CONNECTION": "addresses of the mesh",
	"loginuid":           "the audit id is the user's, as pam_loginuid sets it; sshd without PAM has none",
}

// facts runs the probe through a login and returns what it printed.
func facts(t *testing.T, r Result) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(strings.ReplaceAll(r.Stdout, "\r", "")) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			out[k] = v
		}
	}
	if r.Status != 0 || len(out) < 50 {
		t.Fatalf("%d facts: %v", len(out), r)
	}
	return out
}

// unreserved is a line SigIgn without the signals 32 to 34, which belong to the C library:
// who starts the tests may ignore them (make does), and sshd hands that on.
func unreserved(t *testing.T, line string) string {
	t.Helper()
	name, mask, _ := strings.Cut(line, ": ")
	n, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return fmt.Sprintf("%s: %016x", name, n&^(7<<31))
}

// TestEnvironmentAsThroughSSHD compares what a program finds around it when it was started
// through tsshd and through the host's own sshd: the same but for what is wanted.
func TestEnvironmentAsThroughSSHD(t *testing.T) {
	m := theMesh(t)
	m.logsIn(t)
	key := m.laptop.Host.Path("own-id")
	if err := run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key); err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	home := m.web.Host.Home("deploy")
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{".ssh/authorized_keys": string(pub), "probe": aroundMe} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{".ssh", ".ssh/authorized_keys", "probe"} {
		if err := os.Chown(filepath.Join(home, f), deployUID, deployUID); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for _, mode := range []struct{ name, flag, command string }{{"exec", "-T", ". ./probe"}, {"terminal", "-tt", ". ./probe"}} {
		ours := facts(t, m.stock("ssh", mode.flag, "deploy@"+m.webAddr, mode.command))
		theirs := facts(t, m.stock("ssh", mode.flag, "-i", key, "deploy@"+m.web.Host.Addr.String(), mode.command))
		keys := slices.Sorted(maps.Keys(ours))
		for k := range theirs {
			if _, ok := ours[k]; !ok {
				keys = append(keys, k)
			}
		}
		for _, k := range keys {
			a, inOurs := ours[k]
			b, inTheirs := theirs[k]
			if k == "status.SigIgn" {
				a, b = unreserved(t, a), unreserved(t, b)
			}
			if a == b && inOurs == inTheirs {
				continue
			}
			reason, ok := wanted[k]
			if k == "env.SSH_TTY" && strings.HasPrefix(a, "/dev/pts/") && strings.HasPrefix(b, "/dev/pts/") {
				continue // another terminal
			}
			if !ok {
				t.Errorf("%s: %s is %q, through sshd %q", mode.name, k, a, b)
				continue
			}
			seen[k] = true
			t.Logf("%s: %s is %q, through sshd %q: %s", mode.name, k, a, b, reason)
		}
	}
	for k := range wanted {
		if !seen[k] {
			t.Errorf("%s is said to differ and does not", k)
		}
	}
}
