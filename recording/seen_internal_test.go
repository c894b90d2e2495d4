package recording

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"
)

// TestSeenBindsThePast: a hub's signature of what it had fits that recording, at that
// checkpoint, and no other.
func TestSeenBindsThePast(t *testing.T) {
	_, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &Verifier{lenient: true}
	v.meta.ID, v.metaSum = "a", [32]byte{1}
	for i := range 100 {
		v.points.add(point{uint64(i), [32]byte{byte(i)}, int64(i) * 1e6})
	}
	at := func(i int) Seen {
		chain := [32]byte{byte(i)}
		return Seen{ID: "a", MetaSHA256: v.metaSum[:], Seq: uint64(i), Chain: chain[:], At: int64(i) * 1e6}
	}
	for name, c := range map[string]struct {
		seen  func() Seen
		spoil func(*Countersignature)
		ok    bool
	}{
		"true":                {func() Seen { return at(90) }, func(*Countersignature) {}, true},
		"the last":            {func() Seen { return at(99) }, func(*Countersignature) {}, true},
		"too old to know":     {func() Seen { return at(10) }, func(*Countersignature) {}, false},
		"another past":        {func() Seen { p := at(90); p.Chain[5] = 1; return p }, func(*Countersignature) {}, false},
		"another time":        {func() Seen { p := at(90); p.At++; return p }, func(*Countersignature) {}, false},
		"another recording's": {func() Seen { p := at(90); p.MetaSHA256 = make([]byte, 32); return p }, func(*Countersignature) {}, false},
		"moved":               {func() Seen { return at(90) }, func(c *Countersignature) { p := at(91); c.Seq, c.Chain, c.At = p.Seq, p.Chain, p.At }, false},
		"later":               {func() Seen { return at(90) }, func(c *Countersignature) { c.Time = c.Time.Add(time.Second) }, false},
		"no chain":            {func() Seen { return at(90) }, func(c *Countersignature) { c.Chain = []byte{} }, false},
	} {
		sig, err := CountersignSeen(priv, c.seen(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		c.spoil(&sig)
		w := *v
		if err := w.progress(sig); err != nil {
			t.Fatal(err)
		}
		if ok := len(w.report.Problems) == 0; ok != c.ok || !ok && !strings.Contains(w.report.Problems[0], "not the recording that the hub saw") {
			t.Errorf("%s: %q", name, w.report.Problems)
		}
	}
}
