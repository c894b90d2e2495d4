package ship

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"tssh/recording"
)

const (
	look        = time.Second      // between looks at the spool
	touchEvery  = 30 * time.Second // a recording that does not grow is reported as often
	firstChunk  = 1 << 20          // of an append; more only where one block is larger
	atOnce      = 4                // recordings sent side by side
	requestTime = time.Minute      // of one append, whole
	firstWait   = time.Second      // after trouble; doubles
	longestWait = time.Minute      // with the recorder
	refusedWait = 15 * time.Minute // with one recording, where the recorder will not have it
	anyID       = "any"            // of no recording: whether the recorder answers
)

// Spool is where recordings wait; *recording.Spool is one.
type Spool interface {
	// Recordings lists what is there. Of each only Durable bytes may leave the host.
	Recordings() []recording.Progress
	// Acked says that a recorder has the first offset bytes, durably; final, that it has all.
	Acked(id string, offset int64, final bool) error
}

// SenderConfig is how a Sender is set up.
type SenderConfig struct {
	Spool Spool
	// HTTP gives the client and base URL of the recorder ("https://hub:8443"). It is asked
	// again for each request, so that a new address is used at once.
	HTTP func() (client *http.Client, base string)
	Log  *slog.Logger // nil discards
}

// Sender brings what is in the spool to a recorder, running recordings too.
type Sender struct {
	cfg SenderConfig

	kick chan struct{} // capacity 1: something should not wait

	mu     sync.Mutex
	items  map[string]*progress // owned by Run but for the fields that Status reads under mu
	status Status
	open   map[*time.Time]bool // requests under way, by when they began
}

// progress is what the Sender knows of one recording.
//
//	unknown --(asked)--> known --(append)--> known ...--> gone from the spool
//	   ^                   |
//	   +----(any doubt)----+
type progress struct {
	known bool // acked is what the recorder has
	acked int64
	sent  time.Time // last request that it took
	again time.Time // not before
	wait  time.Duration
	no    int // the status of the last refusal, while again is to come
	busy  bool
}

// Status is how far the Sender is.
type Status struct {
	Recordings int       // not whole at the recorder
	Behind     int64     // bytes that it does not have
	Since      time.Time // of the trouble; zero when there is none
	Err        error     // the last trouble with the recorder; nil when it answers
	// Waiting is for how long the oldest request that is under way has had no answer.
	Waiting time.Duration
}

// NewSender makes a Sender.
func NewSender(cfg SenderConfig) (*Sender, error) {
	if cfg.Spool == nil || cfg.HTTP == nil {
		return nil, errors.New("ship: a sender needs a spool and a recorder")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Sender{cfg: cfg, items: map[string]*progress{}, open: map[*time.Time]bool{}, kick: make(chan struct{}, 1)}, nil
}

// Kick makes the Sender look now: somebody waits for the recorder to have what is in the
// spool. A recorder that did not answer is tried again, once a second at most.
func (s *Sender) Kick() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Status says how far the Sender is.
func (s *Sender) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	for began := range s.open {
		st.Waiting = max(st.Waiting, time.Since(*began))
	}
	return st
}

// refuses says with which status the recorder refused this recording, while it is not asked
// again; 0: it did not.
func (s *Sender) refuses(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.items[id]; p != nil && time.Now().Before(p.again) {
		return p.no
	}
	return 0
}

