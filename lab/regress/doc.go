// Regress runs OpenSSH's own regression tests (Debian's openssh-tests) against tsshd's
// hidden inetd mode: `make regress`. It needs no mesh and no root.
//
//	regress -bin bin [NAME...]      runs the tests of the list, or those named
//	regress sshd ARGUMENTS          is what the tests take for sshd
//
// As sshd it says yes to -t, gives -T, -G and -V to the real one, serves one connection with -i, and
// is a daemon otherwise, which serves every connection by -i. Of the configuration it heeds
// Port, ListenAddress, PidFile, HostKey and AcceptEnv. docs/clients.md says what is run and
// why the rest is not.
package main
