package ssh

import (
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// remotes are the listeners that the host has for us (-R). Requests and channels are written
// out here: x/crypto knows no unix socket that is asked for by path and no wildcard, and waits
// for an Accept.
type remotes struct {
	once sync.Once
	mu   sync.Mutex
	to   map[string]func(gossh.NewChannel) // by what the host names the listener
}

// Remote asks the host to listen and carries connections to an endpoint here (-R). No Host
// in listen is every address of the host, and port 0 is the host's choice, which is
// returned. An empty endpoint serves SOCKS 5.
func (f *Forwards) Remote(listen, to Endpoint) (int, error) {
	c := f.c
	c.remotes.once.Do(func() {
		c.remotes.to = map[string]func(gossh.NewChannel){}
		for _, kind := range []string{"forwarded-tcpip", "forwarded-streamlocal@openssh.com"} {
			in := c.conn.HandleChannelOpen(kind)
			c.wg.Go(func() { c.remotes.dispatch(in) }) // ends with the connection
		}
	})
	kind, payload := "tcpip-forward", gossh.Marshal(struct {
		Host string
		Port uint32
	}{listen.Host, uint32(listen.Port)})
	if listen.Path != "" {
		kind, payload = "streamlocal-forward@openssh.com", gossh.Marshal(oneString{listen.Path})
	}
	// Before the answer: a connection may come right behind it. Port 0 has no name yet, and
	// its connections wait for it.
	key := listen.key()
	c.remotes.mu.Lock()
	defer c.remotes.mu.Unlock()
	ok, answer, err := c.conn.SendRequest(kind, true, payload)
	switch {
	case err != nil:
		return 0, c.openError("to listen", err)
	case !ok:
		return 0, failure(CodeDenied, nil, "%s refused to listen on %s: the rule does not allow it, or it is taken", c.cfg.Host, listen)
	}
	if listen.Path == "" && listen.Port == 0 {
		if len(answer) < 4 {
			return 0, failure(CodeDenied, nil, "%s does not say on which port it listens", c.cfg.Host)
		}
		port := binary.BigEndian.Uint32(answer)
		listen.Port = uint16(port)
		key = listen.key()
	}
	c.remotes.to[key] = func(nc gossh.NewChannel) { f.incoming(nc, to) }
	return int(listen.Port), nil
}

func (e Endpoint) key() string {
	if e.Path != "" {
		return "unix " + e.Path
	}
	return "tcp " + net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
}

func (r *remotes) dispatch(in <-chan gossh.NewChannel) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for nc := range in {
		wg.Go(func() { // ends with the channel
			var m struct {
				Addr       string
				Port       uint32
				Origin     string
				OriginPort uint32
			}
			var u struct{ Path, Reserved string }
			key := ""
			if gossh.Unmarshal(nc.ExtraData(), &m) == nil && nc.ChannelType() == "forwarded-tcpip" && m.Port <= 65535 {
				key = Endpoint{Host: m.Addr, Port: uint16(m.Port)}.key()
			} else if gossh.Unmarshal(nc.ExtraData(), &u) == nil {
				key = Endpoint{Path: u.Path}.key()
			}
			r.mu.Lock()
			take := r.to[key]
			r.mu.Unlock()
			if take == nil {
				nc.Reject(gossh.Prohibited, "nobody asked for this")
				return
			}
			take(nc)
		})
	}
}

// incoming carries one connection that the host has for us.
func (f *Forwards) incoming(nc gossh.NewChannel, to Endpoint) {
	if to == (Endpoint{}) {
		ch, reqs, err := nc.Accept()
		if err != nil {
			return
		}
		defer ch.Close()
		go gossh.DiscardRequests(reqs) // ends with the channel
		far, err := dynamic(patient{ch}, func(host string, port uint16) (io.ReadWriteCloser, error) {
			return Endpoint{Host: host, Port: port}.dial()
		})
		if err != nil {
			f.Notice(line(err.Error()))
			return
		}
		f.join(ch, far, "connection from the host as a SOCKS client")
		return
	}
	near, err := to.dial()
	if err != nil {
		f.Notice(line(err.Error()))
		nc.Reject(gossh.ConnectionFailed, "the client cannot connect")
		return
	}
	ch, reqs, err := nc.Accept()
	if err != nil {
		near.Close()
		return
	}
	go gossh.DiscardRequests(reqs) // ends with the channel
	f.join(ch, near, "connection from the host for "+to.String())
}

// join carries until both ways have ended, or Close.
func (f *Forwards) join(ch gossh.Channel, near io.ReadWriteCloser, words string) {
	if !f.keep(near, words) {
		ch.Close()
		return
	}
	defer f.drop(near)
	defer ch.Close()
	joinStreams(near, ch)
}

// patient is a channel whose SOCKS client may take its time: the host bounds how many there
// are, and closes them with the connection.
type patient struct{ gossh.Channel }

func (patient) SetDeadline(time.Time) error { return nil }
