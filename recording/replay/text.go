package replay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"tssh/policy"
	"tssh/recording"
	"tssh/recording/find"
	"tssh/recording/store"
	"tssh/recording/transcript"
)

const (
	keptTexts   = 4    // transcripts in memory, some 20 MB each at most
	linesAtOnce = 2000 // of a transcript in one answer
	hitsInOne   = 1000 // of a search inside one recording
	maxFound    = 200  // recordings that one search may ask for
	madeAtOnce  = 2    // transcripts

	longestSearch = 3 * time.Second // inside one recording
)

var textLimits = transcript.Limits{Lines: 100_000, Bytes: 8 << 20, Commands: 5000, Marks: 5000, Work: 2e9}

// texts keeps the transcripts that were asked for last.
type texts struct {
	v    *Viewer
	room chan struct{} // one for each that is being made

	mu   sync.Mutex
	kept []*text // the one used last is last
}

type text struct {
	id   string
	size int64
	made chan struct{} // closed when t or err is there
	t    *transcript.Transcript
	err  error
}

// usable reports whether e will do for a recording of this size. One that is being made does: otherwise
// who asks again and again about a recording that runs would have it made many times over at once.
func (e *text) usable(size int64) bool {
	select {
	case <-e.made:
		return e.size == size && e.err == nil
	default:
		return true
	}
}

// of gives the transcript of a recording as far as it is in the store, or as it was a moment ago. It is made once,
// however many ask, and of few recordings at a time.
func (x *texts) of(sum *store.Summary) (*transcript.Transcript, error) {
	x.mu.Lock()
	var e *text
	for i, k := range x.kept {
		if k.id == sum.Meta.ID {
			x.kept = append(x.kept[:i], x.kept[i+1:]...)
			if k.usable(sum.Size) {
				e = k
			}
			break
		}
	}
	ours := e == nil
	if ours {
		e = &text{id: sum.Meta.ID, size: sum.Size, made: make(chan struct{})}
	}
	if x.kept = append(x.kept, e); len(x.kept) > keptTexts {
		x.kept = x.kept[1:]
	}
	x.mu.Unlock()
	if ours {
		x.room <- struct{}{}
		e.t, e.err = x.v.read(sum)
		<-x.room
		close(e.made)
	}
	<-e.made
	return e.t, e.err
}

func (v *Viewer) read(sum *store.Summary) (*transcript.Transcript, error) {
	src, err := v.cfg.Store.Read(sum.Meta.ID)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	r, err := v.cfg.Keys.NewReader(src, src.Size())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return transcript.Read(r, textLimits)
}

type (
	transcriptJSON struct {
		Commands []commandJSON `json:"commands"`
		Marks    []markJSON    `json:"marks"`
		Lines    []lineJSON    `json:"lines"`
		Total    int           `json:"total"`           // lines in all
		Until    float64       `json:"until,omitempty"` // text that came later is not here
	}
	commandJSON struct {
		Channel uint32  `json:"ch"`
		T       float64 `json:"t"`
		End     float64 `json:"end,omitempty"`
		Text    string  `json:"text"`
		Source  string  `json:"source"`
		Exit    *int    `json:"exit,omitempty"`
		Signal  string  `json:"signal,omitempty"`
	}
	markJSON struct {
		Channel uint32  `json:"ch"`
		T       float64 `json:"t"`
		End     float64 `json:"end,omitempty"`
		Kind    string  `json:"kind"`
		Text    string  `json:"text"`
		Failed  bool    `json:"failed,omitempty"`
	}
	lineJSON struct {
		Channel uint32  `json:"ch"`
		T       float64 `json:"t"`
		Text    string  `json:"text"`
		Command int     `json:"command"`
		Stderr  bool    `json:"stderr,omitempty"`
	}
	foundJSON struct {
		Viewer     viewerJSON `json:"viewer"`
		Recordings []hitJSON  `json:"recordings"`
		Next       string     `json:"next,omitempty"`
		// Partial is what of the recordings one may see the index does not have; the first page says it.
		Partial *partialJSON `json:"partial,omitempty"`
	}
	partialJSON struct {
		Recordings int      `json:"recordings"`
		Hosts      []string `json:"hosts"` // some of them
		More       bool     `json:"more,omitempty"`
	}
	hitJSON struct {
		summaryJSON
		IndexedUntil *float64   `json:"indexed_until,omitempty"` // what came after this second is not in the index
		Lines        []lineJSON `json:"lines"`
		More         bool       `json:"more,omitempty"`
	}
	foundOneJSON struct {
		Lines []lineJSON `json:"lines"`
		More  bool       `json:"more,omitempty"`
		Until float64    `json:"until,omitempty"`
	}
)

