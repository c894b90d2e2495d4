// Package sshconfig makes the stock OpenSSH client use the mesh: its settings, installed
// beside a person's own, and its known hosts, answered line by line.
//
//	~/.ssh/config        (block) Include tssh.conf     the person's text is kept
//	~/.ssh/tssh.conf     Host *.MESH.internal web ...  ours, written anew each time
//	   ProxyCommand      tssh proxy %h %p
//	   KnownHostsCommand tssh config --known-hosts %H  -> one line per host key
//
// # Trust boundary
//
// Names, addresses and keys come from the coordination server and are hostile until they
// are encoded here. A name becomes a pattern only if it is a plain DNS label; a key becomes
// a line only after it was parsed, in our own encoding. ssh gives ProxyCommand to a shell,
// and older versions put a host name into it as it is: the Host line therefore leaves out
// every name with a character that a shell would act on.
//
// A short name is left out when it means something already: in /etc/hosts, or in a Host
// line of the person's own configuration (Input.Taken). Names with the mesh's suffix mean
// the mesh always.
//
// Nothing is learned: StrictHostKeyChecking yes, no known hosts file, UpdateHostKeys no.
//
// # The block in ~/.ssh/config
//
// Between the two marker lines, at the top of the file, because an Include further down
// would belong to the Host before it. Text outside the markers is never changed. The file
// is replaced in one step, with its mode; a symbolic link stays one and its target changes.
package sshconfig
