package sshd

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// maxConnLog bounds what connection processes leave in words about themselves, and
// connLogEvery is how often that is looked at: they have the file open, as the user, and the
// folder is in memory.
const (
	maxConnLog   = 1 << 20
	keptConnLog  = 64 << 10 // of what is taken away
	connLogEvery = time.Second
)

func (s *Server) connLogName() string { return filepath.Join(s.cfg.RunDir, "conn.log") }

// connLog is where connection processes write what goes wrong: they outlive whatever
// this process writes to.
func (s *Server) connLog() (*os.File, error) {
	s.boundConnLog()
	f, err := os.OpenFile(s.connLogName(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return f, nil
}

// boundConnLog empties the file when it is long, and leaves its end in another. It stays the
// same file: under another name, or none, it would grow unseen.
func (s *Server) boundConnLog() {
	f, err := os.OpenFile(s.connLogName(), os.O_RDWR, 0)
	if err != nil {
		return // nobody wrote yet
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() <= maxConnLog {
		return
	}
	b := make([]byte, keptConnLog)
	n, _ := f.ReadAt(b, st.Size()-keptConnLog) // what cannot be read is lost
	if err := f.Truncate(0); err != nil {
		s.cfg.Log.Error("log of connections", "err", err)
		return
	}
	_ = os.WriteFile(s.connLogName()+".old", b[:n], 0o600)
	s.cfg.Log.Warn("the log of connections is emptied: it was long", "bytes", st.Size())
}