// seconds rounds up: at that second the line is there.
func seconds(d time.Duration) float64 {
	return float64((d + time.Millisecond - time.Microsecond).Milliseconds()) / 1000
}

func lineOf(l transcript.Line) lineJSON {
	return lineJSON{l.Channel, seconds(l.At), l.Text, l.Command, l.Stderr}
}

// transcript gives the commands and marks, and lines from the one that "from" numbers.
func (v *Viewer) transcript(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.shown(r, id)
	if err != nil {
		return err
	}
	from := 0
	if s := r.URL.Query().Get("from"); s != "" {
		if from, err = strconv.Atoi(s); err != nil || from < 0 {
			return &refusal{http.StatusBadRequest, "from is the number of a line", ""}
		}
	}
	t, err := v.texts.of(&sum)
	if err != nil {
		return err
	}
	part := t.Lines[min(from, len(t.Lines)):min(from+linesAtOnce, len(t.Lines))]
	of := map[string]string{"from": second(0), "until": second(0)}
	if len(part) > 0 {
		of = map[string]string{"from": second(part[0].At), "until": second(part[len(part)-1].At)}
	}
	if err := v.note("recording.transcript", id, &sum, from/linesAtOnce, of); err != nil {
		return err
	}
	respond(w, http.StatusOK, transcriptOf(t, from, linesAtOnce))
	return nil
}

// transcriptOf gives n lines from one on, and the rest with the first.
func transcriptOf(t *transcript.Transcript, from, n int) transcriptJSON {
	out := transcriptJSON{Commands: []commandJSON{}, Marks: []markJSON{}, Lines: []lineJSON{}, Total: len(t.Lines), Until: seconds(t.Until)}
	if from == 0 {
		for _, c := range t.Commands {
			out.Commands = append(out.Commands, commandJSON{c.Channel, seconds(c.At), seconds(c.End), c.Text, c.Source, c.Exit, c.Signal})
		}
		for _, m := range t.Marks {
			out.Marks = append(out.Marks, markJSON{m.Channel, seconds(m.At), seconds(m.End), m.Kind, m.Text, m.Failed})
		}
	}
	for _, l := range t.Lines[min(from, len(t.Lines)):min(from+n, len(t.Lines))] {
		out.Lines = append(out.Lines, lineOf(l))
	}
	return out
}

// searchOne looks through the lines of one recording, for words in any case or a regular expression (RE2).
func (v *Viewer) searchOne(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.shown(r, id)
	if err != nil {
		return err
	}
	q, re := r.URL.Query().Get("q"), r.URL.Query().Get("re") == "1"
	if strings.TrimSpace(q) == "" || len(q) > maxQuery {
		return &refusal{http.StatusBadRequest, "say what to look for, in at most 200 bytes", ""}
	}
	fits, err := matcher(q, re)
	if err != nil {
		return &refusal{http.StatusBadRequest, "this is not a regular expression: " + strings.TrimPrefix(err.Error(), "error parsing regexp: "), ""}
	}
	if err := v.note("recording.search", id, &sum, -1, map[string]string{"q": q, "re": r.URL.Query().Get("re")}); err != nil {
		return err
	}
	t, err := v.texts.of(&sum)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), longestSearch)
	defer cancel()
	respond(w, http.StatusOK, fitting(ctx, t, fits))
	return nil
}

// fitting gives the lines that fit, as many as there may be, and those up to where time was up: a line is bounded, and
// what an expression (RE2) takes for it, but not what it takes for all of them.
func fitting(ctx context.Context, t *transcript.Transcript, fits func(string) bool) foundOneJSON {
	out := foundOneJSON{Lines: []lineJSON{}, Until: seconds(t.Until)}
	for _, l := range t.Lines {
		if ctx.Err() != nil {
			out.Until = seconds(l.At)
			break
		}
		if !fits(l.Text) {
			continue
		}
		if len(out.Lines) == hitsInOne {
			out.More = true
			break
		}
		out.Lines = append(out.Lines, lineOf(l))
	}
	return out
}

