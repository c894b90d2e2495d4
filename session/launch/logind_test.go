package launch

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// fakeLogind stands in for systemd-logind, which cannot run here: name, path and call on a
// bus of the test's own, with the same D-Bus signature. What logind does then is not tested.
type fakeLogind struct {
	asked   string
	runtime string
	uid     uint32
	fifo    *os.File
	fail    bool
}

func (f *fakeLogind) CreateSession(uid, pid uint32, service, kind, class, desktop, seat string, vtnr uint32, tty, display string, remote bool, user, host string, props []logindProperty) (string, dbus.ObjectPath, string, dbus.UnixFD, uint32, string, uint32, bool, *dbus.Error) {
	f.asked = fmt.Sprint(uid, pid, service, kind, class, desktop, seat, vtnr, tty, display, remote, user, host, len(props))
	if f.fail {
		return "", "/", "", 0, 0, "", 0, false, dbus.NewError("org.freedesktop.login1.SessionBusy", []any{"Already running in a session"})
	}
	return "c7", "/org/freedesktop/login1/session/c7", f.runtime, dbus.UnixFD(f.fifo.Fd()), f.uid, "", 0, false, nil
}

func TestLogind(t *testing.T) {
	dir := t.TempDir()
	sock := filepath.Join(dir, "bus-of-the-test")
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--address=unix:path="+sock)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (Debian: apt-get install dbus-daemon)", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	dial := func() (*dbus.Conn, error) { return dbus.Connect("unix:path=" + sock) }
	var server *dbus.Conn
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var err error
		if server, err = dial(); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer server.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	me := uint32(os.Getuid())
	f := &fakeLogind{runtime: dir, uid: me, fifo: w}
	if err := server.Export(f, logindPath, logindName+".Manager"); err != nil {
		t.Fatal(err)
	}
	if reply, err := server.RequestName(logindName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	bus, err := net.Listen("unix", filepath.Join(dir, "bus"))
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	l := &Logind{Dial: dial}
	ask := LogindSession{UID: me, PID: 77, Service: "tsshd", RemoteUser: "alice@example.com", RemoteHost: "100.64.0.2"}
	o, err := l.Open(context.Background(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprint(me, 77, "tsshd", "tty", "user", "", "", 0, "", "", true, "alice@example.com", "100.64.0.2", 0); f.asked != want {
		t.Errorf("asked %q, not %q", f.asked, want)
	}
	if want := []string{"XDG_SESSION_ID=c7", "XDG_SESSION_TYPE=tty", "XDG_SESSION_CLASS=user", "XDG_RUNTIME_DIR=" + dir, "DBUS_SESSION_BUS_ADDRESS=unix:path=" + dir + "/bus"}; !slices.Equal(o.Env, want) {
		t.Errorf("environment %v, not %v", o.Env, want)
	}
	if _, err := o.Fifo.WriteString("x"); err != nil { // it is the other end of what logind holds
		t.Errorf("fifo: %v", err)
	}
	o.Fifo.Close()
	f.runtime = "/proc" // somebody else's
	if me != 0 {
		f.runtime = "/root"
	} else if err := os.Chown(dir, 65534, 65534); err == nil {
		f.runtime = dir
	}
	if o, err = l.Open(context.Background(), ask); err != nil || strings.Contains(strings.Join(o.Env, " "), "XDG_RUNTIME_DIR") {
		t.Errorf("another's folder: %v %v", o.Env, err)
	}
	f.uid = me + 1
	if _, err := l.Open(context.Background(), ask); err == nil {
		t.Error("a session of somebody else's was taken")
	}
	f.fail = true
	if _, err := l.Open(context.Background(), ask); err == nil || !strings.Contains(err.Error(), "Already running") {
		t.Errorf("refused: %v", err)
	}
}
