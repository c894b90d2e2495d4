package ship

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tssh/recording"
	"tssh/recording/audit"
)

// sinkhole takes whatever comes.
type sinkhole struct{}

func (sinkhole) Size(string, string) (int64, bool, error) { return 0, false, nil }
func (sinkhole) Append(_, _ string, offset int64, b []byte) (int64, bool, error) {
	return offset + int64(len(b)), false, nil
}
func (sinkhole) Has(string, recording.Seen) (bool, error) { return false, nil }

// TestAHostThatNeverFinishesKeepsNobodyOut: requests whose bodies do not end take the recorder and the
// audit log from nobody else, however many there are.
func TestAHostThatNeverFinishesKeepsNobodyOut(t *testing.T) {
	hostOf := func(r *http.Request) (string, bool) { h := r.Header.Get("Host-Id"); return h, h != "" }
	recv, err := NewReceiver(ReceiverConfig{Sink: sinkhole{}, HostOf: hostOf})
	if err != nil {
		t.Fatal(err)
	}
	copies, err := audit.OpenCopies(audit.CopiesConfig{Dir: t.TempDir(), Noted: func(audit.Entry) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	lines, err := NewAuditReceiver(AuditReceiverConfig{Copies: copies, HostOf: func(r *http.Request) (string, string, bool) { h, ok := hostOf(r); return h, h, ok }})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/recordings/", recv)
	mux.Handle(auditPath, lines)
	srv := httptest.NewServer(mux)
	defer srv.Close()

	const id = "20260101-000000-aaaaaaaaaaaaaaaa"
	for _, path := range []string{"/v1/recordings/" + id + "?offset=0", auditPath + "?after=0"} {
		for range maxAppends + 2 {
			c, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// 100-continue comes when the body is about to be read: then the request has its turn.
			fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: hub\r\nHost-Id: n-bad\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n", path)
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			_, _ = bufio.NewReader(c).ReadString('\n')
		}
		req, err := http.NewRequest("PUT", srv.URL+path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Host-Id", "n-good")
		client := &http.Client{Timeout: 20 * time.Second}
		began := time.Now()
		res, err := client.Do(req)
		if err != nil {
			t.Errorf("%s: another host does not get in: %v", path, err)
			continue
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		t.Logf("%s: answered %d after %v", path, res.StatusCode, time.Since(began).Round(time.Millisecond))
	}
}
