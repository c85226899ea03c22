package wasi

import (
	"encoding/binary"
	pathpkg "path"
	"strings"

	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
)

// resolve joins a path to its directory's name. It must stay below that
// directory.
func (p *Process) resolve(fd uint32, path []byte) (string, abi.Errno) {
	d, errno := p.lookup(fd)
	switch {
	case errno != success:
		return "", errno
	case !d.isDirectory():
		return "", eNotDirectory
	case len(path) > maxPath:
		return "", eNameTooLong
	case len(path) == 0:
		return "", eNotFound
	case path[0] == '/':
		return "", eNotPermitted
	}
	name := string(path)
	if d.kind == kindPreopen {
		return name, success // guestfs keeps it inside
	}
	if inside := pathpkg.Clean(name); inside == ".." || strings.HasPrefix(inside, "../") {
		return "", eNotPermitted
	}
	dir, ok := d.file.Name()
	if !ok {
		return "", eNotFound
	}
	return dir + "/" + name, success
}

func pathCreateDirectory(p *Process, c *abi.Call) abi.Errno {
	name, errno := p.resolve(c.U32(0), c.Bytes(1))
	if errno != success {
		return errno
	}
	return errnoOf(p.cfg.FS.Mkdir(name))
}

func pathRemoveDirectory(p *Process, c *abi.Call) abi.Errno {
	name, errno := p.resolve(c.U32(0), c.Bytes(1))
	if errno != success {
		return errno
	}
	return errnoOf(p.cfg.FS.RemoveDir(name))
}

func pathUnlinkFile(p *Process, c *abi.Call) abi.Errno {
	name, errno := p.resolve(c.U32(0), c.Bytes(1))
	if errno != success {
		return errno
	}
	return errnoOf(p.cfg.FS.Remove(name))
}

func pathRename(p *Process, c *abi.Call) abi.Errno {
	from, errno := p.resolve(c.U32(0), c.Bytes(1))
	if errno != success {
		return errno
	}
	to, errno := p.resolve(c.U32(2), c.Bytes(3))
	if errno != success {
		return errno
	}
	return errnoOf(p.cfg.FS.Rename(from, to))
}

func pathFilestatGet(p *Process, c *abi.Call) abi.Errno {
	name, errno := p.resolve(c.U32(0), c.Bytes(2))
	if errno != success {
		return errno
	}
	info, err := p.cfg.FS.Stat(name)
	if err == nil {
		putStat(c.Bytes(3), typeOf(info), info)
	}
	return errnoOf(err)
}

func pathFilestatSetTimes(p *Process, c *abi.Call) abi.Errno {
	name, errno := p.resolve(c.U32(0), c.Bytes(2))
	if errno != success {
		return errno
	}
	accessed, modified, errno := p.timesOf(c.U64(3), c.U64(4), c.U32(5))
	if errno != success {
		return errno
	}
	return errnoOf(p.cfg.FS.SetTimes(name, accessed, modified))
}

func pathLink(p *Process, c *abi.Call) abi.Errno {
	if _, errno := p.resolve(c.U32(0), c.Bytes(2)); errno != success {
		return errno
	}
	if _, errno := p.resolve(c.U32(3), c.Bytes(4)); errno != success {
		return errno
	}
	return eNotPermitted
}

func pathSymlink(p *Process, c *abi.Call) abi.Errno {
	if _, errno := p.resolve(c.U32(1), c.Bytes(2)); errno != success {
		return errno
	}
	return eNotPermitted
}

// pathReadlink answers as for something that is not a link: nothing else exists.
func pathReadlink(p *Process, c *abi.Call) abi.Errno {
	name, errno := p.resolve(c.U32(0), c.Bytes(1))
	if errno != success {
		return errno
	}
	if _, err := p.cfg.FS.Stat(name); err != nil {
		return errnoOf(err)
	}
	return eInvalid
}

func pathOpen(p *Process, c *abi.Call) abi.Errno {
	name, errno := p.resolve(c.U32(0), c.Bytes(2))
	if errno != success {
		return errno
	}
	const create, directory, exclusive, truncate = 1, 2, 4, 8
	how, rights, flags := c.U32(3), c.U64(4), c.U32(6)
	if how > 15 || flags > flagsKnown {
		return eInvalid
	}
	var open guestfs.Flags
	for _, f := range []struct {
		set  bool
		flag guestfs.Flags
	}{
		{rights&rightRead != 0, guestfs.Read},
		{rights&rightWrite != 0, guestfs.Write},
		{how&create != 0, guestfs.Create},
		{how&directory != 0, guestfs.Directory},
		{how&exclusive != 0, guestfs.Exclusive},
		{how&truncate != 0, guestfs.Truncate},
		{flags&flagAppend != 0, guestfs.Append},
	} {
		if f.set {
			open |= f.flag
		}
	}
	fd, ok := p.room()
	if !ok {
		return eTooManyOpen
	}
	file, err := p.cfg.FS.Open(name, open)
	if err != nil {
		return errnoOf(err)
	}
	p.table[fd] = descriptor{kind: kindFile, flags: uint16(flags), file: file} //nolint:gosec // checked
	c.PutU32(7, fd)
	return success
}

const entryHeader = 24

// fdReaddir fills the buffer with entries. The last one may be cut: a full
// buffer tells the guest that there is more.
func fdReaddir(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success {
		return errno
	}
	size, cookie := c.U32(2), c.U64(3)
	if size > maxBuffer || size < entryHeader {
		return eInvalid
	}
	buf, ok := c.View(1, size)
	if !ok {
		return eFault
	}
	if !d.isDirectory() {
		return eBadDescriptor
	}
	if d.file == nil {
		file, err := p.cfg.FS.Open(".", guestfs.Read|guestfs.Directory)
		if err != nil {
			return errnoOf(err)
		}
		d.file = file
	}
	used, err := p.fill(d.file, buf, cookie)
	if err == nil {
		c.PutU32(4, used)
	}
	return errnoOf(err)
}

// dots is the number of the entries "." and "..", which come first.
const dots = 2

func (p *Process) fill(dir *guestfs.File, buf []byte, cookie uint64) (used uint32, err error) {
	whole := len(buf)
	put := func(name string, inode, next uint64, fileType byte) (more bool) {
		var header [entryHeader]byte
		binary.LittleEndian.PutUint64(header[:], next)
		binary.LittleEndian.PutUint64(header[8:], inode)
		binary.LittleEndian.PutUint32(header[16:], uint32(len(name))) //nolint:gosec // a file's name
		header[20] = fileType
		buf = buf[copy(buf, header[:]):]
		buf = buf[copy(buf, name):]
		return len(buf) > 0
	}
	if cookie < dots {
		self, err := dir.Stat()
		if err != nil {
			return 0, err
		}
		for ; cookie < dots; cookie++ {
			if !put("..."[:cookie+1], self.Inode, cookie+1, typeDirectory) {
				return uint32(whole), nil //nolint:gosec // at most maxBuffer
			}
		}
	}
	for len(buf) > 0 {
		entries, err := dir.ReadDir(cookie-dots, len(buf)/(entryHeader+1)+1)
		if err != nil {
			return 0, err
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			cookie = e.Next + dots
			if !put(e.Name, e.Info.Inode, cookie, typeOf(e.Info)) {
				break
			}
		}
	}
	return uint32(whole - len(buf)), nil //nolint:gosec // at most maxBuffer
}
