package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"tssh/recording/audit"
)

const (
	auditPath  = "/v1/audit"
	auditBatch = 256 << 10 // bytes of lines in one append, more where one line is longer
	auditBody  = 2 << 20   // bytes that are taken: more than the longest line
)

// AuditAck is the hub's answer about a host's audit log: the last line it has.
type AuditAck struct {
	Seq   uint64 `json:"seq"`
	Hash  string `json:"hash"`
	Error string `json:"error,omitempty"`
}

// AuditReceiverConfig is how an AuditReceiver is set up.
type AuditReceiverConfig struct {
	Copies *audit.Copies
	// HostOf gives the node that the connection proved: its id, and its name for people.
	HostOf func(*http.Request) (id, name string, ok bool)
	Log    *slog.Logger // nil discards
}

// AuditReceiver takes the audit logs of hosts in, an http.Handler for /v1/audit.
type AuditReceiver struct {
	cfg   AuditReceiverConfig
	turns *turns
}

// NewAuditReceiver makes an AuditReceiver.
func NewAuditReceiver(cfg AuditReceiverConfig) (*AuditReceiver, error) {
	if cfg.Copies == nil || cfg.HostOf == nil {
		return nil, errors.New("ship: an audit receiver needs a place for copies, and must know its hosts")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &AuditReceiver{cfg: cfg, turns: newTurns()}, nil
}

// ServeHTTP is how hosts reach the AuditReceiver.
func (a *AuditReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, name, ok := a.cfg.HostOf(r)
	if !ok || id == "" {
		answer(w, http.StatusForbidden, AuditAck{Error: "this hub does not know this host"})
		return
	}
	switch r.Method {
	case http.MethodGet:
		seq, hash, err := a.cfg.Copies.Head(id)
		a.ack(w, id, seq, hash, err)
	case http.MethodPut:
		a.put(w, r, id, name)
	default:
		w.Header().Set("Allow", "GET, PUT")
		answer(w, http.StatusMethodNotAllowed, AuditAck{Error: "only GET and PUT"})
	}
}

func (a *AuditReceiver) put(w http.ResponseWriter, r *http.Request, id, name string) {
	q := r.URL.Query()
	after, err := strconv.ParseUint(q.Get("after"), 10, 64)
	if err != nil {
		answer(w, http.StatusBadRequest, AuditAck{Error: "lines need to say which one they follow"})
		return
	}
	leave, ok := a.turns.enter(r.Context(), id)
	if !ok {
		return
	}
	defer leave()
	lines, status := readBody(w, r, auditBody)
	if status != 0 {
		answer(w, status, AuditAck{Error: "the lines could not be read"})
		return
	}
	seq, hash, err := a.cfg.Copies.Append(id, name, after, q.Get("gap") == "1", lines)
	a.ack(w, id, seq, hash, err)
}

func (a *AuditReceiver) ack(w http.ResponseWriter, id string, seq uint64, hash audit.Hash, err error) {
	ack := AuditAck{Seq: seq, Hash: hash.String()}
	if err == nil {
		answer(w, http.StatusOK, ack)
		return
	}
	for _, known := range []struct {
		err    error
		status int
	}{
		{audit.ErrElsewhere, http.StatusConflict},
		{audit.ErrNotALine, http.StatusUnprocessableEntity},
		{audit.ErrNotFollows, http.StatusUnprocessableEntity},
		{audit.ErrNoHost, http.StatusForbidden},
		{audit.ErrFull, http.StatusInsufficientStorage},
		{audit.ErrTooSoon, http.StatusTooManyRequests},
	} {
		if errors.Is(err, known.err) {
			ack.Error = known.err.Error()
			if known.status != http.StatusConflict {
				a.cfg.Log.Warn("audit lines refused", "host", id, "err", err)
			}
			answer(w, known.status, ack)
			return
		}
	}
	a.cfg.Log.Error("audit lines not taken", "host", id, "err", err)
	answer(w, http.StatusInternalServerError, AuditAck{Error: "the hub has trouble of its own"})
}

// AuditSenderConfig is how an AuditSender is set up.
type AuditSenderConfig struct {
	Audit *audit.Log
	// HTTP is as in SenderConfig.
	HTTP func() (client *http.Client, base string)
	Log  *slog.Logger // nil discards
}

// AuditSender brings a host's audit log to the hub while it grows.
type AuditSender struct{ cfg AuditSenderConfig }

// NewAuditSender makes an AuditSender.
func NewAuditSender(cfg AuditSenderConfig) (*AuditSender, error) {
	if cfg.Audit == nil || cfg.HTTP == nil {
		return nil, errors.New("ship: an audit sender needs a log and a hub")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &AuditSender{cfg: cfg}, nil
}

// Run sends until ctx ends. Any trouble is waited for with growing, jittered pauses; then the
// hub is asked what it has, and sending goes on from there.
func (s *AuditSender) Run(ctx context.Context) error {
	var wait time.Duration
	for {
		err := s.send(ctx, func() {
			if wait != 0 {
				s.cfg.Log.Info("the hub takes the audit log again")
			}
			wait = 0
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var no *refused
		switch {
		case errors.As(err, &no):
			s.cfg.Log.Error("the hub refuses the audit log; it stays here", "status", no.status, "err", no.words)
			wait = nextWait(max(wait, longestWait/8), refusedWait)
		default:
			if wait == 0 {
				s.cfg.Log.Warn("the hub does not take the audit log; it stays here", "err", err)
			}
			wait = nextWait(wait, longestWait)
		}
		t := time.NewTimer(jitter(wait))
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// send asks where the hub is and sends from there on, until something goes wrong. took is
// called whenever the hub took something, or has all.
func (s *AuditSender) send(ctx context.Context, took func()) error {
	head, err := s.call(ctx, http.MethodGet, "", nil)
	if err != nil {
		return err
	}
	hash, err := audit.ParseHash(head.Hash)
	if err != nil {
		return fmt.Errorf("ship: answer: %w", err)
	}
	tail, err := s.cfg.Audit.Tail(head.Seq, hash)
	if err != nil {
		return err
	}
	after := head.Seq
	for {
		lines, follows, err := tail.Next(auditBatch)
		if err != nil {
			return err
		}
		if lines == nil {
			took()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-s.cfg.Audit.Grown():
			}
			continue
		}
		q := "?after=" + strconv.FormatUint(after, 10)
		if !follows {
			q += "&gap=1"
			s.cfg.Log.Warn("the hub misses lines of the audit log that are not here any more", "after", after)
		}
		ack, err := s.call(ctx, http.MethodPut, q, lines)
		if err != nil {
			return err
		}
		seq, hash := tail.Last()
		if ack.Seq != seq || ack.Hash != hash.String() {
			return fmt.Errorf("ship: the hub has line %d of the audit log after it was sent up to %d", ack.Seq, seq)
		}
		after = seq
		took()
		if err := s.cfg.Audit.Prune(seq); err != nil {
			s.cfg.Log.Error("audit log", "err", err)
		}
	}
}

func (s *AuditSender) call(ctx context.Context, method, query string, body []byte) (AuditAck, error) {
	client, base := s.cfg.HTTP()
	if client == nil {
		return AuditAck{}, errors.New("ship: no hub is known yet")
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, base+auditPath+query, bytes.NewReader(body))
	if err != nil {
		return AuditAck{}, fmt.Errorf("ship: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	var ack AuditAck
	status, err := do(client, req, &ack)
	switch {
	case err != nil:
		return AuditAck{}, err
	case status == http.StatusOK:
		return ack, nil
	case status == http.StatusUnprocessableEntity, status == http.StatusInsufficientStorage, status == http.StatusRequestEntityTooLarge:
		return AuditAck{}, &refused{status, ack.Error}
	}
	return AuditAck{}, fmt.Errorf("ship: the hub answers %d: %s", status, ack.Error)
}
