package recording

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// WitnessEvery is how often a hub is asked to sign how much it has of a running recording.
const WitnessEvery = time.Minute

// Seen is what a hub countersigns while a recording runs: that it has everything up to
// a checkpoint.
type Seen struct {
	ID         string `json:"id"`
	MetaSHA256 []byte `json:"meta_sha256"`
	Seq        uint64 `json:"seq"`   // of the checkpoint's block
	Chain      []byte `json:"chain"` // of the checkpoint's block
	At         int64  `json:"at"`    // time of the last event before it, microseconds
}

func seenMessage(p Seen, at time.Time) []byte {
	m := append([]byte("tssh recording progress\x00"), p.MetaSHA256...)
	m = binary.LittleEndian.AppendUint64(m, p.Seq)
	m = binary.LittleEndian.AppendUint64(m, uint64(p.At))
	m = append(m, p.Chain...)
	return binary.LittleEndian.AppendUint64(m, uint64(at.UnixMicro()))
}

// CountersignSeen signs with the hub's Ed25519 key. The caller has compared p with what
// it has (Verifier.Has).
func CountersignSeen(key crypto.Signer, p Seen, at time.Time) (Countersignature, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok || len(p.MetaSHA256) != sha256.Size || len(p.Chain) != sha256.Size {
		return Countersignature{}, fmt.Errorf("recording: countersign %q: the key or the progress is not one", p.ID)
	}
	sig, err := key.Sign(nil, seenMessage(p, at), crypto.Hash(0))
	if err != nil {
		return Countersignature{}, fmt.Errorf("recording: countersign %q: %w", p.ID, err)
	}
	return Countersignature{Key: pub, Time: at.UTC().Truncate(time.Microsecond), Signature: sig, Seq: p.Seq, Chain: p.Chain, At: p.At}, nil
}

// ValidSeen says whether c is a signature of p by the key it names.
func (c Countersignature) ValidSeen(p Seen) bool {
	return c.Seq == p.Seq && c.At == p.At && bytes.Equal(c.Chain, p.Chain) && usableKey(c.Key) && ed25519.Verify(c.Key, seenMessage(p, c.Time), c.Signature)
}

// Until is the time in the recording up to which the hub had it; zero for a signature of
// the start.
func (c Countersignature) Until() time.Duration { return time.Duration(c.At) * time.Microsecond }

// points are the last checkpoints of a file: a hub's signature comes a little later than
// what it signs.
type points struct {
	ring [64]point
	n    int
}

type point struct {
	seq   uint64
	chain [32]byte
	at    int64
}

func (p *points) add(x point) {
	p.ring[p.n%len(p.ring)] = x
	p.n++
}

func (p *points) has(x point) bool {
	for i := range min(p.n, len(p.ring)) {
		if p.ring[i] == x {
			return true
		}
	}
	return false
}

// Has says whether p speaks of one of the last checkpoints that were verified.
func (v *Verifier) Has(p Seen) bool {
	return len(p.Chain) == 32 && bytes.Equal(p.MetaSHA256, v.metaSum[:]) && p.ID == v.meta.ID && v.points.has(point{p.Seq, [32]byte(p.Chain), p.At})
}

// progress checks a hub's signature inside a file.
func (v *Verifier) progress(c Countersignature) error {
	p := Seen{ID: v.meta.ID, MetaSHA256: v.metaSum[:], Seq: c.Seq, Chain: c.Chain, At: c.At}
	if !v.Has(p) || !c.ValidSeen(p) {
		return v.problem("the hub signed something else as what it had at %s: this is not the recording that the hub saw", Clock(c.Until()))
	}
	for i, old := range v.report.Seen {
		if bytes.Equal(old.Key, c.Key) {
			v.report.Seen[i] = c
			return nil
		}
	}
	if len(v.report.Seen) < maxCountersignatures {
		v.report.Seen = append(v.report.Seen, c)
	}
	return nil
}

// SeenBy finds up to where one of the keys had the recording when it signed last.
func (r Report) SeenBy(keys ...ed25519.PublicKey) (Countersignature, bool) {
	return Report{Countersignatures: r.Seen}.CountersignedBy(keys...)
}

// mark is the newest checkpoint of a running recording, and where it ends in the file.
type mark struct {
	Seen
	end int64
}

// markLocked remembers the checkpoint that was just written.
func (x *Session) markLocked() {
	sum := sha256.Sum256(x.metaJSON)
	chain := x.w.prev
	x.newest.Store(&mark{Seen{ID: x.id, MetaSHA256: sum[:], Seq: x.w.seq - 1, Chain: chain[:], At: x.w.last}, x.w.off})
}

// unseen gives the newest checkpoint if a recorder has it and signing it is due. Called with
// Spool.mu held.
func (x *Session) unseen(acked int64) *mark {
	m := x.newest.Load()
	now := x.s.cfg.Clock()
	if x.s.cfg.Witness == nil || m == nil || m.end > acked || m.At <= x.seenAt || now.Sub(x.seenAsked) < WitnessEvery {
		return nil
	}
	x.seenAsked, x.seenAt = now, m.At
	return m
}

// askSeen has a hub sign how much it has, and puts that into the recording. Where it does
// not work it is asked again later, for more.
func (s *Spool) askSeen(ctx context.Context, m *mark) {
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := s.cfg.Witness(limited, m.Seen)
	if err == nil && !c.ValidSeen(m.Seen) {
		err = errors.New("the answer is not a signature of this recording")
	}
	if err == nil {
		err = s.writeSeen(m.ID, c)
	}
	if err != nil {
		s.log.Warn("recording's progress is not countersigned", "id", m.ID, "err", err)
	}
}

func (s *Spool) writeSeen(id string, c Countersignature) error {
	s.mu.Lock()
	x := s.running[id]
	s.mu.Unlock()
	if x == nil {
		return nil
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done || x.w.final {
		return nil
	}
	// No signature of ours is due for it: the next checkpoint covers it.
	if err := x.w.put(header{typ: blockCountersignature}, payload); err != nil {
		return err
	}
	return x.syncLocked()
}

func (s *Spool) nextSeen() *mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) == 0 {
		return nil
	}
	m := s.seen[0]
	s.seen = s.seen[1:]
	return m
}
