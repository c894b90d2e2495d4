package replay

import (
	"errors"
	"net/http"
	"strconv"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/store"
)

// cast gives one channel as an asciicast.
func (v *Viewer) cast(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.shown(r, id)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	opt := recording.CastOptions{Version: 3}
	if s := q.Get("version"); s != "" {
		if opt.Version, err = strconv.Atoi(s); err != nil || opt.Version != 2 && opt.Version != 3 {
			return &refusal{http.StatusBadRequest, "casts come in version 2 and 3", ""}
		}
	}
	if s := q.Get("channel"); s != "" {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return &refusal{http.StatusBadRequest, "a channel is a number", ""}
		}
		opt.Channel = uint32(n)
	}
	if err := v.note("recording.download", id, &sum, -1, map[string]string{"as": "cast", "from": "0.0", "channel": strconv.FormatUint(uint64(opt.Channel), 10)}); err != nil {
		return err
	}
	src, err := v.cfg.Store.Read(sum.Meta.ID)
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := v.cfg.Keys.NewReader(src, src.Size())
	if err != nil {
		return err
	}
	defer f.Close()
	opt.Markers = v.markers(&sum)
	out := &lateHeader{w: w, name: sum.Meta.ID + ".cast"}
	if err := recording.WriteCast(out, f, opt); err != nil {
		if sealed := (*recording.SealedError)(nil); errors.As(err, &sealed) {
			return err
		}
		if !out.begun {
			return &refusal{http.StatusUnprocessableEntity, "this channel cannot be given as a cast", err.Error()}
		}
		v.cfg.Log.Warn("cast cut off", "recording", sum.Meta.ID, "err", err)
		panic(http.ErrAbortHandler) // so that the browser sees a broken download, not a short cast
	}
	return nil
}

// markers are the commands of a recording, where they can be known: without them a cast is
// one still.
func (v *Viewer) markers(sum *store.Summary) []recording.CastMarker {
	t, err := v.texts.of(sum)
	if err != nil {
		v.cfg.Log.Warn("cast without its commands", "recording", sum.Meta.ID, "err", err)
		return nil
	}
	return t.Markers()
}

// lateHeader sends the headers of a download with its first byte, so that trouble before that
// is still answered in words.
type lateHeader struct {
	w     http.ResponseWriter
	name  string
	begun bool
}

func (l *lateHeader) Write(p []byte) (int, error) {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-asciicast")
		l.w.Header().Set("Content-Disposition", `attachment; filename="`+l.name+`"`)
	}
	return l.w.Write(p)
}
