//go:build !linux && !darwin && !windows

package portmap

import (
	"errors"
	"net/netip"
)

var errNoGateway = errors.New("portmap: the router is not known on this system")

func gateway() (netip.Addr, error) { return netip.Addr{}, errNoGateway }