// Run sends until ctx ends, and returns after the last request has. An outage of the recorder
// is waited for with growing, jittered pauses, and then sending goes on where the recorder is.
func (s *Sender) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, atOnce)
	var down time.Duration // the present pause of a recorder that does not answer
	var tried time.Time    // when it last was
	var upAt time.Time     // it is not asked before
	trouble := make(chan error, atOnce)
	missed := false // something was under way when it should have been hurried
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-trouble:
			upAt, down = s.noteTrouble(err, upAt, down)
			if err != nil || !missed {
				continue
			}
		case <-tick.C:
		case <-s.kick:
			if now := time.Now(); now.Sub(tried) >= look {
				upAt = time.Time{}
			}
		}
		now := time.Now()
		if now.Before(upAt) {
			continue
		}
		tried = now
		var items []recording.Progress
		items, missed = s.due(s.cfg.Spool.Recordings(), now)
		if len(items) == 0 && len(slots) == 0 && s.Status().Err != nil {
			items = []recording.Progress{{}} // nothing but the question whether it answers again
		}
		for _, it := range items {
			select {
			case slots <- struct{}{}:
			default:
				s.idle(it.ID)
				missed = true
				continue // when a slot is free
			}
			wg.Go(func() { // ends with its requests, which end with ctx
				err := s.send(ctx, it)
				s.idle(it.ID)
				<-slots
				if ctx.Err() == nil {
					select {
					case trouble <- err:
					case <-ctx.Done():
					}
				}
			})
		}
	}
}

// noteTrouble keeps the pause of the whole Sender: err is nil when the recorder answered.
func (s *Sender) noteTrouble(err error, upAt time.Time, down time.Duration) (time.Time, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		if s.status.Err != nil {
			s.cfg.Log.Info("recorder answers again")
		}
		s.status.Err, s.status.Since = nil, time.Time{}
		return time.Time{}, 0
	}
	now := time.Now()
	if now.Before(upAt) {
		return upAt, down // of a request that was under way with the one before
	}
	if s.status.Err == nil {
		s.status.Since = now
		s.cfg.Log.Warn("recorder cannot be reached; recordings wait in the spool", "err", err)
	}
	s.status.Err = err
	down = nextWait(down, longestWait)
	return now.Add(jitter(down)), down
}

func nextWait(d, most time.Duration) time.Duration { return min(max(2*d, firstWait), most) }

// jitter spreads hosts that lost the same recorder at the same moment.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// due chooses what has something to send and marks it busy. It says whether something has grown
// while it is being sent.
func (s *Sender) due(items []recording.Progress, now time.Time) (out []recording.Progress, missed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := make(map[string]bool, len(items))
	var behind int64
	for _, it := range items {
		there[it.ID] = true
		p := s.items[it.ID]
		if p == nil {
			p = &progress{}
			s.items[it.ID] = p
		}
		behind += it.Durable - p.acked
		grown := !p.known || p.acked < it.Durable || it.Final
		missed = missed || p.busy && p.acked < it.Durable
		if p.busy || now.Before(p.again) || !grown && now.Sub(p.sent) < touchEvery {
			continue
		}
		p.busy = true
		out = append(out, it)
	}
	for id, p := range s.items {
		// Where another recorder has it now: that this one refuses it counts for a while.
		if !there[id] && !p.busy && (p.no == 0 || now.After(p.again.Add(refusedWait))) {
			delete(s.items, id)
		}
	}
	s.status.Recordings, s.status.Behind = len(items), behind
	return out, missed
}

func (s *Sender) idle(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.items[id]; p != nil {
		p.busy = false
	}
}

// send brings one recording up to it.Durable at the recorder. The error is trouble with the
// recorder as a whole; trouble with this recording is logged here and makes it wait alone.
func (s *Sender) send(ctx context.Context, it recording.Progress) error {
	if it.ID == "" {
		_, err := s.call(ctx, http.MethodGet, anyID, -1, nil)
		if no := (*refused)(nil); errors.As(err, &no) {
			return nil
		}
		return err
	}
	s.mu.Lock()
	p := *s.items[it.ID]
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		p.busy = true // until idle
		*s.items[it.ID] = p
		s.mu.Unlock()
	}()
	err := s.advance(ctx, it, &p)
	var no *refused
	switch {
	case err == nil:
		p.wait, p.again, p.no = 0, time.Time{}, 0
		return nil
	case errors.Is(err, errElsewhere):
		p.known = false // two conflicts in a row: ask at the next look
		return nil
	case errors.As(err, &no):
		p.known, p.no = false, max(no.status, 1)
		p.wait = nextWait(max(p.wait, longestWait/8), refusedWait)
		p.again = time.Now().Add(jitter(p.wait))
		s.cfg.Log.Error("recorder refuses a recording; it stays in the spool", "recording", it.ID, "status", no.status, "err", no)
		return nil // the recorder answers: others go on
	default:
		p.known = false
		return err
	}
}

