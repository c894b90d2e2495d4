package lab

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestSearchAsAPersonDoes: what was on the screen of a session of the stock client is found with `tssh
// search`, and the filter finds it by how it ended.
func TestSearchAsAPersonDoes(t *testing.T) {
	m := ownMesh(t)
	m.logsIn(t)
	// On the screen, not in the command.
	if r := m.stock("ssh", "-tt", "deploy@"+m.webAddr, `printf 'the %s left the building\n' elephant; exit 7`); r.Status != 7 {
		t.Fatal(r)
	}
	var found []struct {
		ID    string `json:"id"`
		Who   string `json:"who"`
		Lines []struct {
			Text string `json:"text"`
		} `json:"lines"`
	}
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(500 * time.Millisecond) {
		r := m.laptop.Tssh("search", "--json", "elephant left")
		if r.Status == 0 && json.Unmarshal([]byte(r.Stdout), &found) == nil && len(found) > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it is not found: %v", r)
		}
	}
	if l := found[0].Lines; len(l) != 1 || l[0].Text != "the elephant left the building" || !strings.Contains(found[0].Who, "@") {
		t.Errorf("%+v", found)
	}
	if r := m.laptop.Tssh("sessions", "exit:7", "host:web"); r.Status != 0 || !strings.Contains(r.Stdout, found[0].ID) {
		t.Errorf("by its exit status: %v", r)
	}
	if r := m.laptop.Tssh("sessions", "exit:0"); strings.Contains(r.Stdout, found[0].ID) {
		t.Errorf("by another: %v", r)
	}
	if r := m.laptop.Tssh("search", "giraffe"); r.Status != 1 {
		t.Errorf("what was on no screen: %v", r)
	}
}
