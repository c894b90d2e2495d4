package netnode

import (
	"net"
	"sync"
)

// joined accepts from several listeners.
type joined struct {
	all  []net.Listener
	got  chan accepted
	done chan struct{}
	once sync.Once
	wg   sync.WaitGroup
}

type accepted struct {
	c   net.Conn
	err error
}

func joinListeners(all []net.Listener) *joined {
	j := &joined{all: all, got: make(chan accepted), done: make(chan struct{})}
	for _, l := range all {
		j.wg.Go(func() { // ends with its listener
			for {
				c, err := l.Accept()
				select {
				case j.got <- accepted{c, err}:
				case <-j.done:
					if err == nil {
						c.Close()
					}
					return
				}
			}
		})
	}
	return j
}

func (j *joined) Accept() (net.Conn, error) {
	select {
	case a := <-j.got:
		return a.c, a.err
	case <-j.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: j.Addr(), Err: net.ErrClosed}
	}
}

// Addr is that of the first.
func (j *joined) Addr() net.Addr { return j.all[0].Addr() }

func (j *joined) Close() error {
	var err error
	j.once.Do(func() {
		close(j.done)
		for _, l := range j.all {
			if e := l.Close(); err == nil {
				err = e
			}
		}
		j.wg.Wait()
	})
	return err
}
