package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problem is one thing wrong with a policy file, at the place where it is written.
type Problem struct {
	File    string
	Line    int // from 1; 0 when the problem has no place
	Col     int // from 1, in characters
	Words   string
	Warning bool // the file loads all the same
}

// Error is "FILE:LINE:COL: words", with "warning: " before the words of a warning.
func (p Problem) Error() string {
	mark := ""
	if p.Warning {
		mark = "warning: "
	}
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s%s", p.File, mark, p.Words)
	}
	return fmt.Sprintf("%s:%d:%d: %s%s", p.File, p.Line, p.Col, mark, p.Words)
}

// These bound what one bad file can say.
const (
	maxProblems = 500
	maxWords    = 2000 // bytes of one problem
)

// report collects the problems of one file; offsets become lines and columns here.
type report struct {
	file     string
	text     []byte
	lines    []int // offset of each line's first byte
	problems []Problem
	errors   int
	hints    int // looked for so far
}

func newReport(file string, text []byte) *report {
	r := &report{file: file, text: text, lines: []int{0}}
	for at := 0; ; {
		i := bytes.IndexByte(text[at:], '\n')
		if i < 0 {
			return r
		}
		at += i + 1
		r.lines = append(r.lines, at)
	}
}

// place turns an offset into a line and a column. Columns count characters, and bytes
// where a line is so long that counting for each problem would take for ever.
func (r *report) place(off int) (line, col int) {
	off = min(max(off, 0), len(r.text))
	n, exact := slices.BinarySearch(r.lines, off)
	if !exact {
		n--
	}
	if start := r.lines[n]; off-start <= 4096 {
		return n + 1, utf8.RuneCount(r.text[start:off]) + 1
	}
	return n + 1, off - r.lines[n] + 1
}

func (r *report) add(off int, warning bool, words string) {
	if !warning {
		r.errors++
	}
	if len(r.problems) >= maxProblems {
		return
	}
	if len(words) > maxWords {
		words = strings.ToValidUTF8(words[:maxWords], "") + "..."
	}
	p := Problem{File: r.file, Words: words, Warning: warning}
	if off >= 0 {
		p.Line, p.Col = r.place(off)
	}
	r.problems = append(r.problems, p)
	if len(r.problems) == maxProblems {
		r.problems = append(r.problems, Problem{File: r.file, Words: "more problems follow, mend these first"})
	}
}

func (r *report) errorf(off int, format string, args ...any) {
	r.add(off, false, fmt.Sprintf(format, args...))
}

func (r *report) warnf(off int, format string, args ...any) {
	r.add(off, true, fmt.Sprintf(format, args...))
}

// sorted gives the problems in the order of the file, each once.
func (r *report) sorted() []Problem {
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		if (a.Line == 0) != (b.Line == 0) {
			return cmp.Compare(b.Line, a.Line)
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return slices.Compact(r.problems)
}

// nearest is the candidate that word was most likely meant to be, or "".
func nearest(word string, candidates []string) string {
	word = strings.ToLower(word)
	limit := max(1, min(3, len(word)/3))
	if len(word) > 2 {
		limit = max(2, limit)
	}
	best, bestDist := "", 1+limit
	for _, c := range candidates {
		if d := distance(word, strings.ToLower(c), bestDist); d < bestDist {
			best, bestDist = c, d
		}
	}
	return best
}

// Looking for a nearest word is slow, so a file gets a bounded number of hints.
const (
	maxHints      = 200
	maxHintWord   = 80
	maxCandidates = 2000
)

// hint is ", did you mean X?" or nothing.
func (r *report) hint(word string, candidates []string) string {
	if r.hints >= maxHints || len(word) > maxHintWord || len(candidates) > maxCandidates {
		return ""
	}
	r.hints++
	slices.Sort(candidates)
	if n := nearest(word, candidates); n != "" && n != word {
		return fmt.Sprintf(", did you mean %q?", n)
	}
	return ""
}

// otherWords are what people who come from elsewhere write.
var otherWords = map[string]string{
	"source": "src", "sources": "src", "destination": "dst", "destinations": "dst", "dest": "dst", "user": "users", "protocol": "proto", "group": "groups", "host": "hosts",
	"rules": "acls", "acl": "acls", "ports": "ip", "port": "ip", "tags": "tagOwners", "check_period": "checkPeriod", "accept_env": "acceptEnv", "autoapprovers": "autoApprovers",
}

// hintWord is hint that knows what the key is called elsewhere.
func (r *report) hintWord(word string, candidates []string) string {
	for _, c := range candidates {
		if c == otherWords[strings.ToLower(word)] {
			return fmt.Sprintf(", did you mean %q?", c)
		}
	}
	return r.hint(word, candidates)
}

// hintKey is hint with the keys of a map.
func hintKey[K ~string, V any](r *report, word, prefix string, m map[K]V) string {
	if r.hints >= maxHints || len(m) > maxCandidates {
		return ""
	}
	known := make([]string, 0, len(m))
	for k := range m {
		known = append(known, prefix+string(k))
	}
	return r.hint(word, known)
}

// distance counts the single-letter edits and swaps of neighbours between a and b; it
// stops counting at limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	prev2 := make([]int, len(b)+1)
	prev := make([]int, len(b)+1)
	cur := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
