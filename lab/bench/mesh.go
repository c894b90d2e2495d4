package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tssh/lab"
	"tssh/netnode/netmap"
)

// speed is one run of iperf3.
type speed struct{ mbit, cpu float64 } // Mbit/s, and processor seconds of the daemons at both ends

// iperf sends TCP from one host to an address of another for some seconds.
func iperf(from *lab.Host, addr string, seconds int, pids ...int) (speed, error) {
	before := cpu(pids...)
	r := from.Run("iperf3", "-c", addr, "-t", fmt.Sprint(seconds), "-J")
	var out struct {
		Error string
		End   struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(r.Stdout), &out); err != nil || out.Error != "" || r.Status != 0 {
		return speed{}, fmt.Errorf("iperf3 to %s: %v %v", addr, out.Error, r)
	}
	return speed{out.End.Received.Bits / 1e6, cpu(pids...) - before}, nil
}

// cpu is the processor time that processes have used, in seconds.
func cpu(pids ...int) (sum float64) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		var user, system float64
		fmt.Sscan(f[11], &user)
		fmt.Sscan(f[12], &system)
		sum += (user + system) / 100 // USER_HZ, the same on every Linux
	}
	return sum
}

// throughput compares the mesh with plain veth and with wireguard-go alone.
func (b *bed) throughput(seconds, rounds int) error {
	web, laptop := b.web.Host, b.laptop.Host
	if _, err := web.Start("iperf3", "iperf3", "-s"); err != nil {
		return err
	}
	wg, err := b.wireguard()
	if err != nil {
		return err
	}
	ways := []struct {
		addr string
		pids []int
	}{{b.mesh, []int{b.web.Proc.PID(), b.laptop.Proc.PID()}}, {"10.77.0.1", wg}, {b.plain, nil}}
	mbit, perCPU := make([][]float64, len(ways)), make([][]float64, len(ways))
	if err := lab.Until(15*time.Second, func() error {
		for _, w := range ways {
			if _, err := iperf(laptop, w.addr, 1); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for range rounds {
		for i, w := range ways {
			s, err := iperf(laptop, w.addr, seconds, w.pids...)
			if err != nil {
				return err
			}
			mbit[i] = append(mbit[i], s.mbit)
			if s.cpu > 0 {
				perCPU[i] = append(perCPU[i], s.mbit*float64(seconds)/s.cpu)
			}
		}
	}
	row("TCP over the mesh, direct (wireguard-go alone)", "Mbit/s", median(mbit[0]), median(mbit[1]))
	row("the same for each processor second of both daemons", "Mbit", median(perCPU[0]), median(perCPU[1]))
	row("TCP over the mesh, direct (iperf3 on plain veth)", "Mbit/s", median(mbit[0]), median(mbit[2]))
	return nil
}

// wireguard starts wireguard-go alone between the two hosts and returns the processes.
func (b *bed) wireguard() ([]int, error) {
	var link []struct{ MTU int }
	if r := b.web.Host.Run("ip", "-j", "link", "show", "dev", "tssh0"); r.Status != 0 || json.Unmarshal([]byte(r.Stdout), &link) != nil || len(link) != 1 {
		return nil, fmt.Errorf("MTU of the mesh: %v", r)
	}
	mtu := fmt.Sprint(link[0].MTU) // the same for both
	curve := ecdh.X25519()
	var keys []*ecdh.PrivateKey
	hosts := []*lab.Host{b.web.Host, b.laptop.Host}
	for range hosts {
		k, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	var pids []int
	for i, h := range hosts {
		other := 1 - i
		config := fmt.Sprintf("private_key=%x\nlisten_port=51999\npublic_key=%x\nendpoint=%s\nallowed_ip=10.77.0.%d/32\n",
			keys[i].Bytes(), keys[other].PublicKey().Bytes(), netip.AddrPortFrom(hosts[other].Addr, 51999), other+1)
		file := h.Path("wg.conf")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			return nil, err
		}
		p, err := h.Start("wgalone", "wgalone", "wgalone", mtu, file)
		if err != nil {
			return nil, err
		}
		pids = append(pids, p.PID())
		if err := lab.Until(10*time.Second, func() error {
			if !strings.Contains(p.Tail(1000), "up") {
				return errors.New("wireguard-go does not come up: " + p.Tail(1000))
			}
			return nil
		}); err != nil {
			return nil, err
		}
		for _, c := range []string{fmt.Sprintf("addr add 10.77.0.%d/24 dev wgalone", i+1), "link set wgalone up"} {
			if r := h.Run("ip", strings.Fields(c)...); r.Status != 0 {
				return nil, errors.New(r.String())
			}
		}
	}
	return pids, nil
}

// relayed compares the mesh over the relay with the mesh direct, from a laptop behind a
// router that lets UDP through and then does not.
func (b *bed) relayed(l *lab.Lab, seconds, rounds int) error {
	r, err := l.AddRouter("cafe", lab.Routing{})
	if err != nil {
		return err
	}
	h, err := r.AddHost("guest")
	if err != nil {
		return err
	}
	guest, err := b.hub.Join(h, "alice@example.com")
	if err != nil {
		return err
	}
	via := func(way string) error {
		return lab.Until(60*time.Second, func() error {
			if r := guest.Tssh("ping", "--json", "-c", "1", "web"); r.Status != 0 || !strings.Contains(r.Stdout, `"via":"`+way+`"`) && !strings.Contains(r.Stdout, `"via": "`+way+`"`) {
				return fmt.Errorf("not via %s: %v", way, r)
			}
			return nil
		})
	}
	var mbit [2][]float64
	for range rounds {
		for i, way := range []string{"relay", "direct"} {
			if err := r.BlockUDP(way == "relay"); err != nil {
				return err
			}
			if err := via(way); err != nil {
				return err
			}
			s, err := iperf(h, b.mesh, seconds)
			if err != nil {
				return err
			}
			mbit[i] = append(mbit[i], s.mbit)
		}
	}
	row("TCP over the mesh, by the hub's relay (direct)", "Mbit/s", median(mbit[0]), median(mbit[1]))
	return nil
}

// cold is the time from the start of a daemon to the first byte of a command's output.
func (b *bed) cold(rounds int) error {
	var p pair
	web, laptop := b.web.Host, b.laptop.Host
	// A login is begun every tenth of a second and the first that gets through counts: one
	// whose first packet is lost repeats it only after a second.
	first := func(addr string, begin time.Time) (ms float64, err error) {
		ok := make(chan bool, 1)
		var tries sync.WaitGroup
		defer tries.Wait()
		every, end := time.NewTicker(100*time.Millisecond), time.After(30*time.Second)
		defer every.Stop()
		for {
			tries.Go(func() { // ends when ssh does, which gives up by itself
				if r := laptop.Run("ssh", b.ssh(addr, "-o", "ConnectTimeout=2", "true")...); r.Status == 0 {
					select {
					case ok <- true:
					default:
					}
				}
			})
			select {
			case <-ok:
				return time.Since(begin).Seconds() * 1000, nil
			case <-end:
				return 0, fmt.Errorf("no login at %s within 30 s", addr)
			case <-every.C:
			}
		}
	}
	for range rounds {
		b.web.Proc.Stop()
		begin := time.Now()
		// Start also waits for the status; the login is tried at the same time.
		started := make(chan error, 1)
		go func() { started <- b.web.Start() }() // ends in 30 s at most
		ms, err := first(b.mesh, begin)
		if err != nil {
			return err
		}
		p.ours = append(p.ours, ms)
		if err := <-started; err != nil {
			return err
		}
		b.sshd.Stop()
		begin = time.Now()
		if b.sshd, err = b.startSSHD(web); err != nil {
			return err
		}
		if ms, err = first(b.plain, begin); err != nil {
			return err
		}
		p.theirs = append(p.theirs, ms)
	}
	p.row("from the start of the daemon to a command's end", "ms")
	return nil
}

// crowd fills the mesh with members that are never there, and measures what knowing them
// costs web while nothing happens.
func (b *bed) crowd(sizes []int, dir string) error {
	text, err := b.hub.Token("tag:crowd", "--reusable")
	if err != nil {
		return err
	}
	token, err := netmap.ParseToken(text)
	if err != nil {
		return err
	}
	have := 0
	base := 0.0
	for _, size := range sizes {
		var next atomic.Int64
		next.Store(int64(have))
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			wg.Go(func() {
				for {
					n := int(next.Add(1))
					if n > size || errs[i] != nil {
						return
					}
					name := fmt.Sprintf("crowd-%d", n)
					state := fmt.Sprintf("%s/%s", dir, name)
					errs[i] = lab.Until(time.Minute, func() error { // the hub takes only so many at a time
						_, err := netmap.Join(context.Background(), netmap.JoinConfig{Dir: state, Token: token, Name: name, Timeout: time.Minute,
							Dial: func(_ context.Context, network, addr string) (net.Conn, error) {
								return b.laptop.Host.Dial(network, addr)
							}})
						return err
					})
					os.RemoveAll(state)
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("crowd: %w", err)
		}
		have = size
		if err := lab.Until(time.Minute, func() error {
			st, err := b.web.Status()
			if err == nil && len(st.Peers) < size {
				err = fmt.Errorf("web knows %d peers of %d", len(st.Peers), size)
			}
			return err
		}); err != nil {
			return err
		}
		// A fresh daemon that has been left alone for a while: what it costs to be, not to get there.
		b.web.Proc.Stop()
		if err := b.web.Start(); err != nil {
			return err
		}
		time.Sleep(15 * time.Second)
		const span = 20 * time.Second
		before := cpu(b.web.Proc.PID())
		time.Sleep(span)
		used, mem := cpu(b.web.Proc.PID())-before, pss(b.web.Proc.PID())
		if base == 0 {
			base = mem
		}
		row(fmt.Sprintf("memory, idle, %d peers in the map (%d)", size, sizes[0]), "MiB", mem, base)
		fmt.Printf("| processor, idle, %d peers in the map | %.2f %% | | |\n", size, used/span.Seconds()*100)
	}
	return nil
}
