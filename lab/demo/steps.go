package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"regexp"
	"strings"
	"time"

	"tssh/lab"
)

var steps = []struct {
	title      string
	kernelOnly bool
	do         func(*scene) error
}{
	{"A hub: the little that is central", false, (*scene).startHub},
	{"Three hosts join the mesh: web (tag:web), laptop (alice's), phone (bob's)", false, (*scene).join},
	{"What alice's laptop sees", false, (*scene).list},
	{"alice runs a command on web, with no key and no password", false, (*scene).command},
	{"alice has an interactive shell on web", false, (*scene).shell},
	{"alice is refused as root", false, (*scene).refusedRoot},
	{"bob is refused as alice's account", false, (*scene).refusedBob},
	{"alice copies a file to web and back", false, (*scene).copyFile},
	{"the stock ssh client logs in over the same mesh", true, (*scene).stockSSH},
	{"The recordings: who was where, as whom", false, (*scene).sessions},
	{"The shell once more, from its recording", false, (*scene).play},
	{"What was on the screen can be searched for", false, (*scene).search},
	{"The recording is whole, and one changed byte shows", false, (*scene).verify},
	{"The replay page", false, (*scene).page},
}

// policyText is the demo's policy; %s is the account alice may use.
const policyText = `// Who may reach what, and log in as whom. Everything else is refused.
{
	"groups":    {"group:ops": ["alice@example.com"]},
	"tagOwners": {"tag:web": ["group:ops"]},
	"acls": [
		{"action": "accept", "src": ["group:ops"],       "dst": ["tag:web:*"]},
		{"action": "accept", "src": ["bob@example.com"], "dst": ["tag:web:22"]},
	],
	"ssh": [
		{"action": "accept", "src": ["group:ops"],       "dst": ["tag:web"], "users": [%s]},
		{"action": "accept", "src": ["bob@example.com"], "dst": ["tag:web"], "users": ["guest"]},
	],
}
`

func (s *scene) startHub() error {
	users := `"autogroup:nonroot"`
	if s.account == "root" { // nobody else has an account on this machine
		users = `"root"`
	}
	h, err := s.lab.AddHost("hub")
	if err != nil {
		return err
	}
	text := fmt.Sprintf(policyText, users)
	s.hub, err = s.lab.StartHub(h, text, "--mesh", "demo", "--replay", "127.0.0.1:0")
	if err != nil {
		return err
	}
	say("tsshub serve --state ...")
	say("tsshub policy set policy.hujson")
	for _, u := range []string{"alice@example.com --role admin", "bob@example.com"} {
		if r := s.hub.Admin(append([]string{"user", "add"}, strings.Fields(u)...)...); r.Status != 0 {
			return errors.New(r.String())
		}
		say("tsshub user add " + u)
	}
	return nil
}

func (s *scene) join() error {
	for _, j := range []struct {
		name, owner string
		node        **lab.Node
	}{
		{"web", "tag:web", &s.web},
		{"laptop", "alice@example.com", &s.laptop},
		{"phone", "bob@example.com", &s.phone},
	} {
		h, err := s.lab.AddHost(j.name, lab.Account{Name: "deploy", UID: 4001}, lab.Account{Name: "guest", UID: 4002})
		if err != nil {
			return err
		}
		n, err := s.hub.Join(h, j.owner)
		if err != nil {
			return err
		}
		*j.node = n
		st, err := n.Status()
		if err != nil {
			return err
		}
		say(fmt.Sprintf("tsshd run --join ... --hostname %-7s -> %v", j.name, st.Self.Addrs))
	}
	return nil
}

func (s *scene) list() error {
	return lab.Until(15*time.Second, func() error {
		r := s.laptop.Tssh("ls")
		if r.Status != 0 || !strings.Contains(r.Stdout, "web") {
			return errors.New(r.String())
		}
		s.echo(s.laptop, "ls")
		show(r.Stdout)
		return nil
	})
}

