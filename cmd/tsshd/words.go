package main

import (
	"errors"
	"fmt"
	"io"

	"tssh/netnode/netmap"
)

// version is what the daemon says of itself; the build sets it.
var version = "0.1-dev"

// trouble is an error in words for the person who started the daemon.
type trouble struct {
	words, what string
	err         error
}

func fail(format string, a ...any) *trouble { return &trouble{words: fmt.Sprintf(format, a...)} }

// hint says what to do about it.
func (t *trouble) hint(s string) *trouble { t.what = s; return t }

// because keeps the cause, which is printed after the words.
func (t *trouble) because(err error) *trouble { t.err = err; return t }

func (t *trouble) Error() string {
	if t.err != nil {
		return t.words + ": " + t.err.Error()
	}
	return t.words
}

func (t *trouble) Unwrap() error { return t.err }

// explain prints an error as people read it and returns the exit status.
func explain(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	words, what := err.Error(), ""
	var t *trouble
	var j *netmap.JoinError
	switch {
	case errors.As(err, &t):
		words, what = t.Error(), t.what
	case errors.As(err, &j):
		words, what = j.Say, j.Hint
	}
	fmt.Fprintf(w, "tsshd: error: %s\n", words)
	if what != "" {
		fmt.Fprintf(w, "tsshd: hint: %s\n", what)
	}
	return 1
}
