package session

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
)

// pieces are the files that go through the connection in pieces: through several handles of
// several channels at once, as `tssh cp` does on a long path, or out of order through one.
// No handle has seen all of it in order then. Its sum is taken from the file itself, when
// the last handle is closed and as many bytes went through as the file has: a sum costs
// no more than the transfer did.
type pieces struct {
	mu    sync.Mutex
	files map[pieceKey]*piece
}

type pieceKey struct {
	dev, ino uint64
	write    bool
}

type piece struct {
	open  int // handles
	moved int64
	begun unchanged // at the first open, for files that are read
}

// unchanged is what differs when a file was changed; its owner cannot set the last of them.
type unchanged struct {
	size         int64
	mtime, ctime syscall.Timespec
}

func stateOf(f *os.File) (pieceKey, unchanged, bool) {
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return pieceKey{}, unchanged{}, false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return pieceKey{}, unchanged{}, false
	}
	return pieceKey{dev: st.Dev, ino: st.Ino}, unchanged{st.Size, st.Mtim, st.Ctim}, true
}

// opened counts a handle.
func (p *pieces) opened(h *sftpHandle) {
	key, state, ok := stateOf(h.file)
	if !ok {
		return
	}
	key.write = h.write
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.files == nil {
		p.files = map[pieceKey]*piece{}
	}
	x := p.files[key]
	if x == nil {
		x = &piece{begun: state}
		p.files[key] = x
	}
	x.open++
	h.key, h.piece = key, x
}

// closing counts a handle off, whose file is still open. It is the sum of the file, if this
// was the last handle and none has a better one.
func (p *pieces) closing(h *sftpHandle, summed bool) string {
	x := h.piece
	if x == nil {
		return ""
	}
	p.mu.Lock()
	x.open--
	if summed {
		x.moved = -1 << 62 // once is enough
	} else {
		x.moved += h.moved
	}
	last, moved := x.open == 0, x.moved
	if last {
		delete(p.files, h.key)
	}
	p.mu.Unlock()
	_, before, ok := stateOf(h.file)
	if !last || h.err != "" || !ok || before.size == 0 || moved < before.size || !h.write && before != x.begun {
		return ""
	}
	in, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", h.file.Fd())) // what is open to be written cannot be read
	if err != nil {
		return ""
	}
	defer in.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, in)
	if _, after, ok := stateOf(in); err != nil || !ok || n != before.size || after != before {
		return ""
	}
	return hex.EncodeToString(sum.Sum(nil))
}
