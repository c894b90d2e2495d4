package find

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"tssh/recording/store"
)

// Query is a search.
type Query struct {
	Words  string
	May    func(*store.Summary) bool // nil finds nothing
	Before int64                     // cursor of the page before; 0 begins. Negative: words are beginnings of words
	Limit  int                       // recordings at most; 0 means 50
	Lines  int                       // of each recording at most; 0 means 5
}

// Hit is one recording in which there is a line that fits.
type Hit struct {
	Summary store.Summary
	Lines   []Line
	More    bool // there are more lines than are given, which are the last ones
	// Until is where the index of it ends; negative: it has all of it.
	Until time.Duration
	done  bool
}

// Line is a line that fits.
type Line struct {
	Channel uint32
	At      time.Duration
	Text    string
}

// ErrNoWords is the answer to a query without a word to look for.
var ErrNoWords = errors.New("there is no word to look for")

const (
	chunk     = 20_000 // rows read of one statement
	skips     = 500    // rows read over, before it is cheaper to ask anew below them
	maxChunks = 200    // statements in one search
	maxWords  = 16
)

// Search gives recordings that q finds, newest first, and a cursor if there may be more.
func (x *Index) Search(ctx context.Context, q Query) (hits []Hit, next int64, err error) {
	if q.May == nil {
		return nil, 0, nil
	}
	if q.Limit <= 0 {
		q.Limit = 50
	}
	if q.Lines <= 0 {
		q.Lines = 5
	}
	if q.Before < 0 {
		q.Before = -q.Before
		hits, next, err = x.search(ctx, q, matchOf(q.Words, "*"))
		return hits, -next, err
	}
	if hits, next, err = x.search(ctx, q, matchOf(q.Words, "")); err != nil || len(hits) > 0 || q.Before != 0 {
		return hits, next, err
	}
	// Only now, for all rows of all words that begin so are gathered first.
	hits, next, err = x.search(ctx, q, matchOf(q.Words, "*"))
	return hits, -next, err
}

func (x *Index) search(ctx context.Context, q Query, match string) (hits []Hit, next int64, err error) {
	if match == "" {
		return nil, 0, ErrNoWords
	}
	before := q.Before
	if before <= 0 {
		before = 1 << 62
	}
	for range maxChunks {
		var end bool
		hits, before, end, err = x.chunk(ctx, q, match, hits, before)
		if err != nil {
			return nil, 0, fmt.Errorf("find: %w", err)
		}
		if end {
			return inOrder(hits), 0, nil
		}
		if len(hits) >= q.Limit && full(hits, q) {
			return inOrder(hits), before, nil
		}
	}
	return inOrder(hits), before, nil
}

// full says that the last recording has all the lines it may have.
func full(hits []Hit, q Query) bool { return hits[len(hits)-1].More || hits[len(hits)-1].done }

// inOrder turns the lines of each recording, which were found from its end, round.
func inOrder(hits []Hit) []Hit {
	for i := range hits {
		slices.Reverse(hits[i].Lines)
	}
	return hits
}

// chunk reads rows below before and stops where it knows that the rest of a recording is not wanted.
func (x *Index) chunk(ctx context.Context, q Query, match string, hits []Hit, before int64) ([]Hit, int64, bool, error) {
	rows, err := x.db.QueryContext(ctx, `SELECT lines.rowid, lines.text, lines.ch, lines.at, recs.id, recs.first, recs.until FROM lines JOIN recs ON recs.rec = lines.rec
		WHERE lines MATCH ? AND lines.rowid < ? ORDER BY lines.rowid DESC LIMIT ?`, match, before, chunk)
	if err != nil {
		return hits, before, false, err
	}
	defer rows.Close()
	n, skipped := 0, 0
	over := int64(1) << 62 // rows from here on are read over
	for rows.Next() {
		n++
		var row, at, first, until int64
		var l Line
		var id string
		if err := rows.Scan(&row, &l.Text, &l.Channel, &at, &id, &first, &until); err != nil {
			return hits, before, false, err
		}
		before = row
		if row >= over {
			if skipped++; skipped > skips {
				return hits, over, false, nil
			}
			continue
		}
		over, skipped = 1<<62, 0
		l.At = time.Duration(at) * time.Millisecond
		if len(hits) == 0 || hits[len(hits)-1].Summary.Meta.ID != id {
			if len(hits) == q.Limit {
				hits[len(hits)-1].done = true
				return hits, row + 1, false, nil
			}
			s, err := x.cfg.Store.Lookup(id)
			if err != nil || !q.May(&s) {
				over = first
				continue
			}
			hits = append(hits, Hit{Summary: s, Until: time.Duration(until) * time.Millisecond})
		}
		h := &hits[len(hits)-1]
		if len(h.Lines) == q.Lines {
			h.More = true
			over = first
			if len(hits) == q.Limit {
				return hits, first, false, nil
			}
			continue
		}
		h.Lines = append(h.Lines, l)
	}
	if err := rows.Err(); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return hits, before, false, err
	}
	return hits, before, n < chunk, nil
}

