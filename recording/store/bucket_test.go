package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/s3blob"
)

// buckets are a folder, and an S3 server on loopback that the stock client speaks to.
func buckets(t *testing.T) map[string]func() *blob.Bucket {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	back := s3mem.New()
	srv := httptest.NewServer(gofakes3.New(back).Server())
	t.Cleanup(srv.Close)
	if err := back.CreateBucket("recordings"); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	opener := func(url string) func() *blob.Bucket {
		return func() *blob.Bucket {
			b, err := blob.OpenBucket(context.Background(), url)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			return b
		}
	}
	return map[string]func() *blob.Bucket{
		"folder": opener("file://" + folder + "?no_tmp_dir=true"),
		"s3":     opener("s3://recordings?region=us-east-1&use_path_style=true&endpoint=" + srv.URL),
	}
}

func contents(t *testing.T, s *Store, id string) []byte {
	t.Helper()
	r, err := s.Read(id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBucket(t *testing.T) {
	for name, bucket := range buckets(t) {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			dir := t.TempDir()
			cfg := Config{Dir: dir, Bucket: bucket(), CacheBytes: 1}
			s := open(t, cfg)
			ids, bytesOf := []string{}, map[string][]byte{}
			for i := range 3 {
				id, b := put(t, s, meta("web", fmt.Sprint("user", i), noon.Add(time.Duration(i)*time.Minute)))
				ids, bytesOf[id] = append(ids, id), b
			}
			if err := s.Hold(ids[1], Hold{By: "carol", Reason: "case 7", At: noon}); err != nil {
				t.Fatal(err)
			}
			if err := s.ArchiveNow(ctx); err != nil {
				t.Fatal(err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*", "*", "*.tsr")); len(left) != 0 {
				t.Errorf("still in the folder: %q", left)
			}
			check := func(s *Store, what string) {
				t.Helper()
				list, _ := s.List(Query{May: all})
				if len(list) != len(ids) {
					t.Fatalf("%s: %d recordings of %d", what, len(list), len(ids))
				}
				for _, id := range ids {
					if !bytes.Equal(contents(t, s, id), bytesOf[id]) {
						t.Errorf("%s: %s has other bytes", what, id)
					}
				}
				if h := s.Held(ids[1]); h == nil || h.Reason != "case 7" {
					t.Errorf("%s: hold %+v", what, h)
				}
				if s.bytes != int64(len(bytesOf[ids[0]])+len(bytesOf[ids[1]])+len(bytesOf[ids[2]])) {
					t.Errorf("%s: %d bytes counted", what, s.bytes)
				}
			}
			check(s, "fetched back")
			check(open(t, cfg), "after a restart")
			check(open(t, Config{Dir: t.TempDir(), Bucket: cfg.Bucket}), "from the bucket alone")
			for _, id := range ids { // and without the summaries there
				if err := cfg.Bucket.Delete(ctx, "2026/11/"+id+".json"); err != nil {
					t.Fatal(err)
				}
			}
			check(open(t, Config{Dir: t.TempDir(), Bucket: cfg.Bucket}), "from recordings alone")

			// What the bucket gives is believed only if it is the recording.
			bad := bytes.Clone(bytesOf[ids[0]])
			bad[len(bad)/2] ^= 1
			if err := cfg.Bucket.WriteAll(ctx, "2026/11/"+ids[0]+".tsr", bad, nil); err != nil {
				t.Fatal(err)
			}
			if err := s.evict(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Read(ids[0]); !errors.Is(err, ErrTampered) {
				t.Errorf("changed in the bucket: %v", err)
			}
			if err := cfg.Bucket.WriteAll(ctx, "2026/11/"+ids[0]+".tsr", bytesOf[ids[0]], nil); err != nil {
				t.Fatal(err)
			}

			if _, err := s.Delete(ids[0], "bob", "asked to"); err != nil {
				t.Fatal(err)
			}
			if there, err := cfg.Bucket.Exists(ctx, "2026/11/"+ids[0]+".tsr"); there || err != nil {
				t.Errorf("deleted, and in the bucket: %v %v", there, err)
			}
			fresh := open(t, Config{Dir: t.TempDir(), Bucket: cfg.Bucket})
			if list, _ := fresh.List(Query{May: all}); len(list) != 2 {
				t.Errorf("%d recordings after a deletion", len(list))
			}
			if _, _, err := fresh.Append("n-web", ids[0], 0, bytesOf[ids[0]]); !errors.Is(err, ErrGone) {
				t.Errorf("sent again: %v", err)
			}
		})
	}
}

// TestBucketAway: recordings are taken and shown while the bucket is away, and go there later.
func TestBucketAway(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "bucket")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	b, err := blob.OpenBucket(context.Background(), "file://"+folder+"?no_tmp_dir=true")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder, nil, 0o600); err != nil { // no folder can be made there
		t.Fatal(err)
	}
	s := open(t, Config{Dir: t.TempDir(), Bucket: b, CacheBytes: 1})
	id, want := put(t, s, meta("web", "deploy", noon))
	if err := s.ArchiveNow(context.Background()); err == nil {
		t.Error("no trouble with a bucket that is away")
	}
	if !bytes.Equal(contents(t, s, id), want) {
		t.Error("not readable while the bucket is away")
	}
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.ArchiveNow(context.Background()); err != nil {
		t.Fatal(err)
	}
	got, err := b.ReadAll(context.Background(), "2026/11/"+id+".tsr")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the bucket has %d bytes, %v", len(got), err)
	}
}
