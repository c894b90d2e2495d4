package launch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Databases are the login records of newer systems, wtmpdb(8) and lastlog2(8): SQLite files,
// which only their own programs write. Those read records of the old formats
// ("import"), and so get one in a file without a name; no word of anybody's is among their
// arguments. Root's. A database that is not there is not made.
//
// wtmpdb takes a login and its end together or cannot tell which belong together, so last(1)
// shows a session from its end on; while it lasts, who(1) and w(1) do. lastlog2 goes over
// the accounts that the host's name service lists: where a directory lists none, its people
// have no entry.
type Databases struct {
	Wtmp, Last         string // the files
	WtmpTool, LastTool string // the programs

	busy atomic.Int32 // programs running or about to

	mu    sync.Mutex
	seen  os.FileInfo // Last as it was when table was made
	table map[string]string
}

// SystemDatabases are where the systems that have them have them.
func SystemDatabases() *Databases {
	return &Databases{Wtmp: "/var/lib/wtmpdb/wtmp.db", Last: "/var/lib/lastlog/lastlog2.db", WtmpTool: "/usr/bin/wtmpdb", LastTool: "/usr/bin/lastlog2"}
}

const (
	databaseTime = 5 * time.Second // a database can be locked by whoever reads it
	lastTime     = time.Second     // and a login waits that long for words about the last one
	maxDatabases = 32              // programs at once
	maxLastTable = 4 << 20
)

var errDatabasesBusy = errors.New("launch: too many login records are being written")

func there(name string) os.FileInfo {
	if name == "" {
		return nil
	}
	st, err := os.Stat(name)
	if err != nil || !st.Mode().IsRegular() {
		return nil
	}
	return st
}

// Opened records when the account was last used. It can take some seconds.
func (d *Databases) Opened(ctx context.Context, l Login, now time.Time) error {
	if there(d.Last) == nil || l.UID > maxLastlogUID {
		return nil
	}
	err := d.feed(ctx, d.LastTool, []string{"--database", d.Last, "--import"}, lastlogBytes(l, now), int64(l.UID)*lastlogSize)
	if err == nil {
		d.refresh(ctx) // so that nobody's login has to
	}
	return err
}

// Closed records a terminal that is no longer in use. It can take some seconds.
func (d *Databases) Closed(ctx context.Context, l Login, since, now time.Time) error {
	if there(d.Wtmp) == nil {
		return nil
	}
	if l.PID == 0 {
		l.PID = 1 // the two are told to belong together by it, or by the line
	}
	return d.feed(ctx, d.WtmpTool, []string{"import", "--file", d.Wtmp}, append(l.record(utmpUser, since), l.record(utmpDead, now)...), 0)
}

// feed runs a program whose last argument is a file with b at an offset.
func (d *Databases) feed(ctx context.Context, tool string, args []string, b []byte, off int64) error {
	if d.busy.Add(1) > maxDatabases {
		d.busy.Add(-1)
		return errDatabasesBusy
	}
	defer d.busy.Add(-1)
	fd, err := unix.MemfdCreate("login record", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("launch: login record: %w", err)
	}
	f := os.NewFile(uintptr(fd), "login record")
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		return fmt.Errorf("launch: login record: %w", err)
	}
	_, err = d.run(ctx, databaseTime, tool, append(slices.Clone(args), "/proc/self/fd/3"), f)
	return err
}

func (d *Databases) run(ctx context.Context, limit time.Duration, tool string, args []string, files ...*os.File) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, args...)
	var out, errw capped
	out.left, errw.left = maxLastTable, 256
	cmd.Env, cmd.Dir, cmd.ExtraFiles, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}, "/", files, &out, &errw, time.Second
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("launch: %s: %w: %q", tool, err, errw.b.String())
	}
	return out.b.Bytes(), nil
}

// capped keeps the beginning of what is written to it.
type capped struct {
	b    bytes.Buffer
	left int
}

func (c *capped) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	c.b.Write(p[:n])
	return len(p), nil
}

// LastOf says when and from where an account was last used on a terminal, as Logins.Last;
// false where that is not kept here.
func (d *Databases) LastOf(ctx context.Context, user string) (string, bool) {
	st := there(d.Last)
	if st == nil {
		return "", false
	}
	d.mu.Lock()
	known := d.seen != nil && os.SameFile(st, d.seen) && st.ModTime().Equal(d.seen.ModTime()) && st.Size() == d.seen.Size()
	d.mu.Unlock()
	if !known {
		d.refresh(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.table[user], true
}

// refresh reads the table anew. The entry of before stays when that fails.
func (d *Databases) refresh(ctx context.Context) {
	st := there(d.Last)
	if st == nil || d.busy.Add(1) > maxDatabases {
		d.busy.Add(-1)
		return
	}
	defer d.busy.Add(-1)
	out, err := d.run(ctx, lastTime, d.LastTool, []string{"--database", d.Last, "--active"})
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen, d.table = st, parseLast(string(out))
}

// parseLast reads what lastlog2 prints: account, line, host, and six words of a time. The
// line or the host may be missing; one word alone is taken for the line.
func parseLast(s string) map[string]string {
	const words = 6
	table := map[string]string{}
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 1+words {
			continue
		}
		at, err := time.Parse("Mon Jan 2 15:04:05 -0700 2006", strings.Join(f[len(f)-words:], " "))
		if err != nil {
			continue // the heading
		}
		host := ""
		if len(f) == 3+words {
			host = f[2]
		}
		table[f[0]] = lastWords(at, host)
	}
	return table
}

func lastlogBytes(l Login, now time.Time) []byte {
	r := lastlogRecord{Time: int32(now.Unix())}
	copy(r.Line[:], l.Line)
	copy(r.Host[:], l.Host)
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, r)
	return b.Bytes()
}

func lastWords(at time.Time, host string) string {
	words := at.Local().Format("Mon Jan _2 15:04:05 2006")
	if host != "" {
		words += " from " + host
	}
	return words
}
