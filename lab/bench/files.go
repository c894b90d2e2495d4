package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// both runs something against both servers, in turn, and keeps what it measured.
func (b *bed) both(rounds int, measure func(addr string) (float64, error)) (pair, error) {
	var p pair
	for range rounds {
		for _, x := range []struct {
			addr string
			to   *[]float64
		}{{b.mesh, &p.ours}, {b.plain, &p.theirs}} {
			v, err := measure(x.addr)
			if err != nil {
				return p, err
			}
			*x.to = append(*x.to, v)
		}
	}
	return p, nil
}

// timed runs a command on the laptop and gives its seconds.
func (b *bed) timed(name string, args ...string) (float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c := b.laptop.Host.CommandContext(ctx, name, args...)
	begin := time.Now()
	out, err := c.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return time.Since(begin).Seconds(), nil
}

// options are those for scp and sftp, where the login goes before the address.
func (b *bed) options() (o []string) {
	for i := 0; i < len(b.common); i += 2 {
		if b.common[i] != "-l" {
			o = append(o, b.common[i:i+2]...)
		}
	}
	return o
}

func joined(words []string) string { return strings.Join(words, " ") }

// files compares sftp with a large file, and rsync with many small ones.
func (b *bed) files(mib, rounds int) error {
	dir := b.laptop.Host.Path("files")
	if err := os.MkdirAll(filepath.Join(dir, "small"), 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	large := filepath.Join(dir, "large")
	if out, err := exec.Command("dd", "if=/dev/urandom", "of="+large, "bs=1M", fmt.Sprint("count=", mib)).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	const many = 5000
	for i := range many {
		if err := os.WriteFile(filepath.Join(dir, "small", fmt.Sprint(i)), fmt.Appendf(nil, "%0*d", 100+i%2000, i), 0o644); err != nil {
			return err
		}
	}
	options := b.options()
	for _, c := range []struct{ what, batch string }{{"put", "put " + large + " large"}, {"get", "get large " + filepath.Join(dir, "back")}} {
		batch := filepath.Join(dir, "batch")
		if err := os.WriteFile(batch, []byte(c.batch+"\n"), 0o644); err != nil {
			return err
		}
		p, err := b.both(rounds, func(addr string) (float64, error) {
			s, err := b.timed("sftp", append(append([]string{"-q", "-b", batch}, options...), "deploy@"+addr)...)
			return float64(mib) / s, err
		})
		if err != nil {
			return err
		}
		p.row(fmt.Sprintf("%d MiB by sftp, %s (sshd on plain veth)", mib, c.what), "MiB/s")
	}
	p, err := b.both(rounds, func(addr string) (float64, error) {
		if _, err := b.timed("ssh", b.ssh(addr, "rm -rf small")...); err != nil {
			return 0, err
		}
		return b.timed("rsync", "-a", "-e", "ssh "+strings.Join(b.common, " "), dir+"/small", addr+":")
	})
	if err != nil {
		return err
	}
	p.row(fmt.Sprintf("%d small files by rsync (sshd on plain veth)", many), "s")
	return nil
}

// crowdOfLogins compares how long a number of logins at once take.
func (b *bed) crowdOfLogins(n, rounds int) error {
	p, err := b.both(rounds, func(addr string) (float64, error) {
		var wg sync.WaitGroup
		errs := make([]error, n)
		begin := time.Now()
		for i := range n {
			wg.Go(func() { _, errs[i] = b.timed("ssh", b.ssh(addr, "true")...) })
		}
		wg.Wait()
		took := time.Since(begin).Seconds()
		for _, err := range errs {
			if err != nil {
				return 0, err
			}
		}
		return took, nil
	})
	if err != nil {
		return err
	}
	p.row(fmt.Sprintf("%d logins at once, all done after", n), "s")
	return nil
}
