// Package ssh is the client: it logs in to a host over a connection somebody else made,
// accepts exactly the host keys it was given, and runs a program, a shell or a copy there.
//
//	Config.Dial --> handshake --> Client --> Run      (shell, command; terminal, pipes)
//	                    |            |-----> Stream   (-W: one TCP connection)
//	   HostKeys, no other            |-----> Forwards (-L, -R, -D; ports and unix sockets)
//	                                 '-----> Files    (sftp: cp)
//
// # Copies
//
// Copy goes over sftp, several files at once (4, on a long path 64), and one large file on a
// long path through four channels of 2 MiB of window each. Measured by TestLongPath, 64 MiB
// over 80 ms and 1 Gbit/s, on a machine with much else to do: 19 MiB/s through one channel,
// 37 up and 49 down through four; eight brought no more. Bytes that come through several
// channels reach the far file out of order; session/sftppieces.go makes their sum for the recording.
//
// # Trust boundary
//
// The host is somebody else's machine. Its key must be one of Config.HostKeys; there is no
// trust on first use and nothing is written down. Words that come from it before a session
// runs (banner, disconnect, refusals) are shown without control characters (Plain). Bytes
// of the remote program go to the terminal as they are: that is what a terminal session is.
// File names from the host are checked before a local file is made from them (files.go).
//
// # Login
//
// The mesh has proved who we are, so the method "none" is all there is to say; a host that
// wants keyboard-interactive gets its texts shown and no prompt answered. A banner is held
// back until the login is decided or a second has passed, so that a refusal is read once,
// in the error, and a "visit this address" is read in time.
//
// # Errors
//
// Every error that ends a login or a session is an *Error with a Code for scripts and words
// for people. A host names the code of a refusal or of an ended session by ending the
// sentence with it in brackets, "... [recorder]"; only the codes of this package count.
// In a session the sentence comes as the global request "ended@tssh" (string code, string
// words), which programs on the host cannot send; a host without it just closes. The host
// asks for a reply and waits for it, briefly, before it hangs programs up: an exit status
// that comes after it does not count.
//
// # Exit status
//
// The remote program's, 0 to 255. A program that died of signal n gives 128+n and one line
// on standard error. Everything else is an *Error, for which cmd/tssh exits with 255.
//
// # The terminal
//
// A terminal in raw mode is put back on return, on an error, on a signal that ends us, and
// on a panic in any goroutine of ours. Goroutines that read standard input end with the next
// read: a read of a terminal cannot be broken off. All others end with Run or Close.
package ssh