func (s *scene) command() error {
	var r lab.Result
	err := lab.Until(15*time.Second, func() error {
		r = s.laptop.Tssh(s.target(), "id -un; uname -sr; exit 7")
		if r.Status == 255 {
			return errors.New(r.String())
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.echo(s.laptop, s.target(), `'id -un; uname -sr; exit 7'`)
	show(r.Stdout)
	if !strings.HasPrefix(r.Stdout, s.account+"\n") || r.Status != 7 {
		return fmt.Errorf("not %s's command with status 7: %v", s.account, r)
	}
	say("exit status 7, the command's own")
	return nil
}

func (s *scene) refusedRoot() error {
	if s.account == "root" {
		say("(this machine has no account but root's, so that is the one allowed; daemon's is not)")
		return s.refused(s.laptop, "daemon")
	}
	return s.refused(s.laptop, "root")
}

func (s *scene) refusedBob() error { return s.refused(s.phone, "deploy") }

func (s *scene) refused(n *lab.Node, account string) error {
	s.echo(n, account+"@web")
	r := n.Tssh(account+"@web", "true")
	show(r.Stderr)
	if r.Status != 255 || !strings.Contains(r.Stderr, "[denied]") {
		return fmt.Errorf("not refused: %v", r)
	}
	return nil
}

func (s *scene) copyFile() error {
	local, back := s.laptop.Host.Path("notes.txt"), s.laptop.Host.Path("notes-back.txt")
	text := strings.Repeat("a line of notes, so that there is something to copy\n", 4000)
	if err := os.WriteFile(local, []byte(text), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{{"cp", local, s.target() + ":tssh-demo-notes.txt"}, {"cp", s.target() + ":tssh-demo-notes.txt", back}} {
		s.echo(s.laptop, args...)
		if r := s.laptop.Tssh(args...); r.Status != 0 {
			return errors.New(r.String())
		}
	}
	if r := s.laptop.Tssh(s.target(), "rm tssh-demo-notes.txt"); r.Status != 0 {
		return errors.New(r.String())
	}
	got, err := os.ReadFile(back)
	if err != nil {
		return err
	}
	if string(got) != text {
		return errors.New("the file came back changed")
	}
	say(fmt.Sprintf("%d bytes there and back, unchanged", len(got)))
	return nil
}

func (s *scene) stockSSH() error {
	st, err := s.web.Status()
	if err != nil || len(st.Self.Addrs) == 0 {
		return fmt.Errorf("web has no address: %v", err)
	}
	known := s.laptop.Host.Path("known_hosts")
	args := []string{"-F", "none", "-o", "UserKnownHostsFile=" + known, "-o", "StrictHostKeyChecking=accept-new", "-o", "IdentitiesOnly=yes",
		s.account + "@" + st.Self.Addrs[0].String(), "echo $SSH_CONNECTION"}
	say("ssh " + strings.Join(args[len(args)-2:], " "))
	r := s.laptop.Host.Run("ssh", args...)
	if r.Status != 0 || !strings.Contains(r.Stdout, st.Self.Addrs[0].String()) {
		return errors.New(r.String())
	}
	show(r.Stdout)
	return nil
}

type session struct {
	ID      string `json:"id"`
	Command string `json:"command"`
	Kind    string `json:"kind"`
}

func (s *scene) sessions() error {
	// Recordings travel to the hub while their sessions run; the last one may be a moment late.
	return lab.Until(20*time.Second, func() error {
		r := s.laptop.Tssh("sessions", "--json")
		if r.Status != 0 {
			return errors.New(r.String())
		}
		var list []session
		if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil {
			return fmt.Errorf("%w in %q", err, r.Stdout)
		}
		s.recording = ""
		for _, x := range list {
			if x.Kind == "shell" {
				s.recording = x.ID
			}
		}
		if s.recording == "" || len(list) < 3 {
			return fmt.Errorf("the shell is not among the recordings: %s", r.Stdout)
		}
		s.echo(s.laptop, "sessions")
		show(s.laptop.Tssh("sessions").Stdout)
		return nil
	})
}

func (s *scene) play() error {
	s.echo(s.laptop, "play", s.recording)
	r := s.laptop.Tssh("play", "--speed", "16", s.recording)
	show(r.Stdout)
	if r.Status != 0 || !strings.Contains(r.Stdout, marker) {
		return fmt.Errorf("the replay does not show what the shell showed: %v", r)
	}
	return nil
}

// search finds the shell by what it showed; nobody typed that.
func (s *scene) search() error {
	return lab.Until(20*time.Second, func() error { // the index follows the recordings
		r := s.laptop.Tssh("search", marker)
		if r.Status != 0 || !strings.Contains(r.Stdout, s.recording) {
			return fmt.Errorf("the shell is not found: %v", r)
		}
		s.echo(s.laptop, "search", marker)
		show(r.Stdout)
		return nil
	})
}

func (s *scene) verify() error {
	s.echo(s.laptop, "verify", s.recording)
	r := s.laptop.Tssh("verify", s.recording)
	if r.Status != 0 {
		return errors.New(r.String())
	}
	show(r.Stdout)
	file := s.laptop.Host.Path("shell.tsr")
	if r := s.laptop.Tssh("sessions", "fetch", s.recording, file); r.Status != 0 {
		return errors.New(r.String())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o644); err != nil {
		return err
	}
	r = s.laptop.Tssh("verify", file)
	if r.Status == 0 {
		return errors.New("a changed byte was not noticed")
	}
	say("with one bit changed:")
	show(r.Stdout + r.Stderr)
	return nil
}

var replayLine = regexp.MustCompile(`http://127\.0\.0\.1:\d+/\S+`)

func (s *scene) page() error {
	addr := replayLine.FindString(s.hub.Proc.Tail(1 << 16))
	if addr == "" {
		return fmt.Errorf("the hub did not say where the replay page is: %s", s.hub.Proc.Tail(2000))
	}
	addr, err := s.reach(addr)
	if err != nil {
		return err
	}
	s.replay = addr
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	res, err := (&http.Client{Timeout: 10 * time.Second, Jar: jar}).Get(addr)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || !strings.Contains(string(b), "<html") {
		return fmt.Errorf("the replay page answers %s", res.Status)
	}
	say(addr)
	return nil
}

func (s *scene) echo(n *lab.Node, args ...string) {
	who := map[*lab.Node]string{s.laptop: "alice", s.phone: "bob"}[n]
	fmt.Printf("    %s$ tssh %s\n", who, strings.Join(args, " "))
}

func say(text string) { fmt.Println("    " + text) }

// show prints what a program printed, indented and bounded.
func show(text string) {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > 40 {
		lines = append(lines[:40], "...")
	}
	for _, l := range lines {
		fmt.Println("      | " + strings.TrimRight(l, "\r"))
	}
}
