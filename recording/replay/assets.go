package replay

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

//go:embed all:dist
var dist embed.FS

// asset is one file of the built page.
type asset struct {
	body  []byte
	ctype string
	etag  string
}

var assetTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// loadAssets reads the built page. Without it the map lacks index.html.
func loadAssets() (map[string]asset, error) {
	files := map[string]asset{}
	err := fs.WalkDir(dist, "dist", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(file, "dist/")
		ctype := assetTypes[path.Ext(name)]
		if ctype == "" {
			return nil
		}
		body, err := dist.ReadFile(file)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		files[name] = asset{body: body, ctype: ctype, etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
		return nil
	})
	return files, err
}

func (v *Viewer) serveAsset(w http.ResponseWriter, r *http.Request, name string) {
	a, ok := v.assets[name]
	if !ok {
		if name == "index.html" {
			v.refuse(w, r, &refusal{http.StatusServiceUnavailable, errNoPage.Error(), ""})
			return
		}
		v.refuse(w, r, &refusal{http.StatusNotFound, "there is nothing at this address", ""})
		return
	}
	if name == "index.html" && isLoopback(r.RemoteAddr) {
		a.body = bytes.ReplaceAll(a.body, []byte(`="/`), []byte(`="`+v.place+`/`))
		a.etag = `"` + v.place[1:] + a.etag[1:]
	}
	h := w.Header()
	h.Set("Content-Type", a.ctype)
	h.Set("ETag", a.etag)
	h.Set("Cache-Control", "no-cache") // kept, but asked for again: an update shows at once
	if r.Header.Get("If-None-Match") == a.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Write(a.body)
}
