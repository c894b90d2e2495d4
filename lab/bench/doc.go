// Bench measures tssh against OpenSSH on the same machine in the same run and prints
// ratios: connect and run true, 512 MiB up and down with the stock client, memory.
//
// Both servers run on one host of the lab and are reached from another; OpenSSH over
// plain veth, tsshd over the mesh. The runs alternate, so that a machine that slows
// down slows both. Memory is the proportional set size of all the server's processes.
package main
