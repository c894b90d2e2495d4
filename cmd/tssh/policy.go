package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"tssh/policy"
)

const policyUsage = `usage: tssh policy eval --policy FILE --directory FILE.json [< queries.jsonl] [> decisions.jsonl]
       tssh policy check FILE [--directory FILE.json]
       tssh policy test FILE [--directory FILE.json]
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
}

// parsePolicyArgs takes flags before and after the file.
func parsePolicyArgs(verb string, args []string) (policyFiles, error) {
	var f policyFiles
	fs := flag.NewFlagSet(verb, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&f.directory, "directory", "", "")
	if verb == "eval" {
		fs.StringVar(&f.policy, "policy", "", "")
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
	case verb != "eval" && len(rest) != 1:
		return f, fmt.Errorf("policy %s needs one FILE", verb)
	case verb != "eval":
		f.policy = rest[0]
	}
	return f, nil
}

// load reads both files and prints what is wrong with them; ok is false then.
func (f policyFiles) load(stderr io.Writer) (p *policy.Policy, d *policy.Directory, ok bool) {
	text, err := readBounded(f.policy, maxPolicyFile)
	if err != nil {
		fmt.Fprintf(stderr, "tssh: error: %s\n", err)
		return nil, nil, false
	}
	if f.directory != "" {
		raw, err := readBounded(f.directory, maxDirectoryFile)
		if err == nil {
			d, err = policy.ReadDirectory(raw)
		}
		if err != nil {
			fmt.Fprintf(stderr, "tssh: error: %s: %s\n", f.directory, err)
			return nil, nil, false
		}
	}
	p, problems := policy.Parse(f.policy, text)
	if p != nil {
		problems = p.Warnings()
	}
	printProblems(stderr, problems)
	return p, d, p != nil
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

func policyCheck(f policyFiles, _ io.Reader, _, stderr io.Writer) int {
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
