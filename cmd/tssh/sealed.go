package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	xterm "golang.org/x/term"

	"tssh/recording"
	"tssh/recording/transcript"
)

// identityFlag is --identity FILE of the verbs that read recordings.
func identityFlag(fs *flag.FlagSet) *string {
	return fs.String("identity", "", "`file` with the key that opens sealed recordings: age identities or an ssh-ed25519 private key")
}

// maxIdentity bounds an identity file.
const maxIdentity = 64 << 10

// loadKeys reads an identity file; none is no keys.
func loadKeys(path string, stderr io.Writer) (*recording.Keys, bool) {
	keys, err := readKeys(path)
	if err != nil {
		fmt.Fprintf(stderr, "tssh: error: %v\n", err)
		return nil, false
	}
	return keys, true
}

func readKeys(path string) (*recording.Keys, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIdentity+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxIdentity {
		return nil, fmt.Errorf("%s is too long for an identity", path)
	}
	keys, err := recording.ParseKeys(b, func() ([]byte, error) { return askPassphrase(path) })
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "recording: identity: "))
	}
	return keys, nil
}

// askPassphrase asks on the person's terminal, whatever standard input is.
func askPassphrase(path string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("the ssh key has a passphrase, and there is no terminal to ask on")
	}
	defer tty.Close()
	fmt.Fprintf(tty, "passphrase of %s: ", printable(path))
	defer fmt.Fprintln(tty)
	return xterm.ReadPassword(int(tty.Fd()))
}

// sayUnopened says why a recording or cast does not open. Where it is sealed, that is what
// matters, not at which frame it shows.
func sayUnopened(err error, keys *recording.Keys, stderr io.Writer) {
	sealed := (*recording.SealedError)(nil)
	if !errors.As(err, &sealed) {
		fmt.Fprintf(stderr, "tssh: error: %v\n", err)
		return
	}
	words := strings.TrimPrefix(sealed.Error(), "recording: ")
	if keys != nil {
		words = "the key given opens nothing here: " + words
	}
	fmt.Fprintf(stderr, "tssh: error: %s\ntssh: hint: --identity FILE, with the key of one of them\n", words)
}

// sealedWords say what verify could not look at, or could.
func sealedWords(rep recording.Report) string {
	switch {
	case !rep.Sealed:
		return ""
	case rep.Opened && len(rep.Problems) == 0:
		return "sealed; all of it was opened and is well-formed\n"
	}
	var to []string
	for _, w := range rep.SealedTo {
		to = append(to, printable(w))
	}
	return "note: sealed to " + strings.Join(to, ", ") + "; without a key (--identity FILE) all but the content was checked\n"
}

// localFiles takes the recordings out of the arguments of search.
func localFiles(args []string) (files, words []string) {
	for _, s := range args {
		if st, err := os.Stat(s); strings.HasSuffix(s, ".tsr") && err == nil && st.Mode().IsRegular() {
			files = append(files, s)
		} else {
			words = append(words, s)
		}
	}
	return files, words
}

var localLimits = transcript.Limits{Lines: 1_000_000, Bytes: 256 << 20, Commands: 50_000, Marks: 50_000}

// searchFiles looks through recordings that are files here, for lines with all the words in any case.
func (a *app) searchFiles(files, words []string, identity string, limit int, asJSON bool) error {
	keys, err := readKeys(identity)
	if err != nil {
		return failed("%v", err)
	}
	for i, w := range words {
		words[i] = strings.ToLower(strings.Trim(w, `"`))
	}
	if !slices.ContainsFunc(words, func(w string) bool { return strings.TrimSpace(w) != "" }) {
		return usage("say what to look for").withHint("tssh search " + files[0] + " WORDS...")
	}
	rows := []foundRow{}
	for _, file := range files {
		row, err := searchFile(file, words, keys, limit)
		if sealed := (*recording.SealedError)(nil); errors.As(err, &sealed) {
			return failed("%s: %v", file, strings.TrimPrefix(err.Error(), "recording: ")).withHint("--identity FILE, with the key of one of them")
		}
		if err != nil {
			return failed("%s: %v", file, err)
		}
		if len(row.Lines) > 0 {
			rows = append(rows, row)
		}
	}
	if asJSON {
		return a.printJSON(rows)
	}
	if len(rows) == 0 {
		return failed("nothing of the kind was on a screen in there")
	}
	a.printFound(rows, "")
	return nil
}

func searchFile(file string, words []string, keys *recording.Keys, limit int) (foundRow, error) {
	f, err := os.Open(file)
	if err != nil {
		return foundRow{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return foundRow{}, err
	}
	r, err := keys.NewReader(f, st.Size())
	if err != nil {
		return foundRow{}, err
	}
	defer r.Close()
	t, err := transcript.Read(r, localLimits)
	if err != nil {
		return foundRow{}, err
	}
	m := r.Meta()
	row := foundRow{recordingRow: recordingRow{ID: m.ID, Start: m.Start, Duration: r.Duration().Seconds(), Host: m.Host, Src: m.Src, Who: who(m),
		LocalUser: m.LocalUser, Size: st.Size(), Complete: r.Complete()}}
	add := func(ch uint32, at float64, text string) {
		low := strings.ToLower(text)
		for _, w := range words {
			if !strings.Contains(low, w) {
				return
			}
		}
		if row.More = len(row.Lines) >= limit; !row.More {
			row.Lines = append(row.Lines, foundLine{T: at, Channel: ch, Text: text})
		}
	}
	for _, c := range t.Commands {
		if c.Source == transcript.SourceExec {
			add(c.Channel, c.At.Seconds(), c.Text)
		}
	}
	for _, k := range t.Marks {
		add(k.Channel, k.At.Seconds(), k.Text)
	}
	for _, l := range t.Lines {
		add(l.Channel, l.At.Seconds(), l.Text)
	}
	slices.SortStableFunc(row.Lines, func(a, b foundLine) int {
		switch {
		case a.T < b.T:
			return -1
		case a.T > b.T:
			return 1
		}
		return 0
	})
	return row, nil
}
