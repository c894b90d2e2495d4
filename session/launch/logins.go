package launch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Logins writes utmp, wtmp and lastlog, for who(1), w(1), last(1) and lastlog(8). Root's.
type Logins struct {
	Utmp string // /run/utmp
	Wtmp string // /var/log/wtmp

	Lastlog string // /var/log/lastlog

	mu sync.Mutex // a record is found and written under it; other programs use file locks
}

// Login is one terminal in use.
type Login struct {
	User string
	UID  uint32
	Line string // "pts/3"
	Host string // of the peer, its node name
	Addr netip.Addr
	PID  int
}

// utmpRecord is utmp(5) on 64-bit Linux, 384 bytes.
type utmpRecord struct {
	Type    int16
	_       [2]byte
	PID     int32
	Line    [32]byte
	ID      [4]byte
	User    [32]byte
	Host    [256]byte
	Exit    [2]int16
	Session int32
	Sec     int32
	Usec    int32
	Addr    [16]byte
	_       [20]byte
}

const (
	utmpSize    = 384
	utmpUser    = 7 // USER_PROCESS
	utmpDead    = 8 // DEAD_PROCESS
	maxUtmpSize = 16 << 20
)

func (l Login) record(kind int16, now time.Time) []byte {
	r := utmpRecord{Type: kind, PID: int32(l.PID), Session: int32(l.PID), Sec: int32(now.Unix()), Usec: int32(now.Nanosecond() / 1000)}
	copy(r.Line[:], l.Line)
	id := strings.TrimPrefix(l.Line, "pts/")
	copy(r.ID[:], "ts/"[:max(0, min(3, 4-len(id)))]+id)
	if kind == utmpUser {
		copy(r.User[:], l.User)
		copy(r.Host[:], l.Host)
		if l.Addr.Is4() {
			copy(r.Addr[:], l.Addr.AsSlice())
		} else if l.Addr.IsValid() {
			b := l.Addr.As16()
			r.Addr = b
		}
	}
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, r)
	return b.Bytes()
}

// Open records that a terminal is in use.
func (w *Logins) Open(l Login, now time.Time) error {
	return errors.Join(w.write(l, utmpUser, now), w.setLast(l, now))
}

// Close records that it no longer is.
func (w *Logins) Close(l Login, now time.Time) error { return w.write(l, utmpDead, now) }

func (w *Logins) write(l Login, kind int16, now time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec := l.record(kind, now)
	if err := w.place(rec); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("launch: utmp: %w", err)
	}
	f, err := os.OpenFile(w.Wtmp, os.O_WRONLY|os.O_APPEND, 0)
	if os.IsNotExist(err) || w.Wtmp == "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("launch: wtmp: %w", err)
	}
	defer f.Close()
	if _, err := f.Write(rec); err != nil {
		return fmt.Errorf("launch: wtmp: %w", err)
	}
	return nil
}

// place writes the record over that of the same line, or over a dead one, or at the end.
func (w *Logins) place(rec []byte) error {
	f, err := os.OpenFile(w.Utmp, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// Anybody who can read the file can hold a lock on it for ever, so waiting is bounded.
	for try := 0; ; try++ {
		err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil {
			break
		}
		if try == 10 {
			return fmt.Errorf("%s is locked by another program: %w", w.Utmp, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() > maxUtmpSize {
		return fmt.Errorf("%s has %d bytes", w.Utmp, st.Size())
	}
	whole := st.Size() - st.Size()%utmpSize
	at, buf := whole, make([]byte, utmpSize)
	for off := int64(0); off < whole; off += utmpSize {
		if _, err := f.ReadAt(buf, off); err != nil {
			return err
		}
		if bytes.Equal(buf[8:40], rec[8:40]) { // line
			at = off
			break
		}
	}
	_, err = f.WriteAt(rec, at)
	return err
}
