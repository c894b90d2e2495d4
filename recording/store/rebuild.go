package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tssh/recording"
)

// sidecarVersion changes when a summary means something else; others are made anew.
const sidecarVersion = 1

// maxSidecar bounds what is read of a sidecar.
const maxSidecar = 256 << 10

// sidecar is the summary of a complete recording on disk. It saves reading the recording at
// the next start and can be deleted at any time.
type sidecar struct {
	Version int     `json:"version"`
	Summary Summary `json:"summary"`
	// Archived: the bucket has the recording.
	Archived bool `json:"archived,omitempty"`
	// SHA256 is of the file that was brought there; what comes back must be that.
	SHA256 string `json:"sha256,omitempty"`
}

func sidecarPath(path string) string { return strings.TrimSuffix(path, ".tsr") + ".json" }

func writeSidecar(path string, sum Summary) error {
	b, err := json.Marshal(sidecar{Version: sidecarVersion, Summary: sum})
	if err != nil {
		return err
	}
	tmp := sidecarPath(path) + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, sidecarPath(path))
}

// readSidecar gives the summary if there is one and it is of a file of this size.
func readSidecar(path, id string, size int64) (c sidecar, fits bool) {
	f, err := os.Open(sidecarPath(path))
	if err != nil {
		return c, false
	}
	defer f.Close()
	if json.NewDecoder(io.LimitReader(f, maxSidecar)).Decode(&c) != nil {
		return c, false
	}
	return c, c.Version == sidecarVersion && c.Summary.Complete && c.Summary.Size == size && c.Summary.Meta.ID == id
}

// rebuild makes the list from the files.
func (s *Store) rebuild() error {
	gone, err := filepath.Glob(filepath.Join(s.cfg.Dir, "*", "*", "*.gone"))
	if err != nil {
		return err
	}
	for _, f := range gone {
		s.mu.Lock()
		s.gone[strings.TrimSuffix(filepath.Base(f), ".gone")] = true
		s.mu.Unlock()
	}
	return filepath.WalkDir(s.cfg.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		id, isRecording := strings.CutSuffix(d.Name(), ".tsr")
		if d.IsDir() || !isRecording {
			return nil
		}
		if !d.Type().IsRegular() || !recording.ValidID(id) {
			s.cfg.Log.Warn("not a recording of ours", "path", path)
			return nil
		}
		if r, known := s.get(id); known && r.path() == path {
			return nil
		}
		if err := s.load(path, id); err != nil {
			// One bad file must not keep the recorder from starting.
			s.cfg.Log.Error("recording left out of the list", "path", path, "err", err)
		}
		return nil
	})
}

// load puts one file into the list.
func (s *Store) load(path, id string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if old, twice := s.get(id); twice {
		return fmt.Errorf("there is another recording with this id, %s", old.path())
	}
	r := &rec{id: id, dir: filepath.Dir(path)}
	if err := s.loadKept(r); err != nil {
		return err
	}
	if c, ok := readSidecar(path, id, st.Size()); ok {
		r.sum, r.sealed, r.archived, r.sha256 = c.Summary, true, c.Archived, c.SHA256
	} else if err := s.readWhole(r, st.Size()); err != nil {
		return err
	}
	r.host = r.sum.Meta.HostID
	r.sum.Unsealed = cmp.Or(r.sum.Unsealed, r.mark)
	s.mu.Lock()
	s.add(r)
	s.mu.Unlock()
	return nil
}

