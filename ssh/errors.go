package ssh

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Codes that end the last line of a failed login or session. Scripts read them.
const (
	CodeUnreachable = "unreachable"
	CodeHostKey     = "host-key"
	CodeDenied      = "denied"
	CodeCheckNeeded = "check-needed"
	CodeRecorder    = "recorder"
	CodeLimit       = "limit"
	CodeRevoked     = "revoked"
	CodeExpired     = "expired"
)

func knownCode(s string) bool {
	switch s {
	case CodeUnreachable, CodeHostKey, CodeDenied, CodeCheckNeeded, CodeRecorder, CodeLimit, CodeRevoked, CodeExpired:
		return true
	}
	return false
}

// Error is why there is no session, or no more.
type Error struct {
	Code  string // one of Code*
	Words string // one line, safe to print
	Err   error  // for -v; may be nil
}

func (e *Error) Error() string { return e.Words }
func (e *Error) Unwrap() error { return e.Err }

func failure(code string, err error, format string, a ...any) *Error {
	return &Error{Code: code, Words: fmt.Sprintf(format, a...), Err: err}
}

// Plain makes text from outside safe for a terminal: control characters and the invisible
// ones that reorder text go, line ends stay, and it is bounded.
func Plain(s string) string {
	const most = 8 << 10
	if len(s) > most {
		s = s[:most] + "..."
	}
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == '\u2028', r == '\u2029':
			return -1
		case r == utf8.RuneError:
			return '?'
		}
		return r
	}, s)
}

// line is Plain on a single line.
func line(s string) string { return strings.Join(strings.Fields(Plain(s)), " ") }

// splitCode takes a trailing "[code]" off a sentence from the host.
func splitCode(s string) (words, code string) {
	s = line(s)
	if rest, ok := strings.CutSuffix(s, "]"); ok {
		if i := strings.LastIndexByte(rest, '['); i >= 0 && knownCode(rest[i+1:]) {
			return strings.TrimSpace(rest[:i]), rest[i+1:]
		}
	}
	return s, ""
}

// lastLine is the last line of a banner that says something, and what is before it.
func lastLine(s string) (before, last string) {
	s = strings.TrimRight(s, " \r\n\t")
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		return s[:i+1], s[i+1:]
	}
	return "", s
}

// asError finds our own error in a chain.
func asError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}
