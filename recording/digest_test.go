package recording_test

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"runtime"
	"testing"

	"tssh/recording"
)

// TestDigestBeside adds pieces that are summed by others meanwhile.
func TestDigestBeside(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for n := range 50 {
		d, want := recording.NewDigest(), sha256.New()
		bufs := [2][]byte{make([]byte, 256<<10), make([]byte, 256<<10)}
		r := rand.NewChaCha8([32]byte{byte(n)})
		for i := range 6 {
			b := bufs[i%2]
			r.Read(b)
			want.Write(b)
			d.Add(b)
		}
		if got := d.Hex(); got != hex.EncodeToString(want.Sum(nil)) {
			t.Fatalf("round %d: another sum", n)
		}
	}
}
