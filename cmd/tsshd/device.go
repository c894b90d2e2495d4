//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tssh/netnode"
	"tssh/netnode/names"
	"tssh/netnode/netmap"
	"tssh/sshd"
)

// What outlives a daemon with a kernel TUN is the device and, in the run directory that is
// named after it, the SSH namespace and its sessions. Three things keep daemons out of each
// other's way: the lock in that directory, held as long as the daemon runs; the file "node" in
// it, which says whose sessions are there; and the file "device.json" in the state folder, which
// says what device this node made, so that it can take that one away when the name changed.

// device is device.json.
type device struct {
	Format string `json:"format"`
	TUN    string `json:"tun"`
	RunDir string `json:"run_dir"`
	Index  int    `json:"index"`
	NetNS  string `json:"netns"`
	Boot   string `json:"boot"` // numbers of links and namespaces mean nothing after the next one
}

const (
	deviceFile   = "device.json"
	deviceFormat = "tsshd-device-1"
	nodeFile     = "node"
	lockFile     = "lock"
)

// lock keeps a second daemon out of a folder: the state folder, or the run directory of a
// device. what is what is in it. The lock on a state folder is on the folder itself, so that it
// leaves no file.
func lock(dir, what, hint string) (func(), error) {
	d, err := os.Open(dir)
	return lockOpen(d, err, dir, what, hint)
}

// lockRun locks the run directory of a device. Everybody may open that, and whoever has opened
// something can lock it: the lock is on a file that is root's alone.
func lockRun(dir, tun, hint string) (func(), error) {
	d, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	return lockOpen(d, err, dir, "device "+tun+", run directory", hint)
}

func lockOpen(d *os.File, err error, dir, what, hint string) (func(), error) {
	if err != nil {
		return nil, fail("the %s cannot be opened", what).because(err)
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer d.Close()
		return nil, fail("another tsshd%s uses the %s %s", holder(d), what, dir).hint(hint)
	}
	return func() { d.Close() }, nil
}

func lockState(dir string) (func(), error) {
	return lock(dir, "state folder", "stop it first, or give this one its own --state")
}

// holder names the process that has the lock on d, as the kernel lists it.
func holder(d *os.File) string {
	var st unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Fstat(int(d.Fd()), &st) != nil {
		return ""
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(locks)) { // 1: FLOCK  ADVISORY  WRITE 1234 00:1a:567 0 EOF
		if f := strings.Fields(line); len(f) == 8 && f[1] == "FLOCK" && f[5] == file {
			if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 { // 0 and less: of another PID namespace
				return fmt.Sprintf(" (process %d)", pid)
			}
		}
	}
	return ""
}

// lockDevice takes the run directory of a device, which another network namespace can share
// with us, and refuses one with sessions of another node: a start would end them.
func lockDevice(f runFlags) (func(), error) {
	const hint = "stop it first, or give this one its own --tun; in other network namespaces too"
	if err := os.MkdirAll(f.runDir, 0o755); err != nil {
		return nil, fail("no run directory").because(err)
	}
	unlock, err := lockRun(f.runDir, f.tun, hint)
	if err != nil {
		return nil, err
	}
	n := sshd.Left(filepath.Join(f.runDir, "sshd"))
	whose, err := os.ReadFile(filepath.Join(f.runDir, nodeFile))
	if err == nil && n > 0 && string(bytes.TrimSpace(whose)) != nodeOf(f.state) {
		unlock()
		return nil, fail("%s still open under the device %s, of another node than that of %s", count(n, "session is", "sessions are"), f.tun, f.state).
			hint("give this one its own --tun; or end them: tsshd uninstall --tun " + f.tun + " --state (that node's)")
	}
	return unlock, nil
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// nodeOf is whose the state folder is, empty before it joined.
func nodeOf(state string) string {
	st, err := netmap.LoadState(state)
	if err != nil {
		return ""
	}
	return st.MeshID + "/" + st.NodeID
}

// here is this boot and network namespace.
func here() (netns, boot string) {
	netns, _ = os.Readlink("/proc/self/ns/net")
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return netns, strings.TrimSpace(string(b))
}

func (d device) there() bool {
	link, err := net.InterfaceByName(d.TUN)
	netns, boot := here()
	return err == nil && link.Index == d.Index && d.NetNS == netns && d.Boot == boot && netns != "" && boot != ""
}

func readDevice(state string) (d device) {
	b, err := os.ReadFile(filepath.Join(state, deviceFile))
	if err != nil || json.Unmarshal(b, &d) != nil || d.Format != deviceFormat {
		return device{}
	}
	return d
}

// makes reports whether the device of f will be this node's own: there is none yet, or it made
// the one that is there.
func makes(f runFlags) bool {
	if _, err := net.InterfaceByName(f.tun); err != nil {
		return true
	}
	d := readDevice(f.state)
	return d.TUN == f.tun && d.there()
}

// remember keeps whose the run directory is, and which device the node made.
func (f runFlags) remember(own bool) error {
	if err := replace(filepath.Join(f.runDir, nodeFile), []byte(nodeOf(f.state)+"\n")); err != nil || !own {
		return err
	}
	link, err := net.InterfaceByName(f.tun)
	if err != nil {
		return err
	}
	d := device{Format: deviceFormat, TUN: f.tun, RunDir: f.runDir, Index: link.Index}
	d.NetNS, d.Boot = here()
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return replace(filepath.Join(f.state, deviceFile), append(b, '\n'))
}

func replace(name string, b []byte) error {
	if err := os.WriteFile(name+".tmp", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

// leaveFormer takes away the device that this node made under another name: it has the node's
// addresses, and the node would not be reached. Sessions that were open under it end; their
// packets came through that device. One that is not surely the node's own stays.
func (h *host) leaveFormer() error {
	f := h.flags
	d := readDevice(f.state)
	if d.TUN == "" || d.TUN == f.tun {
		return nil
	}
	if !d.there() {
		return remove(filepath.Join(f.state, deviceFile))
	}
	unlock, err := lockRun(d.RunDir, d.TUN, "")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.log.Warn("the device of the former --tun name stays, and has this node's addresses", "tun", d.TUN, "err", err)
		return nil
	}
	if err == nil {
		defer unlock()
		if whose, err := os.ReadFile(filepath.Join(d.RunDir, nodeFile)); err != nil || string(bytes.TrimSpace(whose)) != nodeOf(f.state) {
			h.log.Warn("the device of the former --tun name stays: another node has it now", "tun", d.TUN)
			return nil
		}
	}
	ended := sshd.EndLeft(filepath.Join(d.RunDir, "sshd"))
	err = names.NewFile("/etc/hosts", d.TUN).Remove()
	// The last daemon's end and this start can be one moment apart.
	deadline := time.Now().Add(grace)
	gone := netnode.Uninstall(d.TUN, d.RunDir)
	for ; gone != nil && time.Now().Before(deadline); gone = netnode.Uninstall(d.TUN, d.RunDir) {
		time.Sleep(100 * time.Millisecond)
	}
	if gone != nil {
		h.log.Warn("the device of the former --tun name stays, and has this node's addresses", "tun", d.TUN, "err", gone)
		return nil
	}
	h.log.Warn("the --tun name changed: the device of the former name is gone, and the sessions under it ended", "former", d.TUN, "now", f.tun, "sessions", ended)
	return errors.Join(err, os.RemoveAll(d.RunDir), remove(filepath.Join(f.state, deviceFile)))
}