// refused is an answer that concerns one recording.
type refused struct {
	status int
	words  string
}

func (r *refused) Error() string {
	return fmt.Sprintf("ship: recorder answers %d: %s", r.status, r.words)
}

func (s *Sender) advance(ctx context.Context, it recording.Progress, p *progress) error {
	if !p.known {
		ack, err := s.call(ctx, http.MethodGet, it.ID, -1, nil)
		if err != nil {
			return err
		}
		p.known, p.acked = true, ack.Acked
	}
	if p.acked > it.Durable {
		return ahead(p, it)
	}
	if p.acked > it.Acked { // an answer was lost, or nobody was there for it
		if err := s.cfg.Spool.Acked(it.ID, p.acked, false); err != nil {
			s.cfg.Log.Error("spool did not note an acknowledgement", "recording", it.ID, "err", err)
		}
	}
	f, err := os.Open(it.Path)
	if err != nil {
		return &refused{0, "the spool does not give it: " + err.Error()}
	}
	defer f.Close()
	chunk := firstChunk
	var buf []byte
	complete, again := false, false
	for ctx.Err() == nil {
		n := int(min(int64(chunk), it.Durable-p.acked))
		if cap(buf) < n {
			buf = make([]byte, n)
		}
		if m, err := f.ReadAt(buf[:n], p.acked); m < n {
			return &refused{0, fmt.Sprintf("the spool gives %d of %d bytes at %d: %v", m, n, p.acked, err)}
		}
		if whole := recording.WholeBlocks(buf[:n], p.acked == 0); whole > 0 {
			n = whole // half a block would be sent, and thrown away there
		}
		ack, err := s.call(ctx, http.MethodPut, it.ID, p.acked, buf[:n])
		if errors.Is(err, errElsewhere) && !again {
			// It was sent something else meanwhile, or came back without its last bytes.
			again = true
			p.acked = ack.Acked
			if p.acked > it.Durable {
				return ahead(p, it)
			}
			continue
		}
		if err != nil {
			return err
		}
		p.sent = time.Now()
		moved := ack.Acked - p.acked
		if moved < 0 || moved > int64(n) {
			return &refused{http.StatusConflict, fmt.Sprintf("it has %d bytes after an append of %d at %d", ack.Acked, n, p.acked)}
		}
		p.acked, complete = ack.Acked, ack.Complete
		if whole := complete && it.Final && p.acked == it.Durable; moved > 0 && !whole { // then it is freed at once
			if err := s.cfg.Spool.Acked(it.ID, p.acked, false); err != nil {
				s.cfg.Log.Error("spool did not note an acknowledgement", "recording", it.ID, "err", err)
			}
		}
		switch {
		case p.acked == it.Durable:
			return s.done(it, p, complete)
		case moved > 0:
			chunk = firstChunk
		case n < chunk:
			return nil // half a block at the end: the rest comes with it
		case chunk < maxBody:
			chunk = maxBody
		default:
			return &refused{http.StatusRequestEntityTooLarge, "a block of it is larger than one append"}
		}
	}
	return ctx.Err()
}

// ahead is what must not be: the recorder has what this host does not (any more).
func ahead(p *progress, it recording.Progress) error {
	return &refused{http.StatusConflict, fmt.Sprintf("it has %d bytes of this recording, more than the %d that are here", p.acked, it.Durable)}
}

