package ssh

import (
	"path"
	"slices"
	"strings"
)

// Patterns of a host's path are read as a shell and scp read them: * ? [a-z] within a name,
// none of them for a leading dot, {a,b}, and a backslash before what is meant as it is.

// maxBraces bounds what {a,b} may become.
const maxBraces = 1000

// match finds the paths that a pattern stands for.
func (f *Files) match(pattern string) ([]string, error) {
	var all []string
	for _, p := range braces(pattern) {
		found, err := f.matchOne(p)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func (f *Files) matchOne(pattern string) ([]string, error) {
	at := []string{""}
	if strings.HasPrefix(pattern, "/") {
		at = []string{"/"}
	}
	parts := strings.FieldsFunc(pattern, func(r rune) bool { return r == '/' })
	for i, part := range parts {
		var next []string
		for _, dir := range at {
			if !hasMeta(part) {
				p := path.Join(dir, unescape(part))
				if i < len(parts)-1 {
					next = append(next, p)
				} else if _, err := f.lstat(p); err == nil {
					next = append(next, p)
				}
				continue
			}
			list := dir
			if list == "" {
				list = "."
			}
			entries, err := f.readDir(list)
			if err != nil {
				continue // is none, or may not be read: nothing matches
			}
			for _, e := range entries {
				n := e.Name()
				if strings.HasPrefix(n, ".") && !strings.HasPrefix(part, ".") || n == "." || n == ".." || !f.nameable(n) {
					continue
				}
				ok, err := path.Match(part, n)
				if err != nil {
					return nil, err
				}
				if ok {
					next = append(next, path.Join(dir, n))
				}
			}
		}
		at = next
	}
	slices.Sort(at)
	return at, nil
}

func hasMeta(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// braces expands {a,b}; what has no comma or no end is meant as it is.
func braces(s string) []string {
	todo, done := []string{s}, []string{}
	for len(todo) > 0 && len(todo)+len(done) <= maxBraces {
		p := todo[0]
		todo = todo[1:]
		open, parts, rest, ok := firstBrace(p)
		if !ok {
			done = append(done, p)
			continue
		}
		var out []string
		for _, x := range parts {
			out = append(out, p[:open]+x+rest)
		}
		todo = append(out, todo...)
	}
	return append(done, todo...)
}

func firstBrace(s string) (open int, parts []string, rest string, ok bool) {
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
			continue
		}
		if s[i] != '{' {
			continue
		}
		depth, from := 0, i+1
		parts = nil
		for k := i; k < len(s); k++ {
			switch s[k] {
			case '\\':
				k++
			case '{':
				depth++
			case ',':
				if depth == 1 {
					parts, from = append(parts, s[from:k]), k+1
				}
			case '}':
				if depth--; depth == 0 {
					if parts == nil {
						k = len(s) // {x} is no choice
						break
					}
					return i, append(parts, s[from:k]), s[k+1:], true
				}
			}
		}
	}
	return 0, nil, "", false
}
