package store

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"testing"

	"gocloud.dev/blob"
)

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestWhatIsPlantedInTheBucket: whoever may write to the bucket neither has a recording deleted by
// a tombstone of his own, nor shown as another person's, nor another one in its place.
func TestWhatIsPlantedInTheBucket(t *testing.T) {
	bucket := buckets(t)["folder"]
	ctx := context.Background()
	key, former := newKey(t), newKey(t)
	cfg := Config{Dir: t.TempDir(), Bucket: bucket(), CacheBytes: 1, Key: key}
	s := open(t, cfg)
	id, b := put(t, s, meta("web", "deploy", noon))
	held, _ := put(t, s, meta("web", "deploy", noon))
	if err := s.Hold(held, Hold{By: "carol", Reason: "case 7", At: noon}); err != nil {
		t.Fatal(err)
	}
	if err := s.ArchiveNow(ctx); err != nil {
		t.Fatal(err)
	}
	write := func(bk *blob.Bucket, name string, v any) {
		t.Helper()
		j, ok := v.([]byte)
		if !ok {
			var err error
			if j, err = json.Marshal(v); err != nil {
				t.Fatal(err)
			}
		}
		if err := bk.WriteAll(ctx, "2026/11/"+name, j, nil); err != nil {
			t.Fatal(err)
		}
	}
	signed := func(of string, key ed25519.PrivateKey) Tombstone {
		tomb := Tombstone{ID: of, At: noon}
		if err := tomb.sign(key); err != nil {
			t.Fatal(err)
		}
		return tomb
	}
	stolen := signed(held, key)
	stolen.ID = id
	for name, plant := range map[string]any{
		"none": Tombstone{ID: id}, "another's": signed(id, former), "of another": signed(held, key), "changed": stolen, "rubbish": []byte("{"), "empty": []byte{},
	} {
		write(cfg.Bucket, id+".gone", plant)
		for what, c := range map[string]Config{"here": cfg, "elsewhere": {Dir: t.TempDir(), Bucket: cfg.Bucket, Key: key}} {
			x := open(t, c)
			if there, err := cfg.Bucket.Exists(ctx, "2026/11/"+id+".tsr"); !there || err != nil {
				t.Fatalf("%s, %s: the recording is deleted (%v)", name, what, err)
			}
			if list, _ := x.List(Query{May: all}); len(list) != 2 {
				t.Errorf("%s, %s: %d recordings", name, what, len(list))
			}
			if _, _, err := x.Append("n-web", id, int64(len(b)), nil); err != nil {
				t.Errorf("%s, %s: its host hears %v", name, what, err)
			}
		}
	}
	// One on hold stays also by a tombstone that was good once.
	write(cfg.Bucket, held+".gone", signed(held, key))
	if list, _ := open(t, Config{Dir: t.TempDir(), Bucket: cfg.Bucket, Key: key}).List(Query{May: all}); len(list) != 2 {
		t.Errorf("%d recordings, one was on hold", len(list))
	}
	// What was made up about a recording, or put in its place, is not what its file says.
	var beside sidecar
	j, err := cfg.Bucket.ReadAll(ctx, "2026/11/"+id+".json")
	if err != nil || json.Unmarshal(j, &beside) != nil || beside.SHA256 == "" {
		t.Fatal(err, beside)
	}
	for name, lie := range map[string]func(*sidecar){
		"person": func(c *sidecar) { c.Summary.Meta.Login = "mallory@example.com" },
		"tags":   func(c *sidecar) { c.Summary.Meta.HostTags = []string{"tag:lab"} },
		"sum":    func(c *sidecar) { c.SHA256 = c.SHA256[2:] + "00" },
	} {
		c := beside
		lie(&c)
		write(cfg.Bucket, id+".json", c)
		if _, err := open(t, Config{Dir: t.TempDir(), Bucket: cfg.Bucket, Key: key}).Read(id); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: %v", name, err)
		}
	}
	write(cfg.Bucket, id+".json", beside)
	// A tombstone of the key that the recorder had before still counts, and takes what was left.
	write(cfg.Bucket, id+".gone", signed(id, former))
	after := open(t, Config{Dir: t.TempDir(), Bucket: cfg.Bucket, Key: key, Former: []ed25519.PublicKey{former.Public().(ed25519.PublicKey)}})
	if _, _, err := after.Append("n-web", id, 0, bytes.Clone(b)); !errors.Is(err, ErrGone) {
		t.Errorf("deleted under the key before: %v", err)
	}
}
