package jetstream

import "golang.org/x/sys/windows"

// freeSpace is how many bytes may be written where a folder is.
func freeSpace(dir string) (int64, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(path, &free, nil, nil); err != nil {
		return 0, err
	}
	return int64(min(free, 1<<62)), nil
}

// syncFolder is for systems that need it.
func syncFolder(string) error { return nil }
