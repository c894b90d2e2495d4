// Package audit is the append-only, hash-chained audit log: who asked for what, what was
// decided, who changed policy, keys or nodes, and who looked at which recording.
//
//	Append(Entry) --> line n: {seq, prev, hash, entry}   prev of line n = hash of line n-1
//	                  |
//	                  v  write, then fsync shared by all who wait
//	    DIR/audit-00000001.jsonl, audit-00000002.jsonl, ...  (a new one every 64 MiB)
//
// # Format
//
// Each line is one JSON object in exactly this form, without spaces, and ends in "\n":
//
//	{"seq":17,"prev":"<64 hex>","hash":"<64 hex>","entry":{...}}
//
// seq counts from 1 through all segments. prev is the hash of the line before, 64 zeros on
// line 1. hash is SHA-256 over
//
//	"tssh audit 1\n" | prev, 32 bytes | seq, 8 bytes big-endian | the bytes of entry
//
// A reader recomposes the line from its parts and compares it with what it read, so that no
// byte of a line is outside the hash. The fields of entry are those of Entry; a reader keeps
// the ones it does not know.
//
// # What the chain proves
//
// A changed, removed, swapped or inserted line is noticed and named by Verify, unless the
// writer recomputed every later hash as well. So the chain proves something only together
// with a head (the last seq and hash) that somebody else keeps; Head gives it. Lines cut off
// at the end are noticed only by comparing with such a head.
//
// # After a crash
//
// Append returns after the line is on disk. A process or a machine that dies in the middle
// may leave bytes at the end that are no whole line; nobody was told that they were written.
// Open moves them to DIR/torn-<seq>.bin and appends an entry of kind "audit.repaired" that
// carries their number and SHA-256. Lines that are whole in themselves are never touched, even
// where the chain is broken: naming that is the work of Verify.
//
// # Copies
//
// A host sends its log to its hub (package recording/ship), which keeps a copy of each:
//
//	DIR/<node id>/audit-00000001.jsonl, ...   the host's lines as they are, each after the
//	                                          time it came, by the hub's clock:
//	    2026-03-01T12:00:00.000Z {"seq":17,...}
//	DIR/<node id>/host.json                   {"name": the host's name in the mesh}
//
// A line is taken only if it continues the chain of the copy. Where a host cannot give the
// lines between (it dropped them, or its log was replaced) the copy says "gap" in a line of its
// own, the hub's log gets an entry "audit.gap" that says what is missing, and the chain begins
// again. So a host's root can stop its log, or begin another; what was sent stays, and the break
// is seen. Whose a line is comes from the key that the host proved; the host that the entry
// names is only what it says. A copy that reached its bound lets its oldest segment
// go, with an entry "audit.dropped" before, and dropped.json keeps number and hash of the last
// line that went; within 30 days it takes no more instead ("audit.full"), so that nobody
// pushes out of it what was just written.
//
// A host keeps what the hub does not have yet, up to a bound: then the oldest segment goes, and
// "audit.dropped" says so. What the hub has is kept for two segments more.
//
// # Trust
//
// The folder is 0700 and belongs to the process that writes it; one process at a time (flock).
// Text in entries comes from the network in part (user names, client versions): it is cut to a
// bounded size, and whoever shows it must encode it for where it is shown.
package audit
