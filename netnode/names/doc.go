// Package names makes the hosts of a mesh known by name on a computer with a kernel TUN:
// host.MESH.internal, host for short, and back from address to name.
//
//	map --New--> Table --Set--> Service --+-- Server: DNS on the node's own addresses, port 53
//	                                      +-- systemd-resolved, which is told to ask it, or
//	                                      +-- a marked block in /etc/hosts
//
// # Trust
//
// The names come from another machine and are checked here again, whoever signed them: one
// DNS label in lower case that means nothing else on every computer, addresses inside the
// mesh's ranges, each once. What does not hold is left out of the Table, so nothing else can
// reach a file or an answer.
//
// The server answers queries from the node's own addresses and from loopback, whatever the
// packet filter lets in. A peer that may reach port 53 gets nothing: the map of a node holds
// what that node may know, which can be more than the peer may. A packet from the network
// with one of our own addresses as its source is dropped by the kernel, as a martian, and by
// WireGuard before that. The host's own queries go over lo and never through the TUN.
//
// # DNS
//
// Answers are made with golang.org/x/net/dns/dnsmessage, which is in the build already and
// has the few record types there are; miekg/dns would be one more module in a daemon that
// runs as root, for a client, a zone parser and seventy types that nobody asks for.
//
// The server is authoritative for MESH.internal and for the reverse zones of the mesh's
// ranges, and refuses everything else: it forwards nothing, because no program is pointed at
// it for anything else, and a forwarder would be one more way off the host. Single labels
// are refused too; whoever looks up "web" has the search domain. Names under a host do not
// exist. TTL is 10 s (5 s for "no such name"): who asks is on the same host, so caching saves
// nothing, and a host that was renamed or removed is gone as soon.
//
// EDNS0 (RFC 6891) is understood as far as the size and the version. No answer is larger
// than 512 bytes, so TC is never set. One flow of at most 2000 queries a second; 32 TCP
// connections of 200 queries each, 10 s of silence; queries of at most 4096 bytes. More UDP
// queries are dropped, the asker asks again. golang.org/x/time/rate counts them.
//
// # systemd-resolved
//
// Told through its D-Bus interface org.freedesktop.resolve1 (github.com/godbus/dbus: the
// wire format and authentication of D-Bus are nobody's core purpose) for the TUN's link:
// the servers, MESH.internal as a domain that is searched and routed, the reverse zones as
// domains that are only routed, no default route, and LLMNR, mDNS, DNS over TLS and DNSSEC
// off. RevertLink when the node stops. When port 53 of the mesh address is taken, by a server
// on 0.0.0.0, ours is on another port and SetLinkDNSEx says so. When resolved is started
// anew it is told again. In mode auto it is used only where programs come to it: the stub
// in resolv.conf, or "resolve" in nsswitch.conf.
//
// # The block in /etc/hosts
//
//	# tssh:tssh0 begin: hosts of the mesh corp, kept by tsshd; write above or below
//	100.64.0.7 web.corp.internal web # tssh:tssh0
//	fd7a:7373:6800::7 web.corp.internal web # tssh:tssh0
//	# tssh:tssh0 end
//
// It stands at the end of the file. tssh0 is the name of the TUN device. Each line carries
// the mark, and only lines with the mark are ever taken out, so that a line that somebody
// wrote into the block stays. The first line may say "begin no-newline" (what stood before
// did not end in a newline, and will not again) and "begin new-file" (there was none), so
// that the file is byte for byte what it was when the block goes: when the node stops, goes
// down, or starts the next time after it was killed.
//
// A name that another line gives, or that is this computer's own, is left out, full and short
// name each for itself. At most 2000 hosts are written; files over 4 MiB are left alone.
// The file is replaced by rename with the old one's owner, mode and extended attributes.
// Where that cannot be (a bind mount, as in containers; hard links; attributes that may not
// be copied; a folder that may not be written) it is written in place, from the first byte
// on, which a power cut can interrupt in the block but not before it. A file that another
// program changed between reading and writing is read again. Every 30 seconds it is
// compared with what was left, and put right.
package names