func matcher(q string, re bool) (func(string) bool, error) {
	if re {
		x, err := regexp.Compile("(?i)" + q)
		if err != nil {
			return nil, err
		}
		return x.MatchString, nil
	}
	words := strings.Fields(strings.ToLower(strings.ReplaceAll(q, `"`, " ")))
	return func(s string) bool {
		s = strings.ToLower(s)
		for _, w := range words {
			if !strings.Contains(s, w) {
				return false
			}
		}
		return len(words) > 0
	}, nil
}

// search looks through all recordings that id may see.
func (v *Viewer) search(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	if v.cfg.Search == nil {
		return &refusal{http.StatusNotFound, "this recorder has no search over all recordings", ""}
	}
	q := r.URL.Query()
	words := q.Get("q")
	if len(words) > maxQuery {
		return &refusal{http.StatusBadRequest, "these are too many words", ""}
	}
	var before int64
	limit := 50
	var err error
	if s := q.Get("before"); s != "" {
		if before, err = strconv.ParseInt(s, 10, 64); err != nil {
			return &refusal{http.StatusBadRequest, "before is what an answer gave as next", ""}
		}
	}
	if s := q.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > maxFound {
			return &refusal{http.StatusBadRequest, fmt.Sprintf("a limit is from 1 to %d", maxFound), ""}
		}
	}
	if err := v.note("recording.search", id, nil, -1, map[string]string{"q": words, "before": q.Get("before")}); err != nil {
		return err
	}
	may := v.asker(id)
	hits, next, err := v.cfg.Search.Search(r.Context(), find.Query{Words: words, May: may, Before: before, Limit: limit})
	if errors.Is(err, find.ErrNoWords) {
		return &refusal{http.StatusBadRequest, "say what to look for: a word with a letter or a digit", ""}
	}
	if err != nil {
		return err
	}
	out := foundJSON{Viewer: viewerJSON{id.Who(), id.Name}, Recordings: []hitJSON{}}
	if before == 0 {
		p, err := v.cfg.Search.Partial(r.Context(), may)
		if err != nil {
			return err
		}
		if p.Recordings > 0 {
			out.Partial = &partialJSON{p.Recordings, p.Hosts, p.More}
		}
	}
	for i := range hits {
		h := hitJSON{summaryJSON: summarize(id, &hits[i].Summary), Lines: []lineJSON{}, More: hits[i].More}
		if u := hits[i].Until; u >= 0 {
			s := seconds(u)
			h.IndexedUntil = &s
		}
		for _, l := range hits[i].Lines {
			h.Lines = append(h.Lines, lineJSON{Channel: l.Channel, T: seconds(l.At), Text: l.Text, Command: -1})
		}
		out.Recordings = append(out.Recordings, h)
	}
	if next != 0 {
		out.Next = strconv.FormatInt(next, 10)
	}
	respond(w, http.StatusOK, out)
	return nil
}

// text gives the transcript as a text file: each command with its time and how it ended, and the lines under it.
func (v *Viewer) text(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	sum, err := v.shown(r, id)
	if err != nil {
		return err
	}
	if err := v.note("recording.download", id, &sum, -1, map[string]string{"as": "text", "from": "0.0"}); err != nil {
		return err
	}
	t, err := v.texts.of(&sum)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="`+sum.Meta.ID+`.txt"`)
	b := bufio.NewWriter(w)
	m := &sum.Meta
	fmt.Fprintf(b, "# %s as %s on %s, %s, recording %s\n", person(&sum), m.LocalUser, m.Host, m.Start.UTC().Format(time.RFC3339), m.ID)
	last := -1
	for _, l := range t.Lines {
		if l.Command != last && l.Command >= 0 {
			c := t.Commands[l.Command]
			fmt.Fprintf(b, "\n# %s %s (%s%s)\n", recording.Clock(c.At), c.Text, c.Source, endWords(c))
		}
		last = l.Command
		fmt.Fprintln(b, l.Text)
	}
	if t.Until > 0 {
		fmt.Fprintf(b, "\n# what came after %s is not in this text\n", recording.Clock(t.Until))
	}
	return b.Flush()
}

func endWords(c transcript.Command) string {
	switch {
	case c.Signal != "":
		return ", SIG" + c.Signal
	case c.Exit != nil:
		return ", exit " + strconv.Itoa(*c.Exit)
	}
	return ""
}
