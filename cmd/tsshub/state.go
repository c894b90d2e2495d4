package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"tssh/netnode/netmap"
)

const stateFormat = "tsshub-state/1"

// defaultState is the state folder when none is named.
func defaultState() string {
	if os.Geteuid() == 0 {
		return "/var/lib/tsshub"
	}
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "tsshub")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "tsshub-state"
	}
	return filepath.Join(home, ".local", "state", "tsshub")
}

// hubJSON is hub.json, the hub's identity. It is apart from the database, so that a
// copy of that gives nobody the key.
type hubJSON struct {
	Format  string `json:"format"`
	Control string `json:"control_private"`
	// Next is there while the key is being rotated. Which of the two counts, the database says.
	Next string `json:"next_private,omitempty"`
}

// stateDir is a hub's state folder, locked for this process.
type stateDir struct {
	path  string
	key   netmap.ControlKey
	next  netmap.ControlKey // see hubJSON
	first bool              // nothing was there before
	lock  *os.File          // the folder itself, with a lock on it
	made  []string          // what this start has made, in order, for undo
}

// inspect says whether a hub may use the folder, and locks it when it is there. It
// changes nothing.
func inspect(dir string) (*stateDir, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, errNotWritable(dir, err)
	}
	s := &stateDir{path: dir}
	st, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		s.first = true
		return s, nil
	}
	if err != nil {
		return nil, errNotWritable(dir, err)
	}
	if !st.IsDir() {
		return nil, errOtherKind(dir, "is a file")
	}
	if err := s.lockDir(); err != nil {
		return nil, err
	}
	if err := s.read(); err != nil {
		s.lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *stateDir) lockDir() error {
	f, err := os.Open(s.path)
	if err != nil {
		return errNotWritable(s.path, err)
	}
	// The lock is on the folder, not on a file in it: trying leaves no trace.
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return errSecond(s.path)
		}
		return errNotWritable(s.path, err)
	}
	s.lock = f
	return nil
}

func (s *stateDir) read() error {
	b, err := os.ReadFile(filepath.Join(s.path, netmap.HubFile))
	if errors.Is(err, fs.ErrNotExist) {
		entries, err := os.ReadDir(s.path)
		if err != nil {
			return errNotWritable(s.path, err)
		}
		for _, e := range entries {
			if e.Name() == "node.json" {
				return errOtherKind(s.path, "belongs to a node")
			}
		}
		if len(entries) > 0 {
			return errOtherKind(s.path, "has other files in it")
		}
		s.first = true
		return nil
	}
	if err != nil {
		return errNotWritable(s.path, err)
	}
	var j hubJSON
	if err := json.Unmarshal(b, &j); err != nil || j.Format != stateFormat {
		return errOtherKind(s.path, "has a "+netmap.HubFile+" that this program does not know")
	}
	if s.key, err = netmap.ParseControlKey(j.Control); err != nil {
		return errOtherKind(s.path, "has a "+netmap.HubFile+" without a key")
	}
	if j.Next != "" {
		if s.next, err = netmap.ParseControlKey(j.Next); err != nil {
			return errOtherKind(s.path, "has a "+netmap.HubFile+" with a next key that is none")
		}
	}
	return nil
}

// prepare makes the folder and the key on a first start.
func (s *stateDir) prepare() (err error) {
	if !s.first {
		return s.writable()
	}
	if s.lock == nil {
		if err := s.mkdirs(s.path); err != nil {
			return errNotWritable(s.path, err)
		}
		if err := s.lockDir(); err != nil {
			return err
		}
	}
	if s.key, err = netmap.NewControlKey(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(hubJSON{Format: stateFormat, Control: s.key.Encode()}, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", netmap.HubFile, err)
	}
	if err := s.writeKey(append(b, '\n')); err != nil {
		return errNotWritable(s.path, err)
	}
	return nil
}

// writable tries the folder without leaving anything.
func (s *stateDir) writable() error {
	f, err := os.CreateTemp(s.path, ".try-*")
	if err != nil {
		return errNotWritable(s.path, err)
	}
	f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return errNotWritable(s.path, err)
	}
	return nil
}

func (s *stateDir) mkdirs(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := s.mkdirs(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	s.made = append(s.made, dir)
	return nil
}

// writeKey makes hub.json whole or not at all, and durable.
func (s *stateDir) writeKey(b []byte) error {
	tmp := filepath.Join(s.path, "."+netmap.HubFile+".new")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, s.file(netmap.HubFile))
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	s.made = append(s.made, s.file(netmap.HubFile))
	return s.lock.Sync()
}

func (s *stateDir) file(name string) string { return filepath.Join(s.path, name) }

// undo takes back a first start that came to nothing. The folder was empty or not
// there when it was locked, so all that is in it is of this start.
func (s *stateDir) undo() {
	if !s.first {
		return
	}
	if entries, err := os.ReadDir(s.path); err == nil && s.lock != nil {
		for _, e := range entries {
			os.RemoveAll(s.file(e.Name()))
		}
	}
	for i := len(s.made) - 1; i >= 0; i-- {
		os.Remove(s.made[i])
	}
}
