package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"tssh/recording"
)

// verifyFile says whether a recording is whole and as it was made: exit status 0, or
// 1 with the seconds at which it is not.
func verifyFile(path string, known []signer, opens *recording.Keys, unsealed string, asJSON bool, stdout, stderr io.Writer) int {
	f, err := os.Open(path)
	if err != nil {
		fmt.Fprintf(stderr, "tssh: error: %v\n", err)
		return 1
	}
	defer f.Close()
	rep, err := opens.Verify(f)
	if err != nil {
		fmt.Fprintf(stderr, "tssh: error: %s: %v\n", path, err)
		return 1
	}
	w := witnessOf(rep, known)
	good := len(rep.Problems) == 0 && rep.Complete && w.kind != witnessOther
	if asJSON {
		v := verifyJSON(rep, w, good)
		v.Unsealed = unsealed
		err = json.NewEncoder(stdout).Encode(v)
	} else {
		words := verifyWords(rep, w, good)
		if unsealed != "" {
			words += "note: the hub marked it: " + printable(unsealed) + "\n"
		}
		_, err = io.WriteString(stdout, words)
	}
	if err != nil {
		fmt.Fprintf(stderr, "tssh: error: %v\n", err)
		return 1
	}
	if !good {
		return 1
	}
	return 0
}

// signer is somebody whose countersignatures count: the hub, or a recorder.
type signer struct {
	key      ed25519.PublicKey
	recorder string // its name; "": the hub
	node     string // its id
}

func (s signer) String() string {
	if s.recorder == "" {
		return "the hub"
	}
	return "the recorder " + printable(s.recorder)
}

// What is known of who countersigned the beginning of a recording.
const (
	witnessNone     = "none"         // nobody did
	witnessHub      = "hub"          // the hub whose key is known
	witnessRecorder = "recorder"     // a recorder whose key is known
	witnessOther    = "other"        // somebody, and nobody whose key is known
	witnessUnknown  = "not-compared" // somebody, and no key is known here
)

// witness is who countersigned a recording.
type witness struct {
	kind string
	by   signer                     // of the hub and of a recorder
	sign recording.Countersignature // of the start: of by, or the first; zero for none
	seen []sighting                 // the last of each whose key is known; else of who signed the start
}

// sighting is somebody's word about how much of a recording they had.
type sighting struct {
	recording.Countersignature
	by signer
}

// witnessOf compares a recording's countersignatures with those that count. A recorder's of what
// it recorded itself does not.
func witnessOf(rep recording.Report, known []signer) witness {
	w := witness{kind: witnessNone}
	known = slices.DeleteFunc(slices.Clone(known), func(s signer) bool { return s.node != "" && s.node == rep.Meta.HostID })
	if len(rep.Countersignatures) > 0 {
		w.sign = rep.Countersignatures[0]
		if w.kind = witnessOther; len(known) == 0 {
			w.kind = witnessUnknown
		}
	}
	is := func(s signer) {
		if w.kind = witnessHub; s.recorder != "" {
			w.kind = witnessRecorder
		}
		w.by = s
	}
	for _, s := range known {
		if c, ok := rep.CountersignedBy(s.key); ok && w.by.key == nil {
			w.sign = c
			is(s)
		}
		if c, ok := rep.SeenBy(s.key); ok {
			w.seen = append(w.seen, sighting{c, s})
		}
	}
	slices.SortFunc(w.seen, func(x, y sighting) int { return x.Time.Compare(y.Time) })
	if len(w.seen) > 0 && w.by.key == nil {
		is(w.seen[0].by) // who signed the start is not known, who had it while it ran is
	}
	if len(w.seen) == 0 && len(w.sign.Key) > 0 && w.by.key == nil {
		if c, ok := rep.SeenBy(w.sign.Key); ok {
			w.seen = append(w.seen, sighting{Countersignature: c})
		}
	}
	return w
}

type verifyResult struct {
	OK             bool       `json:"ok"`
	ID             string     `json:"id"`
	Host           string     `json:"host"`
	Who            string     `json:"who"`
	LocalUser      string     `json:"local_user"`
	Start          time.Time  `json:"start"`
	Seconds        float64    `json:"seconds"`
	ProvenUntil    float64    `json:"proven_until"`
	Complete       bool       `json:"complete"`
	SelfAttested   bool       `json:"self_attested"`
	Countersigned  string     `json:"countersigned"`              // none, hub, recorder, other or not-compared
	CountersignBy  string     `json:"countersigned_by,omitempty"` // the name of that recorder
	CountersignKey []byte     `json:"countersign_key,omitempty"`
	CountersignAt  *time.Time `json:"countersign_time,omitempty"`
	// Up to where the hub or a recorder signed that it had all, so that root of the host cannot
	// have made another past either; with no key known here, of the one that signed the start.
	SeenUntil float64    `json:"seen_until"`
	Seen      []seenJSON `json:"seen"`
	Sealed    bool       `json:"sealed,omitempty"`
	Opened    bool       `json:"opened,omitempty"` // a key opened all of a sealed one
	SealedTo  []string   `json:"sealed_to,omitempty"`
	Unsealed  string     `json:"unsealed,omitempty"` // the hub's or recorder's words, of one that came from it: not sealed as the policy asks
	Problems  []string   `json:"problems"`
}

