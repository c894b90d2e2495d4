// Package recording is what is kept of a connection: the event model, the journal the
// connection process writes, the frames the monitor makes of it, their hash chain and
// signatures, and the casts other players read.
//
//	tsshd conn (the user)            tsshd run (root, the monitor)
//	  Journal.Append                   Spool.Run
//	      | one write(2) per event         | reads along, cuts at the first bad byte
//	      v                                v
//	  <dir>/<id>/journal  ----------->  <dir>/<id>/recording.tsr  ----> recorder
//	                                    frames, keyframes, chain, signatures
//
// Trust boundary: everything in a journal was written by a process that runs as the
// person recorded. It is framed and summed against accidents, and read with bounds
// against malice. What is in recording.tsr was written by root.
//
// # Journal
//
// A journal is a run of records without a header. Numbers are little-endian.
//
//	0   4  length of the body, 13 to 13+65536
//	4   4  CRC-32C of the body
//	8   8  body: microseconds since the recording's start, never decreasing
//	16  4        channel; 0 is the connection, 0xffffffff is refused (the monitor's own)
//	20  1        Kind
//	21  n        data
package recording
