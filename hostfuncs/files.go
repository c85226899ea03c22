package hostfuncs

import (
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
)

// The flags of file_open, by bit.
var openFlags = [...]guestfs.Flags{
	guestfs.Read, guestfs.Write, guestfs.Create, guestfs.Truncate, guestfs.Append, guestfs.Exclusive,
}

// inWorkDir takes the guest's name for the item's directory off a path.
func inWorkDir(path string) string {
	if rest, ok := strings.CutPrefix(path, WorkDir); ok && (rest == "" || rest[0] == '/') {
		path = rest
	}
	if path = strings.TrimLeft(path, "/"); path == "" {
		return "."
	}
	return path
}

func fileOpen(i *Item, c *abi.Call) abi.Errno {
	if i.files == nil {
		return notNow
	}
	bits := c.U32(1)
	if bits>>len(openFlags) != 0 {
		return invalid
	}
	var flags guestfs.Flags
	for bit, flag := range openFlags {
		if bits&(1<<bit) != 0 {
			flags |= flag
		}
	}
	f, err := i.files.Open(inWorkDir(text(c, 0)), flags)
	if err != nil {
		return i.refuse(err)
	}
	// The number of descriptors is bounded by the limit on open files.
	for n, old := range i.descriptors {
		if old == nil {
			i.descriptors[n] = f
			c.PutU32(2, uint32(n))
			return ok
		}
	}
	i.descriptors = append(i.descriptors, f)
	c.PutU32(2, uint32(len(i.descriptors)-1))
	return ok
}

// descriptor finds an open file; nil if there is none.
func (i *Item) descriptor(n uint32) *guestfs.File {
	if uint64(n) >= uint64(len(i.descriptors)) {
		return nil
	}
	return i.descriptors[n]
}

func fileRead(i *Item, c *abi.Call) abi.Errno {
	f := i.descriptor(c.U32(0))
	if f == nil {
		return badDescriptor
	}
	n, err := f.Read(c.Bytes(1))
	if err != nil && !errors.Is(err, io.EOF) {
		return i.refuse(err)
	}
	c.PutU32(2, uint32(n))
	return ok
}

func fileWrite(i *Item, c *abi.Call) abi.Errno {
	f := i.descriptor(c.U32(0))
	if f == nil {
		return badDescriptor
	}
	n, err := f.Write(c.Bytes(1))
	if err != nil && n == 0 {
		return i.refuse(err)
	}
	c.PutU32(2, uint32(n))
	return ok
}

func fileSeek(i *Item, c *abi.Call) abi.Errno {
	f := i.descriptor(c.U32(0))
	if f == nil {
		return badDescriptor
	}
	if c.U32(2) > io.SeekEnd {
		return invalid
	}
	position, err := f.Seek(c.I64(1), int(c.U32(2)))
	if err != nil {
		return i.refuse(err)
	}
	c.PutU64(3, uint64(position))
	return ok
}

func fileSize(i *Item, c *abi.Call) abi.Errno {
	f := i.descriptor(c.U32(0))
	if f == nil {
		return badDescriptor
	}
	size, err := f.Size()
	if err != nil {
		return i.refuse(err)
	}
	c.PutU64(1, uint64(size))
	return ok
}

func fileClose(i *Item, c *abi.Call) abi.Errno {
	f := i.descriptor(c.U32(0))
	if f == nil {
		return badDescriptor
	}
	i.descriptors[c.U32(0)] = nil
	return i.refuse(f.Close())
}

func fileList(i *Item, c *abi.Call) abi.Errno {
	if i.files == nil {
		return notNow
	}
	entries, err := i.files.ReadDir(inWorkDir(text(c, 0)))
	if err != nil {
		return i.refuse(err)
	}
	type entry struct {
		Name      string
		Size      int64
		Directory bool
	}
	list := make([]entry, len(entries))
	for n, e := range entries {
		list[n] = entry{strings.ToValidUTF8(e.Name, "\uFFFD"), e.Info.Size, e.Info.Directory}
	}
	raw, err := json.Marshal(list)
	if err != nil {
		return ioError
	}
	return fill(c, 1, raw)
}

func fileRemove(i *Item, c *abi.Call) abi.Errno {
	if i.files == nil {
		return notNow
	}
	name := inWorkDir(text(c, 0))
	err := i.files.Remove(name)
	if errors.Is(err, guestfs.ErrIsDirectory) {
		err = i.files.RemoveDir(name)
	}
	return i.refuse(err)
}

func fileRename(i *Item, c *abi.Call) abi.Errno {
	if i.files == nil {
		return notNow
	}
	return i.refuse(i.files.Rename(inWorkDir(text(c, 0)), inWorkDir(text(c, 1))))
}

func fileMakeDirectory(i *Item, c *abi.Call) abi.Errno {
	if i.files == nil {
		return notNow
	}
	return i.refuse(i.files.Mkdir(inWorkDir(text(c, 0))))
}
