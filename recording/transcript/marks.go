package transcript

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// mark is an OSC 133 or 633 that a shell sent.
type mark struct {
	letter byte   // A, B, C or D
	exit   *int   // of D
	text   string // of C, where the shell named the command before (633;E)
}

// markScanner finds marks in a stream, in whatever pieces it comes.
type markScanner struct {
	in   bool // within an OSC
	esc  bool // the last byte was ESC
	buf  []byte
	text string
}

// next says how many bytes of data come before something is to be done, and whether what they
// end with is a mark.
func (s *markScanner) next(data []byte) (int, mark, bool) {
	for i, x := range data {
		switch {
		case s.in && (x == 7 || s.esc && x == '\\'):
			body := strings.TrimSuffix(string(s.buf), "\x1b")
			s.in, s.esc, s.buf = false, false, s.buf[:0]
			if m, ok := s.parse(body); ok {
				return i + 1, m, true
			}
		case s.in && (x == 0x18 || x == 0x1a):
			s.in, s.esc, s.buf = false, false, s.buf[:0]
		case s.in:
			s.esc = x == 0x1b
			if len(s.buf) < longestMark {
				s.buf = append(s.buf, x)
			}
		case s.esc && x == ']':
			s.in, s.esc = true, false
		default:
			s.esc = x == 0x1b
		}
	}
	return len(data), mark{}, false
}

func (s *markScanner) parse(body string) (mark, bool) {
	rest, ok := strings.CutPrefix(body, "133;")
	if !ok {
		if rest, ok = strings.CutPrefix(body, "633;"); !ok {
			return mark{}, false
		}
	}
	parts := strings.Split(rest, ";")
	switch parts[0] {
	case "A", "B":
		return mark{letter: parts[0][0]}, true
	case "E": // 633 only: the command line, with \xHH for what would end the sequence
		if len(parts) > 1 {
			s.text = unescape(parts[1])
		}
	case "C":
		m := mark{letter: 'C', text: s.text}
		s.text = ""
		return m, true
	case "D":
		m := mark{letter: 'D'}
		if len(parts) > 1 {
			if n, err := strconv.Atoi(parts[1]); err == nil && n >= 0 && n < 1<<16 {
				m.exit = &n
			}
		}
		return m, true
	}
	return mark{}, false
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			if s[i+1] == '\\' {
				b.WriteByte('\\')
				i++
				continue
			}
			if s[i+1] == 'x' && i+3 < len(s) {
				if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
					b.WriteByte(byte(n))
					i += 3
					continue
				}
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func lastRune(s string) rune {
	r, _ := utf8.DecodeLastRuneInString(s)
	return r
}

func itoa(n int) string { return strconv.Itoa(n) }
