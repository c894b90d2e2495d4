//go:build !unix

package localapi

import "os"

// Without unix credentials nothing is served (cred_other.go), so these only need to build.
func tryLock(*os.File) error { return nil }
func safeDir(string) error   { return nil }
