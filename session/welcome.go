package session

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOriginal keeps SSH_ORIGINAL_COMMAND within what the kernel takes as one string.
const maxOriginal = maxCommand - 1024

// forced replaces what the client asks for by the rule's command, which finds the other in
// SSH_ORIGINAL_COMMAND.
func (s *channel) forced(kind, command string) (string, string, bool) {
	own := s.c.grant.Load().Command
	if own == "" {
		return kind, command, true
	}
	if kind == "exec" {
		if len(command) > maxOriginal {
			return kind, command, false
		}
		s.original = command
		s.c.note(s.id, "command", "the rule's; asked for: "+clip(command, maxShown))
	}
	return "exec", own, true
}

// greeting is what a terminal shows before its program: the rule's message always; when
// and from where the account was last used, and the message of the day, to login shells of
// people without a ~/.hushlogin. It is read as the user.
func (s *channel) greeting(shell bool) []byte {
	var b bytes.Buffer
	g := s.c.grant.Load()
	if g.Message != "" {
		b.WriteString("tssh: " + plain(g.Message) + "\n")
	}
	if _, err := os.Lstat(filepath.Join(s.c.acc.Home, ".hushlogin")); shell && err != nil {
		if g.Last != "" {
			b.WriteString("Last login: " + plain(g.Last) + "\n")
		}
		messageOfTheDay(&b, "/")
	}
	return bytes.ReplaceAll(b.Bytes(), []byte("\n"), []byte("\r\n"))
}

// maxMOTD bounds the messages of the day together.
const maxMOTD = 64 << 10

// messageOfTheDay writes the files that pam_motd(8) shows, in its order: what the system
// made up for today, the administrator's, and those of packages, of which a name in /etc
// hides the same in /run and that the same in /usr/lib. Scripts are not run.
func messageOfTheDay(b *bytes.Buffer, root string) {
	limit := b.Len() + maxMOTD
	show := func(name string) bool {
		f, err := os.OpenFile(filepath.Join(root, name), os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return false
		}
		defer f.Close()
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
			return false
		}
		_, _ = io.Copy(b, io.LimitReader(f, int64(max(0, limit-b.Len()))))
		if n := b.Len(); n > 0 && b.Bytes()[n-1] != '\n' {
			b.WriteByte('\n')
		}
		return true
	}
	show("run/motd.dynamic")
	for _, name := range []string{"etc/motd", "run/motd", "usr/lib/motd"} {
		if show(name) {
			break
		}
	}
	from := map[string]string{}
	for _, dir := range []string{"usr/lib/motd.d", "run/motd.d", "etc/motd.d"} {
		names, _ := filepath.Glob(filepath.Join(root, dir, "*"))
		for _, n := range names {
			from[filepath.Base(n)] = dir
		}
	}
	var names []string
	for n := range from {
		if !strings.HasPrefix(n, ".") {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		show(filepath.Join(from[n], n))
	}
}
