package replay

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/store"
)

// Bounds of a file that is shared: it is made in memory, and a browser opens it whole.
const (
	maxShared       = 24 << 20 // bytes of the recording
	maxSharedFrames = 64 << 20 // bytes of the frames that were opened, where it is sealed
)

// sharedJSON is the data of a shared page beside the recording itself, which the page reads, verifies and plays.
type sharedJSON struct {
	Detail     detailJSON     `json:"detail"`
	Frames     []frameJSON    `json:"frames,omitempty"` // of a sealed recording that was opened for the page
	Transcript transcriptJSON `json:"transcript"`
	Proof      proofJSON      `json:"proof"`
}

type proofJSON struct {
	Exported string `json:"exported"` // when
	By       string `json:"by"`       // for whom
}

// share gives one HTML file that plays without a network. The recording itself, signatures and all, is in it: the page
// plays what it decodes from that and checks the signatures (web/src/tsr.ts), and whoever gets it can save the recording
// and ask `tssh verify`. Its content policy lets it load and send nothing.
func (v *Viewer) share(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.shown(r, id)
	if err != nil {
		return err
	}
	js, style := v.assets["share.js"], v.assets["share.css"]
	if js.body == nil || style.body == nil {
		return &refusal{http.StatusServiceUnavailable, errNoPage.Error(), ""}
	}
	if sum.Size > maxShared {
		return &refusal{http.StatusUnprocessableEntity, "this recording is too large for one page: download the .tsr or .cast", ""}
	}
	if err := v.note("recording.download", id, &sum, -1, map[string]string{"as": "html", "from": "0.0"}); err != nil {
		return err
	}
	src, err := v.cfg.Store.Read(sum.Meta.ID)
	if err != nil {
		return err
	}
	defer src.Close()
	file, err := io.ReadAll(src)
	if err != nil {
		return err
	}
	var out sharedJSON
	if out.Detail, err = v.describe(id, &sum); err != nil {
		return err
	}
	out.Detail.WatchShown, out.Detail.Watchers = false, nil
	out.Detail.Live, out.Detail.MayEnd, out.Detail.MayDelete, out.Detail.Viewer, out.Detail.Because = false, false, false, viewerJSON{}, ""
	out.Detail.Frames = nil // the page makes it from the file
	// One that is sealed to keys of others stays so, and one that is asked for sealed: the page asks for the key.
	locked := sum.Meta.Sealed && (out.Detail.Locked || r.URL.Query().Get("sealed") == "1")
	out.Detail.Locked = locked
	out.Proof = proofJSON{Exported: v.cfg.Clock().UTC().Format("2006-01-02 15:04:05 UTC"), By: id.Who()}
	if sum.Meta.Sealed && !locked {
		if out.Frames, err = v.opened(&sum); err != nil {
			return err
		}
	}
	if !locked {
		t, err := v.texts.of(&sum)
		if err != nil {
			return err
		}
		out.Transcript = transcriptOf(t, 0, len(t.Lines))
	}

	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	if err := json.NewEncoder(zw).Encode(out); err != nil {
		return err
	}
	if err := zw.Close(); err != nil {
		return err
	}
	script := sha256.Sum256(js.body)
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="`+sum.Meta.ID+`.html"`)
	fmt.Fprintf(w, `<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'sha256-%s'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">
<title>%s</title>
<style>%s</style></head><body>
<main id="main"><noscript>This page needs JavaScript to play the recording.</noscript></main>
<script type="application/octet-stream" id="data">%s</script>
<script type="application/octet-stream" id="tsr">%s</script>
<script>`, base64.StdEncoding.EncodeToString(script[:]), html.EscapeString(person(&sum)+" as "+sum.Meta.LocalUser+" on "+sum.Meta.Host),
		style.body, base64.StdEncoding.EncodeToString(packed.Bytes()), base64.StdEncoding.EncodeToString(file))
	w.Write(js.body)
	_, err = io.WriteString(w, "</script></body></html>\n")
	if err != nil {
		v.cfg.Log.Debug("share", "err", err) // the browser went away
	}
	return nil
}

// opened gives the frames of a sealed recording, if there is a key here that opens it: like a cast of it, the page is
// then open to whoever has it.
func (v *Viewer) opened(sum *store.Summary) (frames []frameJSON, err error) {
	err = v.open.with(sum, func(f *recording.Reader) error {
		size := 0
		for i := range f.Index() {
			events, key, err := f.Frame(i)
			if err != nil {
				return err
			}
			for _, e := range events {
				size += len(e.Data) + 40
			}
			if size > maxSharedFrames {
				return &refusal{http.StatusUnprocessableEntity, "this recording is too large for one page: download the .tsr or .cast", ""}
			}
			frames = append(frames, encodeFrame(i, events, key))
		}
		return nil
	})
	return frames, err
}
