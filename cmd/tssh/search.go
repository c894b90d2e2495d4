package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"tssh/recording"
)

// foundRow is one recording in which something was found, as `tssh search --json` prints it.
type foundRow struct {
	recordingRow
	Lines []foundLine `json:"lines"`
	More  bool        `json:"more,omitempty"` // there are more such lines
	// IndexedUntil is where the index of the recording ends, where that is before its end.
	IndexedUntil *float64 `json:"indexed_until,omitempty"`
}

type foundLine struct {
	T       float64 `json:"t"` // seconds since the start
	Channel uint32  `json:"ch"`
	Text    string  `json:"text"`
}

// search is `tssh search [--json] [--limit N] WORDS...`: what was on the screens of recordings.
func (a *app) search(ctx context.Context, args []string) error {
	f := a.flags("search")
	asJSON := f.Bool("json", false, "")
	limit := f.Int("limit", 50, "")
	identity := f.String("identity", "", "")
	form := "search [--json] [--limit N] WORDS... | search [--identity FILE] FILE.tsr... WORDS..."
	if err := f.parse(args, 1, 64, form); err != nil {
		return err
	}
	if *limit < 1 || *limit > 200 {
		return usage("a limit is from 1 to 200").withHint("tssh " + form)
	}
	if files, words := localFiles(f.rest); len(files) > 0 {
		return a.searchFiles(files, words, *identity, *limit, *asJSON)
	}
	if *identity != "" {
		return usage("--identity is for a search in files").withHint("tssh " + form)
	}
	places, err := a.places(ctx)
	if err != nil {
		return err
	}
	// Words that the shell was given in quotes stay together.
	words := make([]string, len(f.rest))
	for i, w := range f.rest {
		if words[i] = w; strings.ContainsAny(w, " \t") && !strings.Contains(w, `"`) {
			words[i] = `"` + w + `"`
		}
	}
	type page struct {
		Recordings []struct {
			foundRow
			Type string `json:"type"`
		} `json:"recordings"`
		Next    string `json:"next"`
		Partial *struct {
			Recordings int      `json:"recordings"`
			Hosts      []string `json:"hosts"`
			More       bool     `json:"more"`
		} `json:"partial"`
	}
	pages, err := ofAll(ctx, a, places, "was not looked through", func(ctx context.Context, p place) (got page, err error) {
		q := url.Values{"q": {strings.Join(words, " ")}, "limit": {strconv.Itoa(*limit)}}
		err = p.json(ctx, "/api/search?"+q.Encode(), &got)
		for i := range got.Recordings {
			got.Recordings[i].Recorder = p.name
		}
		return got, err
	})
	if err != nil {
		return err
	}
	rows := []foundRow{}
	more := false
	by := map[string]int{}
	for _, page := range pages {
		more = more || page.Next != ""
		if p := page.Partial; p != nil {
			more := ""
			if p.More {
				more = " or more"
			}
			fmt.Fprintf(a.err, "tssh: note: %d recordings%s that you may see are not in the index whole, of %s: search inside them, on their pages\n", p.Recordings, more, oneLine(strings.Join(p.Hosts, ", ")))
		}
		for _, r := range page.Recordings {
			r.Kind = r.Type
			i, have := by[r.ID]
			switch {
			case !have:
				by[r.ID] = len(rows)
				rows = append(rows, r.foundRow)
			case r.better(rows[i].recordingRow):
				rows[i] = r.foundRow
			}
		}
	}
	if len(pages) > 1 {
		slices.SortStableFunc(rows, func(x, y foundRow) int { return y.Start.Compare(x.Start) })
	}
	if *asJSON {
		return a.printJSON(rows)
	}
	if len(rows) == 0 {
		return failed("nothing of the kind was on a screen that you may see")
	}
	a.printFound(rows, strings.Join(words, " "))
	if more {
		fmt.Fprintf(a.err, "tssh: hint: there are more recordings: --limit %d, or more words\n", min(200, *limit*4))
	}
	return nil
}

// printFound prints what was found; words are those that the hub was asked for.
func (a *app) printFound(rows []foundRow, words string) {
	for _, r := range rows {
		fmt.Fprintf(a.out, "%s  %s  %s as %s on %s\n", oneLine(r.ID), r.Start.Local().Format("2006-01-02 15:04:05"), oneLine(r.Who), oneLine(r.LocalUser), oneLine(r.Host))
		for _, l := range r.Lines {
			fmt.Fprintf(a.out, "  %s  %s\n", recording.Clock(time.Duration(l.T*float64(time.Second))), oneLine(l.Text))
		}
		if r.IndexedUntil != nil {
			fmt.Fprintf(a.out, "  searched up to %s only; the rest is not in the index\n", recording.Clock(time.Duration(*r.IndexedUntil*float64(time.Second))))
		}
		switch {
		case r.More && words != "":
			fmt.Fprintf(a.out, "  earlier ones too: http://%s/r/%s?q=%s\n", oneLine(r.Recorder), oneLine(r.ID), url.QueryEscape(words))
		case r.More:
			fmt.Fprintln(a.out, "  and more: --limit N")
		}
	}
}
