package main

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tssh/netnode/coord"
	"tssh/netnode/netmap"
	"tssh/recording"
	"tssh/recording/store"
)

// options are the flags of `tsshub serve`, checked.
type options struct {
	state, listen, url, mesh, policy string
	range4                           netip.Prefix // of a new mesh; invalid: the usual
	db                               string       // file, empty: in the state folder
	recordings                       string       // folder, empty: in the state folder
	bucket                           string       // URL of --recordings s3://...
	cache                            int64        // MiB of it kept in the folder
	perHost                          int          // recordings that one host may have; 0: no limit
	retention                        []store.Rule
	sealIdentity                     string // file with what opens sealed recordings; empty: nothing does
	keys                             *recording.Keys
	replay                           string // loopback address of the replay page, empty: none
	udpPort                          int    // of the hub's own node
	roles                            map[string]bool
	stunListen                       string // UDP address of STUN; empty: the usual port, or any
	relayRate                        int64  // bytes a second that one node may send through the relay; 0: the default
	joinFile, hostname               string // of a relay or a recorder that stands alone
	announce                         string // host, when it was said with --url
	restored                         bool
	nodeExpiry, ephemeralGrace       time.Duration // 0: the usual; nodeExpiry < 0: never
	level                            slog.Level
	host                             string // host:port of url, for tokens
}

func parseServe(args []string) (o options, err error) {
	fs := newFlags("serve")
	fs.StringVar(&o.state, "state", defaultState(), "")
	fs.StringVar(&o.listen, "listen", ":8443", "")
	fs.StringVar(&o.url, "url", "", "")
	fs.StringVar(&o.mesh, "mesh", "", "")
	fs.StringVar(&o.policy, "policy", "", "")
	db := fs.String("db", "", "")
	rec := fs.String("recordings", "", "")
	fs.Int64Var(&o.cache, "recordings-cache", 10<<10, "")
	fs.IntVar(&o.perHost, "recordings-per-host", 100_000, "")
	fs.Func("retention", "", func(s string) error {
		r, err := store.ParseRule(s)
		o.retention = append(o.retention, r)
		return err
	})
	fs.StringVar(&o.replay, "replay", "", "")
	fs.StringVar(&o.sealIdentity, "seal-identity", "", "")
	fs.Func("range4", "", func(s string) (err error) {
		if o.range4, err = netip.ParsePrefix(s); err != nil {
			return errors.New("not of the form 100.64.0.0/10")
		}
		return coord.CheckRange4(o.range4)
	})
	fs.IntVar(&o.udpPort, "udp-port", 0, "")
	fs.StringVar(&o.joinFile, "join-file", "", "")
	fs.StringVar(&o.hostname, "hostname", "", "")
	fs.StringVar(&o.stunListen, "stun-listen", "", "")
	fs.Int64Var(&o.relayRate, "relay-rate", 0, "")
	roles := fs.String("roles", strings.Join(defaultRoles(), ","), "")
	fs.BoolVar(&o.restored, "restored", false, "")
	fs.Func("node-expiry", "", func(s string) (err error) { o.nodeExpiry, err = parseValidity(s); return err })
	fs.Func("ephemeral-grace", "", func(s string) (err error) { o.ephemeralGrace, err = parseDuration(s); return err })
	verbose := fs.Bool("v", false, "")
	pos, err := parse(fs, args)
	if err != nil {
		return o, err
	}
	if len(pos) > 0 {
		return o, usageError{"serve: takes flags only, not " + printable(pos[0])}
	}
	if *verbose {
		o.level = slog.LevelDebug
	}
	if o.mesh != "" {
		if err := netmap.CheckMeshName(o.mesh); err != nil {
			return o, usageError{"serve: --mesh: " + err.Error()}
		}
	}
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return o, usageError{"serve: --listen is of the form :8443 or ADDRESS:8443"}
	}
	if o.replay != "" {
		if ap, err := netip.ParseAddrPort(o.replay); err != nil || !ap.Addr().IsLoopback() {
			return o, errReplay(o.replay)
		}
	}
	if o.udpPort < 0 || o.udpPort > 65535 {
		return o, usageError{"serve: --udp-port is a number up to 65535"}
	}
	if o.relayRate < 0 {
		return o, usageError{"serve: --relay-rate is bytes a second"}
	}
	if o.stunListen != "" {
		if _, _, err := net.SplitHostPort(o.stunListen); err != nil {
			return o, usageError{"serve: --stun-listen is of the form :3478 or ADDRESS:3478"}
		}
	}
	if o.keys, err = readSealIdentity(o.sealIdentity); err != nil {
		return o, err
	}
	if o.url != "" {
		if o.host, err = hostOf(o.url); err != nil {
			return o, err
		}
		o.announce = o.host
	}
	if *db != "" {
		f, ok := strings.CutPrefix(*db, "sqlite:")
		if !ok || f == "" {
			return o, errDB(*db)
		}
		o.db = f
	}
	if *rec != "" {
		u, err := url.Parse(*rec)
		if err == nil && u.Scheme == "s3" && u.Host != "" {
			o.bucket = *rec
		} else if err != nil || u.Scheme != "file" || u.Host != "" || !filepath.IsAbs(u.Path) {
			return o, errRecordings(*rec)
		} else {
			o.recordings = u.Path
		}
	}
	o.roles = map[string]bool{}
	for _, r := range strings.Split(*roles, ",") {
		if !hasRole(r) {
			return o, errRole(r)
		}
		o.roles[r] = true
	}
	if o.alone() && len(o.roles) != 1 {
		return o, errNoCoord()
	}
	if !o.alone() && o.joinFile != "" {
		return o, usageError{"serve: --join-file is for a relay or a recorder that stands alone (--roles relay, --roles recorder)"}
	}
	return o, nil
}

