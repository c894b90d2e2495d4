// Package session is the connection process: one per SSH connection, started by the
// monitor as `tsshd conn`. It speaks SSH, and after login it is the user.
//
//	client --TCP--> fd 3 --> greet (version line, KEXINIT) --> gliderlabs/ssh HandleConn
//	                                                             |  our config: host keys that
//	                                                             |  sign at the monitor, every
//	                                                             |  auth method asks the monitor
//	                         AuthLogCallback: begin --> journal, account --> launch.Become
//	                                                             |
//	                 ChannelHandlers["session"] = serveSession   |  direct-*: forward.go; others refused
//	                     pty | shell | exec | sftp -------------> recording.Journal, then client
//	monitor <--fd 4: session/control
//
// # Trust boundary
//
// Everything from fd 3 is hostile, and until login this process could become any user;
// it therefore holds no key, opens no file and starts no program before launch.Become
// has succeeded, and all that comes after runs as the user. From gliderlabs/ssh only the
// life cycle of the connection and its dispatch tables are used; the identity comes
// from the monitor, the login name from the ConnMetadata of the attempt that succeeded,
// bound to the monitor's answer and compared again with the finished connection.
//
// # Recording
//
// Every byte of output is appended to the journal before it is written to the channel.
// A journal that does not take an event ends the connection (RecorderFailed). Of a channel
// without a terminal the first MiB of each stream is kept and its end; what is between is
// counted and hashed (recording.Stream). Input is counted, and hashed where there is no
// terminal. Where the rule asks for it, keys are kept while the terminal echoes them, read
// from its termios for each piece that arrives; other keys are counted as hidden. A program
// that draws its own line (a shell with line editing, an editor) turns the echo off, so its
// keys are hidden too: what it showed of them is in the output. sftp transfers are File
// events; their bytes are not in the journal. Of scp's old protocol events are made by
// reading along (scpWatch), and its streams are recorded as any program's.
//
// # Life without a monitor
//
// When the control socket closes, a connection on a kernel socket goes on: what runs
// keeps running, and nothing new is opened. It dials the socket it was told at begin, at
// random intervals, and hands its token over. After the time it was told (ten minutes
// unless configured) it ends itself. Other connections end with the monitor.
//
// # Life without a client
//
// Every minute the client is asked for a sign of life (keepalive@openssh.com), and asks us in
// its turn as it likes. One that did not answer for 15 minutes is gone (causeTimeout; flag
// --client-alive). That is how long the kernel goes on trying to deliver what was sent
// (TCP_USER_TIMEOUT in sshd), so both give up together, and longer than the time a connection
// lives without a daemon. Less would end the session of whoever closes a laptop for a meeting;
// what a dead peer costs until then is 2 MiB and a line in who(1). Where a policy wants less,
// idleLimit ends sessions nobody uses, and that is about the person rather than the line.
// While there is no daemon nothing arrives, so that time does not count: a host with a short
// limit and a daemon that is away for longer loses no session by it.
//
// # Channels
//
// A session channel serves one of shell, exec, subsystem sftp (RFC 4254 section 6). Its
// request loop never waits for the program or the client: window changes and signals
// act at once. At the end: output drained, exit-status or exit-signal, EOF, CLOSE.
// Programs that hold a terminal's output open after its shell ended are given 200 ms;
// those that hold pipes keep the channel open, as with other servers. A channel that the
// client closes loses its terminal, whose kernel hangs up what runs on it; without a
// terminal its pipes are closed.
//
// Channels in the recording count from 1 in the order they were opened.
//
// # Forwards
//
// Connections to addresses and sockets of the host (direct-tcpip, direct-streamlocal), from
// listeners on it (tcpip-forward, streamlocal-forward), to the client's agent and to its X
// server: each is dialled or bound by this process, which is the user, in the host's network
// namespace. So it reaches what a program of the user's reaches and no more: the kernel
// refuses low ports, and the mesh sees the host's identity and the user's uid, as for any
// program. Each listener and each connection has a number like a channel, is asked of the
// policy (a name first as a name, then by the addresses it leads to, which are then what is
// dialled), has Forward events, counts against a limit, and ends when the right goes while
// shells stay. A target is kept to what names, addresses and clean absolute paths are made of.
//
// A socket of streamlocal-forward is the user's with mode 0600 and goes with its listener. A
// file that is there stays and the forward fails; a socket of the user's that nobody listens
// on is replaced, where OpenSSH would need StreamLocalBindUnlink. The agent has one socket a
// connection, in a folder of its own. X11 listens on loopback and leaves the client's cookie
// with xauth.
//
// Half-closes pass both ways. A CLOSE of the client ends the connection after what it sent
// is delivered.
//
// # sftp
//
// Version 3 as in draft-ietf-secsh-filexfer-02, with the extensions of OpenSSH named in
// sftpExtensions. Written here and not taken from pkg/sftp, whose request server loses
// the attributes of an open, turns operations on handles into operations on paths, and
// fails a whole directory for one entry it may not look at. A session begins as one for reading;
// the first request that would change something asks the policy whether it may.
//
// Where the rule has a folder (sftpFolder), the session sees that as /, and the kernel
// resolves every name in it (tree). It is opened once, as the user; a kernel that cannot
// (before 5.6), or a folder that is not there, means no file transfer.
package session
