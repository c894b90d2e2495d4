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
		if x.screens[ev.Channel] != nil {
			x.feed(ev.Channel, ev.Data)
		}
	case KindResize:
		var r Resize
		if st := x.screens[ev.Channel]; st != nil && json.Unmarshal(ev.Data, &r) == nil {
			x.guard(func() { st.k.Resize(r.Cols, r.Rows) })
			x.keyDue = true
		}
	case KindClose:
		delete(x.screens, ev.Channel)
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

func (x *Session) feed(ch uint32, data []byte) {
	st := x.screens[ch]
	if st == nil {
		return
	}
	x.sinceKey += len(data)
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
	clear(x.screens)
	clear(x.blind)
}
