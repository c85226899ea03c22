//go:build !linux

package outbox

import "os"

// syncData has what was written into a file reach the disk.
func syncData(f *os.File) error { return f.Sync() }
