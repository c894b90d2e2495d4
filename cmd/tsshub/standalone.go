package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tssh/netnode/coord"
	"tssh/netnode/netmap"
	"tssh/netnode/relay"
	"tssh/netnode/relay/server"
	"tssh/policy"
)

// standalone is a relay without the rest of a hub: `tsshub serve --roles relay`. It joins
// the mesh as a machine with a tag of its own, so that the hub tells it every member's
// keys, and knows them with the hub away, from its state folder. Its control key is its
// TLS key and what nodes pin. It has no address that anybody may talk to.
//
//	hub --records--> netmap.Client --> members by control key --> server.Server
func (c *cli) standalone(opt options) error {
	l, err := net.Listen("tcp", opt.listen)
	if err != nil {
		return errPortTaken(opt.listen, err)
	}
	defer l.Close()
	if err := opt.finish(l.Addr()); err != nil {
		return err
	}
	h := &hub{opt: opt, log: slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: opt.level})), listen: l.Addr()}
	stun, err := h.listenSTUN()
	if err != nil {
		return err
	}
	defer stun.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	st, err := c.relayState(ctx, opt)
	if err != nil {
		return err
	}
	var members atomic.Pointer[memberTable]
	members.Store(&memberTable{})
	client, err := netmap.NewClient(netmap.ClientConfig{State: st, Log: h.log, Dial: dialHub, OnMap: func(m *netmap.Map) { members.Store(tableOf(m)) }})
	if err != nil {
		return errStart(err)
	}
	srv, err := server.New(server.Config{
		Member: func(r *http.Request) (string, relay.Key, bool) {
			key, ok := coord.PeerKey(r)
			if !ok {
				return "", relay.Key{}, false
			}
			p, ok := members.Load().byControl[key]
			return p.ID, relay.Key(p.Key), ok
		},
		Still:          func(node string, wg relay.Key) bool { return members.Load().byID[node] == wg },
		BytesPerSecond: uint64(opt.relayRate), Log: h.log.With("part", "relay"),
	})
	if err != nil {
		return errStart(err)
	}
	conf, err := netmap.ServerTLS(st.Control)
	if err != nil {
		return errStart(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/derp", srv)
	web := &http.Server{Handler: mux, TLSConfig: conf, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug)}
	web.Protocols = new(http.Protocols)
	web.Protocols.SetHTTP1(true)
	port := 0
	if a, ok := stun.LocalAddr().(*net.UDPAddr); ok {
		port = a.Port
	}
	fmt.Fprintf(c.err, "tsshub: relay %s of the mesh %s at %s; on the hub, once: tsshub relay add %s --url %s --key %s --stun %d\n",
		st.Name, st.Mesh, opt.url, st.Name, opt.url, st.Control.Public(), port)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for name, fn := range map[string]func(context.Context) error{ // all end with ctx
		"hub": client.Run, "relay": srv.Run,
		"stun": func(ctx context.Context) error { return relay.ServeSTUN(ctx, stun) },
		"tls":  func(ctx context.Context) error { return serveTLS(ctx, web, newGuard(l)) },
	} {
		wg.Go(func() {
			if err := fn(ctx); err != nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	<-ctx.Done()
	cancel(nil)
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return errStopped(err)
	}
	return nil
}

// dialHub passes proxies, as nodes do.
func dialHub(ctx context.Context, _, addr string) (net.Conn, error) {
	return relay.DialTCP(ctx, addr, nil, relay.ProxyFromEnvironment)
}

// relayState is the relay's membership: the one on disk, or a new one with the join token.
func (c *cli) relayState(ctx context.Context, opt options) (*netmap.State, error) {
	st, err := netmap.LoadState(opt.state)
	if err == nil {
		return st, nil
	}
	if !errors.Is(err, netmap.ErrNoState) {
		return nil, errStart(err)
	}
	if opt.joinFile == "" {
		return nil, errRelayToken()
	}
	token, name, err := c.joinToken(opt)
	if err != nil {
		return nil, err
	}
	st, err = netmap.Join(ctx, netmap.JoinConfig{Dir: opt.state, Token: token, Name: name, Dial: dialHub})
	return st, joinTrouble(err)
}

// joinToken reads the token of --join-file, and the name to join under.
func (c *cli) joinToken(opt options) (token netmap.Token, name string, err error) {
	var text []byte
	if opt.joinFile == "-" {
		text, err = io.ReadAll(io.LimitReader(c.in, 4096))
	} else {
		text, err = os.ReadFile(opt.joinFile)
	}
	if err != nil {
		return token, "", errFile("the join token", opt.joinFile, err)
	}
	token, err = netmap.ParseToken(strings.TrimSpace(string(text)))
	if err != nil {
		return token, "", errBadToken(err)
	}
	if name = opt.hostname; name == "" {
		host, err := os.Hostname()
		if err != nil {
			return token, "", errStart(err)
		}
		name = netmap.NameFromHostname(host)
	}
	return token, name, nil
}

// joinTrouble is why a join came to nothing, in the hub's words where it has some.
func joinTrouble(err error) error {
	var j *netmap.JoinError
	if errors.As(err, &j) {
		return &trouble{say: j.Say, hint: j.Hint}
	}
	return err
}

// memberTable is the members by what a relay or a recorder asks for.
type memberTable struct {
	byControl map[netmap.ControlPublic]netmap.Peer
	byID      map[string]relay.Key
	byName    map[string]string          // id
	who       map[string]policy.Identity // by id
	policy    *policy.Policy
}

func tableOf(m *netmap.Map) *memberTable {
	t := &memberTable{byControl: map[netmap.ControlPublic]netmap.Peer{}, byID: map[string]relay.Key{}, byName: map[string]string{m.Self.Name: m.Self.ID}, who: map[string]policy.Identity{m.Self.ID: m.Self}, policy: m.Policy}
	for _, p := range m.Peers {
		t.byControl[p.Control] = p
		t.byID[p.ID] = relay.Key(p.Key)
		t.byName[p.Name] = p.ID
		t.who[p.ID] = p.Identity
	}
	return t
}
