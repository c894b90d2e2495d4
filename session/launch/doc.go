// Package launch is what becoming a user takes: looking the account up, checking that
// it may be used, giving up root for good, and starting programs as the user.
//
//	monitor (root)                         conn (root until Become, then the user)
//	  Lookup(name) -> Account                Become(account)      ids, capabilities, proof
//	  Account.Usable(now)  nologin, expiry   Environment(...)     what a program starts with
//	  Logins.Open/Close    utmp, wtmp        Starter.Start(...)   one thread, audit id set
//
// # Trust boundary
//
// Lookup runs in the root process and hands a client's word to getent(1) and id(1) as
// one argument after "--"; the caller passes only names that policy.ParseLocalUser let
// through. Their answers come from the host's own name service and are parsed strictly:
// a line that does not say what it must is an error, never an account. That the name
// service cannot answer (ErrLookup) is not the same as that there is no such account
// (ErrNoAccount); both admit nobody.
//
// Become sets every id unconditionally and then reads back, for every thread of the
// process, that real, effective, saved and file-system ids and all supplementary groups
// are what they should be, that no capability is left, and that there is no way back.
// Anything else is an error and the caller must end the process.
//
// # What programs start with
//
// The environment is made from nothing: USER LOGNAME HOME SHELL PATH MAIL, the lines of
// /etc/environment, SSH_CLIENT SSH_CONNECTION SSH_TTY TERM, TSSH_USER TSSH_NODE
// TSSH_SESSION, and of the client's own only what AcceptEnv lets in. Names that change
// what a loader, a shell or the C library does are refused whatever a policy says.
//
// # Around a session
//
// The audit login id and a session keyring are set on the thread that starts programs, and
// where SELinux is enforcing the context of the account (SELinux; not run on such a host).
// Where systemd runs, the monitor opens a session at logind for the connection process
// (Logind, by D-Bus; tested against a stand-in), whose descriptor that process keeps open.
//
// # utmp, wtmp and lastlog
//
// The first two hold 384-byte records as in utmp(5), little endian, on every 64-bit Linux:
// type int16, pad, pid int32, line [32], id [4], user [32], host [256], exit 2*int16,
// session int32, sec int32, usec int32, addr [16], unused [20]. Lastlog
// is an array by uid of time int32, line [32], host [256]. A file that is absent is left
// absent. The databases that newer systems have in their place (wtmpdb, lastlog2) are written
// through their own programs (Databases); tried with those of Debian 13, wtmpdb 0.73.0 and
// lastlog2 2.41.5.
package launch
