package main

import (
	"fmt"
	"time"

	"tssh/netnode/localapi"
)

// warnAhead is how long before its end a membership is spoken of at every login.
const warnAhead = 7 * 24 * time.Hour

// membership says when this computer's membership ends; empty: it does not end.
func membership(end, now time.Time) string {
	if end.IsZero() {
		return ""
	}
	if words := endsSoon(end, now); words != "" {
		return words
	}
	return fmt.Sprintf("%s, in %d days", end.Local().Format("2 January 2006 15:04"), int(end.Sub(now).Hours())/24)
}

// endsSoon is the warning ahead of the end, with what to do; empty while there is time.
func endsSoon(end, now time.Time) string {
	left := end.Sub(now)
	if end.IsZero() || left > warnAhead {
		return ""
	}
	in := fmt.Sprintf("in %d days", int(left.Hours())/24)
	switch {
	case left <= 0:
		return "this computer's membership has ended: tssh up --join-file FILE, with a token from tsshub key create"
	case left < time.Hour:
		in = "within the hour"
	case left < 2*time.Hour:
		in = "in an hour"
	case left < 48*time.Hour:
		in = fmt.Sprintf("in %d hours", int(left.Hours()))
	}
	return "this computer's membership ends " + in + ": tssh up --join-file FILE, with a token from tsshub key create"
}

// outside says what a node that is out of its mesh can do; empty: it is not.
func outside(state string) string {
	switch state {
	case localapi.StateExpired:
		return endsSoon(time.Unix(0, 0), time.Now())
	case localapi.StateRemoved:
		return "this node was removed from the mesh; as another one it may come back: tssh up --join-file FILE, with a token from tsshub key create"
	}
	return ""
}
