// Package firewall says whether the host's own firewall would drop a packet, and whose rule
// that is, so that a person reads it in a sentence in place of finding out from a path that
// never becomes direct.
//
//	netlink --Read--> Rules --Judge(Packet)--> Stop: by ufw, in chain ufw-user-input --Mend--> the line that lets it in
//
// It walks the nftables rules of the hooks prerouting and input as the kernel would, with
// one packet made up for the purpose that begins a connection: tables of nft itself, of firewalld, and those that
// iptables-nft and ufw write (xt matches inside nft rules). The rules are the administrator's,
// and root's alone to read and write; nothing here changes them.
//
// What it cannot know (a limit, a recent list, a set of another kind) it takes for not
// matching, because a packet of just anybody does not fulfil a special condition. So a
// Stop is a good reason to speak, not a proof, and no Stop is no promise. Rules of the kernel's older
// interface are not in reach of netlink: when the kernel has some, iptables-legacy-save prints them, and they are
// put into the same terms. eBPF and what stands outside the host is not seen.
//
// Bounded: 4096 chains and 20000 rules are looked at, 64 jumps deep; more is an error.
package firewall
