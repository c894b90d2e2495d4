package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSELinux is on a tree with the files of a Fedora host's targeted policy.
func TestSELinux(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"sys/fs/selinux/enforce":                         "1",
		"etc/selinux/config":                             "# how\nSELINUX=enforcing\nSELINUXTYPE=targeted\n",
		"etc/selinux/targeted/seusers":                   "root:unconfined_u:s0-s0:c0.c1023\n__default__:unconfined_u:s0-s0:c0.c1023\n%interns:user_u:s0\ncarol:staff_u:s0\n",
		"etc/selinux/targeted/contexts/users/staff_u":    "system_r:sshd_t:s0\t\tstaff_r:staff_t:s0 sysadm_r:sysadm_t:s0\n",
		"etc/selinux/targeted/contexts/default_contexts": "system_r:crond_t:s0\tsystem_r:system_cronjob_t:s0\nsystem_r:sshd_t:s0\tuser_r:user_t:s0 staff_r:staff_t:s0 unconfined_r:unconfined_t:s0\n",
	} {
		f := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// The kernel knows which role each SELinux user may have.
	roles := map[string]string{"unconfined_u": "unconfined_r", "user_u": "user_r", "staff_u": "staff_r"}
	valid := func(c string) bool { f := strings.Split(c, ":"); return len(f) > 3 && roles[f[0]] == f[1] }
	for _, c := range []struct {
		own, account string
		groups       []string
		want         string
	}{
		{"system_u:system_r:sshd_t:s0-s0:c0.c1023", "alice", nil, "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023"},
		{"system_u:system_r:unconfined_service_t:s0", "alice", nil, "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023"},
		{"system_u:system_r:sshd_t:s0", "bob", []string{"interns"}, "user_u:user_r:user_t:s0"},
		{"system_u:system_r:sshd_t:s0", "carol", []string{"interns"}, "staff_u:staff_r:staff_t:s0"},
		{"none", "alice", nil, ""},
	} {
		s := SELinux{Root: root, Own: c.own, Valid: valid}
		got, err := s.Context(c.account, c.groups)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s from %s: %q %v", c.account, c.own, got, err)
		}
	}
	if s := (SELinux{Root: root, Own: "system_u:system_r:unconfined_service_t:s0", Valid: func(string) bool { return false }}); s.Confined() || !s.Enforcing() {
		t.Error("an unconfined service on an enforcing host")
	} else if _, err := s.Context("alice", nil); err == nil {
		t.Error("a context the kernel does not know")
	}
	if (SELinux{Root: t.TempDir()}).Enforcing() {
		t.Error("enforcing without SELinux")
	}
}
