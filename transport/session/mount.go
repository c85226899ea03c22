package session

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ultravisor/beacon/protocol"
)

// SharedMounts describes directories for a registration, so that a server can
// tell which beacons of a host see the same files. A directory that does not
// exist is left out, and so are all where the system has no device numbers.
func SharedMounts(roots ...string) ([]protocol.SharedMount, error) {
	mounts := []protocol.SharedMount{}
	for _, root := range roots {
		path, err := filepath.Abs(root)
		if err != nil {
			return nil, fmt.Errorf("shared mount %s: %w", root, err)
		}
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		if device, ok := device(info); ok {
			sum := sha256.Sum256([]byte(device + ":" + path))
			mounts = append(mounts, protocol.SharedMount{MountID: hex.EncodeToString(sum[:])[:16], Root: path})
		}
	}
	return mounts, nil
}
