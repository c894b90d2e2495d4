package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"tssh/netnode/netmap"
	"tssh/recording"
	"tssh/recording/audit"
	"tssh/recording/store"
)

// recorded puts a finished recording into a folder as a store keeps it.
func recorded(t *testing.T, dir string) string {
	t.Helper()
	spool, err := recording.OpenSpool(recording.SpoolConfig{Dir: t.TempDir(), MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	x, err := spool.Begin(recording.Meta{Version: 1, Start: time.Now().Add(-time.Minute), Host: "web", HostID: "n-web", Src: "laptop", SrcID: "n-laptop", Login: "alice@example.com", LocalUser: "deploy"})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Finish("closed", ""); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, x.Meta().Start.UTC().Format("2006/01"), x.ID()+".tsr")
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(spool.Recordings()[0].Path)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return x.ID()
}

// TestRecordingVerbs goes through the verbs on a hub whose recordings are in S3.
func TestRecordingVerbs(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	back := s3mem.New()
	srv := httptest.NewServer(gofakes3.New(back).Server())
	defer srv.Close()
	if err := back.CreateBucket("recordings"); err != nil {
		t.Fatal(err)
	}
	opt, err := parseServe([]string{"--state", t.TempDir(), "--recordings", "s3://recordings?region=us-east-1&use_path_style=true&endpoint=" + srv.URL, "--retention", "30d", "--retention", "tag:pci=forever", "--recordings-cache", "1"})
	if err != nil {
		t.Fatal(err)
	}
	key, err := netmap.NewControlKey()
	if err != nil {
		t.Fatal(err)
	}
	var audited []audit.Entry
	dir := t.TempDir()
	kept, doomed := recorded(t, dir), recorded(t, dir)
	rooms, err := openRooms(roomsConfig{Recordings: dir, Bucket: opt.bucket, CacheBytes: opt.cache << 20, Retention: opt.retention, Key: key, Log: slog.New(slog.DiscardHandler),
		Audit: func(e audit.Entry) error { audited = append(audited, e); return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if err := rooms.store.ArchiveNow(context.Background()); err != nil {
		t.Fatal(err)
	}
	call := func(verb string, q recordingRequest, status int, want string) []byte {
		t.Helper()
		b, _ := json.Marshal(q)
		w := httptest.NewRecorder()
		rooms.serveRecordings(w, httptest.NewRequest(http.MethodPost, recordingPath+verb, strings.NewReader(string(b))), "root")
		if w.Code != status || !strings.Contains(w.Body.String(), want) {
			t.Fatalf("%s %+v: %d %s", verb, q, w.Code, w.Body)
		}
		return w.Body.Bytes()
	}
	call("list", recordingRequest{}, 200, kept)
	call("hold", recordingRequest{ID: kept, Reason: "case 7"}, 200, "")
	call("delete", recordingRequest{ID: kept, Reason: "asked to"}, 409, "on hold, by root: case 7")
	var stone store.Tombstone
	if err := json.Unmarshal(call("delete", recordingRequest{ID: doomed, Reason: "asked to"}, 200, ""), &stone); err != nil || !stone.Valid() || stone.By != "root" {
		t.Errorf("tombstone %+v, %v", stone, err)
	}
	call("delete", recordingRequest{ID: doomed, Reason: "again"}, 404, "there is no recording")
	call("list", recordingRequest{}, 200, `"deleted":[{"id":"`+doomed)
	call("release", recordingRequest{ID: kept, Reason: "closed"}, 200, "")
	call("hold", recordingRequest{ID: "no-such", Reason: "x"}, 404, "")
	call("shred", recordingRequest{ID: kept}, 404, "")
	var kinds []string
	for _, e := range audited {
		kinds = append(kinds, strings.TrimPrefix(e.Kind, "recording."))
	}
	if got := strings.Join(kinds, " "); got != "list hold delete delete list release" {
		t.Errorf("audited: %s", got)
	}

	// A hub that lost its folder makes the list from the bucket alone.
	again, err := openRooms(roomsConfig{Recordings: t.TempDir(), Bucket: opt.bucket, Key: key, Log: slog.New(slog.DiscardHandler), Audit: func(audit.Entry) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if list, _ := again.store.List(store.Query{May: func(*store.Summary) bool { return true }}); len(list) != 1 || list[0].Meta.ID != kept {
		t.Errorf("from the bucket: %+v", list)
	}
	// What was put there since is found on demand.
	late := recorded(t, dir)
	if n, err := rooms.store.Relist(context.Background()); n != 1 || err != nil {
		t.Errorf("%d found, %v", n, err)
	}
	if err := rooms.store.ArchiveNow(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n, err := again.store.Relist(context.Background()); n != 1 || err != nil {
		t.Errorf("in the bucket %d found, %v", n, err)
	}
	if _, err := again.store.Lookup(late); err != nil {
		t.Error(err)
	}
}