// matchOf makes an FTS5 expression in which everything is quoted; suffix "*" makes each word the beginning of one.
func matchOf(words, suffix string) string {
	var parts []string
	words = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, words)
	for i, run := range strings.Split(words, `"`) {
		list := []string{run}
		if i%2 == 0 {
			list = strings.Fields(run)
		}
		for _, w := range list {
			if len(parts) < maxWords && strings.ContainsFunc(w, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }) {
				parts = append(parts, `"`+w+`"`+suffix)
			}
		}
	}
	return strings.Join(parts, " AND ")
}

// maxPartial is how many recordings Partial looks at, the newest.
const maxPartial = 10_000

// Partial is what of the recordings that somebody may see is not in the index.
type Partial struct {
	Recordings int
	Hosts      []string // a few of their names
	More       bool     // there may be more than were looked at
}

// maxPartialHosts bounds their names.
const maxPartialHosts = 8

// Partial counts the recordings of which only the beginning is in the index, or nothing any more.
func (x *Index) Partial(ctx context.Context, may func(*store.Summary) bool) (Partial, error) {
	var p Partial
	if may == nil {
		return p, nil
	}
	rows, err := x.db.QueryContext(ctx, "SELECT id FROM recs WHERE until >= 0 ORDER BY rec DESC LIMIT ?", maxPartial+1)
	if err != nil {
		return p, fmt.Errorf("find: %w", err)
	}
	defer rows.Close()
	for n := 0; rows.Next(); n++ {
		if n == maxPartial {
			p.More = true
			break
		}
		var id string
		if err := rows.Scan(&id); err != nil {
			return p, fmt.Errorf("find: %w", err)
		}
		s, err := x.cfg.Store.Lookup(id)
		if err != nil || !may(&s) {
			continue
		}
		if p.Recordings++; len(p.Hosts) < maxPartialHosts && !slices.Contains(p.Hosts, s.Meta.Host) {
			p.Hosts = append(p.Hosts, s.Meta.Host)
		}
	}
	if err := rows.Err(); err != nil {
		return p, fmt.Errorf("find: %w", err)
	}
	return p, nil
}

// MaxPaths is how many recordings Paths gives at most, the newest.
const MaxPaths = 10_000

// Paths gives the ids of recordings in which something was done to a file whose path has part in it; letters of either
// case are the same, and a * stands for anything. Whether somebody may see them is for the caller to ask.
func (x *Index) Paths(ctx context.Context, part string) (map[string]bool, error) {
	like := strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`, "*", "%").Replace(part)
	rows, err := x.db.QueryContext(ctx, `SELECT DISTINCT recs.id FROM files JOIN recs ON recs.rec = files.rec WHERE files.path LIKE ? ESCAPE '\' ORDER BY files.rec DESC LIMIT ?`, "%"+like+"%", MaxPaths)
	if err != nil {
		return nil, fmt.Errorf("find: %w", err)
	}
	defer rows.Close()
	ids := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("find: %w", err)
		}
		ids[id] = true
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("find: %w", err)
	}
	return ids, nil
}
