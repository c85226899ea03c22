package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// A folder holds folders of processes, and its lock as long as its owner lives.
type folder struct {
	path string
	lock *os.File
	mu   sync.Mutex
	n    int
}

const folderPrefix = "beacon-sandbox-"

// newFolder makes one below dir, or "" for the system's place for temporary
// files, and removes those whose owners have died.
func newFolder(dir string) (*folder, error) {
	dir = cmp.Or(dir, os.TempDir())
	if old, err := filepath.Glob(filepath.Join(dir, folderPrefix+"*")); err == nil {
		for _, path := range old {
			sweep(path)
		}
	}
	for range 10 {
		path, err := os.MkdirTemp(dir, folderPrefix)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return nil, fmt.Errorf("make a folder for processes: %w", err)
		}
		lock, err := lockFolder(path)
		if err != nil {
			continue // somebody has swept it away before it was locked
		}
		if _, err := os.Lstat(path); err == nil {
			return &folder{path: path, lock: lock}, nil
		}
		_ = lock.Close() // it locks nothing
	}
	return nil, fmt.Errorf("make a folder for processes in %s: others keep removing it", dir)
}

// make makes a folder for one process, with one for temporary files in it.
func (f *folder) make() (string, error) {
	f.mu.Lock()
	f.n++
	path := filepath.Join(f.path, fmt.Sprint(f.n))
	f.mu.Unlock()
	if err := os.MkdirAll(filepath.Join(path, temporary), 0o700); err != nil {
		return "", fmt.Errorf("make the folder of a process: %w", err)
	}
	return path, nil
}

// temporary is the folder in a process's folder that it may write to.
const temporary = "tmp"

func (f *folder) close() error {
	err := os.RemoveAll(f.path)
	if f.lock != nil {
		err = errors.Join(err, f.lock.Close())
	}
	return err
}
