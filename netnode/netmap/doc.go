// Package netmap holds the keys, the signed records and the messages between a node and the hub.
package netmap
