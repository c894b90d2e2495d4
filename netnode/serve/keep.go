package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const maxFile = 64 << 10

// kept is the file, see the package comment.
type kept struct {
	Mesh  string `json:"mesh"`
	Ports []Port `json:"ports"`
}

// load takes up what was kept for this mesh and is still allowed. Callers hold change.
func (s *Server) load() {
	if s.cfg.File == "" {
		return
	}
	k, err := readKept(s.cfg.File)
	if err != nil {
		s.log.Error("ports that were to be served are not: their file cannot be read", "err", err)
		return
	}
	if k.Mesh != s.meshID {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range k.Ports {
		p.Keep = true
		switch {
		case p.Port == 0 || p.Target == 0 || p.UID < 0 || s.ports[p.Port] != nil || len(s.ports) >= maxServed:
			s.log.Warn("served port left out: not valid", "port", p.Port)
		case !s.cfg.May(p.UID):
			s.log.Warn("served port left out: who asked for it may not serve any more", "port", p.Port, "uid", p.UID)
		default:
			s.ports[p.Port] = newServed(s, p)
		}
	}
}

func readKept(file string) (k kept, err error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return k, fmt.Errorf("serve: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return k, fmt.Errorf("serve: %w", err)
	}
	if len(b) > maxFile {
		return k, fmt.Errorf("serve: %s: larger than %d bytes", file, maxFile)
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return k, fmt.Errorf("serve: %s: %w", file, err)
	}
	return k, nil
}

// save writes what is to be kept. Callers hold change.
func (s *Server) save() error {
	if s.cfg.File == "" {
		return nil
	}
	k := kept{Mesh: s.meshID, Ports: []Port{}}
	for _, p := range s.list() {
		if p.Keep {
			k.Ports = append(k.Ports, p.Port)
		}
	}
	if len(k.Ports) == 0 {
		if err := os.Remove(s.cfg.File); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(s.cfg.File), ".serve") // 0600
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.cfg.File)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
