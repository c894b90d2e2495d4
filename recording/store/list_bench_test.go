package store

import (
	"fmt"
	"testing"
	"time"

	"tssh/recording"
)

// BenchmarkList is one page of a list of 100,000 recordings.
func BenchmarkList(b *testing.B) {
	s, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 100_000 {
		m := recording.Meta{ID: fmt.Sprintf("20260101-000000-%016x", i), Start: at.Add(time.Duration(i) * time.Minute), Host: fmt.Sprintf("host%d", i%500), HostID: fmt.Sprint(i % 500),
			Src: "laptop", Login: fmt.Sprintf("person%d@example.com", i%300), LocalUser: "deploy"}
		sum := Summary{Meta: m, Complete: true, Opened: 1, Channels: []Channel{{N: 1, Type: "exec", Command: fmt.Sprintf("make target-%d", i)}}}
		s.add(&rec{id: m.ID, host: m.HostID, sum: sum, sealed: true})
	}
	may := func(*Summary) bool { return true }
	for name, q := range map[string]Query{
		"newest": {May: may}, "a word": {Words: "target-77", May: may}, "nothing fits": {Words: "person7@ host499 nothing", May: may},
		"oldest page": {Before: fmt.Sprintf("20260101-000000-%016x", 150), May: may}, "live": {Live: true, May: may},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s.List(q)
			}
		})
	}
}
