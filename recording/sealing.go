package recording

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// sealTo asks whom recordings are sealed to; nil: they are not.
func (s *Spool) sealTo() (*Recipients, error) {
	if s.cfg.SealTo == nil {
		return nil, nil
	}
	to, err := s.cfg.SealTo()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	return to, nil
}

// resealLocked begins an epoch for a monitor that goes on with a sealed recording: the key of
// the one before is gone with it. Where it is not known any more to whom, it is to those of
// the last epoch.
func (x *Session) resealLocked(v *Verifier) error {
	if !x.meta.Sealed {
		return nil
	}
	to, err := x.s.sealTo()
	if to == nil {
		if err != nil {
			x.s.log.Error("recording goes on sealed to those before", "id", x.id, "err", err)
		}
		if to, err = ParseRecipients(strings.Join(v.sealedTo, "\n")); err != nil {
			return err
		}
	}
	return x.w.newEpoch(sha256.Sum256(x.metaJSON), to)
}

// renewLocked begins an epoch where the recipients are others now. What cannot be done goes on
// as it was: sealed.
func (x *Session) renewLocked() {
	if x.w.seal == nil {
		return
	}
	to, err := x.s.sealTo()
	if err == nil && (to == nil || to.same(x.w.seal.to)) {
		return
	}
	if err == nil {
		err = x.w.newEpoch(x.w.seal.meta, to)
	}
	if err != nil && !x.renewFailed {
		x.renewFailed = true
		x.s.log.Error("recording goes on sealed to those before", "id", x.id, "err", err)
	}
}

// openUnseen learns from the outline which terminals are open: what they show is sealed away.
func (x *Session) openUnseen(r *Reader) error {
	x.blind = map[uint32]bool{}
	_, err := r.Outline(0, func(ev Event) error {
		switch ev.Kind {
		case KindOpen:
			var o Open
			if json.Unmarshal(ev.Data, &o) == nil && o.PTY {
				x.blind[ev.Channel] = true
			}
		case KindClose:
			delete(x.blind, ev.Channel)
		}
		return nil
	})
	return err
}

// outlineLocked takes what of an event stays in the clear.
func (x *Session) outlineLocked(ev Event) {
	if x.w.seal == nil {
		return
	}
	data := outline(ev)
	if data == nil {
		return
	}
	if len(x.outline) == 0 {
		x.outlined = 0
	}
	ev.Data = data
	if b := appendEvent(nil, ev, x.outlined); len(x.outline)+len(b) <= maxOutline {
		x.outline, x.outlined = append(x.outline, b...), ev.At.Microseconds()
	}
}

func (x *Session) putOutlineLocked() error {
	if len(x.outline) == 0 {
		return nil
	}
	if err := x.w.put(header{typ: blockOutline}, x.outline); err != nil {
		return err
	}
	x.outline = nil
	return nil
}

// wipeGrain is how much of a journal is overwritten before its room is given back.
const wipeGrain = 1 << 20

var zeros [64 << 10]byte

// wipeLocked overwrites what of the journal is durable in sealed frames, and with room gives
// its room back as well, once the zeros are on the disk in the place of what they cover.
func (x *Session) wipeLocked(room bool) error {
	to := min(x.w.journal, x.size)
	for at := x.wiped; at < to; {
		n := min(to-at, int64(len(zeros)))
		if _, err := x.journal.WriteAt(zeros[:n], at); err != nil {
			return err
		}
		at += n
		x.wiped = at
	}
	if !room && x.wiped&^4095-x.punched < wipeGrain {
		return nil
	}
	if err := datasync(x.journal); err != nil {
		return err
	}
	if end := x.wiped &^ 4095; end > x.punched && punch(x.journal, x.punched, end) {
		x.punched = end
	}
	return nil
}

// ErrSeal is that recordings are to be sealed here and cannot be.
var ErrSeal = errors.New("recording: recordings of this host are to be sealed, and cannot be")