// alone says that this is no hub, but one of its roles somewhere else.
func (o *options) alone() bool { return !o.roles["coord"] }

// hostOf is the host:port that a token names.
func hostOf(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", usageError{"serve: --url is of the form https://HOST:PORT"}
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "443")
	}
	// What a token cannot carry is found out now, not by those who get one.
	if _, err := netmap.ParseToken(netmap.Token{Host: host, AuthKey: "k"}.String()); err != nil {
		return "", usageError{"serve: --url: " + cause(err)}
	}
	return host, nil
}

// finish fills in what depends on the port that we got.
func (o *options) finish(listen net.Addr) error {
	if o.host != "" {
		return nil
	}
	ap, err := netip.ParseAddrPort(listen.String())
	if err != nil {
		return errStart(err)
	}
	host := ap.Addr().Unmap().String()
	if ap.Addr().IsUnspecified() {
		host = ownHost()
	}
	_, port, err := net.SplitHostPort(listen.String())
	if err != nil {
		return errStart(err)
	}
	o.host = net.JoinHostPort(host, port)
	o.url = "https://" + o.host
	return nil
}

// ownHost is how others may reach this computer: its first address that is not for
// itself alone, else its name.
func ownHost() string {
	addrs, err := net.InterfaceAddrs()
	var v6 string
	for _, a := range addrs {
		p, perr := netip.ParsePrefix(a.String())
		if err != nil || perr != nil || !p.Addr().IsGlobalUnicast() {
			continue
		}
		if p.Addr().Is4() {
			return p.Addr().String()
		}
		if v6 == "" {
			v6 = p.Addr().String()
		}
	}
	if v6 != "" {
		return v6
	}
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "localhost"
}

func (o *options) recordingsDir(d *stateDir) string {
	if o.recordings != "" {
		return o.recordings
	}
	return d.file("recordings")
}

func (o *options) dbFile(d *stateDir) string {
	if o.db != "" {
		return o.db
	}
	return d.file("hub.db")
}

// parseValidity reads how long nodes are members: a duration, or never for no end.
func parseValidity(s string) (time.Duration, error) {
	if s == "never" {
		return -1, nil
	}
	return parseDuration(s)
}

// readSealIdentity reads what opens sealed recordings here.
func readSealIdentity(name string) (*recording.Keys, error) {
	if name == "" {
		return nil, nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, errFile("the identity", name, err)
	}
	keys, err := recording.ParseKeys(b, nil)
	if err != nil {
		return nil, errSealIdentity(name, err)
	}
	return keys, nil
}
