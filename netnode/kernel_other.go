//go:build !linux

package netnode

import (
	"fmt"
	"net/netip"

	"golang.zx2c4.com/wireguard/tun"
)

// kernel is a userspace stack by type only: no other system than Linux has the kernel's.
type kernel struct{ *userspace }

func newKernel(cfg Config, _ func(netip.Addr) bool) (*kernel, error) {
	return nil, fmt.Errorf("netnode: TUN %q: kernel TUNs are for Linux only; run in userspace", cfg.TUN)
}

func (k *kernel) device() tun.Device { return k.userspace }

// TryTUN has no TUN to try.
func TryTUN(name string) error {
	return fmt.Errorf("netnode: TUN %q: kernel TUNs are for Linux only; run in userspace", name)
}

// Uninstall has nothing to take away here.
func Uninstall(tun, runDir string) error { return nil }
