package replay

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strconv"

	"tssh/policy"
	"tssh/recording"
)

// What is sealed goes to a page as it is: the key is there, and comes nowhere else (web/src/opened.ts).

// heads gives the description's block and the key blocks of the frames, each after its place in the file (8 bytes) and
// its length (4).
func (v *Viewer) heads(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.allowed(r, id) // nothing of what was recorded is in them
	if err != nil {
		return err
	}
	if err := v.note("recording.open", id, &sum, 0, nil); err != nil {
		return err
	}
	var out []byte
	err = v.open.with(&sum, func(f *recording.Reader) error {
		heads, err := f.Heads()
		for _, b := range heads {
			out = binary.LittleEndian.AppendUint64(out, uint64(b.Offset))
			out = binary.LittleEndian.AppendUint32(out, uint32(len(b.Bytes)))
			out = append(out, b.Bytes...)
		}
		return err
	})
	if err != nil {
		return err
	}
	return bytesOf(w, out)
}

// rawFrame gives the block of a frame. That it was looked at is what is written down: who has the key reads it.
func (v *Viewer) rawFrame(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.shown(r, id)
	if err != nil {
		return err
	}
	none := &refusal{http.StatusNotFound, "this recording has no such part", ""}
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 0 {
		return none
	}
	var b recording.RawBlock
	err = v.open.with(&sum, func(f *recording.Reader) error {
		if n >= len(f.Index()) {
			return none
		}
		if err := v.view(id, &sum, n, f.Index()[n].First, f.Index()[n].Last, "sealed"); err != nil {
			return err
		}
		b, err = f.RawFrame(n)
		return err
	})
	if err != nil {
		return err
	}
	return bytesOf(w, b.Bytes)
}

func bytesOf(w http.ResponseWriter, b []byte) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b) // a browser that went away is no concern here
	return nil
}

// exported is asked before a page makes a file of what it shows, which it does by itself: a GIF of a range. It writes
// down that it was made.
func (v *Viewer) exported(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.shown(r, id)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	from, err1 := strconv.ParseFloat(q.Get("from"), 64)
	until, err2 := strconv.ParseFloat(q.Get("until"), 64)
	channel, err3 := strconv.ParseUint(q.Get("channel"), 10, 32)
	if q.Get("as") != "gif" || errors.Join(err1, err2, err3) != nil || !(0 <= from && from <= until && until < 1e9) {
		return &refusal{http.StatusBadRequest, "say what is made, and of which channel and seconds", ""}
	}
	extra := map[string]string{"as": "gif", "channel": strconv.FormatUint(channel, 10), "from": strconv.FormatFloat(from, 'f', 1, 64), "until": strconv.FormatFloat(until, 'f', 1, 64)}
	if err := v.note("recording.download", id, &sum, -1, extra); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, err = io.WriteString(w, "{}\n")
	return err
}
