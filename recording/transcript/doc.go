// Package transcript turns a recording into what a person could read in it: the lines that were
// on the screen, when each was first seen, and the commands that they belong to.
//
//	recording.Reader --events--> term.Term, one a channel --quiet moment, scroll--> Line
//	                        \--> shell marks, prompts, exec requests ------------> Command
//
// Search, the page's text view, its markers and the plain text export all read this, so that
// they agree.
//
// # Lines
//
// A line is text of one row of the screen, not the bytes that made it: what was overwritten or
// erased before anybody could see it is not there, and a password that was not echoed neither.
// A row is taken when it scrolls away, and whenever the screen stands still for 200 ms; the row the
// cursor is in only after a second, or when the cursor left it, and never while a command is being typed in it. A row that was taken
// lately (the last 4,096 different ones of its channel) is not taken again: a pager or an editor
// repaints the same text many times. What a program wrapped at the edge of the screen is two lines.
//
// # Commands
//
// Each says how it is known (Command.Source):
//
//	exec    the client asked for it: certain
//	mark    the shell said so: OSC 133 (and 633) A prompt, B command begins, C it runs, D;status it ended
//	guess   the screen stood still (50 ms) with the cursor behind a prompt's last character ($ # % > ❯ »), later
//	        the cursor left that row, which now has more text. No exit status. Not tried once marks were seen.
//
// Trust boundary: everything here was written by the person recorded. Marks and prompts can be
// imitated by any program; nothing of a Line or a Command may be used as proof. Lines have no control
// characters. What is kept is bounded by Limits, and so is what it costs to draw: two bytes can clear a screen of
// 100,000 places, and who writes nothing else is cut off early (Limits.Work).
package transcript
