// Package portmap asks the router of a home or office network to pass UDP from outside to
// this node's socket, so that peers reach it directly although their own NAT is one of
// those that give each destination another port.
//
//	Mapper.Run --- PCP (RFC 6887), else NAT-PMP (RFC 6886) ---> gateway, UDP port 5351
//	     |
//	     +--> Mapping: the address outside, told to peers like any other
//
// A router is asked only when this node's own address and the router's are private ones,
// so no provider's or cloud's machine is. One that does not answer within a few seconds is
// left alone for quiet, or until the network changes. While there is a mapping, it is
// asked for again at half its life, and given back at the end.
//
// # Trust
//
// The answer comes from whoever is the gateway, and NAT-PMP proves nothing. It is a hint,
// as every address is: peers ping it and use it only if this node answers there. So the
// worst that a false answer does is one more address that peers try in vain. What is opened
// to the outside is WireGuard's socket, which answers nobody who is not a peer.
//
// # Messages
//
// All of fixed length, numbers big endian, IPv4 addresses mapped into 16 bytes. PCP MAP,
// 60 bytes:
//
//	 0  1  version 2
//	 1  1  opcode 1; 0x81 in an answer
//	 2  2  in an answer: byte 3 is the result, 0 is success
//	 4  4  lifetime in seconds; 0 gives the mapping back
//	 8 16  own address; in an answer 4 bytes of epoch and 12 reserved
//	24 12  nonce, repeated in the answer
//	36  4  protocol 17 (UDP) and three zeros
//	40  4  port inside, port outside (wished for; as given)
//	44 16  address outside (any; as given)
//
// A gateway that knows only NAT-PMP answers with version 0. There two questions are asked:
// the address outside (00 00; answer 12 bytes: 00 80, result, epoch, IPv4 address) and the
// port (12 bytes: 00 01, two zeros, port inside, port wished for, lifetime; answer 16 bytes:
// 00 81, result, epoch, port inside, port outside, lifetime).
//
// # What is not here
//
// UPnP IGD. It needs multicast, HTTP and SOAP to whatever address a packet from the network
// names, in a process that is root on hosts. The kept library for it
// (github.com/huin/goupnp v1.3.1) reads XML without a limit and follows any such address; jackpal/go-nat-pmp
// for NAT-PMP alone cannot be cancelled; tailscale.com's net/portmapper brings goupnp and its network monitor along. So routers that speak UPnP only are not asked.
// IPv6 needs no mapping, only a hole in the router's firewall, which the packets that both
// sides send make by themselves.
package portmap
