package coord

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"tssh/netnode/netmap"
)

// stranger is an HTTP client with a key of its own that the hub does not know.
func (h *hub) stranger() *http.Client {
	h.t.Helper()
	key, err := netmap.NewControlKey()
	if err != nil {
		h.t.Fatal(err)
	}
	return h.as(key)
}

// as is an HTTP client that shows a control key.
func (h *hub) as(key netmap.ControlKey) *http.Client {
	h.t.Helper()
	conf, err := netmap.ClientTLS(key, h.key.Public())
	if err != nil {
		h.t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: conf, MaxIdleConnsPerHost: 16}
	h.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// post gives the status of one call.
func (h *hub) post(c *http.Client, path string, v any) int {
	b, err := json.Marshal(v)
	if err != nil {
		h.t.Error(err)
		return 0
	}
	resp, err := c.Post("https://"+h.addr+path, "application/json", bytes.NewReader(b))
	if err != nil {
		h.t.Error(err)
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestStrangersKeepNobodyOut: whoever reaches the port, without any key of the hub's,
// neither uses up the joins of those who have one nor fills the audit log.
func TestStrangersKeepNobodyOut(t *testing.T) {
	h := newHub(t, nil)
	tok := h.token(KeyRequest{Tags: []string{"tag:web"}})
	const tries = 400
	var wg sync.WaitGroup
	for w := range 8 {
		c := h.stranger()
		wg.Go(func() {
			for i := range tries / 8 {
				h.post(c, netmap.PathRotate, netmap.RotateRequest{Steps: []netmap.Envelope{{Payload: []byte("{}")}}})
				h.post(c, netmap.PathJoin, netmap.JoinRequest{AuthKey: strings.Repeat("A", 43), Name: strings.Repeat("x", 30<<10) + fmt.Sprint(w, i)})
			}
		})
	}
	wg.Wait()
	// Not refused as one too many, at its first try, with what strangers have left of the rate.
	if n := h.joins.Tokens(); n < joinBurst-1 {
		t.Errorf("strangers took %v joins of those who hold a key", joinBurst-n)
	}
	if _, err := netmap.Join(t.Context(), netmap.JoinConfig{Dir: filepath.Join(t.TempDir(), "s"), Token: tok, Name: "web"}); err != nil {
		t.Error(err)
	}

	// And those of them who are answered are counted, not written down one by one.
	for range refusalsBurst + 50 {
		_, err := h.Server.join(t.Context(), joinRequest{JoinRequest: netmap.JoinRequest{AuthKey: "nothing", Name: strings.Repeat("y", 50<<10)}})
		if err == nil {
			t.Fatal("joined without a key")
		}
	}
	denied := 0
	for _, e := range h.audited("node.join") {
		if e.Verdict != "deny" {
			continue
		}
		denied++
		if len(e.Node) > maxRefusedName {
			t.Fatalf("a refused name of %d bytes is in the audit log", len(e.Node))
		}
	}
	if denied > refusalsBurst+20 {
		t.Errorf("%d refusals are in the audit log", denied)
	}
	h.lim.mu.Lock()
	unsaid := h.lim.unsaid
	h.lim.refusals.SetBurst(1000) // as after a while
	h.lim.refusals.SetLimit(1000)
	h.lim.mu.Unlock()
	for range 1000 {
		if _, err := h.Server.join(t.Context(), joinRequest{JoinRequest: netmap.JoinRequest{AuthKey: "nothing"}}); err == nil {
			t.Fatal("joined without a key")
		}
		all := h.audited("node.join")
		if s := all[len(all)-1].Extra["unaudited_before"]; s != "" {
			if n, _ := strconv.Atoi(s); n < unsaid {
				t.Errorf("%s refusals were counted, not %d", s, unsaid)
			}
			return
		}
	}
	t.Error("refusals that are not in the audit log are not counted in it either")
}

// TestOneNodeDoesNotFloodTheMesh: each change of host keys is a record for everybody and an
// audit entry for good, and one member must not make them without end.
func TestOneNodeDoesNotFloodTheMesh(t *testing.T) {
	h := newHub(t, nil)
	s := h.join("web", KeyRequest{Tags: []string{"tag:web"}})
	c := h.as(s.Control)
	took, late := 0, 0
	for i := range 4 * hostKeysBurst {
		switch code := h.post(c, netmap.PathHostKeys, netmap.HostKeysRequest{HostKeys: []string{fmt.Sprintf("ssh-ed25519 AAAA%d", i)}}); code {
		case http.StatusOK:
			took++
		case http.StatusForbidden:
			late++
		default:
			t.Fatalf("status %d", code)
		}
	}
	if took < hostKeysBurst || took > hostKeysBurst+1 || len(h.audited("node.hostkeys")) != took {
		t.Errorf("%d changes of host keys were taken, %d refused, %d audited", took, late, len(h.audited("node.hostkeys")))
	}
	took = 0
	for i := range 4 * endpointsBurst {
		if h.post(c, netmap.PathEndpoints, map[string]any{"endpoints": []string{fmt.Sprintf("192.0.2.1:%d", 1000+i)}}) == http.StatusOK {
			took++
		}
	}
	if took < endpointsBurst || took == 4*endpointsBurst {
		t.Errorf("%d changes of endpoints at once were taken", took)
	}
	if id, ok := h.Named("web"); !ok || id != s.NodeID {
		t.Errorf("web is %q %v", id, ok)
	}
	// Another node is heard all the same.
	other := h.as(h.join("db", KeyRequest{Tags: []string{"tag:db"}}).Control)
	if code := h.post(other, netmap.PathHostKeys, netmap.HostKeysRequest{HostKeys: []string{"ssh-ed25519 AAAA"}}); code != http.StatusOK {
		t.Errorf("another node: status %d", code)
	}
}