// done frees a recording that is whole at the recorder.
func (s *Sender) done(it recording.Progress, p *progress, complete bool) error {
	if !it.Final {
		return nil
	}
	if !complete {
		return &refused{http.StatusConflict, "it has every byte of this recording and does not find its end"}
	}
	if err := s.cfg.Spool.Acked(it.ID, p.acked, true); err != nil {
		s.cfg.Log.Error("spool did not free a recording", "recording", it.ID, "err", err)
	}
	return nil
}

// errElsewhere says that the recorder is at another offset, which the Ack has.
var errElsewhere = errors.New("ship: the recorder is elsewhere in this recording")

// call makes one request.
func (s *Sender) call(ctx context.Context, method, id string, offset int64, body []byte) (Ack, error) {
	client, base := s.cfg.HTTP()
	if client == nil {
		return Ack{}, errors.New("ship: no recorder is known yet")
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	u := base + "/v1/recordings/" + url.PathEscape(id)
	if offset >= 0 {
		u += "?offset=" + strconv.FormatInt(offset, 10)
	}
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return Ack{}, fmt.Errorf("ship: %w", err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	var ack Ack
	status, err := s.do(client, req, &ack)
	switch {
	case err != nil:
		return Ack{}, err
	case status == http.StatusOK:
		return ack, nil
	case status == http.StatusConflict && ack.Acked != offset:
		return ack, fmt.Errorf("%w: at %d, not at %d", errElsewhere, ack.Acked, offset)
	case status == http.StatusNotFound, status == http.StatusUnauthorized, status >= 500 && status != http.StatusInsufficientStorage:
		// Not an answer about this recording: no recorder there, or one in trouble.
		return Ack{}, fmt.Errorf("ship: recorder answers %d: %s", status, ack.Error)
	}
	return Ack{}, &refused{status, ack.Error}
}

// Countersign has the recorder sign that a recording began.
func (s *Sender) Countersign(ctx context.Context, start recording.Start) (recording.Countersignature, error) {
	return s.sign(ctx, start.ID, "start", start, func(c recording.Countersignature) bool { return c.Valid(start) })
}

// Witness has the recorder sign how much it has of a recording.
func (s *Sender) Witness(ctx context.Context, p recording.Seen) (recording.Countersignature, error) {
	return s.sign(ctx, p.ID, "progress", p, func(c recording.Countersignature) bool { return c.ValidSeen(p) })
}

func (s *Sender) sign(ctx context.Context, id, what string, v any, fits func(recording.Countersignature) bool) (recording.Countersignature, error) {
	client, base := s.cfg.HTTP()
	if client == nil {
		return recording.Countersignature{}, errors.New("ship: no recorder is known yet")
	}
	body, err := json.Marshal(v)
	if err != nil {
		return recording.Countersignature{}, fmt.Errorf("ship: countersign: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/recordings/"+url.PathEscape(id)+"/"+what, bytes.NewReader(body))
	if err != nil {
		return recording.Countersignature{}, fmt.Errorf("ship: countersign: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	var got struct {
		recording.Countersignature
		Error string `json:"error"`
	}
	status, err := s.do(client, req, &got)
	if err != nil {
		return recording.Countersignature{}, err
	}
	if status != http.StatusOK {
		return recording.Countersignature{}, fmt.Errorf("ship: countersign: recorder answers %d: %s", status, got.Error)
	}
	if !fits(got.Countersignature) {
		return recording.Countersignature{}, errors.New("ship: countersign: the recorder's signature does not fit")
	}
	return got.Countersignature, nil
}

// do is do, with the time that it takes in Status.
func (s *Sender) do(client *http.Client, req *http.Request, into any) (int, error) {
	began := time.Now()
	s.mu.Lock()
	s.open[&began] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, &began)
	}()
	return do(client, req, into)
}

func do(client *http.Client, req *http.Request, into any) (int, error) {
	res, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ship: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return 0, fmt.Errorf("ship: answer: %w", err)
	}
	if err := json.Unmarshal(b, into); err != nil && res.StatusCode == http.StatusOK {
		return 0, fmt.Errorf("ship: answer: %w", err)
	}
	return res.StatusCode, nil
}
