package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is the whole program: 0 done, 1 it could not be done, 2 the command line is wrong.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{in: stdin, out: stdout, err: stderr}
	err := c.command(args)
	var u usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return 0
	case errors.As(err, &u):
		fmt.Fprintf(stderr, "tsshub: error: %s\n%s", u.what, usage)
		return 2
	}
	sayError(stderr, err)
	return 1
}

// cli is one run of the program.
type cli struct {
	in       io.Reader
	out, err io.Writer
	state    string
	json     bool
}

type usageError struct{ what string }

func (e usageError) Error() string { return e.what }

// verb is a command of one or two words.
type verb struct {
	flags func(*flag.FlagSet) // may be nil
	min   int                 // arguments after the flags
	max   int
	run   func(args []string) error
}

func (c *cli) command(args []string) error {
	if len(args) == 0 {
		return usageError{"a command is missing"}
	}
	if args[0] == "serve" {
		return c.serve(args[1:])
	}
	verbs := c.verbs()
	name, rest := args[0], args[1:]
	if _, ok := verbs[name]; !ok && len(rest) > 0 {
		name, rest = name+" "+rest[0], rest[1:]
	}
	v, ok := verbs[name]
	if !ok {
		if args[0] == "help" || args[0] == "-h" || args[0] == "--help" || args[0] == "-help" {
			return flag.ErrHelp
		}
		if more := verbsOf(verbs, args[0]); more != "" {
			return usageError{args[0] + ": say which of " + more}
		}
		return usageError{fmt.Sprintf("there is no command %q", printable(name))}
	}
	fs := newFlags(name)
	fs.StringVar(&c.state, "state", defaultState(), "")
	fs.BoolVar(&c.json, "json", false, "")
	if v.flags != nil {
		v.flags(fs)
	}
	pos, err := parse(fs, rest)
	if err != nil {
		return err
	}
	if len(pos) < v.min || len(pos) > v.max {
		return usageError{fmt.Sprintf("%s: %d arguments, and %s", name, len(pos), wanted(v.min, v.max))}
	}
	return v.run(pos)
}

// verbsOf are the second words of commands that begin with a first one.
func verbsOf(verbs map[string]verb, first string) string {
	var more []string
	for name := range verbs {
		if second, ok := strings.CutPrefix(name, first+" "); ok {
			more = append(more, second)
		}
	}
	slices.Sort(more)
	return strings.Join(more, ", ")
}

func wanted(min, max int) string {
	if min == max {
		return fmt.Sprintf("%d wanted", min)
	}
	return fmt.Sprintf("%d to %d wanted", min, max)
}

func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// parse takes flags before, between and after the arguments. After "--" there are none.
func parse(fs *flag.FlagSet, args []string) (pos []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, usageError{fs.Name() + ": " + err.Error()}
		}
		rest := fs.Args()
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" {
			return append(pos, rest...), nil
		}
		if len(rest) == 0 {
			return pos, nil
		}
		pos, args = append(pos, rest[0]), rest[1:]
	}
}
