package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tssh/netnode/coord"
	"tssh/netnode/netmap"
)

// A backup is a tar: backup.json says what it is of, hub.db is the database, hub.json is
// there only with --with-key. Its last entry is an empty file "complete", so that one
// that broke off is not taken for a whole one.
const (
	backupPath  = "/v1/backup"
	backupEnd   = "complete"
	backupParts = 8 // entries that are looked at
)

// adminServer is coord's, with what concerns the whole hub added.
func (h *hub) adminServer() *http.Server {
	srv := h.coord.AdminServer()
	next := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == metricsPath {
			h.serveMetrics(w, r)
			return
		}
		if strings.HasPrefix(r.URL.Path, recordingPath) {
			h.recordingAdmin(w, r)
			return
		}
		if r.URL.Path != backupPath || r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		who, ok := coord.Caller(r.Context())
		if !ok {
			http.Error(w, `{"code":"forbidden","say":"only root and the user that tsshub runs as may do this"}`, http.StatusForbidden)
			return
		}
		if err := h.backup(w, r, who); err != nil {
			// The head of the answer is out; the missing end says the rest.
			h.log.Error("backup", "err", err)
		}
	})
	return srv
}

func (h *hub) backup(w http.ResponseWriter, r *http.Request, who string) error {
	tmp, err := os.MkdirTemp(h.dir.path, ".backup-*")
	if err != nil {
		http.Error(w, `{"code":"internal","say":"the hub cannot write a copy into its state folder; its log says why"}`, http.StatusInternalServerError)
		return err
	}
	defer os.RemoveAll(tmp)
	file := filepath.Join(tmp, "hub.db")
	info, err := h.coord.Backup(r.Context(), who, file)
	if err != nil {
		http.Error(w, `{"code":"internal","say":"the hub could not copy its database; its log says why"}`, http.StatusInternalServerError)
		return err
	}
	head, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	t := tar.NewWriter(w)
	put := func(name string, size int64, from io.Reader) error {
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: info.Time, Format: tar.FormatPAX}); err != nil {
			return err
		}
		_, err := io.Copy(t, from)
		return err
	}
	if err := put("backup.json", int64(len(head)), bytes.NewReader(head)); err != nil {
		return err
	}
	files := []string{file}
	if r.URL.Query().Get("key") == "1" {
		files = append(files, h.dir.file(netmap.HubFile))
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err == nil {
			err = put(filepath.Base(name), st.Size(), f)
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	if err := put(backupEnd, 0, bytes.NewReader(nil)); err != nil {
		return err
	}
	return t.Close()
}

// backup writes the hub's copy of itself to a new file, or to standard output.
func (c *cli) backup(name string, withKey bool) error {
	path := backupPath
	if withKey {
		path += "?key=1"
	}
	resp, err := c.ask(http.MethodPost, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return decode(resp, nil)
	}
	if name == "-" {
		_, err := checkBackup(resp.Body, c.out)
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return &trouble{say: "the backup " + name + " cannot be written", err: err, hint: "name a file that is not there yet"}
	}
	info, err := checkBackup(resp.Body, f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(name)
		return err
	}
	if c.json {
		return c.printJSON(info)
	}
	key := "without the hub's key: keep " + filepath.Join(c.state, netmap.HubFile) + " elsewhere"
	if withKey {
		key = "with the hub's key: whoever has this file has the mesh"
	}
	_, err = fmt.Fprintf(c.out, "%s: mesh %s at revision %d, %s; %s\n", printable(name), printable(info.Mesh), info.Revision, info.Time.Format(time.RFC3339), key)
	return err
}

// checkBackup copies a backup and reports what it is of, or that it is not whole.
func checkBackup(r io.Reader, w io.Writer) (info coord.BackupInfo, err error) {
	all := io.TeeReader(r, w)
	t := tar.NewReader(all)
	for range backupParts {
		h, err := t.Next()
		if errors.Is(err, io.EOF) || err != nil {
			break
		}
		switch h.Name {
		case "backup.json":
			if err := json.NewDecoder(io.LimitReader(t, 64<<10)).Decode(&info); err != nil {
				return info, &trouble{say: "the backup cannot be read", err: err}
			}
		case backupEnd:
			if _, err := io.Copy(io.Discard, all); err != nil {
				return info, &trouble{say: "the backup broke off", err: err}
			}
			return info, nil
		}
		if _, err := io.Copy(io.Discard, t); err != nil {
			return info, &trouble{say: "the backup broke off", err: err}
		}
	}
	return info, &trouble{say: "the backup broke off", hint: "the hub's log says why"}
}
