// Package find searches what was on the screen, in all recordings of a store.
//
//	store.Store --every few seconds, what is new--> transcript.Read --> lines --> SQLite FTS5
//	words --> MATCH --> hits, newest first --> may they see it? --> recording, second, line
//
// The index is a SQLite file of its own (modernc.org/sqlite, the driver that the hub has anyway; the
// program links it). It holds nothing that the recordings do not: it may be deleted at any time and
// is then built again, which also happens when it is of another version or damaged. Each hub has its own,
// also where several share one Postgres, for it belongs to the folder of recordings beside it.
//
// What is sealed is indexed where the hub has a key that opens it (Config.Keys), and is in the
// file in the clear then. Without a key it is not found; what was indexed with one is taken out.
//
// Indexed are the lines of the transcript, exec commands, and files and forwards as "put /srv/x" and "open
// local db:5432". A recording that runs is indexed again each time it has grown by a quarter, so the work stays
// in proportion to its length, and once more when it ended. Of one recording at most 50,000 lines and 4 MiB of text
// are indexed; what comes later is not found here, and is by the search inside the recording.
//
// Of one host 256 MiB of text are in the index; above that what its oldest recordings showed is taken out, so that
// a host that fills it is still found by what it did last, and others by all. Of what is in it in part, or not
// any more, searches say so: Hit.Until, Partial.
//
//	recs   rec, id, size (bytes that were indexed), first, last (rows in lines), host, bytes (of its text), until (ms; -1: all of it)
//	hosts  host, bytes
//	files  rec, path: what sftp and scp did something to, whole, for the list's path: filter
//	lines  fts5: text; rec, ch, at (ms) not indexed. Tokens are runs of letters and digits, folded
//	       (unicode61): "10.0.0.5" is a phrase of four
//
// Measured on 2 busy cores with 10,000 recordings of 100 lines (83 MB of text): built in 16 s, the file is twice the text, a rare
// word takes 0.1 ms, two words that are in every line 12 ms (BenchmarkSearch).
//
// # Query
//
// Every word must occur in one line, in any order. Where no line has them all as whole words, each may be the beginning of
// one, so "ngin" finds nginx and "ginx" does not. (Beginnings of common words are dear: FTS5 gathers all their rows first.) "two words" in quotes is a phrase. A word without any letter or digit is passed over.
//
// Trust: text comes from the persons recorded and is data everywhere. May is asked for each recording before
// anything of it is returned, and what is refused cannot be told from what does not exist.
package find
