package replay

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
)

// What a Folder keeps unless told otherwise.
const (
	DefaultCount = 20
	DefaultBytes = 256 << 20
)

// A Folder keeps the newest recordings, within a number and a size. It is safe for
// concurrent use, and several may share one path.
type Folder struct {
	path  string
	count int
	bytes int64

	mu   sync.Mutex
	last string // the name that was given last
}

// OpenFolder makes the folder if it is not there, for its owner only: what is in it
// holds items' files and settings. Count is how many recordings it keeps, and bytes
// how large they are together; 0 means the defaults.
func OpenFolder(path string, count int, bytes int64) (*Folder, error) {
	if count < 0 || bytes < 0 {
		return nil, beacon.Errorf(beacon.Invalid, "recordings are bounded by %d and %d bytes: want numbers above zero", count, bytes)
	}
	f := &Folder{path: path, count: cmp.Or(count, DefaultCount), bytes: cmp.Or(bytes, DefaultBytes)}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of recordings: %w", err)
	}
	return f, f.prune()
}

// Keep writes a recording to a file of its own, whose name sorts by time, and
// removes the oldest until the rest keeps within the bounds. One that is larger than
// all that may be kept is not kept. The file is there even if an older one cannot be
// removed; then there is an error besides.
func (f *Folder) Keep(r *Recording) (file string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	capability := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			return c
		}
		return '_'
	}, beacon.Excerpt(r.Item.Capability, 60))
	at := r.Recorded.UTC()
	name := func() string { return at.Format("20060102T150405.000000000Z") + "-" + capability + Suffix }
	for name() <= f.last { // two of one moment
		at = at.Add(time.Nanosecond)
	}
	f.last = name()
	file = filepath.Join(f.path, f.last)
	if err := r.WriteFile(file); err != nil {
		return "", err
	}
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("look at the recording: %w", err)
	}
	if info.Size() > f.bytes {
		err = beacon.Errorf(beacon.Invalid, "the recording has %d bytes, and the folder keeps %d in all", info.Size(), f.bytes)
		return "", errors.Join(err, os.Remove(file))
	}
	return file, f.prune()
}

// prune removes the oldest recordings.
func (f *Folder) prune() error {
	entries, err := os.ReadDir(f.path) // by name, which is by time
	if err != nil {
		return fmt.Errorf("list the recordings: %w", err)
	}
	count, bytes := 0, int64(0)
	for i := len(entries) - 1; i >= 0; i-- {
		e := entries[i]
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), Suffix) {
			continue
		}
		info, infoErr := e.Info()
		if infoErr != nil { // another worker has removed it
			continue
		}
		count++
		bytes += info.Size()
		if count <= f.count && bytes <= f.bytes {
			continue
		}
		if gone := os.Remove(filepath.Join(f.path, e.Name())); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove an old recording: %w", gone))
		}
	}
	return err
}