// readWhole verifies a file and makes its summary. A torn end is cut off; an end that does not
// verify stays in the file, is not shown, and seals the recording.
func (s *Store) readWhole(r *rec, size int64) error {
	v, verr := verify(r.path(), size)
	if v == nil {
		return verr
	}
	good := v.Offset()
	m, ok := v.Meta()
	if !ok {
		if verr == nil {
			// A crash came between making the file and its first block: nobody was told of it.
			return errors.Join(os.Remove(r.path()), errors.New("it held no whole block and was removed"))
		}
		return verr
	}
	if m.ID != r.id {
		return fmt.Errorf("it describes itself as %q", m.ID)
	}
	r.sum = Summary{Meta: m, Size: good, Complete: v.Complete(), Unsealed: r.mark}
	switch {
	case verr != nil:
		r.sealed = true
		r.sum.Problem = fmt.Sprintf("what was recorded after %s is not shown: it is not what the host sent", recording.Clock(v.Ends()))
		s.cfg.Log.Error("recording does not verify", "recording", r.id, "path", r.path(), "err", verr)
	case good < size:
		if err := os.Truncate(r.path(), good); err != nil {
			return err
		}
		s.cfg.Log.Info("recording cut at its last whole block", "recording", r.id, "bytes", size-good)
	}
	r.sealed = r.sealed || r.sum.Complete
	if err := s.readNew(r, &r.sum); err != nil {
		r.sum.Problem = "a part of this recording cannot be read"
		s.cfg.Log.Warn("recording cannot be read", "recording", r.id, "err", err)
	}
	s.closeReader(r)
	if r.sum.Complete && r.sum.Problem == "" {
		if err := writeSidecar(r.path(), r.sum); err != nil {
			s.cfg.Log.Warn("summary not written", "recording", r.id, "err", err)
		}
	}
	return nil
}

// verify reads size bytes of a file through a verifier. With an error the verifier says up to
// where the file is good; it is nil if the file could not be read.
func verify(path string, size int64) (*recording.Verifier, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	v := recording.NewVerifier()
	buf := make([]byte, piece)
	for r := io.NewSectionReader(f, 0, size); ; {
		n, err := r.Read(buf)
		if _, werr := v.Write(buf[:n]); werr != nil {
			return v, werr
		}
		if err == io.EOF {
			return v, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// reader is the open file of a recording whose frames are read as they arrive.
type reader struct {
	f      *os.File
	file   *recording.Reader
	frames int   // read so far
	at     int64 // of a sealed one, where its outline goes on
}

// readNew brings sum up to date with the frames in the first sum.Size bytes that were not read
// yet. r.mu is held, or r is not in the list yet.
func (s *Store) readNew(r *rec, sum *Summary) error {
	if r.reader == nil {
		f, err := os.Open(r.path())
		if err != nil {
			return err
		}
		file, err := recording.NewReader(io.NewSectionReader(f, 0, 1<<62), sum.Size)
		if err != nil {
			return errors.Join(err, f.Close())
		}
		s.readers.Add(1)
		r.reader = &reader{f: f, file: file, frames: r.read, at: r.outlined}
	} else if err := r.reader.file.Refresh(sum.Size); err != nil {
		return err
	}
	d := r.reader
	if sealed, _, _ := d.file.Sealed(); sealed {
		return s.readOutline(r, sum)
	}
	for ; d.frames < len(d.file.Index()); d.frames++ {
		events, _, err := d.file.Frame(d.frames)
		if err != nil {
			d.frames++ // its time has passed; what follows can be read
			r.read = d.frames
			return err
		}
		for _, e := range events {
			sum.apply(e)
		}
	}
	r.read = d.frames
	return nil
}

// readOutline does the same for a sealed recording, with or without a key here: what is sealed
// stays out of summaries, which are files of their own.
func (s *Store) readOutline(r *rec, sum *Summary) (err error) {
	d := r.reader
	d.at, err = d.file.Outline(d.at, func(e recording.Event) error {
		sum.apply(e)
		return nil
	})
	r.outlined = d.at
	sum.Duration = max(sum.Duration, d.file.Duration())
	return err
}

// closeReader is called with r.mu held, or before r is in the list.
func (s *Store) closeReader(r *rec) {
	if r.reader == nil {
		return
	}
	s.readers.Add(-1)
	r.reader.file.Close()
	r.reader.f.Close()
	r.reader = nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
