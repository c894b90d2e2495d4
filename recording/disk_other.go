//go:build !linux

package recording

import (
	"math"
	"os"
)

func datasync(f *os.File) error { return f.Sync() }

func punch(*os.File, int64, int64) bool { return false }

// freeBytes is not known here; MaxBytes still bounds the spool.
func freeBytes(string) (int64, error) { return math.MaxInt64, nil }

func diskUsage(fi os.FileInfo) int64 { return fi.Size() }
