//go:build !unix

package store

import "errors"

// freeBytes cannot be known here; a MinFree of 0 asks nobody.
func freeBytes(string) (int64, error) {
	return 0, errors.New("free disk space is not known on this system")
}
