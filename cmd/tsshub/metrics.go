package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"tssh/netnode/coord"
	"tssh/recording/store"
)

// metricsPath is where the administrators' socket has the hub's metrics, in the text format of Prometheus.
const metricsPath = "/v1/metrics"

func (h *hub) serveMetrics(w http.ResponseWriter, r *http.Request) {
	if _, ok := coord.Caller(r.Context()); !ok {
		sayProblem(w, http.StatusForbidden, "only root and the user that tsshub runs as may do this")
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	if rooms := h.rooms.Load(); rooms != nil {
		_, _ = io.WriteString(w, storeMetrics(rooms.store.Stats()))
	}
}

func storeMetrics(s store.Stats) string {
	var b strings.Builder
	one := func(name, kind, words string, v int64) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", name, words, name, kind, name, v)
	}
	one("tssh_hub_recordings", "gauge", "Recordings in the list.", int64(s.Recordings))
	one("tssh_hub_recordings_bytes", "gauge", "Bytes of them, in the folder and in the bucket.", s.Bytes)
	one("tssh_hub_recordings_live", "gauge", "Recordings of sessions that run.", int64(s.Live))
	one("tssh_hub_recordings_unsealed", "gauge", "Recordings that did not come sealed as the policy asks.", int64(s.Unsealed))
	const refused = "tssh_hub_recordings_refused_total"
	fmt.Fprintf(&b, "# HELP %s Appends that were refused because a limit was reached, by limit.\n# TYPE %s counter\n", refused, refused)
	for _, k := range slices.Sorted(maps.Keys(s.Refused)) {
		fmt.Fprintf(&b, "%s{limit=%q} %d\n", refused, k, s.Refused[k])
	}
	return b.String()
}

// metrics is `tsshub metrics`.
func (c *cli) metrics() error {
	resp, err := c.ask(http.MethodGet, metricsPath, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return decode(resp, nil)
	}
	_, err = io.Copy(c.out, io.LimitReader(resp.Body, maxAnswer))
	return err
}
