package main

import (
	"testing"
	"time"
)

func TestMembershipWords(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	const what = ": tssh up --join-file FILE, with a token from tsshub key create"
	for _, x := range []struct {
		left            time.Duration
		status, warning string
	}{
		{90 * 24 * time.Hour, "30 May 2026 12:00, in 90 days", ""},
		{6*24*time.Hour + time.Hour, "", "this computer's membership ends in 6 days" + what},
		{30 * time.Hour, "", "this computer's membership ends in 30 hours" + what},
		{90 * time.Minute, "", "this computer's membership ends in an hour" + what},
		{time.Minute, "", "this computer's membership ends within the hour" + what},
		{-time.Minute, "", "this computer's membership has ended" + what},
	} {
		end := time.Unix(now.Add(x.left).Unix(), 0)
		if got := endsSoon(end, now); got != x.warning {
			t.Errorf("%s: warning %q", x.left, got)
		}
		want := x.status
		if want == "" {
			want = x.warning
		}
		if got := membership(end, now); got != want {
			t.Errorf("%s: status %q", x.left, got)
		}
	}
	if membership(time.Time{}, now)+endsSoon(time.Time{}, now) != "" {
		t.Error("what does not end is spoken of")
	}
}
