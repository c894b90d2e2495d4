package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	maxList      = 64 << 20
	maxRecording = 64 << 30
	maxPages     = 10000
)

// recordingRow is one recording, as `tssh sessions --json` prints it.
type recordingRow struct {
	ID        string          `json:"id"`
	Start     time.Time       `json:"start"`
	Duration  float64         `json:"duration"` // seconds
	Host      string          `json:"host"`
	Src       string          `json:"src"`
	Who       string          `json:"who"`
	LocalUser string          `json:"local_user"`
	Kind      string          `json:"kind"` // shell, exec or sftp: what was opened first
	Command   string          `json:"command,omitempty"`
	Exit      json.RawMessage `json:"exit,omitempty"`
	Cause     string          `json:"cause,omitempty"`
	Size      int64           `json:"size"`
	Complete  bool            `json:"complete"`
	Live      bool            `json:"live"`
	Sealed    bool            `json:"sealed,omitempty"`
	Unsealed  string          `json:"unsealed,omitempty"` // why it is not sealed as the policy asks, in the hub's words
	// Unrecorded is a session that runs and is not recorded: it can be ended, and not watched.
	Unrecorded bool   `json:"unrecorded,omitempty"`
	Why        string `json:"why,omitempty"`      // it is not recorded although it should be
	Recorder   string `json:"recorder,omitempty"` // where it is: hub, or the name of another recorder
}

// filterTerms are the terms of a filter that the hub knows (docs/recordings.md).
var filterTerms = strings.Fields("who host as from tag kind cmd path exit after before longer is")

