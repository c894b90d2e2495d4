// Package store keeps the recordings that a recorder has received, in a folder.
//
//	ship.Receiver --Append--> verify, write, fsync --> DIR/2026/11/ID.tsr
//	                               |                   DIR/2026/11/ID.json   summary, once complete
//	                               v
//	                            Summary in memory <--List, Lookup-- replay, tsshub
//
// # Files
//
// One file a recording, in the format of package recording, byte for byte as the host made it;
// in a folder for the month in which it began, by the host's clock. The file describes itself:
// the list is made from the files alone, and whoever has only the folder has everything.
// ID.json is the summary of a complete recording, {"version":1,"summary":Summary}. It is
// believed if it fits the file's size and id, saves reading the file at the next start, and can
// be deleted at any time. Folders are 0700, files 0600.
//
// # Appending
//
// Append takes bytes only from the host whose node id is in the first block and whose mark
// the id carries (recording.OfHost), only at the end,
// and only whole blocks that continue the chain and whose signatures fit (recording.Verifier).
// When it returns they are on disk. Bytes that are refused leave no trace, in the file or in
// the state of the verification.
//
// What a crash can leave behind is bytes after the last whole block, which nobody was told of:
// Open cuts them off. If a file does not verify any more from some block on, what comes before
// is shown, the rest is left where it is, and nothing more is appended: that is for a person to
// look at.
//
// # Holds, deletions, retention
//
// ID.hold, {"by","reason","at"}, keeps a recording from being deleted. Delete writes ID.gone, a
// Tombstone that Config.Key signs, before it removes anything, and after Config.Deleting (the
// audit log) has agreed; Open finishes a deletion that a crash broke off. What was made of a
// recording must be beside it, as ID.something, to go with it. An id that has a tombstone is
// never taken in again. Rules of retention are by tag; the longest that matches counts.
//
// # Marks
//
// ID.mark, {"unsealed":WORDS}, is beside a recording that did not come sealed as Config.Sealing says it
// should. It is taken all the same. The mark is durable before anything of the recording is acknowledged, and is in the
// summary from then on. A host can seal to another key than the one whose recipient it names: that
// only who has the key can find out.
//
// # Bucket
//
// With Config.Bucket (gocloud.dev/blob, so a folder, S3 and what speaks like it; the driver is
// the program's choice) the folder is where recordings are made and the bucket where they stay:
//
//	2026/11/ID.tsr   the recording, byte for byte; uploaded when complete, size and MD5 compared
//	2026/11/ID.json  its summary; may be deleted, the recording is then read instead
//	2026/11/ID.hold  ID.gone  ID.mark  as in the folder
//
// Above CacheBytes the oldest copies in the folder go; they are fetched when somebody looks, and
// believed only if they verify, are complete, and are what went there: SHA-256 and description are in
// the summary. Of tombstones that only the bucket has those count that Config.Key signed, or one of
// Former, and none of a recording on hold. Whoever may write to the bucket can spoil what is in it, which
// shows; where the folder is lost as well they can also add recordings that never were. An acknowledgement to a host says that a recording
// is durable in the folder, not that the bucket has it.
//
// # Limits
//
// Recordings per host, bytes per host, bytes in all, and bytes that stay free on the disk, of which no host takes
// so much that others find nothing left. A host over its quota
// gets a refusal and keeps the recording in its spool; others go on. Of recordings only the
// beginning of one more is refused, and what the rules of retention keep no longer is deleted before that: nothing
// else is ever deleted to make room.
//
// A Summary describes at most 64 channels and 512 bytes of each command. Some 2 kB a recording
// stay in memory, and one that takes more counts for several; verifiers and open files are let go after ten minutes and one minute without
// an append.
//
// # Trust
//
// What is inside a recording was written by a host, which may be taken over: names, commands,
// times. It is checked for form and bounded, never used in a path (ids are, after
// recording.ValidID), and must be encoded by whoever shows it. A host's clock decides the
// folder and the place in the list, nothing else.
package store
