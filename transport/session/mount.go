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
// tell which beacons of a host see the same files. Each needs a Root; where the
// MountID is missing it is derived from the device and the path. Then a
// directory that does not exist is left out, and so are all where the system
// has no device numbers.
func SharedMounts(wanted ...protocol.SharedMount) ([]protocol.SharedMount, error) {
	mounts := []protocol.SharedMount{}
	for _, m := range wanted {
		if m.Root == "" {
			continue
		}
		path, err := filepath.Abs(m.Root)
		if err != nil {
			return nil, fmt.Errorf("shared mount %s: %w", m.Root, err)
		}
		if m.MountID != "" {
			mounts = append(mounts, protocol.SharedMount{MountID: m.MountID, Root: path})
			continue
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
