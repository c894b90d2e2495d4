//go:build linux || darwin

package ssh

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Size asks the terminal; one that does not say is 80 by 24.
func (t *Terminal) Size() Size {
	ws, err := unix.IoctlGetWinsize(int(t.f.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return Size{Cols: 80, Rows: 24}
	}
	return Size{uint32(ws.Col), uint32(ws.Row), uint32(ws.Xpixel), uint32(ws.Ypixel)}
}

// onResize calls f after each change of size until stop is called, which waits for f.
func (t *Terminal) onResize(f func(Size)) (stop func()) {
	sig := make(chan os.Signal, 1)
	done := make(chan struct{})
	var wg sync.WaitGroup
	signal.Notify(sig, syscall.SIGWINCH)
	wg.Go(func() {
		t.guard(func() {
			for {
				select {
				case <-sig:
					f(t.Size())
				case <-done:
					return
				}
			}
		})
	})
	return func() { signal.Stop(sig); close(done); wg.Wait() }
}

// suspendSelf stops the process group, as ^Z would, and returns when it goes on. A process
// group without a shell to wake it cannot be stopped, and goes on at once.
func suspendSelf() {
	cont := make(chan os.Signal, 1)
	signal.Notify(cont, syscall.SIGCONT)
	defer signal.Stop(cont)
	if syscall.Kill(0, syscall.SIGTSTP) != nil {
		return
	}
	select {
	case <-cont:
	case <-time.After(time.Second):
	}
}
