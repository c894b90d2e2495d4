package ship

import (
	"encoding/json"
	"net/http"
)

const (
	// maxBody bounds one append. It holds the largest block a recording can have (a little
	// over 5 MiB) and so always at least one whole block of what is to be sent.
	maxBody = 6 << 20
	// maxAnswer bounds what either side reads of the other's JSON.
	maxAnswer = 256 << 10
)

// Ack is the recorder's answer to an append or a question: what it has, durably.
type Ack struct {
	Acked    int64  `json:"acked"`
	Complete bool   `json:"complete,omitempty"` // the recording's end is among it
	Error    string `json:"error,omitempty"`
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // a host that went away asks again
}
