package localapi

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// halfCloser is a stream that can end its own direction: net.TCPConn, net.UnixConn, and
// netstack's TCP connection.
type halfCloser interface{ CloseWrite() error }

// dial joins the caller's connection to a peer's port. The connection is made by the node,
// as the node: what the peer sees is the node's address, so only its owner may ask.
func (s *server) dial(w http.ResponseWriter, r *http.Request) {
	if e := s.admit(r, owner); e != nil {
		writeError(w, e)
		return
	}
	if s.cfg.Dial == nil {
		writeError(w, unsupported())
		return
	}
	host, e := nameArg(r.URL.Query().Get("host"))
	if e == nil && !strings.EqualFold(r.Header.Get("Upgrade"), protocol) {
		e = Errorf(CodeBadRequest, "a dial needs \"Upgrade: %s\"", protocol)
	}
	var port uint16
	if e == nil {
		port, e = portArg(r.URL.Query().Get("port"))
	}
	if e != nil {
		writeError(w, e)
		return
	}
	s.wg.Add(1)
	defer s.wg.Done()

	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	far, err := s.cfg.Dial(ctx, host, port)
	cancel()
	if err != nil {
		writeError(w, s.dialError(r, host, err))
		return
	}
	defer far.Close()
	near, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		writeError(w, s.public(r, err))
		return
	}
	defer near.Close()
	if err := near.SetDeadline(noDeadline); err != nil {
		return
	}
	if _, err := io.WriteString(near, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n"); err != nil {
		return
	}
	// What the caller sent behind its request may sit in the server's buffer.
	early, _ := buf.Reader.Peek(buf.Reader.Buffered())
	if len(early) > 0 {
		if _, err := far.Write(early); err != nil {
			return
		}
	}
	join(s.done, near, far)
}

func (s *server) dialError(r *http.Request, host string, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var ne net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout() {
		return Errorf(CodeUnreachable, "%s does not answer", host)
	}
	s.log.Debug("dial", "host", host, "uid", caller(r), "err", err)
	return Errorf(CodeUnreachable, "%s cannot be reached", host)
}

// join copies both ways until both directions have ended or ctx has. The end of one
// direction is passed on as a half-close; an error in one ends both.
func join(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	var wg sync.WaitGroup
	one := func(dst, src net.Conn) {
		_, err := io.CopyBuffer(onlyWriter{dst}, onlyReader{src}, make([]byte, 32<<10))
		if hc, ok := dst.(halfCloser); err == nil && ok {
			hc.CloseWrite()
			return
		}
		a.Close()
		b.Close()
	}
	wg.Go(func() { one(a, b) })
	wg.Go(func() { one(b, a) })
	wg.Wait()
}

// The plain views keep io.Copy from choosing a ReadFrom that buffers differently.
type onlyWriter struct{ io.Writer }
type onlyReader struct{ io.Reader }
