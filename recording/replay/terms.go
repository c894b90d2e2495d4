package replay

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tssh/recording/find"
	"tssh/recording/store"
)

// terms are the parts of a filter that have a name: "host:web exit:!0 after:2026-11-01". Other
// words go to the store, which looks for them in person, host, user, command and id. All must fit; a term
// that is given twice fits either way.
type terms struct {
	live  bool
	paths []string // of files; the index knows in which recordings
	fits  [][]func(*store.Summary) bool
	inner [][]func(*store.Summary) bool // about what is sealed in a sealed recording: these can fit none
}

func parseTerms(words string, now time.Time) (t terms, rest string, no *refusal) {
	var plain []string
	by := map[string][]func(*store.Summary) bool{}
	for _, w := range strings.Fields(words) {
		name, value, named := strings.Cut(w, ":")
		if w == "is:live" {
			t.live = true
			continue
		}
		if strings.EqualFold(name, "path") && value != "" {
			t.paths = append(t.paths, value)
			continue
		}
		if !named || value == "" {
			plain = append(plain, w)
			continue
		}
		f, known, ok := termOf(strings.ToLower(name), strings.ToLower(value), now)
		if !known {
			plain = append(plain, w) // "tag:ci" and the like occur in what the store looks through
			continue
		}
		if !ok {
			return t, "", &refusal{http.StatusBadRequest, "the filter " + strconv.Quote(w) + " is not understood; " + takes[strings.ToLower(name)], ""}
		}
		name = strings.ToLower(name)
		by[name] = append(by[name], f)
	}
	for name, fs := range by {
		if name == "cmd" {
			t.inner = append(t.inner, fs)
		} else {
			t.fits = append(t.fits, fs)
		}
	}
	return t, strings.Join(plain, " "), nil
}

// find asks the index for the recordings that the paths are in.
func (t *terms) find(ctx context.Context, x *find.Index) error {
	if len(t.paths) == 0 {
		return nil
	}
	if x == nil {
		return &refusal{http.StatusBadRequest, "this recorder has no index of files", ""}
	}
	var some []func(*store.Summary) bool
	for _, p := range t.paths {
		ids, err := x.Paths(ctx, p)
		if err != nil {
			return err
		}
		some = append(some, func(s *store.Summary) bool { return ids[s.Meta.ID] })
	}
	t.inner = append(t.inner, some)
	return nil
}

func (t *terms) fit(s *store.Summary) bool { return fitAll(t.fits, s) }

// inside is fit for the terms about what a recording holds.
func (t *terms) inside(s *store.Summary) bool { return fitAll(t.inner, s) }

func fitAll(all [][]func(*store.Summary) bool, s *store.Summary) bool {
	for _, any := range all {
		ok := false
		for _, f := range any {
			ok = ok || f(s)
		}
		if !ok {
			return false
		}
	}
	return true
}

// takes says what the terms that not every word fits take.
var takes = map[string]string{
	"kind":   "kind: takes shell, exec or sftp",
	"exit":   "exit: takes a number, or ! and a number for any other (exit:!0)",
	"after":  "after: takes a day (2026-11-26) or an age (36h, 7d)",
	"before": "before: takes a day (2026-11-26) or an age (36h, 7d)",
	"longer": "longer: takes a time (10m, 2h)",
	"is":     "is: takes live, interactive or unsealed",
}

// span is a time.Duration in words, and days (7d).
func span(s string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		d, err := strconv.ParseUint(n, 10, 16)
		return time.Duration(d) * 24 * time.Hour, err
	}
	return time.ParseDuration(s)
}

func termOf(name, value string, now time.Time) (f func(*store.Summary) bool, known, ok bool) {
	has := func(text string) bool { return strings.Contains(strings.ToLower(text), value) }
	some := func(list []string) bool {
		for _, x := range list {
			if has(x) {
				return true
			}
		}
		return false
	}
	switch name {
	case "who":
		return func(s *store.Summary) bool { return has(s.Meta.Login) || some(s.Meta.SrcTags) }, true, true
	case "host":
		return func(s *store.Summary) bool { return strings.ToLower(s.Meta.Host) == value || some(s.Meta.HostTags) }, true, true
	case "as":
		return func(s *store.Summary) bool { return strings.ToLower(s.Meta.LocalUser) == value }, true, true
	case "from":
		return func(s *store.Summary) bool { return has(s.Meta.Src) || has(s.Meta.SrcAddr) }, true, true
	case "tag":
		return func(s *store.Summary) bool { return some(s.Meta.SrcTags) || some(s.Meta.HostTags) }, true, true
	case "kind":
		return func(s *store.Summary) bool { return s.Main().Type == value }, true, value == "shell" || value == "exec" || value == "sftp"
	case "cmd":
		return func(s *store.Summary) bool {
			for _, c := range s.Channels {
				if has(c.Command) {
					return true
				}
			}
			return false
		}, true, true
	case "exit":
		want, not := strings.CutPrefix(value, "!")
		n, err := strconv.Atoi(want)
		return func(s *store.Summary) bool {
			for _, c := range s.Channels {
				if c.Exit != nil && (c.Exit.Signal == "" && c.Exit.Status == n) != not {
					return true
				}
			}
			return false
		}, true, err == nil
	case "after", "before":
		at, err := time.ParseInLocation(time.DateOnly, value, now.Location())
		if err != nil {
			d, derr := span(value)
			if at, err = now.Add(-d), derr; err != nil || d < 0 {
				return nil, true, false
			}
		}
		return func(s *store.Summary) bool { return s.Meta.Start.Before(at) == (name == "before") }, true, true
	case "longer":
		d, err := span(value)
		return func(s *store.Summary) bool { return s.Duration > d }, true, err == nil
	case "is":
		if value == "unsealed" {
			return func(s *store.Summary) bool { return s.Unsealed != "" }, true, true
		}
		return func(s *store.Summary) bool { return s.Main().PTY }, true, value == "interactive"
	}
	return nil, false, false
}
