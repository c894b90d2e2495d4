//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"tssh/policy"
	"tssh/recording"
)

// maxSealFile bounds the file of --seal-to.
const maxSealFile = 64 << 10

// readSealFile reads the recipients of --seal-to; a file that is said and has none is an error,
// for then recordings would lie open that were meant to be sealed.
func readSealFile(name string) ([]string, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fail("the recipients of --seal-to cannot be read").because(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSealFile))
	if err != nil {
		return nil, fail("the recipients of --seal-to cannot be read").because(err)
	}
	r, err := recording.ParseRecipients(string(text))
	if err != nil {
		return nil, fail("--seal-to %s: %s", name, strings.TrimPrefix(err.Error(), "recording: recipients: ")).
			hint("one recipient a line: age1..., of age-keygen, or an ssh-ed25519 public key")
	}
	return r.Words(), nil
}

// sealing says whom recordings are sealed to: those of the policy, and those of --seal-to.
type sealing struct {
	own    []string
	policy func() *policy.Policy // nil result: there is none yet

	mu    sync.Mutex
	words []string // of to and err
	to    *recording.Recipients
	err   error
}

// recipients is for the spool.
func (s *sealing) recipients() (*recording.Recipients, error) {
	p := s.policy()
	if p == nil {
		return nil, errors.New("there is no policy yet to say whom to")
	}
	words := p.SealTo()
	for _, w := range s.own {
		if !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	if len(words) == 0 {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(words, s.words) {
		s.words = words
		if s.to, s.err = recording.ParseRecipients(strings.Join(words, "\n")); s.err != nil {
			s.err = fmt.Errorf("%s", strings.TrimPrefix(s.err.Error(), "recording: "))
		}
	}
	return s.to, s.err
}
