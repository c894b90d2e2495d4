//go:build !unix

package localapi

import "os"

// Without unix credentials nothing is served (cred_other.go), so these only need to build.
func tryLock(*os.File) error { return nil }

// SafeDir is of systems that have an owner to look at.
func SafeDir(string) error { return nil }