// seenJSON is a hub's word about how much of the recording it had; whose key it is must be known.
type seenJSON struct {
	Key   []byte    `json:"key"`
	Time  time.Time `json:"time"`
	By    string    `json:"by,omitempty"` // hub, or the recorder's name, where the key is known
	Until float64   `json:"until"`        // seconds of the recording
	Seq   uint64    `json:"seq"`          // of the checkpoint signed
}

func verifyJSON(rep recording.Report, w witness, good bool) verifyResult {
	v := verifyResult{
		OK: good, ID: rep.ID, Host: rep.Meta.Host, Who: who(rep.Meta), LocalUser: rep.Meta.LocalUser, Start: rep.Meta.Start,
		Seconds: rep.Ends.Seconds(), ProvenUntil: rep.ProvenUntil.Seconds(), Complete: rep.Complete,
		SelfAttested: rep.SelfAttested, Countersigned: w.kind, CountersignBy: w.by.recorder, Sealed: rep.Sealed, Opened: rep.Opened, SealedTo: rep.SealedTo,
		Problems: append([]string{}, rep.Problems...),
	}
	if len(w.sign.Key) > 0 {
		v.CountersignKey, v.CountersignAt = w.sign.Key, &w.sign.Time
	}
	by := map[string]string{}
	for _, s := range w.seen {
		v.SeenUntil = max(v.SeenUntil, s.Until().Seconds())
		if by[string(s.Key)] = s.by.recorder; s.by.key != nil && s.by.recorder == "" {
			by[string(s.Key)] = "hub"
		}
	}
	v.Seen = []seenJSON{}
	for _, s := range rep.Seen {
		v.Seen = append(v.Seen, seenJSON{s.Key, s.Time, by[string(s.Key)], s.Until().Seconds(), s.Seq})
	}
	return v
}

func verifyWords(rep recording.Report, w witness, good bool) string {
	var b strings.Builder
	m := rep.Meta
	fmt.Fprintf(&b, "recording %s: %s as %s on %s, %s, %s long\n", printable(rep.ID), printable(who(m)), printable(m.LocalUser),
		printable(m.Host), m.Start.UTC().Format("2006-01-02 15:04:05 UTC"), recording.Clock(rep.Ends))
	for _, p := range rep.Problems {
		fmt.Fprintf(&b, "problem at %s\n", printable(p))
	}
	signed, at, key := w.sign, "", ""
	if len(signed.Key) > 0 {
		at, key = signed.Time.UTC().Format("2006-01-02 15:04:05 UTC"), base64.StdEncoding.EncodeToString(signed.Key)
	}
	if w.kind == witnessOther {
		fmt.Fprintf(&b, "problem: its start was countersigned by %s, which is not the key of this mesh's hub or of a recorder that its policy names (--hub-key KEY for another)\n", key)
	}
	switch {
	case good:
		fmt.Fprintf(&b, "ok: whole, in order and signed to its end\n")
	case w.kind == witnessOther:
		fmt.Fprintf(&b, "not ok: nothing is proven about where it comes from\n")
	default:
		fmt.Fprintf(&b, "not ok: proven until %s\n", recording.Clock(rep.ProvenUntil))
	}
	switch w.kind {
	case witnessNone:
		fmt.Fprintf(&b, "note: neither hub nor recorder countersigned its start, so it proves nothing against root of the host itself\n")
	case witnessHub, witnessRecorder:
		switch {
		case bytes.Equal(w.by.key, signed.Key):
			fmt.Fprintf(&b, "its start was countersigned by %s at %s\n", w.by, at)
		case key != "":
			fmt.Fprintf(&b, "note: its start was countersigned at %s by %s, which is no key that is known here\n", at, key)
		default:
			fmt.Fprintf(&b, "note: nobody countersigned its start\n")
		}
	case witnessUnknown:
		fmt.Fprintf(&b, "note: its start was countersigned at %s by %s; no hub's key is known here to compare with (--hub-key KEY)\n", at, key)
	}
	for _, s := range w.seen {
		by := s.by.String()
		if bytes.Equal(s.Key, signed.Key) {
			by = "the same key"
		}
		fmt.Fprintf(&b, "%s signed at %s that it had all up to %s\n", by, s.Time.UTC().Format("2006-01-02 15:04:05 UTC"), recording.Clock(s.Until()))
	}
	if late := signed.Time.Sub(m.Start); len(signed.Key) > 0 && late > lateWitness {
		fmt.Fprintf(&b, "note: that was %s after it began; until then only the host vouches for it\n", late.Round(time.Second))
	}
	b.WriteString(sealedWords(rep))
	if rep.SelfAttested {
		fmt.Fprintf(&b, "note: self-attested: the person recorded could have altered it before it left the host\n")
	}
	return b.String()
}

// lateWitness is how long after the beginning a countersignature is worth a note: hub or
// recorder were away, or the recording was made afterwards.
const lateWitness = 5 * time.Minute
