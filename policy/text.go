package policy

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tailscale/hujson"
)

const (
	maxText  = 16 << 20 // bytes of a policy file
	maxDepth = 64       // of nested objects and lists; real files need six
)

// parseText bounds the text, then makes a tree of it. The parser recurses, and a stack
// that overflows ends the process, so the depth is counted before it sees anything.
func parseText(r *report, text []byte) (*hujson.Value, bool) {
	if len(text) > maxText {
		r.add(-1, false, "the file is larger than "+strconv.Itoa(maxText>>20)+" MiB")
		return nil, false
	}
	if !utf8.Valid(text) {
		off := 0
		for off < len(text) {
			c, n := utf8.DecodeRune(text[off:])
			if c == utf8.RuneError && n == 1 {
				break
			}
			off += n
		}
		r.errorf(off, "the text is not valid UTF-8")
		return nil, false
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		r.errorf(i, "the text has a NUL byte")
		return nil, false
	}
	empty, deepAt := scan(text)
	if empty {
		r.errorf(0, "the file is empty; a policy that says nothing must be written as {}")
		return nil, false
	}
	if deepAt >= 0 {
		r.errorf(deepAt, "nested deeper than %d levels", maxDepth)
		return nil, false
	}
	// A final line comment must have its newline for the parser; offsets stay as they are.
	src := make([]byte, len(text), len(text)+1)
	copy(src, text)
	if bytes.HasPrefix(src, []byte("\xef\xbb\xbf")) {
		copy(src, "   ")
	}
	v, err := hujson.Parse(append(src, '\n'))
	if err != nil {
		words := strings.TrimPrefix(err.Error(), "hujson: ")
		var line, col int
		if rest, ok := strings.CutPrefix(words, "line "); ok {
			num, rest, _ := strings.Cut(rest, ", column ")
			line, _ = strconv.Atoi(num)
			num, rest, _ = strings.Cut(rest, ": ")
			col, _ = strconv.Atoi(num)
			words = rest
		}
		if strings.HasPrefix(words, `invalid character '\''`) {
			words += "; strings stand in double quotes"
		}
		if strings.HasPrefix(words, "invalid literal: ") {
			words += "; a policy is JSON with comments, whose keys and strings stand in double quotes"
		}
		off := len(text)
		if line > 0 && line <= len(r.lines) {
			off = min(r.lines[line-1]+max(col-1, 0), len(text))
		}
		r.errorf(off, "syntax: %s", words)
		return nil, false
	}
	return &v, true
}

// scan reports whether there is nothing but blanks and comments, and the offset at which
// the nesting passes maxDepth, or -1. It knows strings and comments and nothing else.
func scan(text []byte) (empty bool, deepAt int) {
	empty = true
	depth := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			empty = false
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case c == '/' && i+1 < len(text) && text[i+1] == '/':
			for i < len(text) && text[i] != '\n' {
				i++
			}
		case c == '/' && i+1 < len(text) && text[i+1] == '*':
			end := bytes.Index(text[i+2:], []byte("*/"))
			if end < 0 {
				return false, -1 // the parser says what is wrong
			}
			i += 2 + end + 1
		case c == '{' || c == '[':
			empty = false
			if depth++; depth > maxDepth {
				return false, i
			}
		case c == '}' || c == ']':
			empty = false
			depth--
		case c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == 0xef || c == 0xbb || c == 0xbf:
		default:
			empty = false
		}
	}
	return empty, -1
}

// word is a string of the file and where it stands.
type word struct {
	text string
	off  int
}

func kindName(v *hujson.Value) string {
	switch v.Value.Kind() {
	case 'n':
		return "null"
	case 't', 'f':
		return "true or false"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '{':
		return "an object"
	}
	return "a list"
}

func isNull(v *hujson.Value) bool { return v.Value.Kind() == 'n' }

// member is one key of an object, with its value.
type member struct {
	key   word
	value *hujson.Value
}

