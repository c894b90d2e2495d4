package replay

import (
	"fmt"
	"sync"

	"tssh/recording"
	"tssh/recording/store"
)

// maxOpen bounds the recordings whose index is in memory at once.
const maxOpen = 32

// openFiles keeps the recordings that were looked at last open: an index is read once, not
// for every frame.
type openFiles struct {
	store *store.Store
	keys  *recording.Keys

	mu    sync.Mutex
	files map[string]*openFile
	clock int64 // counts uses
}

type openFile struct {
	used int64 // guarded by openFiles.mu
	refs int   // guarded by openFiles.mu; 0 and not in files: to be closed

	mu   sync.Mutex // a recording.Reader is for one at a time
	r    *recording.Reader
	src  *growing
	size int64
}

func newOpenFiles(s *store.Store, keys *recording.Keys) *openFiles {
	return &openFiles{store: s, keys: keys, files: map[string]*openFile{}}
}

// with calls fn with the recording, as far as it is in the store now. What fn keeps of it must
// be copied.
func (o *openFiles) with(sum *store.Summary, fn func(*recording.Reader) error) error {
	f := o.take(sum.Meta.ID)
	defer o.release(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.r == nil || f.size != sum.Size {
		if err := f.renew(o.store, o.keys, sum); err != nil {
			return fmt.Errorf("replay: recording %s: %w", sum.Meta.ID, err)
		}
	}
	return fn(f.r)
}

// growing is a file of which more can be read later.
type growing struct{ *store.Reader }

// renew opens the recording, or lets it see what was appended. f.mu is held.
func (f *openFile) renew(s *store.Store, keys *recording.Keys, sum *store.Summary) error {
	file, err := s.Read(sum.Meta.ID)
	if err != nil {
		return err
	}
	if f.r != nil && file.Size() > f.size {
		f.src.Reader.Close()
		f.src.Reader, f.size = file, file.Size()
		return f.r.Refresh(f.size)
	}
	src := &growing{file}
	r, err := keys.NewReader(src, src.Size())
	if err != nil {
		src.Close()
		return err
	}
	f.shut()
	f.src, f.r, f.size = src, r, src.Size()
	return nil
}

func (f *openFile) shut() {
	if f.r != nil {
		f.r.Close()
		f.src.Close()
		f.r = nil
	}
}

func (o *openFiles) take(id string) *openFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.files[id]
	if f == nil {
		if len(o.files) >= maxOpen {
			o.evict()
		}
		f = &openFile{}
		o.files[id] = f
	}
	o.clock++
	f.used = o.clock
	f.refs++
	return f
}

// evict forgets the one that was used longest ago; who is still reading it closes it. mu is held.
func (o *openFiles) evict() {
	var oldest string
	for id, f := range o.files {
		if oldest == "" || f.used < o.files[oldest].used {
			oldest = id
		}
	}
	f := o.files[oldest]
	delete(o.files, oldest)
	f.used = -1
	if f.refs == 0 {
		f.shut()
	}
}

func (o *openFiles) release(f *openFile) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f.refs--
	if f.refs == 0 && f.used < 0 {
		f.shut()
	}
}

func (o *openFiles) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.files) > 0 {
		o.evict()
	}
}
