//go:build !windows

package outbox

import "errors"

// sync has the names in the directory reach the disk.
func (d *Dir) sync() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
