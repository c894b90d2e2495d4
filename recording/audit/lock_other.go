//go:build !unix

package audit

import (
	"errors"
	"os"
)

// lockDir fails: daemons do not run here, and a log that two processes could write is none.
func lockDir(string) (*os.File, error) {
	return nil, errors.New("an audit log can be written on Unix systems only")
}
