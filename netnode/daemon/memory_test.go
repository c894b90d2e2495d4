package daemon

import "testing"

func TestBreather(t *testing.T) {
	var allocated uint64
	freed := 0
	b := breather{allocated: func() uint64 { return allocated }, free: func() { freed++; allocated += 1000 }}
	for i, c := range []struct {
		grows uint64
		freed int
	}{
		{4 << 20, 0},   // the start: little, and not quiet
		{100, 0},       // quiet, and nothing worth it
		{100 << 20, 0}, // at work
		{100 << 20, 0},
		{2000, 1}, // quiet: now
		{2000, 1}, // once
		{2000, 1},
		{9 << 20, 1},
		{0, 2},
		{4 << 30, 2},  // a flood
		{32 << 20, 3}, // and what follows from it
		{32 << 20, 3}, // as steady work it is no quiet
	} {
		allocated += c.grows
		b.step()
		if freed != c.freed {
			t.Fatalf("step %d: freed %d times, want %d", i, freed, c.freed)
		}
	}
}
