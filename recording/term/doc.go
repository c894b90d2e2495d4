// Package term is a terminal emulator without a terminal: it takes what a program
// wrote and knows what the screen shows.
//
//	bytes --> Term.Write --> screen --> Snapshot   a keyframe: bytes that repaint it
//	      --> Term.Skip                            what a flood scrolls off again is not drawn
//	                                --> Text       lines, for thumbnails and transcripts
//	                                --> Painter    safe drawing on somebody else's terminal
//
// Trust boundary: the bytes come from the person recorded, and the monitor that reads
// them is root. So the emulator answers nothing, asks nothing, keeps no scrollback and
// no strings of the stream's (titles, clipboard, hyperlinks, device control strings
// are read to their end and dropped), and its memory is bounded by MaxCols x MaxRows
// cells whatever it is fed. A Painter writes only cursor moves, erases, colours and
// printable text, all of its own making, so a recorded sequence never acts on the
// terminal of the one who watches.
//
// It is our own because the library looked at (charmbracelet/x/vt v0.1.0) did 1.7 MB/s
// here on a coloured listing and allocated for every cell, waits for ever in Write when
// a program asks for the cursor's position and nobody reads the answer, and keeps
// scroll region and modes to itself, which a keyframe needs. This one does some hundred
// times that, and a listing of a large tree must not hold up the recorder.
//
// What it understands is what xterm-256color terminfo, and the editors and pagers that
// look beyond it, use: UTF-8, wide and combining characters, SGR with 256 and direct
// colours, insert and delete, scroll regions, origin, wrap and insert modes, tab stops,
// line drawing, the alternate screen, saved cursors. Characters are as wide as
// wcwidth says; a cell keeps up to two combining marks.
//
// # Snapshot
//
// A snapshot starts with RIS, so that it means the same in whatever state the terminal
// is that it is fed to. Then: the main screen, its saved cursor, and if the alternate
// screen is shown, DECSET 1047 and that screen; tab stops where they are not every 8
// columns; character sets; modes; scroll region; saved cursor; cursor and its colours.
// Feeding it to a Term of the same size makes an equal Term.
package term
