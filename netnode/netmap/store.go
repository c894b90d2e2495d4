package netmap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	nodeFile    = "node.json"
	cacheFile   = "netmap.json"
	nodeFormat  = "tssh-node/1"
	cacheFormat = "tssh-netmap/1"
	// HubFile is what a hub's state folder has in it; a node keeps out of such a folder.
	HubFile = "hub.json"

	maxNodeFile  = 64 << 10
	maxCacheFile = 256 << 20
)

var (
	// ErrNoState is the error of a folder in which no node has joined yet.
	ErrNoState = errors.New("no node has joined here")
	// ErrNotNode is the error of a folder whose files are not a node's.
	ErrNotNode = errors.New("the folder holds something else than a node's state")
)

// State is a node's membership in a mesh, as its state folder keeps it.
type State struct {
	Dir     string
	Hub     string // host:port
	Pin     ControlPublic
	Former  []ControlPublic // keys that the hub had before Pin, as far as this node followed
	Hubs    []string        // addresses that the hub named, to be tried before Hub
	MeshID  string
	Mesh    string // name
	NodeID  string
	Name    string
	WG      WGPrivate
	Control ControlKey
	// Next are keys that the hub was asked to take and has not been heard to have.
	Next *NextKeys
	// Rotations are the last changes of keys, the oldest first, for a hub that was put back
	// to a time before them.
	Rotations []Envelope
	// Warnings are what Join noticed and people should know. They are not kept.
	Warnings []string
}

// nodeJSON is node.json.
type nodeJSON struct {
	Format  string          `json:"format"`
	Hub     string          `json:"hub"`
	Pin     ControlPublic   `json:"pin"`
	Former  []ControlPublic `json:"former_pins,omitempty"`
	Hubs    []string        `json:"hubs,omitempty"`
	MeshID  string          `json:"mesh_id"`
	Mesh    string          `json:"mesh"`
	NodeID  string          `json:"node_id"`
	Name    string          `json:"name"`
	WG      string          `json:"wg_private"`
	Control string          `json:"control_private"`

	NextWG      string     `json:"next_wg_private,omitempty"`
	NextControl string     `json:"next_control_private,omitempty"`
	NextStep    *Envelope  `json:"next_step,omitempty"`
	Rotations   []Envelope `json:"rotations,omitempty"`
}

// cache is netmap.json: what the hub said last, still signed.
type cache struct {
	Format  string        `json:"format"`
	MeshID  string        `json:"mesh_id"`
	Epoch   string        `json:"epoch"`
	Rev     int64         `json:"rev"`
	Offset  time.Duration `json:"clock_offset"` // the hub's clock minus ours
	Records []Envelope    `json:"records"`
}

// LoadState reads a node's folder. ErrNoState means that it has to join first.
func LoadState(dir string) (*State, error) {
	b, err := readFile(filepath.Join(dir, nodeFile), maxNodeFile)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(dir, HubFile)); err == nil {
			return nil, fmt.Errorf("netmap: state folder %s: %w: a hub's", dir, ErrNotNode)
		}
		return nil, fmt.Errorf("netmap: state folder %s: %w", dir, ErrNoState)
	}
	if err != nil {
		return nil, fmt.Errorf("netmap: state folder: %w", err)
	}
	var j nodeJSON
	if err := json.Unmarshal(b, &j); err != nil || j.Format != nodeFormat {
		return nil, fmt.Errorf("netmap: %s: %w", filepath.Join(dir, nodeFile), ErrNotNode)
	}
	s := &State{Dir: dir, Hub: j.Hub, Pin: j.Pin, Former: j.Former, Hubs: j.Hubs, MeshID: j.MeshID, Mesh: j.Mesh, NodeID: j.NodeID, Name: j.Name}
	if s.WG, err = ParseWGPrivate(j.WG); err != nil {
		return nil, fmt.Errorf("netmap: %s: wg_private: %w", filepath.Join(dir, nodeFile), ErrNotNode)
	}
	if s.Control, err = ParseControlKey(j.Control); err != nil {
		return nil, fmt.Errorf("netmap: %s: control_private: %w", filepath.Join(dir, nodeFile), ErrNotNode)
	}
	s.Rotations = j.Rotations[max(0, len(j.Rotations)-MaxRotations):]
	if j.NextStep != nil {
		n := &NextKeys{Step: *j.NextStep}
		if n.WG, err = ParseWGPrivate(j.NextWG); err == nil {
			n.Control, err = ParseControlKey(j.NextControl)
		}
		if err != nil {
			return nil, fmt.Errorf("netmap: %s: next keys: %w", filepath.Join(dir, nodeFile), ErrNotNode)
		}
		s.Next = n
	}
	if s.Pin.IsZero() || s.MeshID == "" || s.NodeID == "" || checkHostPort(s.Hub) != nil || checkHubs(s.Hubs) != nil || len(s.Former) > MaxSuccessions {
		return nil, fmt.Errorf("netmap: %s: %w", filepath.Join(dir, nodeFile), ErrNotNode)
	}
	return s, nil
}

// save writes node.json. It is the last thing a join writes.
func (s *State) save() error {
	j := nodeJSON{
		Format: nodeFormat, Hub: s.Hub, Pin: s.Pin, Former: s.Former, Hubs: s.Hubs, MeshID: s.MeshID, Mesh: s.Mesh, NodeID: s.NodeID,
		Name: s.Name, WG: s.WG.Encode(), Control: s.Control.Encode(), Rotations: s.Rotations,
	}
	if n := s.Next; n != nil {
		j.NextWG, j.NextControl, j.NextStep = n.WG.Encode(), n.Control.Encode(), &n.Step
	}
	b, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return fmt.Errorf("netmap: %s: %w", nodeFile, err)
	}
	return writeFile(s.Dir, nodeFile, append(b, '\n'))
}

// loadCache reads netmap.json. A cache that is missing, of another mesh or broken is
// empty: the hub will send everything again.
func (s *State) loadCache() (cache, error) {
	b, err := readFile(filepath.Join(s.Dir, cacheFile), maxCacheFile)
	if errors.Is(err, fs.ErrNotExist) {
		return cache{}, nil
	}
	if err != nil {
		return cache{}, fmt.Errorf("netmap: %w", err)
	}
	var c cache
	if err := json.Unmarshal(b, &c); err != nil {
		return cache{}, fmt.Errorf("netmap: %s: %w", cacheFile, err)
	}
	if c.Format != cacheFormat || c.MeshID != s.MeshID {
		return cache{}, fmt.Errorf("netmap: %s: of another mesh or another version", cacheFile)
	}
	return c, nil
}

func (s *State) saveCache(c cache) error {
	c.Format, c.MeshID = cacheFormat, s.MeshID
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("netmap: %s: %w", cacheFile, err)
	}
	return writeFile(s.Dir, cacheFile, b)
}

// readFile reads a regular file of at most limit bytes.
func readFile(name string, limit int64) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, fmt.Errorf("%s: not a file of at most %d bytes", name, limit)
	}
	return os.ReadFile(name)
}

// writeFile replaces a file as a whole: after a crash there is the old one or the new
// one. The file is its owner's alone.
func writeFile(dir, name string, b []byte) (err error) {
	tmp := filepath.Join(dir, "."+name+".new")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("netmap: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
		}
	}()
	_, err = bytes.NewReader(b).WriteTo(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, name))
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("netmap: %w", err)
	}
	return nil
}
