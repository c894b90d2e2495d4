package daemon

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strconv"

	"tssh/netnode"
	"tssh/netnode/localapi"
	"tssh/netnode/serve"
)

const serveFile = "serve.json"

func (d *Daemon) newServer() *serve.Server {
	d.dialer = &serve.Dialer{Command: d.cfg.DialCommand}
	return serve.New(serve.Config{
		File: filepath.Join(d.cfg.State, serveFile), Dial: d.dialer.Dial, Log: d.log,
		Firewall: func(port uint16) string {
			if m := d.current(); m != nil {
				return m.node.Blocked(port)
			}
			return ""
		},
		May: func(uid int) bool { return uid == 0 || uid >= 0 && uid == d.cfg.OwnerUID },
	})
}

// serve keeps the served ports while the node is up.
func (d *Daemon) serve(ctx context.Context, meshID string, n *netnode.Node) {
	d.served.Run(ctx, meshID, serve.Mesh{Listen: n.Listen, Admits: n.Admits, Self: n.Self})
}

func (d *Daemon) apiServe(_ context.Context, uid int, r localapi.ServeRequest) (localapi.Served, error) {
	if _, _, err := d.onMesh(); err != nil {
		return localapi.Served{}, err
	}
	st, err := d.served.Add(serve.Port{Port: r.Port, Target: r.Target, TCP: r.TCP, Keep: r.Keep, UID: uid})
	if err != nil {
		return localapi.Served{}, serveError(err)
	}
	return d.servedPort(st), nil
}

func (d *Daemon) apiServed(context.Context) ([]localapi.Served, error) {
	out := []localapi.Served{}
	for _, st := range d.served.List() {
		out = append(out, d.servedPort(st))
	}
	return out, nil
}

func (d *Daemon) apiServeOff(_ context.Context, uid int, port uint16) (int, error) {
	n, err := d.served.Remove(uid, port)
	if err != nil {
		return n, serveError(err)
	}
	return n, nil
}

func (d *Daemon) servedPort(st serve.Status) localapi.Served {
	s := localapi.Served{Port: st.Port.Port, Target: st.Target, TCP: st.TCP, Keep: st.Keep, UID: st.UID, Open: st.Open, Total: st.Total, Refused: st.Refused, Problem: st.Problem}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != nil {
		name := d.state.Name
		if d.member != nil {
			if self, _ := d.member.node.Self(); self.Name != "" {
				name = self.Name // it may have been renamed
			}
		}
		host := net.JoinHostPort(name, strconv.Itoa(int(s.Port)))
		switch {
		case s.TCP:
			s.URL = "tcp://" + host
		case s.Port == 80:
			s.URL = "http://" + name
		default:
			s.URL = "http://" + host
		}
	}
	return s
}

func serveError(err error) error {
	var r *serve.Refusal
	if !errors.As(err, &r) {
		return err
	}
	code := map[serve.RefusalKind]string{serve.Bad: localapi.CodeBadRequest, serve.Forbidden: localapi.CodeForbidden, serve.Taken: localapi.CodeConflict,
		serve.TooMany: localapi.CodeLimit, serve.Unknown: localapi.CodeNotFound}[r.Kind]
	return localapi.Errorf(code, "%s", r.Words)
}
