package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"tssh/lab"
)

// long compares copies on a path of 80 ms: tssh cp through one channel, through several and
// as it chooses, with scp and sftp to the host's own sshd over the same mesh and the same path.
func (b *bed) long(mib, rounds int) error {
	wire, err := b.laptop.Host.Lengthen(lab.Line{Delay: 40 * time.Millisecond, Queue: 40000})
	if err != nil {
		return err
	}
	defer wire.Close()
	if err := lab.Until(60*time.Second, func() error {
		for _, to := range []string{b.mesh, b.plain} {
			if r := b.laptop.Host.Run("ssh", b.ssh(to, "true")...); r.Status != 0 {
				return errors.New(r.String())
			}
		}
		if r := b.laptop.Tssh("ping", "--until-direct", "web"); r.Status != 0 {
			return errors.New(r.String())
		}
		return nil
	}); err != nil {
		return err
	}
	const many = 200
	dir, large, err := b.material("long", mib, many)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	options := b.options()
	tssh := []string{"--socket", b.laptop.Socket, "cp", "-q"}
	back := filepath.Join(dir, "back")
	ways := []struct {
		name     string
		up, down []string
	}{}
	for _, n := range []string{"1", "2", "4", "8", "0"} {
		with := append(append([]string{"tssh"}, tssh...), "--channels", n)
		ways = append(ways, struct {
			name     string
			up, down []string
		}{"tssh cp, channels " + n, append(with[:len(with):len(with)], large, "deploy@web:large"), append(with[:len(with):len(with)], "deploy@web:large", back)})
	}
	for _, to := range []struct{ name, addr, port string }{{"scp, tsshd", b.mesh, "22"}, {"scp, sshd over the mesh", b.mesh, "2222"}, {"scp, sshd on plain veth", b.plain, "22"}} {
		with := append(append([]string{"scp", "-q"}, options...), "-P", to.port)
		ways = append(ways, struct {
			name     string
			up, down []string
		}{to.name, append(with[:len(with):len(with)], large, "deploy@"+to.addr+":large"), append(with[:len(with):len(with)], "deploy@"+to.addr+":large", back)})
	}
	fmt.Printf("\n| %d MiB, round trip 80 ms | up MiB/s | down MiB/s |\n|---|---|---|\n", mib)
	for _, w := range ways {
		var up, down []float64
		for range rounds {
			for _, x := range []struct {
				args []string
				to   *[]float64
			}{{w.up, &up}, {w.down, &down}} {
				s, err := b.timed(x.args[0], x.args[1:]...)
				if err != nil {
					return err
				}
				*x.to = append(*x.to, float64(mib)/s)
			}
			if out, err := exec.Command("cmp", large, back).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", w.name, err, out)
			}
		}
		fmt.Printf("| %s | %.1f | %.1f |\n", w.name, median(up), median(down))
	}
	fmt.Printf("\n| %d small files, round trip 80 ms | up s | down s |\n|---|---|---|\n", many)
	for _, w := range []struct {
		name string
		cmd  []string
		to   string
	}{
		{"tssh cp -r", append([]string{"tssh"}, tssh...), "deploy@web"},
		{"scp -r, sshd over the mesh", append(append([]string{"scp", "-q"}, options...), "-P", "2222"), "deploy@" + b.mesh},
		{"rsync -r, sshd over the mesh", []string{"rsync", "-e", "ssh " + joined(b.common) + " -p 2222"}, "deploy@" + b.mesh},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		lab.Finish(b.laptop.Host.CommandContext(ctx, "ssh", b.ssh(b.mesh, "rm -rf small")...))
		cancel()
		up, err := b.timed(w.cmd[0], append(w.cmd[1:len(w.cmd):len(w.cmd)], "-r", filepath.Join(dir, "small"), w.to+":")...)
		if err != nil {
			return err
		}
		os.RemoveAll(back)
		down, err := b.timed(w.cmd[0], append(w.cmd[1:len(w.cmd):len(w.cmd)], "-r", w.to+":small", back)...)
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %.1f | %.1f |\n", w.name, up, down)
	}
	return nil
}
