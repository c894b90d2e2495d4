package launch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

const (
	logindName = "org.freedesktop.login1"
	logindPath = "/org/freedesktop/login1"
	// logindTime bounds a login's wait for it: a session of its own is worth that much.
	logindTime = 3 * time.Second
)

// Logind opens sessions at systemd-logind, which gives each a scope of its own, XDG_RUNTIME_DIR
// and the person's service manager. Root's.
type Logind struct {
	Dial func() (*dbus.Conn, error) // nil: the system bus
}

// Systemd reports whether the host runs on it, as sd_booted(3) does.
func Systemd() bool {
	st, err := os.Lstat("/run/systemd/system")
	return err == nil && st.IsDir()
}

// LogindSession is what is asked for: the process PID leads the session.
type LogindSession struct {
	UID                             uint32
	PID                             int
	Service, RemoteUser, RemoteHost string
}

// LogindOpen is an open session. It ends when the last copy of Fifo is closed, or its
// processes are gone.
type LogindOpen struct {
	ID   string
	Env  []string // NAME=value, as pam_systemd(8) sets them
	Fifo *os.File
}

// logindProperty is one of the a(sv) of CreateSession; none is used.
type logindProperty struct {
	Name  string
	Value dbus.Variant
}

// Open asks for a session.
func (l *Logind) Open(ctx context.Context, s LogindSession) (LogindOpen, error) {
	ctx, cancel := context.WithTimeout(ctx, logindTime)
	defer cancel()
	dial := l.Dial
	if dial == nil {
		dial = func() (*dbus.Conn, error) { return dbus.ConnectSystemBus() }
	}
	conn, err := dial()
	if err != nil {
		return LogindOpen{}, fmt.Errorf("launch: system bus: %w", err)
	}
	defer conn.Close()
	// CreateSession(uid, pid, service, type, class, desktop, seat, vtnr, tty, display, remote,
	// remote user, remote host, properties). What comes by SSH has no seat and, as other
	// servers say it, no terminal: it may get several.
	var (
		o       LogindOpen
		path    dbus.ObjectPath
		runtime string
		fifo    dbus.UnixFD
		uid     uint32
		seat    string
		vtnr    uint32
		existed bool
	)
	call := conn.Object(logindName, logindPath).CallWithContext(ctx, logindName+".Manager.CreateSession", 0,
		s.UID, uint32(s.PID), s.Service, "tty", "user", "", "", uint32(0), "", "", true, s.RemoteUser, s.RemoteHost, []logindProperty{})
	if err := call.Store(&o.ID, &path, &runtime, &fifo, &uid, &seat, &vtnr, &existed); err != nil {
		return LogindOpen{}, fmt.Errorf("launch: logind: %w", err)
	}
	unix.CloseOnExec(int(fifo))
	o.Fifo = os.NewFile(uintptr(fifo), "logind")
	if uid != s.UID {
		o.Fifo.Close()
		return LogindOpen{}, fmt.Errorf("launch: logind opened a session of uid %d for uid %d", uid, s.UID)
	}
	o.Env = []string{"XDG_SESSION_ID=" + o.ID, "XDG_SESSION_TYPE=tty", "XDG_SESSION_CLASS=user"}
	if ownDirectory(runtime, s.UID) {
		o.Env = append(o.Env, "XDG_RUNTIME_DIR="+runtime)
		if st, err := os.Lstat(filepath.Join(runtime, "bus")); err == nil && st.Mode()&os.ModeSocket != 0 {
			o.Env = append(o.Env, "DBUS_SESSION_BUS_ADDRESS=unix:path="+filepath.Join(runtime, "bus"))
		}
	}
	return o, nil
}

// ownDirectory reports whether a folder is the user's: another's must not become the place
// for the user's sockets.
func ownDirectory(name string, uid uint32) bool {
	var st unix.Stat_t
	return filepath.IsAbs(name) && unix.Lstat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Uid == uid
}
