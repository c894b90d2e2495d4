package ship

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"tssh/recording"
)

// Sink is where received recordings go; recording/store is one. An error that also has the
// method HTTPStatus() int is a refusal whose words the host may read; any other is the
// recorder's own trouble, and the host tries again later.
type Sink interface {
	// Size says how much of the recording is here. None at all is 0 and no error.
	Size(host, id string) (size int64, complete bool, err error)
	// Append verifies data as the continuation of the recording from offset on, makes the whole
	// blocks of it durable, and says how much is here now. Size is right with an error as well.
	Append(host, id string, offset int64, data []byte) (size int64, complete bool, err error)
	// Has says whether the recording is here up to this checkpoint.
	Has(host string, p recording.Seen) (bool, error)
}

// ReceiverConfig is how a Receiver is set up.
type ReceiverConfig struct {
	Sink Sink
	// HostOf gives the node id the connection proved (the identity of its control key).
	HostOf func(*http.Request) (hostID string, ok bool)
	// Key countersigns the start of recordings; nil refuses to.
	Key   crypto.Signer
	Clock func() time.Time // nil is time.Now
	Log   *slog.Logger     // nil discards
}

// Receiver is the recorder's side, an http.Handler for everything under /v1/recordings/.
type Receiver struct {
	cfg   ReceiverConfig
	mux   *http.ServeMux
	turns *turns
}

// NewReceiver makes a Receiver.
func NewReceiver(cfg ReceiverConfig) (*Receiver, error) {
	if cfg.Sink == nil || cfg.HostOf == nil {
		return nil, errors.New("ship: a receiver needs a sink, and must know its hosts")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	r := &Receiver{cfg: cfg, mux: http.NewServeMux(), turns: newTurns()}
	r.mux.HandleFunc("GET /v1/recordings/{id}", r.size)
	r.mux.HandleFunc("PUT /v1/recordings/{id}", r.append)
	r.mux.HandleFunc("POST /v1/recordings/{id}/start", r.start)
	r.mux.HandleFunc("POST /v1/recordings/{id}/progress", r.progress)
	return r, nil
}

// ServeHTTP is how hosts reach the Receiver.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.mux.ServeHTTP(w, req) }

// host answers by itself when the request comes from nobody known.
func (r *Receiver) host(w http.ResponseWriter, req *http.Request) (string, bool) {
	host, ok := r.cfg.HostOf(req)
	if !ok || host == "" {
		answer(w, http.StatusForbidden, Ack{Error: "this recorder does not know this host"})
		return "", false
	}
	return host, true
}

func (r *Receiver) size(w http.ResponseWriter, req *http.Request) {
	host, ok := r.host(w, req)
	if !ok {
		return
	}
	id := req.PathValue("id")
	size, complete, err := r.cfg.Sink.Size(host, id)
	r.ack(w, host, id, size, complete, err)
}

func (r *Receiver) append(w http.ResponseWriter, req *http.Request) {
	host, ok := r.host(w, req)
	if !ok {
		return
	}
	id := req.PathValue("id")
	offset, err := strconv.ParseInt(req.URL.Query().Get("offset"), 10, 64)
	if err != nil || offset < 0 {
		answer(w, http.StatusBadRequest, Ack{Error: "an append needs an offset"})
		return
	}
	leave, ok := r.turns.enter(req.Context(), host)
	if !ok {
		return
	}
	defer leave()
	data, status := readBody(w, req, maxBody)
	if status != 0 {
		answer(w, status, Ack{Error: "the body of the append could not be read"})
		return
	}
	size, complete, err := r.cfg.Sink.Append(host, id, offset, data)
	r.ack(w, host, id, size, complete, err)
}

// readBody reads a body of at most so many bytes, within the time that a Sender gives it; a status other
// than 0 says that it could not.
func readBody(w http.ResponseWriter, req *http.Request, most int64) (data []byte, status int) {
	err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(requestTime))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, http.StatusInternalServerError
	}
	// What is announced is room only up to what hosts send: it has not come yet.
	body := bytes.NewBuffer(make([]byte, 0, max(0, min(req.ContentLength, firstChunk))+bytes.MinRead))
	_, err = body.ReadFrom(http.MaxBytesReader(w, req.Body, most))
	data = body.Bytes()
	if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
		return nil, http.StatusRequestEntityTooLarge
	}
	if err != nil {
		return nil, http.StatusBadRequest
	}
	return data, 0
}

