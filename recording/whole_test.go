package recording_test

import (
	"testing"

	"tssh/recording"
)

// TestWholeBlocks cuts a recording at many places: what is said to be whole is what a verifier takes, from
// the beginning of the file and from where it stopped. Only the index is not whole without the last
// bytes of the file, where a verifier takes it alone.
func TestWholeBlocks(t *testing.T) {
	b := made(t, 3)
	const index = 5 // a block's type
	resumed := 0
	for cut := 0; cut <= len(b); cut += min(67, max(1, len(b)-cut)) {
		v := recording.NewVerifier()
		if _, err := v.Write(b[:cut]); err != nil {
			t.Fatal(err)
		}
		want := int(v.Offset())
		if _, begun := v.Meta(); !begun {
			want = 0 // the first bytes of a file alone are nothing
		}
		got := recording.WholeBlocks(b[:cut], true)
		if got > want || got < want && (got == 0 || b[got+4] != index) {
			t.Fatalf("of %d bytes %d are whole, want %d", cut, got, want)
		}
		if got == 0 || got == len(b) || got < want {
			continue
		}
		v.DropRest()
		n := recording.WholeBlocks(b[got:], false)
		if _, err := v.Write(b[got : got+n]); err != nil || n == 0 || !v.Complete() {
			t.Fatalf("from %d on %d bytes of %d are whole; complete %v, %v", got, n, len(b), v.Complete(), err)
		}
		resumed++
	}
	if resumed < 10 {
		t.Errorf("only %d cuts were gone on from", resumed)
	}
}
