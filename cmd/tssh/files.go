package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"

	"tssh/ssh"
)

// splitPlace reads [user@]host:path. What has a slash before its first colon, or no colon,
// is a path here.
func splitPlace(s string) (target, path string, remote bool) {
	i := strings.IndexByte(s, ':')
	if strings.HasPrefix(s, "[") || strings.Contains(s, "@[") {
		i = strings.Index(s, "]:")
		if i >= 0 {
			i++
		}
	}
	if i <= 0 || strings.ContainsAny(s[:i], `/\`) || len(filepath.VolumeName(s)) > 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

const copyForm = "cp [-r] [-p] [-a] [-q] [--links] [--resume] [--channels N] [-l USER] SRC... DST"

// singleLetters takes -rp apart, as people write it; letters are those without a value.
func singleLetters(args []string, letters string) []string {
	var out []string
	for i, a := range args {
		if a == "--" {
			return append(out, args[i:]...)
		}
		if len(a) < 3 || a[0] != '-' || strings.Trim(a[1:], letters) != "" {
			out = append(out, a)
			continue
		}
		for _, l := range a[1:] {
			out = append(out, "-"+string(l))
		}
	}
	return out
}

// copy is `tssh cp`.
func (a *app) copy(ctx context.Context, args []string) error {
	f := a.flags("cp")
	recursive := f.Bool("r", false, "")
	f.BoolVar(recursive, "R", false, "")
	preserve := f.Bool("p", false, "")
	archive := f.Bool("a", false, "")
	quiet := f.Bool("q", false, "")
	links := f.Bool("links", false, "")
	resume := f.Bool("resume", false, "")
	channels := f.Int("channels", 0, "")
	login := f.String("l", "", "")
	for _, scp := range []string{"3", "B", "C", "O", "s"} {
		f.Bool(scp, false, "") // scp's, and of no use here
	}
	args = singleLetters(args, "rRpaq3BCOs")
	if err := f.parse(args, 2, -1, copyForm); err != nil {
		return err
	}
	if *archive {
		*recursive, *preserve, *links = true, true, true
	}
	if *channels < 0 || *channels > 8 {
		return usage("--channels %d is not between 1 and 8", *channels).withHint("tssh " + copyForm)
	}
	local := ssh.LocalFiles()
	conns := map[string]*ssh.Files{}
	clients := map[string]*ssh.Client{}
	defer func() {
		for t := range conns {
			conns[t].Close()
			clients[t].Close()
		}
	}()
	place := func(s string) (ssh.Place, error) {
		target, path, remote := splitPlace(s)
		if !remote {
			return ssh.Place{Files: local, Path: path}, nil
		}
		if conns[target] == nil {
			c := &command{port: 22, user: *login}
			if err := c.target(target); err != nil {
				return ssh.Place{}, err
			}
			cl, err := a.connect(ctx, c)
			if err != nil {
				return ssh.Place{}, noSession(err)
			}
			files, err := cl.Files()
			if err != nil {
				cl.Close()
				return ssh.Place{}, noSession(err)
			}
			conns[target], clients[target] = files, cl
		}
		return ssh.Place{Files: conns[target], Host: target, Path: path}, nil
	}
	places := make([]ssh.Place, len(f.rest))
	for i, s := range f.rest {
		var err error
		if places[i], err = place(s); err != nil {
			return err
		}
	}
	if len(conns) == 0 {
		return usage("neither side is on a host (a host's path is written HOST:PATH)").withHint("tssh " + copyForm)
	}
	job := ssh.Copy{Recursive: *recursive, Preserve: *preserve, Links: *links, Resume: *resume, Channels: *channels, Umask: umask()}
	bar := a.progress()
	if !*quiet && bar != nil {
		job.Progress = bar.draw
		defer bar.sum()
	}
	err := job.Run(ctx, places[:len(places)-1], places[len(places)-1])
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	for _, cl := range clients {
		if lost := cl.Err(); err != nil && lost != nil {
			return noSession(lost)
		}
	}
	return a.each(err)
}

// each prints joined errors one by one; the last is the verb's.
func (a *app) each(err error) error {
	var many interface{ Unwrap() []error }
	if !errors.As(err, &many) {
		return err
	}
	list := flatten(err)
	for _, e := range list[:len(list)-1] {
		fmt.Fprintf(a.err, "tssh: error: %s\n", oneLine(e.Error()))
	}
	return failed("%s", list[len(list)-1].Error())
}

func flatten(err error) []error {
	many, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, e := range many.Unwrap() {
		out = append(out, flatten(e)...)
	}
	return out
}

func bytesOf(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, u := float64(n), 0
	for f >= 1024 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[u])
}

func umask() fs.FileMode { return fs.FileMode(currentUmask()) }

// sftp runs the stock program over the mesh.
func (a *app) sftp(ctx context.Context, args []string) (int, error) {
	if len(args) == 0 {
		return 0, usage("no host given").withHint("tssh sftp [user@]HOST")
	}
	program, err := exec.LookPath("sftp")
	if err != nil {
		return 0, failed("the sftp program of OpenSSH is not installed here").withHint("tssh cp copies files without it")
	}
	if _, _, err := a.ready(ctx); err != nil {
		return 0, noSession(err)
	}
	opts, err := a.stockOptions()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(program, append(opts, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	// The terminal's signals go to sftp as well, which decides what they mean.
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	if err != nil {
		return 0, failed("sftp: %v", err)
	}
	return 0, nil
}
