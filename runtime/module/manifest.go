package module

import (
	"bytes"
	"encoding/binary"
)

// WithManifest returns the binary with a manifest in its section
// beacon.manifest, in place of one that it had; nil takes that out. What else is
// in the file stays as it is. Errors are of type *Error.
func WithManifest(file, manifest []byte) (with []byte, err error) {
	if err := recognise(file); err != nil {
		return nil, err
	}
	defer func() {
		if fault := recover(); fault != nil {
			known, ok := fault.(*Error)
			if !ok {
				panic(fault)
			}
			with, err = nil, known
		}
	}()
	with = append(make([]byte, 0, len(file)+len(manifest)+64), file[:8]...)
	r := &reader{buf: file, at: 8}
	for r.left() > 0 {
		start := r.at
		id, size := r.byte(), r.u32()
		if size > r.left() {
			fail(start, "the file is cut off: a section has %d bytes, %d are left", size, r.left())
		}
		s := r.sub(size)
		if id == 0 && s.name(Limits{}.withDefaults().Name) == ManifestSection {
			continue
		}
		with = append(with, file[start:r.at]...)
	}
	if manifest == nil {
		return with, nil
	}
	content := binary.AppendUvarint(nil, uint64(len(ManifestSection)))
	content = append(append(content, ManifestSection...), bytes.TrimSpace(manifest)...)
	with = binary.AppendUvarint(append(with, 0), uint64(len(content)))
	return append(with, content...), nil
}
