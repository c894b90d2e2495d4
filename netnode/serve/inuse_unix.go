//go:build unix

package serve

import (
	"errors"
	"strings"
	"syscall"
)

// inUse reports whether a port could not be listened on because something else does. The
// stack of a userspace node says it in words.
func inUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "port is in use")
}
