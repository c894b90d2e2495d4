package netnode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tssh/netnode/netmap"
	"tssh/netnode/path"
)

const (
	saveEvery     = 10 * time.Second
	maxCandidates = 16
	maxSaved      = 1 << 20
	savedPerPeer  = 4
)

// run looks after what changes with time, until ctx ends.
func (n *Node) run(ctx context.Context) {
	for {
		n.saveEndpoints()
		again := time.NewTimer(saveEvery)
		for waiting := true; waiting; {
			n.mu.Lock()
			var expiry <-chan time.Time
			var t *time.Timer
			if !n.next.IsZero() {
				t = time.NewTimer(time.Until(n.next))
				expiry = t.C
			}
			n.mu.Unlock()
			select {
			case <-ctx.Done():
				again.Stop()
				if t != nil {
					t.Stop()
				}
				return
			case <-n.kick:
				n.saveEndpoints()
			case <-expiry:
				n.mu.Lock()
				if !n.closed && n.m != nil {
					n.applyLocked(time.Now())
				}
				n.mu.Unlock()
			case <-again.C:
				waiting = false
			}
			if t != nil {
				t.Stop()
			}
		}
	}
}

// candidates are the addresses of this machine at which peers may try to reach the node.
func (n *Node) candidates() []netip.AddrPort {
	var out []netip.AddrPort
	ifs, err := net.Interfaces()
	if err != nil {
		n.log.Warn("own addresses unknown", "err", err)
	}
	for _, i := range ifs {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || i.Name == n.cfg.TUN {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // the interface went away
		}
		for _, a := range addrs {
			p, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, _ := netip.AddrFromSlice(p.IP)
			ip = ip.Unmap()
			if ip.IsGlobalUnicast() && n.outside(ip) {
				out = append(out, netip.AddrPortFrom(ip, n.port))
			}
		}
	}
	if n.cfg.Loopback || len(out) == 0 {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), n.port))
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	out = slices.Compact(out)
	return out[:min(len(out), maxCandidates)]
}

// savedState is the file of Config.EndpointsFile.
type savedState struct {
	Port  int                                  `json:"port"`
	Peers map[netmap.WGPublic][]netip.AddrPort `json:"peers"`
}

// loadEndpoints reads what the last run wrote. A file that is missing or damaged costs a
// slower start and nothing else.
func loadEndpoints(name string, log *slog.Logger) savedState {
	var s savedState
	if name == "" {
		return s
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s
	}
	if err == nil {
		defer f.Close()
		err = json.NewDecoder(io.LimitReader(f, maxSaved)).Decode(&s)
	}
	if err != nil || s.Port < 0 || s.Port > 65535 {
		log.Warn("endpoints of the last run not read", "file", name, "err", err)
		return savedState{}
	}
	return s
}

// saveEndpoints writes the file anew if what is known differs from it. What is known of
// peers that were not seen in this run is kept as long as they are in the map.
func (n *Node) saveEndpoints() {
	if n.cfg.EndpointsFile == "" {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m == nil {
		return
	}
	s := savedState{Port: int(n.port), Peers: map[netmap.WGPublic][]netip.AddrPort{}}
	for k := range n.memberKeys() {
		eps := n.bind.Working(path.Key(k))
		if len(eps) == 0 {
			eps = n.saved.Peers[k]
		}
		if len(eps) > 0 {
			s.Peers[k] = eps[:min(len(eps), savedPerPeer)]
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		n.log.Error("endpoints not saved", "err", err)
		return
	}
	if old, err := json.Marshal(n.saved); err == nil && bytes.Equal(b, old) || len(b) > maxSaved {
		return
	}
	if err := writeFile(n.cfg.EndpointsFile, b); err != nil {
		n.log.Warn("endpoints not saved", "err", err)
		return
	}
	n.saved = s
}

// writeFile puts b in the place of name as a whole.
func writeFile(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".endpoints-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(b)
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
