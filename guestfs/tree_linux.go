package guestfs

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// openTree prefers openat2, which finds a name at any depth in one call and
// refuses links and mount points on the way, and falls back to os.Root where
// the kernel or a filter lacks it.
func openTree(root *os.Root) (tree, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, classify(err)
	}
	defer dir.Close() //nolint:errcheck // only read
	conn, err := dir.SyscallConn()
	if err != nil {
		return nil, classify(err)
	}
	fd, missing := -1, false
	control := conn.Control(func(at uintptr) {
		fd, err = beneathOpen(int(at), ".", unix.O_PATH|unix.O_DIRECTORY, 0)
		missing = errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM)
	})
	switch {
	case control != nil:
		return nil, classify(control)
	case missing:
		return rootTree{root}, nil
	case err != nil:
		return nil, classify(err)
	}
	return beneath(fd), nil
}

// beneathOpen opens a name below dir. It does not leave dir, cross a mount
// point or follow any link.
func beneathOpen(dir int, name string, flags, mode uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Mode:    mode,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	// EAGAIN: the kernel could not rule out a race with a rename.
	for range 100 {
		fd, err := unix.Openat2(dir, name, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
	return -1, unix.EBUSY
}

// beneath is the descriptor of the directory.
type beneath int

func (t beneath) at(name string) (place, error) {
	cut := strings.LastIndexByte(name, '/')
	if cut < 0 {
		return place{name: name, base: name, dir: int(t)}, nil
	}
	fd, err := beneathOpen(int(t), name[:cut], unix.O_PATH|unix.O_DIRECTORY, 0)
	return place{name: name, base: name[cut+1:], dir: fd}, classify(err)
}

func (t beneath) release(p place) {
	if p.dir != int(t) && p.dir >= 0 {
		unix.Close(p.dir) //nolint:errcheck // of an O_PATH descriptor
	}
}

func (t beneath) lstat(p place) (facts, error) { return lstatAt(p.dir, p.base) }

func lstatAt(dir int, name string) (facts, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return facts{}, classify(err)
	}
	return factsOf(&st), nil
}

func factsOf(st *unix.Stat_t) facts {
	f := facts{
		key:      key{uint64(st.Dev), st.Ino}, //nolint:unconvert // narrower on some
		links:    uint64(st.Nlink),            //nolint:unconvert // narrower on some
		size:     st.Size,
		accessed: st.Atim.Nano(),
		changed:  st.Ctim.Nano(),
		edited:   st.Mtim.Nano(),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		f.mode = fs.ModeDir
	case unix.S_IFLNK:
		f.mode = fs.ModeSymlink
	default:
		f.mode = fs.ModeIrregular
	}
	return f
}

func (t beneath) open(p place, flags int) (handle, error) {
	mode := uint64(0)
	if flags&os.O_CREATE != 0 {
		mode = 0o600
	}
	fd, err := beneathOpen(p.dir, p.base, uint64(flags)|unix.O_NONBLOCK|unix.O_NOCTTY, mode)
	if err != nil {
		return nil, classify(err)
	}
	return descriptor(fd), nil
}

func (t beneath) mkdir(p place) error { return classify(unix.Mkdirat(p.dir, p.base, 0o700)) }

func (t beneath) unlink(p place) error { return classify(unix.Unlinkat(p.dir, p.base, 0)) }

func (t beneath) rmdir(p place) error {
	return classify(unix.Unlinkat(p.dir, p.base, unix.AT_REMOVEDIR))
}

func (t beneath) rename(from, to place, _, _ bool) error {
	return classify(unix.Renameat(from.dir, from.base, to.dir, to.base))
}

func (t beneath) chtimes(p place, accessed, edited time.Time) error {
	return utimes(p.dir, p.base, accessed, edited, unix.AT_SYMLINK_NOFOLLOW)
}

func (t beneath) close() error { return classify(unix.Close(int(t))) }

func utimes(dir int, name string, accessed, edited time.Time, flags int) error {
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	for i, t := range []time.Time{accessed, edited} {
		if !t.IsZero() {
			var err error
			if times[i], err = unix.TimeToTimespec(t); err != nil {
				return ErrInvalid
			}
		}
	}
	return classify(again(func() error { return unix.UtimesNanoAt(dir, name, times[:], flags) }))
}

// descriptor is an open file. Its File sees to it that it is not used after
// it was closed.
type descriptor int

func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (d descriptor) ReadAt(b []byte, offset int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Pread(int(d), b[done:], offset+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, classify(err)
		case n == 0:
			return done, io.EOF
		default:
			done += n
		}
	}
	return done, nil
}

func (d descriptor) WriteAt(b []byte, offset int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Pwrite(int(d), b[done:], offset+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, classify(err)
		case n == 0:
			return done, io.ErrUnexpectedEOF
		default:
			done += n
		}
	}
	return done, nil
}

func (d descriptor) Truncate(size int64) error {
	return classify(again(func() error { return unix.Ftruncate(int(d), size) }))
}

func (d descriptor) Sync() error {
	return classify(again(func() error { return unix.Fsync(int(d)) }))
}

func (d descriptor) Close() error { return classify(unix.Close(int(d))) }

func (d descriptor) stat() (facts, error) {
	var st unix.Stat_t
	if err := again(func() error { return unix.Fstat(int(d), &st) }); err != nil {
		return facts{}, classify(err)
	}
	return factsOf(&st), nil
}

func (d descriptor) names(visit func(string) error) error {
	if _, err := unix.Seek(int(d), 0, io.SeekStart); err != nil {
		return classify(err)
	}
	buf := make([]byte, 16<<10)
	var names []string
	for {
		n, err := unix.ReadDirent(int(d), buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return classify(err)
		}
		if n == 0 {
			return nil
		}
		_, _, names = unix.ParseDirent(buf[:n], math.MaxInt, names[:0])
		for _, name := range names {
			if err := visit(name); err != nil {
				return err
			}
		}
	}
}

func (d descriptor) child(_, name string) (facts, error) { return lstatAt(int(d), name) }

func (d descriptor) chtimes(_ string, accessed, edited time.Time) error {
	return utimes(int(d), "", accessed, edited, unix.AT_EMPTY_PATH)
}
