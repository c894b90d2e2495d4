package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	xterm "golang.org/x/term"

	"tssh/recording"
	"tssh/recording/transcript"
)

// exportFile is `tssh play --export FORMAT FILE`: a recording for other programs, on standard output. It returns an exit status.
func exportFile(path, format string, opt playOptions, stdout *os.File, stderr io.Writer) int {
	if xterm.IsTerminal(int(stdout.Fd())) && format != "text" {
		fmt.Fprintf(stderr, "tssh: error: a cast is for a file\ntssh: hint: tssh play --export %s ID > NAME.cast\n", printable(format))
		return 2
	}
	out := bufio.NewWriter(stdout)
	var err error
	switch format {
	case "cast":
		err = exportCast(path, 3, opt, out)
	case "cast2":
		err = exportCast(path, 2, opt, out)
	case "text":
		var tr track
		if tr, err = openTrack(path, opt.Keys); err == nil {
			err = writeTranscript(tr, out)
			tr.close()
		}
	default:
		fmt.Fprintf(stderr, "tssh: error: %q is not a format; there are cast, cast2 and text\n", printable(format))
		return 2
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		sayUnopened(err, opt.Keys, stderr)
		return 1
	}
	return 0
}

func exportCast(path string, version int, opt playOptions, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	r, err := opt.Keys.NewReader(f, st.Size())
	if err != nil {
		return err
	}
	defer r.Close()
	t, err := transcript.Read(r, localLimits)
	if err != nil {
		return err
	}
	if err := recording.WriteCast(w, r, recording.CastOptions{Version: version, Markers: t.Markers()}); err != nil {
		if errors.Is(err, recording.ErrNoChannel) {
			return errors.New("nothing to export: no terminal and no program ran in this connection")
		}
		return err
	}
	return nil
}
