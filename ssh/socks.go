package ssh

import (
	"io"
	"time"

	"tssh/ssh/socks"
)

// deadliner is a connection, or an SSH channel made to look like one.
type deadliner interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// dynamic reads one SOCKS request of -D, makes the connection and answers.
func dynamic(c deadliner, connect func(host string, port uint16) (io.ReadWriteCloser, error)) (io.ReadWriteCloser, error) {
	c.SetDeadline(time.Now().Add(30 * time.Second))
	defer c.SetDeadline(time.Time{})
	host, port, err := socks.Request(c)
	if err != nil {
		return nil, err
	}
	ch, err := connect(host, port)
	code := socks.Granted
	if err != nil {
		code = socks.Refused // the protocol has no word for "not allowed by the far end"
	}
	if werr := socks.Reply(c, code); werr != nil && err == nil {
		ch.Close()
		err = werr
	}
	if err != nil {
		return nil, err
	}
	return ch, nil
}
