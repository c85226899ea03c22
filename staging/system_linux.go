package staging

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"
)

// plain reports whether a directory has no attributes but those that the system
// gives to all, such as labels: rules for what is made in it would be some.
func plain(f *os.File) bool {
	names := make([]byte, 1024)
	size, err := unix.Flistxattr(int(f.Fd()), names) //nolint:gosec // a descriptor fits
	if err != nil {
		return err == unix.ENOTSUP //nolint:errorlint // as it comes from the system
	}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names[:size], []byte{0}), []byte{0}) {
		if len(name) > 0 && !bytes.HasPrefix(name, []byte("security.")) {
			return false
		}
	}
	return true
}
