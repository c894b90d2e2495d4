package main

import (
	"context"
	"slices"
)

// part is one role of a hub. start mounts what the role answers on h.tls and returns
// what runs until the context ends; it may refuse, in words.
type part struct {
	role  string
	start func(h *hub) (run func(context.Context) error, err error)
}

// parts are the roles that this program has, in the order they start.
func parts() []part {
	return []part{
		{"coord", startCoord},
	}
}

// defaultRoles are those that are there.
func defaultRoles() []string {
	var out []string
	for _, p := range parts() {
		out = append(out, p.role)
	}
	return out
}

func hasRole(role string) bool { return slices.Contains(defaultRoles(), role) }

// startCoord answers nodes: joining, the stream of records, what nodes say of themselves.
func startCoord(h *hub) (func(context.Context) error, error) {
	h.tls.Handle("/v1/", h.coord.Handler(h.ctx))
	return h.coord.Run, nil
}
