package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Become makes the whole process the account's, for good, and proves it. After an error
// the process is in between and must end. A process that already is the account and may
// not change (no root) keeps its ids; they are proven all the same, but for groups,
// which then are what the process was started with.
func Become(acc Account) error {
	if os.Getuid() != 0 {
		if uint32(os.Getuid()) != acc.UID || uint32(os.Geteuid()) != acc.UID {
			return fmt.Errorf("launch: running as uid %d, cannot become %s", os.Getuid(), acc.Name)
		}
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			return fmt.Errorf("launch: dumpable: %w", err)
		}
		groups, err := os.Getgroups()
		if err != nil {
			return fmt.Errorf("launch: groups: %w", err)
		}
		acc.GID, acc.Groups = uint32(os.Getgid()), nil
		for _, g := range groups {
			acc.Groups = append(acc.Groups, uint32(g))
		}
		return prove(acc)
	}
	groups := make([]int, len(acc.Groups))
	for i, g := range acc.Groups {
		groups[i] = int(g)
	}
	// Groups first: without root they could not be set any more. Each of the three acts
	// on every thread, and is done whatever the ids are now (the effective gid alone
	// being right once left other programs with root's group).
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("launch: groups of %s: %w", acc.Name, err)
	}
	gid, uid := int(acc.GID), int(acc.UID)
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("launch: gid of %s: %w", acc.Name, err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("launch: uid of %s: %w", acc.Name, err)
	}
	if uid != 0 {
		dropCapabilities()
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("launch: dumpable: %w", err)
	}
	if err := prove(acc); err != nil {
		return err
	}
	if uid != 0 {
		if syscall.Setresuid(0, 0, 0) == nil || syscall.Setresgid(0, 0, 0) == nil && gid != 0 || syscall.Setgroups([]int{0}) == nil {
			return fmt.Errorf("launch: %s could become root again", acc.Name)
		}
	}
	return nil
}

// dropCapabilities empties the inheritable and ambient sets of every thread; leaving uid
// 0 emptied the others. Errors are not looked at here: prove reads what came of it.
func dropCapabilities() {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0)
	syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&none[0])), 0)
	runtime.KeepAlive(&hdr)
	runtime.KeepAlive(&none)
}

// prove reads the ids, groups and capabilities of every thread from the kernel.
func prove(acc Account) error {
	tasks, err := filepath.Glob("/proc/self/task/[0-9]*/status")
	if err != nil || len(tasks) == 0 {
		return fmt.Errorf("launch: /proc does not show this process's threads: %w", errOr(err, os.ErrNotExist))
	}
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			if _, gone := os.Stat(t); os.IsNotExist(gone) {
				continue // a thread that ended
			}
			return fmt.Errorf("launch: %w", err)
		}
		if err := proveTask(string(b), acc); err != nil {
			return fmt.Errorf("launch: %s: %w", t, err)
		}
	}
	return nil
}

func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// proveTask reads one status file as in proc_pid_status(5).
func proveTask(status string, acc Account) error {
	want := func(id uint32) string { s := strconv.Itoa(int(id)); return strings.Join([]string{s, s, s, s}, " ") }
	groups := slices.Clone(acc.Groups)
	slices.Sort(groups)
	seen := 0
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		got := strings.Join(strings.Fields(value), " ")
		expect := ""
		switch key {
		case "Uid":
			expect = want(acc.UID)
		case "Gid":
			expect = want(acc.GID)
		case "Groups":
			var have []uint32
			for _, f := range strings.Fields(value) {
				n, err := parseID(f)
				if err != nil {
					return err
				}
				have = append(have, n)
			}
			slices.Sort(have)
			if !slices.Equal(have, groups) {
				return fmt.Errorf("groups are %v, not %v", have, groups)
			}
			seen++
			continue
		case "CapInh", "CapPrm", "CapEff", "CapAmb":
			if acc.UID == 0 {
				seen++
				continue
			}
			expect = "0000000000000000"
		default:
			continue
		}
		if got != expect {
			return fmt.Errorf("%s is %q, not %q", key, got, expect)
		}
		seen++
	}
	if seen != 7 {
		return fmt.Errorf("the kernel told %d of 7 things", seen)
	}
	return nil
}
