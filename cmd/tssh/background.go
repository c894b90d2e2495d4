package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
)

// readyVariable says to a tssh that it is the one in the background, which tells the one in
// front by descriptor 3 when it is ready.
const readyVariable = "TSSH_READY"

func (a *app) isBackground() bool { return a.getenv(readyVariable) != "" }

// goBackground is -f: another tssh does the work. This one ends when the login is done and
// its forwards listen, or with the other's exit status when it comes to nothing.
func (a *app) goBackground(cmd *command) (int, error) {
	if runtime.GOOS == "windows" {
		return 0, sshUsage("-f is not there on this system")
	}
	self, err := os.Executable()
	if err != nil {
		return 0, failed("-f: %v", err)
	}
	ready, tell, err := os.Pipe()
	if err != nil {
		return 0, failed("-f: %v", err)
	}
	defer ready.Close()
	c := exec.Command(self, a.args...)
	c.Env = append(os.Environ(), readyVariable+"=1")
	c.Stdout, c.Stderr, c.ExtraFiles = a.outFile, os.Stderr, []*os.File{tell}
	if cmd.noCommand {
		// $(tssh -fN ...) does not wait for what stays: its words are passed on until it is ready.
		words, hold, err := os.Pipe()
		if err != nil {
			return 0, failed("-f: %v", err)
		}
		defer words.Close()
		c.Stdout, c.Stderr = nil, hold
		defer hold.Close()
		go io.Copy(a.err, words) // ends with this program
	}
	detach(c)
	err = c.Start()
	tell.Close()
	if err != nil {
		return 0, failed("-f: %v", err)
	}
	ctx, stop := untilSignal()
	defer stop()
	said := make(chan bool, 1)
	go func() { // ends with the pipe, which ends with the other tssh at the latest
		n, _ := ready.Read(make([]byte, 1))
		said <- n == 1
	}()
	select {
	case ok := <-said:
		if ok {
			return 0, c.Process.Release()
		}
	case <-ctx.Done():
		c.Process.Kill()
	}
	c.Wait()
	if d, ok := asDied(context.Cause(ctx)); ok {
		return 128 + int(d.sig), nil
	}
	return max(1, c.ProcessState.ExitCode()), nil
}

// inBackground tells the tssh in front that all is there.
func (a *app) inBackground() {
	f := os.NewFile(3, "ready")
	f.Write([]byte{1})
	f.Close()
}

// showLogin is -G: what programs that ask ssh want to know.
func (a *app) showLogin(c *command) (int, error) {
	name, err := a.loginName(c.user)
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(a.out, "host %[1]s\nuser %[2]s\nhostname %[1]s\nport %[3]d\n", oneLine(c.host), oneLine(name), c.port)
	return 0, nil
}
