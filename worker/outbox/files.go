package outbox

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/worker"
)

// Files of reports have names of their own beside the segments; the records
// refer to them. A file reaches the disk before the record does, and goes after
// it is no longer needed: a file that no record refers to is a leftover.
var fileName = regexp.MustCompile(`^file-[A-Z0-9]+$`)

// adopt gives the files of a report, if it has any, a place in the outbox. The
// report that it returns refers to them there.
func (d *Dir) adopt(r worker.Report) (_ worker.Report, names []string, err error) {
	files := r.Result.Outputs.Files()
	if len(files) == 0 {
		return r, nil, nil
	}
	defer func() {
		if err != nil {
			d.drop(names)
		}
	}()
	r.Result.Outputs = maps.Clone(r.Result.Outputs)
	for _, output := range slices.Sorted(maps.Keys(files)) {
		f, name := files[output], "file-"+rand.Text()
		names = append(names, name)
		if err := d.keepFile(f, name); err != nil {
			return r, names, fmt.Errorf("output %s: %w", beacon.Excerpt(output, 80), err)
		}
		f.Path = name
		r.Result.Outputs[output] = f
	}
	return r, names, d.sync()
}

// keepFile links a file, or copies it where that is not possible, and has it reach
// the disk.
func (d *Dir) keepFile(f beacon.File, name string) (err error) {
	// Not through the root: the file is elsewhere, and what it is called here is
	// ours to say.
	if err := os.Link(f.Path, d.path(name)); err == nil {
		linked, err := d.root.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(linked.Sync(), linked.Close())
	}
	from, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Sync()
	}
	return errors.Join(err, to.Close())
}

// drop removes files of a report that is no longer kept.
func (d *Dir) drop(names []string) {
	for _, name := range names {
		if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Error("cannot remove the file of a delivered report from the outbox", "file", d.path(name), "err", err)
		}
	}
}

// sweep removes files that no report refers to.
func (d *Dir) sweep(names []string) {
	wanted := map[string]bool{}
	for _, p := range d.reports {
		for _, name := range p.files {
			wanted[name] = true
		}
	}
	for _, name := range names {
		if fileName.MatchString(name) && !wanted[name] {
			d.drop([]string{name})
		}
	}
}

// names of the files of a report as it is in a record.
func filesOf(r worker.Report) []string {
	var names []string
	for _, f := range r.Result.Outputs.Files() {
		names = append(names, f.Path)
	}
	return names
}

// without are those in names that are not in others.
func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(others, name) })
}
