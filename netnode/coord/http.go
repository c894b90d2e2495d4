package coord

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"tssh/netnode/netmap"
)

// Handler answers nodes on the TLS port, which must be served with netmap.ServerTLS
// and HTTP/1.1. ctx ends the streams.
func (s *Server) Handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+netmap.PathJoin, s.handleJoin)
	mux.HandleFunc("POST "+netmap.PathEndpoints, s.handleEndpoints)
	mux.HandleFunc("POST "+netmap.PathHostKeys, s.handleHostKeys)
	mux.HandleFunc("GET "+netmap.PathSuccession, s.handleSuccession)
	mux.HandleFunc("POST "+netmap.PathLeave, s.handleLeave)
	mux.HandleFunc("POST "+netmap.PathRotate, s.handleRotate)
	mux.HandleFunc("GET "+netmap.PathStream, func(w http.ResponseWriter, r *http.Request) { s.handleStream(ctx, w, r) })
	return mux
}

// PeerKey is the control key that the sender of a request proved to hold.
func PeerKey(r *http.Request) (netmap.ControlPublic, bool) {
	if r.TLS == nil || !r.TLS.HandshakeComplete {
		return netmap.ControlPublic{}, false
	}
	return netmap.PeerKey(*r.TLS)
}

// caller is the node that sent a request; without one the answer is written already.
func (s *Server) caller(w http.ResponseWriter, r *http.Request) (string, bool) {
	key, ok := PeerKey(r)
	if !ok {
		answer(w, http.StatusUnauthorized, netmap.Problem{Code: netmap.CodeUnknown, Say: "this is for nodes of the mesh"})
		return "", false
	}
	s.mu.RLock()
	id := s.st.byControl[key]
	p := s.st.problem(id, s.c.Clock())
	s.mu.RUnlock()
	if p != nil {
		answer(w, http.StatusForbidden, p)
		return "", false
	}
	return id, true
}

func (s *Server) handleJoin(w http.ResponseWriter, r *http.Request) {
	key, ok := PeerKey(r)
	if !ok {
		answer(w, http.StatusUnauthorized, netmap.Problem{Code: netmap.CodeUnknown, Say: "a node shows its key when it joins"})
		return
	}
	req := joinRequest{control: key}
	if !body(w, r, &req.JoinRequest) {
		return
	}
	// In line for a moment rather than refused at once: of many that come back by chance, some
	// would never get in.
	ctx, cancel := context.WithTimeout(r.Context(), joinWait)
	defer cancel()
	if !s.turn(ctx, s.known(req.AuthKey)) {
		answer(w, http.StatusTooManyRequests, netmap.Problem{Code: netmap.CodeBusy, Say: "too many nodes are joining at this moment"})
		return
	}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		req.from = ap
	}
	reply, err := s.join(r.Context(), req)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.c.Log.Info("node joined", "node", req.Name, "from", req.from)
	answer(w, http.StatusOK, reply)
}

func (s *Server) handleEndpoints(w http.ResponseWriter, r *http.Request) {
	id, ok := s.caller(w, r)
	var req netmap.Where
	if !ok || !body(w, r, &req) {
		return
	}
	if !s.nodeLimits(id).endpoints.Allow() {
		answer(w, http.StatusTooManyRequests, netmap.Problem{Code: errTooOften.Code, Say: errTooOften.Say})
		return
	}
	if err := s.setEndpoints(id, req); err != nil {
		s.fail(w, err)
		return
	}
	answer(w, http.StatusOK, struct{}{})
}

func (s *Server) handleHostKeys(w http.ResponseWriter, r *http.Request) {
	id, ok := s.caller(w, r)
	var req netmap.HostKeysRequest
	if !ok || !body(w, r, &req) {
		return
	}
	if err := s.setHostKeys(r.Context(), id, req.HostKeys); err != nil {
		s.fail(w, err)
		return
	}
	answer(w, http.StatusOK, struct{}{})
}

func (s *Server) handleLeave(w http.ResponseWriter, r *http.Request) {
	id, ok := s.caller(w, r)
	if !ok {
		return
	}
	if err := s.leave(r.Context(), id); err != nil {
		s.fail(w, err)
		return
	}
	answer(w, http.StatusOK, struct{}{})
}

func (s *Server) handleStream(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	key, ok := PeerKey(r)
	if !ok || r.Header.Get("Upgrade") != netmap.StreamProtocol {
		answer(w, http.StatusBadRequest, netmap.Problem{Code: netmap.CodeBad, Say: "this is the stream for nodes of the mesh"})
		return
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		answer(w, http.StatusServiceUnavailable, netmap.Problem{Code: netmap.CodeBusy, Say: "the hub is about to stop"})
		return
	}
	s.conns.Add(1)
	s.mu.Unlock()
	defer s.conns.Done()
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		answer(w, http.StatusInternalServerError, netmap.Problem{Code: netmap.CodeInternal, Say: "the connection cannot become a stream"})
		return
	}
	if err := switchProtocols(conn); err != nil {
		conn.Close()
		return
	}
	s.serveStream(ctx, conn, drained(rw.Reader, conn), key)
}

func switchProtocols(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(writeTime))
	_, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+netmap.StreamProtocol+"\r\n\r\n")
	return err
}

// drained is a small reader over conn that begins with what the HTTP server has read
// ahead: a stream lives for days, and its buffer with it.
func drained(r *bufio.Reader, conn net.Conn) *bufio.Reader {
	ahead, err := r.Peek(r.Buffered())
	if err != nil || len(ahead) == 0 {
		return bufio.NewReaderSize(conn, 512)
	}
	return bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(ahead)), conn), 512)
}

// body reads a bounded JSON body in bounded time.
func body(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return false
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, netmap.MaxCall))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		answer(w, http.StatusBadRequest, netmap.Problem{Code: netmap.CodeBad, Say: "the request cannot be read"})
		return false
	}
	return true
}

// fail answers with a refusal's own words; anything else is the hub's trouble and
// nobody's to read.
func (s *Server) fail(w http.ResponseWriter, err error) {
	var ref *Refusal
	if errors.As(err, &ref) {
		answer(w, http.StatusForbidden, netmap.Problem{Code: ref.Code, Say: ref.Say})
		return
	}
	s.c.Log.Error("request", "err", err)
	answer(w, http.StatusInternalServerError, netmap.Problem{Code: netmap.CodeInternal, Say: "the hub could not do it; its log says why"})
}

func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "{}", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
