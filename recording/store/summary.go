package store

import (
	"encoding/json"
	"strings"
	"time"
	"unique"

	"tssh/recording"
)

const (
	maxChannels = 64  // channels that a summary describes; more are only counted
	maxCommand  = 512 // bytes of a command that a summary keeps
	maxWord     = 32  // of a type, a signal, a cause
)

// Summary is what the list needs to know of a recording, without reading it.
type Summary struct {
	Meta     recording.Meta `json:"meta"`
	Size     int64          `json:"size"`     // bytes here, all verified
	Duration time.Duration  `json:"duration"` // until the last event that is here
	Opened   int            `json:"opened"`   // channels that did something
	Channels []Channel      `json:"channels,omitempty"`
	End      *recording.End `json:"end,omitempty"`
	Complete bool           `json:"complete"` // its end is here, and signed
	Problem  string         `json:"problem,omitempty"`
	// Unsealed is why it is not sealed as it should be, in words of the recorder.
	Unsealed string `json:"unsealed,omitempty"`

	// Live is set while the host goes on reporting that the connection is open.
	Live bool `json:"-"`
}

// Channel is one channel that did something.
type Channel struct {
	N       uint32          `json:"n"`
	Type    string          `json:"type"`
	Command string          `json:"command,omitempty"`
	PTY     bool            `json:"pty,omitempty"`
	Cols    int             `json:"cols,omitempty"`
	Rows    int             `json:"rows,omitempty"`
	Opened  time.Duration   `json:"opened"`
	Closed  time.Duration   `json:"closed,omitempty"`
	Exit    *recording.Exit `json:"exit,omitempty"`
}

// Main is the channel that says what the connection was for: its first.
func (s *Summary) Main() Channel {
	if len(s.Channels) == 0 {
		return Channel{}
	}
	return s.Channels[0]
}

// apply takes one more event into account. Events whose data is not what their kind says are
// passed over: the summary is a help, the recording is the evidence.
func (s *Summary) apply(e recording.Event) {
	s.Duration = max(s.Duration, e.At)
	switch e.Kind {
	case recording.KindOpen:
		var o recording.Open
		if json.Unmarshal(e.Data, &o) != nil {
			return
		}
		s.Opened++
		if len(s.Channels) < maxChannels {
			s.Channels = append(s.Channels, Channel{
				N: e.Channel, Type: unique.Make(word(o.Type)).Value(), Command: clip(o.Command), PTY: o.PTY, Cols: o.Cols, Rows: o.Rows, Opened: e.At,
			})
		}
	case recording.KindExit:
		var x recording.Exit
		if c := s.channel(e.Channel); c != nil && json.Unmarshal(e.Data, &x) == nil {
			x.Signal = word(x.Signal)
			c.Exit = &x
		}
	case recording.KindClose:
		if c := s.channel(e.Channel); c != nil {
			c.Closed = e.At
		}
	case recording.KindEnd:
		var end recording.End
		if json.Unmarshal(e.Data, &end) == nil {
			end.Cause, end.Text = word(end.Cause), clip(end.Text)
			s.End = &end
		}
	}
}

func (s *Summary) channel(n uint32) *Channel {
	for i := range s.Channels {
		if s.Channels[i].N == n {
			return &s.Channels[i]
		}
	}
	return nil
}

// word is for what is one word where a host is honest.
func word(s string) string {
	if len(s) <= maxWord {
		return s
	}
	return strings.ToValidUTF8(s[:maxWord], "")
}

func clip(s string) string {
	if len(s) <= maxCommand {
		return s
	}
	return strings.ToValidUTF8(s[:maxCommand], "") + "..."
}

// Has says whether every word occurs in what a filter looks through.
func (s *Summary) Has(words string) bool {
	r := rec{id: s.Meta.ID, sum: *s, words: wordsOf(&s.Meta)}
	return r.matches(strings.Fields(strings.ToLower(words)))
}

// clone is a copy that shares nothing with s.
func (s *Summary) clone() Summary {
	c := *s
	c.Channels = append([]Channel(nil), s.Channels...)
	return c
}
