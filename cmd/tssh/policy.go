package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"tssh/policy"
)

const policyUsage = `usage: tssh policy eval --policy FILE --directory FILE.json [< queries.jsonl] [> decisions.jsonl]
       tssh policy check FILE [--directory FILE.json]
       tssh policy test FILE [--directory FILE.json]
       tssh policy lint FILE [--directory FILE.json]
       tssh policy explain FILE --directory FILE.json [--at TIME] SRC ACCOUNT@HOST | SRC HOST:PORT[/udp]
       tssh policy who FILE --directory FILE.json [--as ACCOUNT] [--host HOST] [--from LOGIN]
       tssh policy diff OLD NEW --directory FILE.json
(all but eval take --json; tsshub policy directory prints the mesh's directory)
`

// Limits on what the policy verbs read.
const (
	maxPolicyFile    = 32 << 20  // the parser's own limit is lower and says so better
	maxDirectoryFile = 256 << 20 // a directory of a very large mesh
	maxQueryLine     = 1 << 20
)

// policyCommand is `tssh policy`. Problems go to stderr as FILE:LINE:COL: words, and the
// exit status is 0, 1 for problems, or 2 for a wrong command line.
func policyCommand(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, policyUsage)
		return 2
	}
	verb, args := args[0], args[1:]
	var run func(policyFiles, io.Reader, io.Writer, io.Writer) int
	switch verb {
	case "eval":
		run = policyEval
	case "check":
		run = policyCheck
	case "test":
		run = policyTest
	case "lint":
		run = policyLint
	case "explain":
		run = policyExplain
	case "who":
		run = policyWho
	case "diff":
		run = policyDiff
	case "-h", "--help", "help":
		fmt.Fprint(stdout, policyUsage)
		return 0
	default:
		fmt.Fprintf(stderr, "tssh: error: unknown verb %q of tssh policy\n%s", verb, policyUsage)
		return 2
	}
	files, err := parsePolicyArgs(verb, args)
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stdout, policyUsage)
			return 0
		}
		fmt.Fprintf(stderr, "tssh: error: %s\n%s", err, policyUsage)
		return 2
	}
	return run(files, stdin, stdout, stderr)
}

type policyFiles struct {
	policy, directory string
	json              bool
	rest              []string // what follows the file
	who               policy.WhoQuery
	at                time.Time // zero: hours count as open
}

// policyArgs is how many arguments follow the file, and whether a directory is needed.
var policyArgs = map[string]struct {
	rest      int
	directory bool
}{"check": {}, "test": {}, "lint": {}, "explain": {2, true}, "who": {0, true}, "diff": {1, true}}

// parsePolicyArgs takes flags before and after the file.
func parsePolicyArgs(verb string, args []string) (policyFiles, error) {
	var f policyFiles
	fs := flag.NewFlagSet(verb, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&f.directory, "directory", "", "")
	switch verb {
	case "eval":
		fs.StringVar(&f.policy, "policy", "", "")
	case "explain":
		fs.Func("at", "", func(s string) (err error) {
			f.at, err = parseAt(s, time.Now())
			return err
		})
	case "who":
		fs.StringVar(&f.who.Account, "as", "", "")
		fs.StringVar(&f.who.Host, "host", "", "")
		fs.StringVar(&f.who.Who, "from", "", "")
	}
	if verb != "eval" {
		fs.BoolVar(&f.json, "json", false, "")
	}
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			return f, err
		}
		if fs.NArg() == 0 {
			break
		}
		rest = append(rest, fs.Arg(0))
		args = fs.Args()[1:]
	}
	switch {
	case verb == "eval" && len(rest) > 0:
		return f, fmt.Errorf("unexpected argument %q", rest[0])
	case verb == "eval" && (f.policy == "" || f.directory == ""):
		return f, errors.New("policy eval needs --policy and --directory")
	case verb == "eval":
	case len(rest) == 0:
		return f, fmt.Errorf("policy %s needs a FILE", verb)
	case len(rest) != 1+policyArgs[verb].rest:
		n, s := 1+policyArgs[verb].rest, "s"
		if n == 1 {
			s = ""
		}
		return f, fmt.Errorf("policy %s takes %d argument%s, not %d", verb, n, s, len(rest))
	case policyArgs[verb].directory && f.directory == "":
		return f, fmt.Errorf("policy %s needs --directory (tsshub policy directory prints the mesh's)", verb)
	default:
		f.policy, f.rest = rest[0], rest[1:]
	}
	return f, nil
}

