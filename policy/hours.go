package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a policy means the same on hosts that have no zone files
)

// window is one entry of hours: days of the week and a span of minutes, which may pass
// midnight; it belongs to the day on which it begins.
type window struct {
	days     [7]bool
	from, to int // minutes since midnight; to is above from, up to 48 hours
	zone     *time.Location
}

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// parseWindow reads "Mon-Fri 07:00-19:00 Europe/Oslo".
func parseWindow(s string) (window, error) {
	var w window
	f := strings.Fields(s)
	if len(f) != 3 {
		return w, errors.New(`must be days, times and a time zone, as "Mon-Fri 07:00-19:00 Europe/Oslo"`)
	}
	for part := range strings.SplitSeq(f[0], ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		lo, hi := day(first), day(last)
		if lo < 0 || hi < 0 {
			return w, fmt.Errorf("%q is no day: Mon, Tue, Wed, Thu, Fri, Sat, Sun, as Mon-Fri or Mon,Wed", part)
		}
		for d := lo; ; d = (d + 1) % 7 {
			w.days[d] = true
			if d == hi {
				break
			}
		}
	}
	from, to, ok := strings.Cut(f[1], "-")
	var okFrom, okTo bool
	w.from, okFrom = minutes(from)
	w.to, okTo = minutes(to)
	if !ok || !okFrom || !okTo || w.from == 24*60 {
		return w, fmt.Errorf("%q is no span of time, as 07:00-19:00", f[1])
	}
	if w.from == w.to {
		return w, fmt.Errorf("%q is empty; write 00:00-24:00 for the whole day", f[1])
	}
	if w.to < w.from {
		w.to += 24 * 60
	}
	// "Local" would mean something else on every host.
	if strings.EqualFold(f[2], "local") {
		return w, fmt.Errorf("%q is no time zone, as Europe/Oslo or UTC", f[2])
	}
	zone, err := time.LoadLocation(f[2])
	if err != nil {
		return w, fmt.Errorf("%q is no time zone, as Europe/Oslo or UTC", f[2])
	}
	w.zone = zone
	return w, nil
}

func day(s string) int {
	for i, d := range dayNames {
		if strings.EqualFold(s, d) {
			return i
		}
	}
	return -1
}

// minutes reads 07:00 or 24:00.
func minutes(s string) (int, bool) {
	h, m, ok := strings.Cut(s, ":")
	hours, err1 := strconv.ParseUint(h, 10, 8)
	mins, err2 := strconv.ParseUint(m, 10, 8)
	if !ok || len(h) > 2 || len(m) != 2 || err1 != nil || err2 != nil || mins > 59 || hours > 24 || hours == 24 && mins > 0 {
		return 0, false
	}
	return int(hours*60 + mins), true
}

// open gives the end of the window that is open at t.
func (w *window) open(t time.Time) (end time.Time, ok bool) {
	local := t.In(w.zone)
	y, m, d := local.Date()
	for back := range 2 {
		begin := time.Date(y, m, d-back, 0, w.from, 0, 0, w.zone)
		// The name of the day is asked at noon, which every day has once.
		if !w.days[time.Date(y, m, d-back, 12, 0, 0, 0, w.zone).Weekday()] {
			continue
		}
		end := time.Date(y, m, d-back, 0, w.to, 0, 0, w.zone)
		if !t.Before(begin) && t.Before(end) {
			return end, true
		}
	}
	return time.Time{}, false
}

// timed reports whether the rule counts at some times only.
func (t *terms) timed() bool { return len(t.hours) > 0 || !t.until.IsZero() }

// holds reports whether the rule counts at t, and until when; the zero time is for ever.
// Windows that follow each other are one.
func (t *terms) holds(now time.Time) (end time.Time, ok bool) {
	if !t.timed() {
		return time.Time{}, true
	}
	if now.IsZero() || !t.until.IsZero() && !now.Before(t.until) {
		return time.Time{}, false
	}
	if len(t.hours) > 0 {
		at := now
		for range 16 { // more than a week of days: then it never closes
			best := time.Time{}
			for i := range t.hours {
				if e, open := t.hours[i].open(at); open && e.After(best) {
					best = e
				}
			}
			if best.IsZero() {
				break
			}
			at = best
		}
		if at.Equal(now) {
			return time.Time{}, false
		}
		if at.Sub(now) < 9*24*time.Hour {
			end = at
		}
	}
	if !t.until.IsZero() && (end.IsZero() || t.until.Before(end)) {
		end = t.until
	}
	return end, true
}