// sessions is `tssh sessions [--json] [FILTER...]`, `tssh sessions fetch ID FILE`,
// `tssh sessions end ID --reason WORDS` and `tssh sessions delete ID --reason WORDS`.
func (a *app) sessions(ctx context.Context, args []string) error {
	f := a.flags("sessions")
	asJSON := f.Bool("json", false, "")
	reason := f.String("reason", "", "")
	form := "sessions [--json] [FILTER...] | sessions fetch ID FILE | sessions end|delete ID --reason WORDS"
	if err := f.parse(args, 0, 64, form); err != nil {
		return err
	}
	if len(f.rest) == 3 && f.rest[0] == "fetch" {
		_, err := a.fetchTo(ctx, f.rest[1], f.rest[2])
		return err
	}
	if len(f.rest) == 2 && f.rest[0] == "end" {
		return a.endSession(ctx, f.rest[1], *reason)
	}
	if len(f.rest) == 2 && f.rest[0] == "delete" {
		return a.deleteRecording(ctx, f.rest[1], *reason)
	}
	if *reason != "" || len(f.rest) > 0 && (f.rest[0] == "fetch" || f.rest[0] == "end" || f.rest[0] == "delete") {
		return usage("wrong arguments").withHint("tssh " + form)
	}
	places, err := a.places(ctx)
	if err != nil {
		return err
	}
	rows, sealed, err := a.allRows(ctx, places, strings.Join(f.rest, " "))
	if err != nil {
		return err
	}
	if sealed > 0 { // on standard error: the list may be read by a program
		fmt.Fprintf(a.err, "tssh: note: %d sealed recordings that fit otherwise were not looked into: their commands and files are readable with a key only\n", sealed)
	}
	if *asJSON {
		return a.printJSON(rows)
	}
	if len(rows) == 0 {
		words := "nothing is recorded that you may see"
		if len(f.rest) > 0 {
			words = "nothing that you may see fits"
		}
		for _, w := range f.rest {
			// Such a word is looked for as it is: tag:ci, or part of a command.
			if name, _, ok := strings.Cut(w, ":"); ok && !slices.Contains(filterTerms, strings.ToLower(name)) {
				words += fmt.Sprintf("; %q is looked for as a word, the terms are %s:", printable(w), strings.Join(filterTerms, ": "))
				break
			}
		}
		fmt.Fprintln(a.err, "tssh: note: "+words)
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	where := func(string) string { return "" }
	if len(places) > 1 {
		where = func(name string) string { return name + "\t" }
	}
	fmt.Fprintf(w, "ID\tSTART\tLONG\tWHO\tAS\tHOST\t%sWHAT\n", where("KEPT AT"))
	for _, r := range rows {
		what := r.Kind
		if r.Command != "" {
			what += ": " + r.Command
		}
		switch {
		case r.Unrecorded && r.Why != "":
			what = "not recorded (live): " + r.Why
		case r.Unrecorded:
			what = "not recorded (live)"
		case r.Live:
			what += " (live)"
		}
		if r.Unsealed != "" {
			what += " (" + r.Unsealed + ")"
		}
		cut := []rune(oneLine(what))
		if len(cut) > 60 {
			cut = append(cut[:57], []rune("...")...)
		}
		long := time.Duration(r.Duration * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s%s\n", oneLine(r.ID), r.Start.Local().Format("2006-01-02 15:04:05"), long, oneLine(r.Who), oneLine(r.LocalUser), oneLine(r.Host), where(oneLine(r.Recorder)), string(cut))
	}
	return w.Flush()
}

// recordingRows reads all pages of a recorder's list of what fits the filter, and how many sealed ones may fit as well.
func recordingRows(ctx context.Context, at place, filter string) (rows []recordingRow, sealed int, err error) {
	rows = []recordingRow{}
	next := ""
	for range maxPages {
		q := url.Values{}
		if filter != "" {
			q.Set("q", filter)
		}
		if next != "" {
			q.Set("before", next)
		}
		resp, err := at.get(ctx, "/api/recordings", q)
		if err != nil {
			return nil, 0, err
		}
		var page struct {
			Recordings []struct {
				recordingRow
				Type string `json:"type"`
			} `json:"recordings"`
			Next       string         `json:"next"`
			Unrecorded []recordingRow `json:"unrecorded"`
			Sealed     int            `json:"sealed"`
		}
		err = json.NewDecoder(io.LimitReader(resp.Body, maxList)).Decode(&page)
		resp.Body.Close()
		if err != nil {
			return nil, 0, failed("the list of recordings of %s is not understood: %v", at, err)
		}
		sealed += max(0, page.Sealed)
		for _, r := range page.Unrecorded {
			if at.name != hubHost {
				break // hosts tell the hub alone
			}
			r.Recorder, r.Unrecorded, r.Live, r.Duration = at.name, true, true, max(0, time.Since(r.Start).Seconds())
			rows = append(rows, r)
		}
		for _, r := range page.Recordings {
			r.Kind, r.Recorder, r.Unrecorded = r.Type, at.name, false
			rows = append(rows, r.recordingRow)
		}
		if page.Next == "" || page.Next == next || len(page.Recordings) == 0 {
			return rows, sealed, nil
		}
		next = page.Next
	}
	return rows, sealed, nil
}

var recordingID = regexp.MustCompile(`^[A-Za-z0-9_-]{6,80}$`)

// recording is play and verify: an argument that is the id of a recording, and no file here,
// is fetched from its recorder first.
func (a *app) recording(ctx context.Context, verb string, args []string) (int, error) {
	args = append([]string(nil), args...)
	unsealed := ""
	for i := 0; i < len(args); i++ {
		s := args[i]
		if s == "--speed" || s == "-speed" || s == "--idle" || s == "-idle" || s == "--hub-key" || s == "-hub-key" || s == "--identity" || s == "-identity" || s == "--export" || s == "-export" {
			i++ // its value
			continue
		}
		if s == "" || s[0] == '-' {
			continue
		}
		if _, err := os.Lstat(s); err == nil {
			continue
		}
		if !recordingID.MatchString(s) {
			if !strings.ContainsAny(s, "./") {
				return 0, failed("%q is neither a file nor the id of a recording", printable(s)).withHint("tssh sessions")
			}
			continue
		}
		dir, err := os.MkdirTemp("", "tssh-recording-")
		if err != nil {
			return 0, failed("%v", err)
		}
		defer os.RemoveAll(dir)
		file := filepath.Join(dir, s+".tsr")
		if unsealed, err = a.fetchTo(ctx, s, file); err != nil {
			return 0, err
		}
		args[i] = file
		break
	}
	if verb == "play" {
		return playCommand(args, a.in, a.outFile, a.err), nil
	}
	return verifyCommand(args, a.signers(ctx), unsealed, a.out, a.err), nil
}

// signers are those whose countersignatures count, when a node that runs here knows them: the
// hub, with keys that it had before, and the recorders that rules name.
func (a *app) signers(ctx context.Context) []signer {
	_, st, err := a.node(ctx, false)
	if err != nil {
		return nil
	}
	var out []signer
	for _, k := range append([]string{st.HubKey}, st.FormerHubKeys...) {
		if key, err := parseHubKey(k); err == nil {
			out = append(out, signer{key: key})
		}
	}
	for _, r := range st.Recorders {
		if key, err := parseHubKey(r.Key); err == nil {
			out = append(out, signer{key: key, recorder: r.Name, node: r.ID})
		}
	}
	return out
}

// fetchTo writes a recording to a new file; what there was under the name stays until it is whole. It gives
// what the hub says about its sealing, where that is not as the policy asks.
func (a *app) fetchTo(ctx context.Context, id, file string) (unsealed string, err error) {
	if !recordingID.MatchString(id) {
		return "", usage("%q is not the id of a recording", id).withHint("tssh sessions")
	}
	at, err := a.placeOf(ctx, id)
	if err != nil {
		return "", err
	}
	resp, err := at.get(ctx, "/api/recordings/"+id+"/file", nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	tmp, err := os.CreateTemp(filepath.Dir(file), ".tssh-*")
	if err != nil {
		return "", failed("%v", err)
	}
	defer os.Remove(tmp.Name())
	n, err := io.Copy(tmp, io.LimitReader(resp.Body, maxRecording))
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil && resp.ContentLength >= 0 && n != resp.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if cause := context.Cause(ctx); cause != nil {
		return "", cause
	}
	if err != nil {
		return "", failed("recording %s: %v", id, err)
	}
	return oneLine(resp.Header.Get("Tssh-Unsealed")), nil
}
