package ssh

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/term"
)

// Size of a terminal in characters and pixels.
type Size struct{ Cols, Rows, Width, Height uint32 }

// Terminal is the person's, taken into raw mode and always given back.
type Terminal struct {
	f *os.File

	mu    sync.Mutex
	saved *term.State // non-nil while raw
}

// OpenTerminal is for a file that is a terminal; ok is false when it is none.
func OpenTerminal(f *os.File) (t *Terminal, ok bool) {
	if f == nil || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return &Terminal{f: f}, true
}

// Raw takes the terminal. A second Raw without Restore does nothing.
func (t *Terminal) Raw() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved != nil {
		return nil
	}
	s, err := term.MakeRaw(int(t.f.Fd()))
	if err != nil {
		return fmt.Errorf("ssh: raw terminal: %w", err)
	}
	t.saved = s
	return nil
}

// Restore gives the terminal back; it is safe on a nil Terminal and any number of times.
func (t *Terminal) Restore() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved == nil {
		return
	}
	term.Restore(int(t.f.Fd()), t.saved) // nothing is left to try when this fails
	t.saved = nil
}

// Suspend gives the terminal to the shell that started us and takes it back afterwards.
func (t *Terminal) Suspend() {
	t.Restore()
	suspendSelf()
	t.Raw()
}

// guard runs f; a panic in it gives the terminal back before it goes on. A deferred Restore
// elsewhere would not run: a panic ends the program from its own goroutine. The Terminal
// may be nil.
func (t *Terminal) guard(f func()) {
	done := false
	defer func() {
		if !done {
			t.Restore()
		}
	}()
	f()
	done = true
}
