package recording_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"tssh/recording"
)

// dirtyPages asks the kernel (cachestat(2), Linux 6.5) how much of a file a power loss would
// take. It skips where that is not known: other kernels, file systems in memory.
func dirtyPages(t *testing.T, name string) uint64 {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	const cachestat = 451
	span := struct{ off, len uint64 }{}
	var st struct{ cache, dirty, writeback, evicted, recent uint64 }
	if _, _, no := syscall.Syscall6(cachestat, f.Fd(), uintptr(unsafe.Pointer(&span)), uintptr(unsafe.Pointer(&st)), 0, 0, 0); no != 0 {
		t.Skipf("cachestat: %v", no)
	}
	return st.dirty + st.writeback
}

// TestWhatIsDurableIsOnTheDisk looks whether frames that are called durable are written, not
// only handed to the kernel, and the key that signs after them.
func TestWhatIsDurableIsOnTheDisk(t *testing.T) {
	dir := t.TempDir()
	probe := filepath.Join(dir, "probe")
	must(t, os.WriteFile(probe, make([]byte, 64<<10), 0o600))
	if dirtyPages(t, probe) == 0 {
		t.Skip("this file system does not say what is not written yet")
	}
	s := openSpool(t, recording.SpoolConfig{Dir: dir})
	x, j := begin(t, s, testMeta())
	noise := make([]byte, 200<<10)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	for range 5 {
		must(t, j.Append(1, recording.KindOutput, noise))
		must(t, x.Flush())
		if n := dirtyPages(t, filepath.Join(dir, x.ID(), "recording.tsr")); n != 0 {
			t.Fatalf("%d pages of what is durable are not on the disk", n)
		}
	}
	must(t, x.Finish("closed", ""))
	if n := dirtyPages(t, filepath.Join(dir, x.ID(), "recording.tsr")); n != 0 {
		t.Fatalf("%d pages of a finished recording are not on the disk", n)
	}
}
