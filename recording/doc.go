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
//	                                        |
//	                             Reader, Verify, WriteCast: whoever has the file
//
// Trust boundary: everything in a journal was written by a process that runs as the
// person recorded. It is framed and summed against accidents, and read with bounds
// against malice: what cannot be believed is cut off there, with a Gap event that says
// so. A connection process that was taken over can leave out what it does from then on,
// and cut off what the monitor has not read yet (a second, then that is noticed and ends
// the session); what is in frames it cannot reach. What is in recording.tsr was written by root; but a .tsr file that is opened may
// come from anywhere, so it and casts are read with the same care. Numbers are
// little-endian and times are microseconds.
//
// # Journal
//
// A journal is a run of records without a header.
//
//	0   4  length of the body, 13 to 13+65536
//	4   4  CRC-32C of the body
//	8   8  body: time since the recording's start, never decreasing
//	16  4        channel; 0 is the connection, 0xffffffff is refused (the monitor's own)
//	20  1        Kind
//	21  n        data
//
// # Recording (.tsr)
//
// A file is the 16 bytes "tsshrecording1\r\n", or "tsshrecording2\r\n" where it is sealed, and
// then blocks. Each block is a header
// of 96 bytes and a payload:
//
//	0   4  "tsrb"
//	4   1  type: 1 meta, 2 frame, 3 checkpoint, 4 countersignature, 5 index, 6 key, 7 outline
//	5   1  flags: 1 the frame opens with a keyframe, 2 the checkpoint is the last, 4 the frame
//	       is sealed
//	6   2  0
//	8   8  sequence number, from 0, without gaps
//	16  4  length of the payload in the file
//	20  4  length of the payload decompressed (frame, index), else as before
//	24  4  number of events
//	28  4  CRC-32C of the payload in the file
//	32  8  time of the first event (of no events: of the last one before)
//	40  8  time of the last event
//	48  8  how many bytes of the journal are in the file up to here
//	56  8  wall clock time when the block was written, since 1970
//	64  32 chain: SHA-256(chain of the block before | these 64 bytes | payload);
//	       before block 0 it is SHA-256 of the file's first 16 bytes
//
// Block 0 is meta: Meta as JSON. A frame is one zstd frame; decompressed, if it has a
// keyframe, uvarint number of screens, then for each uvarint channel, columns, rows,
// length and the bytes that repaint it; then to the end events: uvarint time since the
// event before (the first: since the header's first time, 0), uvarint channel, byte
// Kind, uvarint length, data. A keyframe is the state before the frame's first event
// and holds every terminal there is, so that a reader can begin there. An index is a
// zstd frame too: for each frame of the file uvarint offset (less that of the one
// before), sequence number, length of the payload, flags, events, first and last time,
// wall clock time (each less that of the one before, as a zigzag varint). It is
// followed by the last 24 bytes of the file, the index's offset (8) and
// "tssh rec index\r\n", so that a player needs three reads to know a file. The index can
// be made anew from the headers; a file that ends early has none.
//
// # Sealed recordings
//
// Where SpoolConfig.SealTo gives recipients (age X25519, ssh-ed25519), all frames of a recording
// are sealed to them, and the host has no key that opens them: it cannot read back what it
// recorded. All else stays as it is: chain and signatures are over what is in the file, so that
// a hub or anybody without a key verifies, receives, keeps and deletes sealed recordings.
//
// A key block begins an epoch: JSON {"to": [recipients], "key": an age file of 32 bytes}. The
// first one follows the description; another one comes when a monitor goes on with the
// recording of one before, and when the recipients are others. An epoch's key is in the memory
// of the monitor alone, never on disk, and moves forward with each block:
//
//	key of block n+1 = SHA-256("tssh recording seal ratchet" 0 | key of block n)
//
// where the key in the key block is that of the key block itself. What was is overwritten (the
// garbage collector may hold a copy for a while), so that whoever reads the memory later opens
// what comes, not what was. The payload of a sealed frame is the offset of its key block (8),
// a random nonce (12), and AES-256-GCM of the zstd frame under
// SHA-256("tssh recording seal block" 0 | key of the block), with the additional data
// "tssh recording seal" 0 | SHA-256 of the meta payload | that offset | first 64 bytes of the
// header, in which length and CRC of the stored payload are 0. So a frame opens in its place in
// its recording alone, even for one who has the signing key.
//
// In the clear stay: the description (who, from where, as whom, on which host, when, by which
// rule, with which client); of each block size, number of events, and times; recipients; and the
// outline. An outline block follows the frame of which it says what lists need: KindOpen
// without command and terminal, KindExit, KindClose, and KindEnd without its text, each as in a
// frame, the first time counted from 0. The index has nothing that headers have not. What was
// typed and shown, commands, files, forwards, refusals and notes are in frames, and sealed.
//
// The journal is plain until it is framed. As soon as the frame that has them is durable its
// bytes are overwritten with zeros; the file system has them on the disk within its time
// (half a minute), and before the file's room is given back or the file removed. A file system
// that copies on write keeps old blocks until it uses them again.
//
// What a terminal showed before a monitor was restarted is sealed from the next monitor too:
// there are no keyframes then until the terminals of that time are closed. A player goes by the
// one before.
//
// # What is left out
//
// A channel without a terminal keeps the first BulkBudget bytes of each stream and the last
// BulkTail; what is between becomes Bulk events with a count and a hash, so that a copied
// gigabyte is no gigabyte of recording. Terminals are kept whole. Input is counted and, without
// a terminal, hashed; what of it is kept says the rule.
//
// # Signatures
//
// A checkpoint's payload is the next public key (32 bytes, zeros in the last
// checkpoint) and an Ed25519 signature (64) by the key in force of
// "tssh recording checkpoint" 0 | chain of the block before | first 64 bytes of this
// header with the CRC as 0 | next public key. The first key is in Meta. Seeds ratchet: the next one is
// SHA-256("tssh recording ratchet" 0 | seed). As soon as a checkpoint is durable the
// seed that signed it is overwritten, in memory (the garbage collector may still hold a
// copy for a while) and on disk (a file system that copies on write keeps the old block
// until it is used again), so that whoever becomes root later cannot sign another past.
// A checkpoint follows at most CheckpointEvery after what it covers.
//
// A countersignature is JSON {key, time, signature}: the Ed25519 signature by the recorder, which
// is the hub or another one (package ship), of
// "tssh recording start" 0 | SHA-256 of the meta payload | time (8). With it, a
// recording cannot be replaced by another one signed with fresh keys. While a recording runs
// it also signs, once a minute, how much of it it has: JSON {key, time, signature, seq,
// chain, at} of "tssh recording progress" 0 | SHA-256 of the meta payload | seq (8) | at (8) |
// chain (32) | time (8), about one of the last 64 checkpoints: its block's number and chain, and
// the time of the last event before it. So root of a host that kept the first key cannot sign
// another past for what the hub has seen. Without it (or a
// copy at a recorder) root of the host can write a whole new recording.
//
// # Spool
//
// One folder a recording, root's, 0700: journal, recording.tsr, key (the seed in one
// of two slots, written in turn), state.json {"acked": bytes a recorder has}. What a
// crash leaves is mended from these: the .tsr is cut at its last whole block and goes
// on from the journal at the offset that block names.
//
// # Cast
//
// asciicast v3 and v2 as their specifications say, one terminal or program a file. It
// is a projection: what is not UTF-8 becomes U+FFFD. In v3 each checkpoint rides along
// as a comment, "# chk " and JSON {at, seq, chain}. Files, forwards, signals, notes, gaps
// and hidden keys are markers, as are commands where the caller knows them; what happens to
// the whole connection is in the cast of whichever terminal it happened beside.
package recording
