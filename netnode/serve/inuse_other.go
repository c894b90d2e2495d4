//go:build !unix

package serve

import "strings"

// inUse reports whether a port could not be listened on because something else does: nodes
// here are userspace nodes, whose stack says it in words.
func inUse(err error) bool { return strings.Contains(err.Error(), "port is in use") }
