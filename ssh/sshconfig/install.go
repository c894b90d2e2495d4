package sshconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	begin = "# >>> tssh >>> (kept by `tssh config --install`, removed by `tssh config --uninstall`)\n"
	end   = "# <<< tssh <<<\n"
	file  = "tssh.conf"

	maxConfig = 4 << 20
)

// Install writes the settings to dir (a person's .ssh) and includes them from dir/config. It
// reports whether anything changed.
func Install(dir string, text []byte) (changed bool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, fmt.Errorf("sshconfig: %w", err)
	}
	conf := filepath.Join(dir, file)
	quoted, err := command(conf)
	if err != nil {
		return false, err
	}
	one, err := replace(conf, text)
	if err != nil {
		return false, err
	}
	path := filepath.Join(dir, "config")
	old, err := read(path)
	if err != nil {
		return false, err
	}
	rest, err := without(old)
	if err != nil {
		return false, fmt.Errorf("%w in %s", err, path)
	}
	two, err := replace(path, append([]byte(begin+"Include "+quoted+"\n"+end), rest...))
	return one || two, err
}

// Uninstall takes out what Install put in. A config that then is empty and was made by us
// goes as well.
func Uninstall(dir string) (changed bool, err error) {
	path := filepath.Join(dir, "config")
	old, err := read(path)
	if err != nil {
		return false, err
	}
	rest, err := without(old)
	if err != nil {
		return false, fmt.Errorf("%w in %s", err, path)
	}
	switch {
	case bytes.Equal(old, rest):
	case len(rest) == 0:
		if err := os.Remove(path); err != nil {
			return false, fmt.Errorf("sshconfig: %w", err)
		}
		changed = true
	default:
		if changed, err = replace(path, rest); err != nil {
			return false, err
		}
	}
	err = os.Remove(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return changed, nil
	}
	if err != nil {
		return changed, fmt.Errorf("sshconfig: %w", err)
	}
	return true, nil
}

// HostNames are the literal names that the person's own Host lines mention, our block apart.
func HostNames(config []byte) map[string]bool {
	names := map[string]bool{}
	rest, err := without(config)
	if err != nil {
		rest = config
	}
	for l := range strings.Lines(string(rest)) {
		fields := strings.Fields(strings.Replace(strings.TrimSpace(l), "=", " ", 1))
		if len(fields) < 2 || !strings.EqualFold(fields[0], "host") {
			continue
		}
		for _, f := range fields[1:] {
			f = strings.ToLower(strings.Trim(f, `"`))
			if !strings.ContainsAny(f, "*?!") {
				names[f] = true
			}
		}
	}
	return names
}

// without is the config less our block. Markers that do not pair are somebody's mistake, and
// nothing is touched then.
func without(config []byte) ([]byte, error) {
	i := bytes.Index(config, []byte("# >>> tssh >>>"))
	j := bytes.Index(config, []byte("# <<< tssh <<<"))
	if i < 0 && j < 0 {
		return config, nil
	}
	if i < 0 || j < i || i > 0 && config[i-1] != '\n' || bytes.Count(config, []byte("# >>> tssh >>>")) > 1 || bytes.Count(config, []byte("# <<< tssh <<<")) > 1 {
		return nil, errors.New("sshconfig: the marker lines of tssh do not pair; remove them by hand")
	}
	tail := config[j:]
	if n := bytes.IndexByte(tail, '\n'); n >= 0 {
		tail = tail[n+1:]
	} else {
		tail = nil
	}
	return append(bytes.Clone(config[:i]), tail...), nil
}

func read(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sshconfig: %w", err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxConfig {
		return nil, fmt.Errorf("sshconfig: %s is not a file of settings", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("sshconfig: %w", err)
	}
	return b, nil
}

// replace writes a file in one step, keeping its mode, and does nothing when it says the
// same already. Behind a symbolic link the target is replaced.
func replace(path string, text []byte) (changed bool, err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	mode := fs.FileMode(0o600)
	if fi, err := os.Stat(path); err == nil {
		mode = fi.Mode().Perm()
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
			return false, nil
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tssh-*")
	if err != nil {
		return false, fmt.Errorf("sshconfig: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	for _, step := range []func() error{func() error { return f.Chmod(mode) }, f.Sync, f.Close} {
		if e := step(); err == nil {
			err = e
		}
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return false, fmt.Errorf("sshconfig: %w", err)
	}
	return true, nil
}