// members lists the keys of an object. Keys that are the same but for case are an error:
// which of the two would count is not to be guessed.
func (r *report) members(v *hujson.Value, what string, foldKeys bool) []member {
	if isNull(v) {
		return nil
	}
	o, ok := v.Value.(*hujson.Object)
	if !ok {
		r.errorf(v.StartOffset, "%s must be an object, not %s", what, kindName(v))
		return nil
	}
	out := make([]member, 0, len(o.Members))
	seen := make(map[string]int, len(o.Members))
	for i := range o.Members {
		m := &o.Members[i]
		name, ok := literalString(m.Name.Value)
		if !ok {
			r.errorf(m.Name.StartOffset, "%s has a key that is not a valid string", what)
			continue
		}
		k := word{strings.TrimSpace(name), m.Name.StartOffset}
		fold := k.text
		if foldKeys {
			fold = strings.ToLower(fold)
		}
		if first, dup := seen[fold]; dup {
			line, _ := r.place(first)
			r.errorf(k.off, "%s has the key %q twice, first on line %d", what, k.text, line)
			continue
		}
		seen[fold] = k.off
		out = append(out, member{k, &m.Value})
	}
	return out
}

// fields reads an object whose keys are known. known maps the right spelling to what
// reads the value; an unknown key is an error. notes lets keys that start with # pass.
func (r *report) fields(v *hujson.Value, what string, notes bool, known map[string]func(*hujson.Value)) {
	for _, m := range r.members(v, what, true) {
		if notes && strings.HasPrefix(m.key.text, "#") {
			continue
		}
		read, ok := known[m.key.text]
		for name, f := range known {
			if !ok && strings.EqualFold(name, m.key.text) {
				read, ok = f, true
			}
		}
		if !ok {
			names := make([]string, 0, len(known))
			for name := range known {
				names = append(names, name)
			}
			r.errorf(m.key.off, "unknown key %q in %s%s", m.key.text, strings.TrimPrefix(what, "test(s) failed: "), r.hintWord(m.key.text, names))
			continue
		}
		read(m.value)
	}
}

func literalString(v hujson.ValueTrimmed) (string, bool) {
	l, ok := v.(hujson.Literal)
	if !ok || l.Kind() != '"' {
		return "", false
	}
	// A string without escapes is itself.
	if inner := l[1 : len(l)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), true
	}
	var s string
	if json.Unmarshal(l, &s) != nil {
		return "", false
	}
	return s, true
}

func (r *report) str(v *hujson.Value, what string) (word, bool) {
	if isNull(v) {
		return word{"", v.StartOffset}, false
	}
	s, ok := literalString(v.Value)
	if !ok {
		r.errorf(v.StartOffset, "%s must be a string, not %s", what, kindName(v))
		return word{}, false
	}
	return word{strings.TrimSpace(s), v.StartOffset}, true
}

// list reads a list of strings; null is no list.
func (r *report) list(v *hujson.Value, what string) []word {
	if isNull(v) {
		return nil
	}
	a, ok := v.Value.(*hujson.Array)
	if !ok {
		r.errorf(v.StartOffset, "%s must be a list of strings, not %s", what, kindName(v))
		return nil
	}
	out := make([]word, 0, len(a.Elements))
	for i := range a.Elements {
		e := &a.Elements[i]
		if s, ok := literalString(e.Value); ok {
			out = append(out, word{strings.TrimSpace(s), e.StartOffset})
			continue
		}
		r.errorf(e.StartOffset, "%s must be a list of strings, this is %s", what, kindName(e))
	}
	return out
}

// entries gives the elements of a list of objects.
func (r *report) entries(v *hujson.Value, what string) []hujson.ArrayElement {
	if isNull(v) {
		return nil
	}
	a, ok := v.Value.(*hujson.Array)
	if !ok {
		r.errorf(v.StartOffset, "%s must be a list, not %s", what, kindName(v))
		return nil
	}
	return a.Elements
}

func (r *report) boolean(v *hujson.Value, what string) bool {
	switch v.Value.Kind() {
	case 't':
		return true
	case 'f', 'n':
	default:
		r.errorf(v.StartOffset, "%s must be true or false, not %s", what, kindName(v))
	}
	return false
}
