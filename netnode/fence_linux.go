package netnode

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The fence is an nftables table of our own, named after the device:
//
//	table inet tssh-DEVICE
//	  chain lan   prerouting, before everything: packets for a mesh address of this host that
//	              did not come in by the device, or from the host itself, are dropped; and so is
//	              what says that it comes from where only the device leads to, whatever it is for:
//	              a datagram of a neighbour's would be a peer's to who takes addresses for identities
//
//	  chain through  prerouting: counts what containers and other computers send through this
//	              host to the mesh's ranges; there is no way into the mesh for it, see the routes
//
//	  chain own   output: connections into the mesh that start here are let out for the users
//	              who may use it; the chain is there only when that is not everybody
//
// A service that the host bound to all addresses is reached at its mesh address by the mesh
// alone, also by a neighbour that routes the mesh's range to this host. It stays while the
// daemon is away.

// fenceTable is the name of the table for a device.
func fenceTable(tun string) string { return "tssh-" + tun }

// ifname is a name as nftables compares it.
func ifname(s string) []byte { return append([]byte(s), make([]byte, 16-len(s))...) }

// notFrom are the expressions that match what came in by none of the interfaces.
func notFrom(names ...string) (out []expr.Any) {
	for _, n := range names {
		out = append(out, &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: ifname(n)})
	}
	return out
}

// toAddr matches packets for one address.
func toAddr(a netip.Addr) []expr.Any {
	family, offset, length := byte(unix.NFPROTO_IPV4), uint32(16), uint32(4)
	if a.Is6() {
		family, offset, length = unix.NFPROTO_IPV6, 24, 16
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
	}
}

// through matches packets for a range that are not for this host.
func through(tun string, r netip.Prefix) []expr.Any {
	to := toAddr(r.Addr())
	load, cmp := to[:len(to)-1], to[len(to)-1]
	mask := net.CIDRMask(r.Bits(), r.Addr().BitLen())
	return slices.Concat(notFrom("lo", tun), load, []expr.Any{
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}, cmp,
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		&expr.Counter{},
	})
}

// pretends matches what came in elsewhere although the way back to where it says it comes from
// is the device.
func pretends(tun string) []expr.Any {
	return append(notFrom("lo", tun), &expr.Fib{Register: 1, FlagSADDR: true, ResultOIFNAME: true}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(tun)})
}

// ours matches what leaves by the device and starts a connection.
func ours(tun string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(tun)},
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		// A packet without a socket has no owner and does not get past this: it is the
		// kernel's own, an answer to somebody.
		&expr.Meta{Key: expr.MetaKeySKUID, Register: 1},
	}
}

// setFence puts the fence for these addresses in the place of the one before, at once.
// users are who may start connections into the mesh; nil: everybody.
func setFence(tun string, addrs []netip.Addr, ranges []netip.Prefix, users []uint32) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("netnode: nftables: %w", err)
	}
	t := &nftables.Table{Name: fenceTable(tun), Family: nftables.TableFamilyINet}
	// Making it first lets deleting it succeed; all of this is one transaction.
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	lan := c.AddChain(&nftables.Chain{Name: "lan", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw})
	for _, a := range addrs {
		c.AddRule(&nftables.Rule{Table: t, Chain: lan, Exprs: slices.Concat(notFrom("lo", tun), toAddr(a), []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}})})
	}
	c.AddRule(&nftables.Rule{Table: t, Chain: lan, Exprs: append(pretends(tun), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})})
	passing := c.AddChain(&nftables.Chain{Name: "through", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw})
	for _, r := range ranges {
		c.AddRule(&nftables.Rule{Table: t, Chain: passing, Exprs: through(tun, r)})
	}
	if users != nil {
		own := c.AddChain(&nftables.Chain{Name: "own", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter})
		for _, u := range users {
			c.AddRule(&nftables.Rule{Table: t, Chain: own, Exprs: append(ours(tun),
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(u)}, &expr.Verdict{Kind: expr.VerdictAccept})})
		}
		// Refused, not dropped: the program hears of it at once.
		c.AddRule(&nftables.Rule{Table: t, Chain: own, Exprs: append(ours(tun), &expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("netnode: nftables table %s: %w", t.Name, err)
	}
	return nil
}

// fenced counts the packets that a chain of the fence stopped.
func fenced(tun, chain string) (n uint64) {
	c, err := nftables.New()
	if err != nil {
		return 0
	}
	t := &nftables.Table{Name: fenceTable(tun), Family: nftables.TableFamilyINet}
	rules, err := c.GetRules(t, &nftables.Chain{Name: chain, Table: t})
	if err != nil {
		return 0 // there is none
	}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if x, ok := e.(*expr.Counter); ok {
				n += x.Packets
			}
		}
	}
	return n
}

// removeFence takes the table away. One that is not there is fine.
func removeFence(tun string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("netnode: nftables: %w", err)
	}
	c.DelTable(&nftables.Table{Name: fenceTable(tun), Family: nftables.TableFamilyINet})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) && !strings.Contains(err.Error(), "no such file") {
		return fmt.Errorf("netnode: nftables table %s: %w", fenceTable(tun), err)
	}
	return nil
}
