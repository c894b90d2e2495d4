// Package path carries WireGuard's datagrams between nodes: it is the conn.Bind under
// wireguard-go, and it decides which way the packets for a peer go.
//
//	wireguard-go device
//	      |  Send(bufs, *Peer)            ^  ReceiveFunc
//	      v                               |
//	    Bind ---- best path of the Peer --+---- probes taken out here
//	      |            |                  ^
//	      |            +-- no path: hold a few packets, or the relay
//	      v                               |
//	  conn.StdNetBind (UDP, both families, batches, GSO)
//
// Every peer has one Endpoint for its whole life, the Peer. WireGuard is configured with
// it (its text form is the peer's public key in hex) and never changes it by itself; what
// changes is the path inside. So an address that a packet merely claims to come from never
// moves a peer: a path is used only after a probe sent to it was answered by the peer.
//
// # Trust
//
// The network is hostile: anyone can send us anything from any address, and can record,
// delay, repeat and drop what nodes send. Addresses published by other nodes through the
// hub are hints. What a person on the path can do is what they can do to any traffic:
// drop it, or carry it another way. They cannot read it, answer a probe, or make a node
// send more than it received. A probe is answered at most once per packet received, with
// a packet of the same size, and at most probesPerSecond times a second for each peer.
//
// # Probes
//
// Both sides derive keys from their WireGuard keys, so nothing has to be agreed first:
//
//	secret = X25519(own private key, peer's public key)
//	key(A->B) = HKDF-SHA256(secret, no salt, "tssh path probe v1" || A || B), 32 bytes
//	hint(A->B) = first 8 bytes of SHA-256("tssh path hint v1" || A || B)
//
// A and B are the public keys of sender and receiver. The hint lets the receiver find the
// key; like the first MAC of a WireGuard handshake it shows who speaks only to someone
// who knows both public keys. A probe is always 84 bytes:
//
//	 0  4  "tssp"; WireGuard's packets begin with 1..4 and three zeros, STUN's with 0 or 1
//	 4  8  hint
//	12 24  random nonce
//	36 32  sealed with XChaCha20-Poly1305 under key(A->B), the first 12 bytes authenticated too:
//	         0  1  1 = ping, 2 = pong
//	         1 15  transaction: random in a ping, repeated in its pong
//	        16 16  zero, for later use; not looked at by the receiver
//	68 16  tag
//
// A pong counts only for a transaction that this node began less than pongWait ago, and
// only once: it cannot be repeated. A repeated ping is recognised among the last
// pingMemory ones of a peer. One older than that earns its sender a pong and the address
// it came from a place among the few learned addresses of that peer, where it is pinged,
// does not answer, and is forgotten; it never becomes a path.
//
// # The relay, and calls
//
// A packet for a peer without a path goes by the relay (Config.Relay), from the first
// handshake on; nothing waits for a path to be found. While the path in use owes an answer
// for longer than suspect, it is in doubt: everything goes both ways, until an answer comes
// or the path is dead. WireGuard drops what comes twice. So a path that dies costs a stream
// what was sent in the second or so before it came into doubt, as a lossy network would.
//
// When nothing can be sent for five seconds (Config.OnBroken), the socket is opened anew at the
// same port, at most every 30 s, then every minute, and so on up to 8.
//
// Probes go by the relay as well, for Ping. A call is a message by the relay alone, by
// which a node asks a peer to try its addresses now: NATs let a packet in only after one
// went out. It is sent while there is no path, at most every callEvery, and when this
// node's own addresses change:
//
//	 0  4  "tssc"
//	 4  8  hint, as in a probe
//	12 24  random nonce
//	36  n  sealed as a probe is, the first 12 bytes authenticated too:
//	        0  8  random, of this run of the sender
//	        8  8  number of the call in this run, from 1; higher than that of the last call of
//	              the run that was taken, so that one cannot be repeated. No clock is asked
//	       16  1  length of the home relay's name, 0 to 32
//	       17 32  its name, padded
//	       49  1  number of addresses, 0 to 16
//	       50 18  each: IPv6 or IPv4-mapped address, port
//	 n 16  tag
//
// A call is taken at most every callPause from one peer. The addresses in it are hints like
// published ones: each is pinged once, and forgotten when it does not answer. The last 16 runs
// of a peer are remembered. To addresses that never answered go at most 8 pings a second for
// one peer and 256 for all, with a burst of 48 and 1024: who may be a peer cannot have nodes
// send much to a stranger.
//
// # Choice
//
// While WireGuard has packets for a peer, every address known for it is pinged about
// every three seconds, and the path in use twice a second; the quickest that answers is the path, with some reluctance to
// change between near equals; IPv6 counts as a quarter quicker than it is. A path that does not answer is asked again twice a second;
// as soon as another one answers that is taken, and after deadAfter there is none. A send
// error ends a path at once. Peers nobody talks to are not probed.
//
// # Cost
//
// Measured with BenchmarkSend and BenchmarkIdlePeers on two cores: a full batch sent
// through a Bind took 0.99 to 1.00 of what it took through the StdNetBind beneath. With
// 5,000 peers at rest a step of the prober took 60 ns, whatever their number, and each peer
// with one address 2 KiB.
package path
