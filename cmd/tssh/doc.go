// Tssh is the command of people: log in to hosts of the mesh, copy files, look at the mesh
// and at recordings.
//
//	tssh [user@]host [command]      tssh VERB ...
//	        |                          |
//	        '----------+---------------'
//	                   v
//	   localapi socket of a node: --socket, else the machine's daemon, else one's own node,
//	   started in the background (tssh __node) when there is none
//
// What comes first after the options is a verb if it is one of the reserved words, which no
// host can be called; "tssh -- NAME" and "tssh user@NAME" always mean a host.
//
// The environment is read here and nowhere below: HOME, XDG_RUNTIME_DIR, XDG_STATE_HOME, TERM,
// SSH_AUTH_SOCK (with -A), USER, and the variables that SendEnv names.
//
// # Words and exit statuses
//
// Errors are "tssh: error: WORDS", with " [CODE]" when scripts may want to tell them apart,
// and a line "tssh: hint: ..." before when there is a command that helps. The error is the last line.
//
//	0-255     the remote program's own
//	128+n     the remote program was ended by signal n, or tssh itself was
//	255       there was no session; the last line ends with the code
//	1         a verb failed
//	2         the command line of a verb was not understood
//
// Trust: names, addresses and host keys come from the node; everything a host or the hub
// sends for people to read is made plain before it is printed.
package main
