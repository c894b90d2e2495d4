package recording

import (
	"encoding/json"
	"time"
)

// follow keeps the emulators where the recording is.
func (x *Session) follow(ev Event) {
	switch ev.Kind {
	case KindOpen:
		var o Open
		if json.Unmarshal(ev.Data, &o) == nil && o.PTY {
			x.openScreen(ev.Channel, o.Cols, o.Rows)
		}
	case KindOutput:
		if st := x.screens[ev.Channel]; st != nil {
			x.show(st, ev.Data)
		}
	case KindResize:
		var r Resize
		if st := x.screens[ev.Channel]; st != nil && json.Unmarshal(ev.Data, &r) == nil {
			x.catchUp(st)
			x.guard(func() { st.k.Resize(r.Cols, r.Rows) })
			x.keyDue = true
		}
	case KindClose:
		if st := x.screens[ev.Channel]; st != nil {
			x.lend(st)
			delete(x.screens, ev.Channel)
		}
		delete(x.blind, ev.Channel)
	case KindEnd:
		x.ended = true
	}
}

// openScreen makes an emulator; a connection has so many and no more.
func (x *Session) openScreen(ch uint32, cols, rows int) {
	if x.s.cfg.Keyframer == nil || x.noKeys || len(x.screens) >= maxScreens {
		return
	}
	x.guard(func() { x.screens[ch] = &screenState{k: x.s.cfg.Keyframer(cols, rows)} })
}

// An emulator slower than slowRate is being fed what costs us most (or is broken), and
// there are no more keyframes in this recording.
const (
	slowPiece = 4096
	slowRate  = 512 << 10 // bytes a second
	slowGrace = 500 * time.Millisecond
)

// waitBytes is how much output waits for its emulator: of a flood most has left the screen
// before anybody asks for a keyframe, and need not be drawn.
const waitBytes = 128 << 10

// skipper is an emulator that need not draw all of what it is given.
type skipper interface {
	Skip(p []byte) int // Write(p[n:]) is next
}

// show gives output to an emulator, at once or together with what comes before the frame is
// over.
func (x *Session) show(st *screenState, data []byte) {
	x.sinceKey += len(data)
	if _, ok := st.k.(skipper); !ok {
		x.feed(st, data)
		return
	}
	if st.waiting == nil {
		st.waiting = x.s.frameBuffer()
	}
	*st.waiting = append(*st.waiting, data...)
	if len(*st.waiting) >= waitBytes {
		x.catchUp(st)
	}
}

// catchUp gives an emulator what waits for it.
func (x *Session) catchUp(st *screenState) {
	if st.waiting == nil {
		return
	}
	data, skipped := *st.waiting, 0
	if len(data) > slowPiece {
		began := time.Now()
		x.guard(func() { skipped = min(max(0, st.k.(skipper).Skip(data)), len(data)) })
		x.spent += time.Since(began)
		x.fedBytes += int64(skipped)
	}
	x.feed(st, data[skipped:])
	x.lend(st)
}

// lend gives the buffer of what waits back.
func (x *Session) lend(st *screenState) {
	if st.waiting != nil {
		x.s.frames.Put(st.waiting)
		st.waiting = nil
	}
}

// catchUpAll leaves nothing waiting.
func (x *Session) catchUpAll() {
	for _, st := range x.screens {
		x.catchUp(st)
	}
}

func (x *Session) feed(st *screenState, data []byte) {
	for len(data) > 0 && !x.noKeys {
		n := min(len(data), slowPiece)
		began := time.Now()
		x.guard(func() { st.k.Write(data[:n]) })
		x.spent += time.Since(began)
		x.fedBytes += int64(n)
		data = data[n:]
		if x.spent > slowGrace && x.spent > slowGrace+time.Duration(float64(x.fedBytes)/slowRate*float64(time.Second)) {
			x.s.log.Warn("terminal output is too dear to follow: no more keyframes", "id", x.id, "bytes", x.fedBytes, "took", x.spent)
			x.dropScreens()
		}
	}
}

// keyframe opens the frame being made with what all terminals show.
func (x *Session) keyframe() {
	if len(x.blind) > 0 {
		return
	}
	x.keyDue, x.sinceKey = false, 0
	x.catchUpAll()
	var screens []Screen
	total := 0
	x.guard(func() {
		for ch, st := range x.screens {
			cols, rows := st.k.Size()
			sc := Screen{Channel: ch, Cols: cols, Rows: rows, ANSI: st.k.Snapshot()}
			total += len(sc.ANSI)
			if len(sc.ANSI) > maxScreen || total > 1<<20 {
				screens = nil
				return
			}
			screens = append(screens, sc)
		}
	})
	if len(screens) > 0 && !x.noKeys {
		*x.raw = appendScreens(*x.raw, screens)
		x.rawKey = true
	}
}

// guard calls into the emulator. If that panics the recording goes on without
// keyframes: the emulator eats what anyone types, and this process is root.
func (x *Session) guard(f func()) {
	defer func() {
		if v := recover(); v != nil {
			x.s.log.Error("terminal emulator failed: no more keyframes", "id", x.id, "panic", v)
			x.dropScreens()
		}
	}()
	f()
}

func (x *Session) dropScreens() {
	x.noKeys, x.keyDue, x.sinceKey = true, false, 0
	for _, st := range x.screens {
		x.lend(st)
	}
	clear(x.screens)
	clear(x.blind)
}
