package main

import (
	"fmt"
	"time"

	"tssh/netnode/coord"
)

func (c *cli) nodeRename(name, to string) error {
	var r coord.RenameRequest
	if err := c.post(coord.AdminNodeRename, coord.RenameRequest{Name: name, New: to}, &r); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(r)
	}
	_, err := fmt.Fprintf(c.out, "node %s is now called %s\n", printable(name), printable(to))
	return err
}

func (c *cli) nodeExtend(name string, d time.Duration) error {
	if d == 0 {
		return usageError{"node extend: --for is missing, as in --for 90d"}
	}
	var r coord.Extended
	if err := c.post(coord.AdminNodeExtend, coord.ExtendRequest{Name: name, For: d}, &r); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(r)
	}
	_, err := fmt.Fprintf(c.out, "node %s is a member until %s\n", printable(name), when(r.Until))
	return err
}