// parseAt reads the time of --at: with its zone, in local time, as a time of today, or now.
func parseAt(s string, now time.Time) (time.Time, error) {
	if s == "now" {
		return now, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02 15:04:05", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	if t, err := time.ParseInLocation("15:04", s, now.Location()); err == nil {
		y, m, d := now.Date()
		return time.Date(y, m, d, t.Hour(), t.Minute(), 0, 0, now.Location()), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time: 2027-01-31T18:00:00+01:00, \"2027-01-31 18:00\", 18:00 or now", s)
}

// load reads both files and prints what is wrong with them; ok is false then.
func (f policyFiles) load(stderr io.Writer) (p *policy.Policy, d *policy.Directory, ok bool) {
	p, d, problems, err := f.read()
	if err != nil {
		fmt.Fprintf(stderr, "tssh: error: %s\n", err)
		return nil, nil, false
	}
	printProblems(stderr, problems)
	return p, d, p != nil
}

// read reads both files; the policy is nil when it does not load, and the problems say why.
func (f policyFiles) read() (p *policy.Policy, d *policy.Directory, problems []policy.Problem, err error) {
	text, err := readBounded(f.policy, maxPolicyFile)
	if err != nil {
		return nil, nil, nil, err
	}
	if f.directory != "" {
		raw, err := readBounded(f.directory, maxDirectoryFile)
		if err == nil {
			d, err = policy.ReadDirectory(raw)
		}
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", f.directory, err)
		}
	}
	p, problems = policy.Parse(f.policy, text)
	if p != nil {
		problems = p.Warnings()
	}
	return p, d, problems, nil
}

func printProblems(w io.Writer, problems []policy.Problem) (failed bool) {
	for _, p := range problems {
		fmt.Fprintln(w, p.Error())
		failed = failed || !p.Warning
	}
	return failed
}

func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s: larger than %d MiB", name, limit>>20)
	}
	return text, nil
}

func policyCheck(f policyFiles, _ io.Reader, stdout, stderr io.Writer) int {
	if f.json {
		return f.problemsJSON(stdout, stderr)
	}
	p, d, ok := f.load(stderr)
	if !ok || printProblems(stderr, policy.RunTests(p, d)) {
		return 1
	}
	return 0
}

// policyTest is check that also says how much was tested.
func policyTest(f policyFiles, _ io.Reader, stdout, stderr io.Writer) int {
	p, d, ok := f.load(stderr)
	if !ok || printProblems(stderr, policy.RunTests(p, d)) {
		return 1
	}
	net, ssh := p.TestCount()
	if f.json {
		return writeJSON(stdout, stderr, map[string]int{"tests": net, "sshTests": ssh})
	}
	fmt.Fprintf(stdout, "%d tests and %d sshTests hold\n", net, ssh)
	return 0
}

// policyEval answers one line for each line, a blank one too. Output is flushed when no further line is
// waiting, so that a program may also ask one question at a time.
func policyEval(f policyFiles, stdin io.Reader, stdout, stderr io.Writer) int {
	p, d, ok := f.load(stderr)
	if !ok {
		return 1
	}
	in := bufio.NewReaderSize(stdin, maxQueryLine)
	out := bufio.NewWriterSize(stdout, 64<<10)
	var buf []byte
	for {
		line, err := in.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.ReadSlice('\n')
		}
		if line = bytes.TrimSpace(line); len(line) > 0 || err == nil {
			if long {
				buf = append(buf[:0], `{"error":"the line is longer than 1 MiB"}`...)
			} else {
				buf = policy.AppendQuery(buf[:0], p, d, line)
			}
			buf = append(buf, '\n')
			if _, werr := out.Write(buf); werr != nil {
				fmt.Fprintf(stderr, "tssh: error: %s\n", werr)
				return 1
			}
		}
		if err != nil {
			if ferr := out.Flush(); ferr != nil {
				err = ferr
			}
			if errors.Is(err, io.EOF) {
				return 0
			}
			fmt.Fprintf(stderr, "tssh: error: %s\n", err)
			return 1
		}
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				fmt.Fprintf(stderr, "tssh: error: %s\n", err)
				return 1
			}
		}
	}
}
