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

// server is one of those that are compared: address and port of web.
type server struct{ addr, port string }

// three are tsshd, and the host's sshd over the same mesh, where WireGuard costs it the same,
// and on plain veth.
type three struct{ ours, mesh, plain []float64 }

// all runs something against the three, in turn, and keeps what it measured.
func (b *bed) all(rounds int, measure func(s server) (float64, error)) (p three, err error) {
	for range rounds {
		for _, x := range []struct {
			server
			to *[]float64
		}{{server{b.mesh, "22"}, &p.ours}, {server{b.mesh, "2222"}, &p.mesh}, {server{b.plain, "22"}, &p.plain}} {
			v, err := measure(x.server)
			if err != nil {
				return p, err
			}
			*x.to = append(*x.to, v)
		}
	}
	return p, nil
}

func (p three) rows(what, unit string) {
	row(what+" (sshd over the same mesh)", unit, median(p.ours), median(p.mesh))
	row(what+" (sshd on plain veth)", unit, median(p.ours), median(p.plain))
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

// material makes a folder on the laptop with one large file of random bytes, and many small ones in "small".
// The caller removes it.
func (b *bed) material(name string, mib, many int) (dir, large string, err error) {
	dir = b.laptop.Host.Path(name)
	large = filepath.Join(dir, "large")
	if err := os.MkdirAll(filepath.Join(dir, "small"), 0o755); err != nil {
		return "", "", err
	}
	if out, err := exec.Command("dd", "if=/dev/urandom", "of="+large, "bs=1M", fmt.Sprint("count=", mib)).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("%w: %s", err, out)
	}
	for i := range many {
		if err := os.WriteFile(filepath.Join(dir, "small", fmt.Sprint(i)), fmt.Appendf(nil, "%0*d", 100+i%2000, i), 0o644); err != nil {
			return "", "", err
		}
	}
	return dir, large, nil
}

// files compares sftp with a large file, and rsync with many small ones.
func (b *bed) files(mib, rounds int) error {
	const many = 5000
	dir, large, err := b.material("files", mib, many)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	options := b.options()
	for _, c := range []struct{ what, batch string }{{"put", "put " + large + " large"}, {"get", "get large " + filepath.Join(dir, "back")}} {
		batch := filepath.Join(dir, "batch")
		if err := os.WriteFile(batch, []byte(c.batch+"\n"), 0o644); err != nil {
			return err
		}
		p, err := b.all(rounds, func(to server) (float64, error) {
			s, err := b.timed("sftp", append(append([]string{"-q", "-b", batch, "-P", to.port}, options...), "deploy@"+to.addr)...)
			return float64(mib) / s, err
		})
		if err != nil {
			return err
		}
		p.rows(fmt.Sprintf("%d MiB by sftp, %s", mib, c.what), "MiB/s")
	}
	p, err := b.all(rounds, func(to server) (float64, error) {
		if _, err := b.timed("ssh", b.ssh(to.addr, "rm -rf small")...); err != nil {
			return 0, err
		}
		return b.timed("rsync", "-a", "-e", "ssh "+joined(b.common)+" -p "+to.port, dir+"/small", to.addr+":")
	})
	if err != nil {
		return err
	}
	p.rows(fmt.Sprintf("%d small files by rsync", many), "s")
	return nil
}

// crowdOfLogins compares how long a number of logins at once take.
func (b *bed) crowdOfLogins(n, rounds int) error {
	p, err := b.all(rounds, func(to server) (float64, error) {
		var wg sync.WaitGroup
		errs := make([]error, n)
		begin := time.Now()
		for i := range n {
			wg.Go(func() { _, errs[i] = b.timed("ssh", append([]string{"-p", to.port}, b.ssh(to.addr, "true")...)...) })
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
	p.rows(fmt.Sprintf("%d logins at once, all done after", n), "s")
	return nil
}