func (r *Receiver) ack(w http.ResponseWriter, host, id string, size int64, complete bool, err error) {
	if err == nil {
		answer(w, http.StatusOK, Ack{Acked: size, Complete: complete})
		return
	}
	var refusal interface{ HTTPStatus() int }
	if errors.As(err, &refusal) {
		if refusal.HTTPStatus() != http.StatusConflict {
			r.cfg.Log.Warn("recording refused", "host", host, "recording", id, "err", err)
		}
		answer(w, refusal.HTTPStatus(), Ack{Acked: size, Complete: complete, Error: err.Error()})
		return
	}
	r.cfg.Log.Error("recording not taken", "host", host, "recording", id, "err", err)
	answer(w, http.StatusInternalServerError, Ack{Error: "the recorder has trouble of its own"})
}

// start countersigns the first key of a recording that is just beginning. The time is the
// recorder's; it says nothing about whether the bytes will come.
func (r *Receiver) start(w http.ResponseWriter, req *http.Request) {
	host, ok := r.host(w, req)
	if !ok {
		return
	}
	if r.cfg.Key == nil {
		answer(w, http.StatusNotImplemented, Ack{Error: "this recorder does not countersign"})
		return
	}
	var s recording.Start
	if err := json.NewDecoder(io.LimitReader(req.Body, maxAnswer)).Decode(&s); err != nil {
		answer(w, http.StatusBadRequest, Ack{Error: "this is not the start of a recording"})
		return
	}
	var m recording.Meta
	if err := json.Unmarshal(s.Meta, &m); err != nil || s.ID != req.PathValue("id") || m.HostID != host {
		r.cfg.Log.Warn("start not countersigned", "host", host, "recording", s.ID, "claims", m.HostID)
		answer(w, http.StatusForbidden, Ack{Error: fmt.Sprintf("this is not the start of recording %q by this host", req.PathValue("id"))})
		return
	}
	c, err := recording.Countersign(r.cfg.Key, s, r.cfg.Clock())
	if err != nil {
		answer(w, http.StatusUnprocessableEntity, Ack{Error: err.Error()})
		return
	}
	answer(w, http.StatusOK, c)
}

// progress countersigns how much of a recording is here, for hosts that put it into it.
func (r *Receiver) progress(w http.ResponseWriter, req *http.Request) {
	host, ok := r.host(w, req)
	if !ok {
		return
	}
	if r.cfg.Key == nil {
		answer(w, http.StatusNotImplemented, Ack{Error: "this recorder does not countersign"})
		return
	}
	var p recording.Seen
	if err := json.NewDecoder(io.LimitReader(req.Body, maxAnswer)).Decode(&p); err != nil || p.ID != req.PathValue("id") {
		answer(w, http.StatusBadRequest, Ack{Error: "this is not the progress of this recording"})
		return
	}
	here, err := r.cfg.Sink.Has(host, p)
	if err != nil {
		r.ack(w, host, p.ID, 0, false, err)
		return
	}
	if !here {
		r.cfg.Log.Warn("progress not countersigned", "host", host, "recording", p.ID)
		answer(w, http.StatusConflict, Ack{Error: "what is here of this recording is not that"})
		return
	}
	c, err := recording.CountersignSeen(r.cfg.Key, p, r.cfg.Clock())
	if err != nil {
		answer(w, http.StatusUnprocessableEntity, Ack{Error: err.Error()})
		return
	}
	answer(w, http.StatusOK, c)
}
