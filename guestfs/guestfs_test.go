package guestfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/guestfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "CANARY-of-the-host"

// trees are the two ways to the host's files; they must behave the same.
var trees = map[string]func(*os.Root, guestfs.Config) *guestfs.FS{
	"native":   guestfs.New,
	"portable": guestfs.NewPortable,
}

// stage makes a directory with an input, and a canary outside of it that must
// stay as it is.
func stage(t testing.TB, open func(*os.Root, guestfs.Config) *guestfs.FS, cfg guestfs.Config) (*guestfs.FS, string) {
	t.Helper()
	base := t.TempDir()
	dir := filepath.Join(base, "item")
	outside := filepath.Join(base, "canary")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(outside, []byte(canary), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "input"), []byte("the input"), 0o600))
	before, err := os.Lstat(outside)
	require.NoError(t, err)
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	cfg.ReadOnly = append(cfg.ReadOnly, "input")
	f := open(root, cfg)
	t.Cleanup(func() {
		require.NoError(t, f.Close())
		require.NoError(t, root.Close())
		got, err := os.ReadFile(outside)
		require.NoError(t, err)
		require.Equal(t, canary, string(got))
		after, err := os.Lstat(outside)
		require.NoError(t, err)
		require.Equal(t, before.ModTime(), after.ModTime())
		entries, err := os.ReadDir(base)
		require.NoError(t, err)
		require.Len(t, entries, 2)
		input, err := os.ReadFile(filepath.Join(dir, "input"))
		require.NoError(t, err)
		require.Equal(t, "the input", string(input))
	})
	return f, dir
}

// onTrees runs a test on each tree.
func onTrees(t *testing.T, cfg guestfs.Config, test func(t *testing.T, f *guestfs.FS, dir string)) {
	for name, open := range trees {
		t.Run(name, func(t *testing.T) {
			f, dir := stage(t, open, cfg)
			test(t, f, dir)
		})
	}
}

func write(t testing.TB, f *guestfs.FS, name string, content []byte) {
	t.Helper()
	x, err := f.Open(name, guestfs.Write|guestfs.Create|guestfs.Truncate)
	require.NoError(t, err)
	n, err := x.Write(content)
	require.NoError(t, err)
	require.Equal(t, len(content), n)
	require.NoError(t, x.Close())
}

func read(t testing.TB, f *guestfs.FS, name string) string {
	t.Helper()
	x, err := f.Open(name, guestfs.Read)
	require.NoError(t, err)
	got, err := io.ReadAll(x)
	require.NoError(t, err)
	require.NoError(t, x.Close())
	return string(got)
}

func names(entries []guestfs.Entry) []string {
	var all []string
	for _, e := range entries {
		all = append(all, e.Name)
	}
	return all
}

// requireNoHost checks that an error says nothing of the host.
func requireNoHost(t testing.TB, err error, dir string) {
	t.Helper()
	if err != nil {
		require.NotContains(t, err.Error(), filepath.Dir(dir))
	}
}

// S19: every way out by name.
func TestS19NamesStayInside(t *testing.T) {
	long := strings.Repeat("n", 256)
	tests := map[string]struct {
		name string
		want error
	}{
		"parent":            {"..", fs.ErrPermission},
		"outside":           {"../canary", fs.ErrPermission},
		"through directory": {"dir/../../canary", fs.ErrPermission},
		"through missing":   {"no/such/../../../canary", fs.ErrPermission},
		"dot first":         {"./../canary", fs.ErrPermission},
		"absolute":          {"/etc/passwd", fs.ErrPermission},
		"root":              {"/", fs.ErrPermission},
		"empty":             {"", fs.ErrNotExist},
		"zero byte":         {"input\x00", guestfs.ErrInvalid},
		"zero byte only":    {"\x00", guestfs.ErrInvalid},
		"long part":         {long, guestfs.ErrNameTooLong},
		"long path":         {strings.Repeat("a/", 2100), guestfs.ErrNameTooLong},
		"deep":              {strings.Repeat("a/", 65), guestfs.ErrLimit},
		"below a file":      {"input/x", guestfs.ErrNotDirectory},
		"file as directory": {"input/", guestfs.ErrNotDirectory},
	}
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, dir string) {
		require.NoError(t, f.Mkdir("dir"))
		write(t, f, "mine", []byte("x"))
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				calls := map[string]func() error{
					"open":   func() error { _, err := f.Open(tt.name, guestfs.Read); return err },
					"create": func() error { _, err := f.Open(tt.name, guestfs.Read|guestfs.Write|guestfs.Create); return err },
					"stat":   func() error { _, err := f.Stat(tt.name); return err },
					"list":   func() error { _, err := f.ReadDir(tt.name); return err },
					"times":  func() error { return f.SetTimes(tt.name, time.Now(), time.Now()) },
					"remove": func() error { return f.Remove(tt.name) },
					"rmdir":  func() error { return f.RemoveDir(tt.name) },
					"from":   func() error { return f.Rename(tt.name, "new") },
					"to":     func() error { return f.Rename("mine", tt.name) },
				}
				for call, do := range calls {
					err := do()
					require.ErrorIs(t, err, tt.want, call)
					requireNoHost(t, err, dir)
				}
				require.Error(t, f.Mkdir(tt.name))
			})
		}
		_, err := os.Lstat(filepath.Join(dir, "mine"))
		require.NoError(t, err)
	})
}

func TestLexicalNames(t *testing.T) {
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, _ string) {
		require.NoError(t, f.Mkdir("a"))
		require.NoError(t, f.Mkdir("a/b/"))
		write(t, f, "a/b/../c", []byte("content"))
		for _, name := range []string{"a/c", "./a/./c", "a//c", "a/b/../c", "none/../a/c"} {
			require.Equal(t, "content", read(t, f, name), name)
		}
		for _, name := range []string{".", "./", "a/..", "a/b/../.."} {
			info, err := f.Stat(name)
			require.NoError(t, err, name)
			require.True(t, info.Directory)
		}
	})
}

func TestOpen(t *testing.T) {
	const r, w, create, excl, trunc, directory = guestfs.Read, guestfs.Write, guestfs.Create, guestfs.Exclusive, guestfs.Truncate, guestfs.Directory
	tests := map[string]struct {
		name  string
		flags guestfs.Flags
		want  error
	}{
		"read":                     {"file", r, nil},
		"no flags":                 {"file", 0, nil},
		"write":                    {"file", w, nil},
		"create there":             {"file", r | w | create, nil},
		"create exclusive there":   {"file", w | create | excl, fs.ErrExist},
		"create new":               {"new", w | create | excl, nil},
		"create in missing":        {"none/new", w | create, fs.ErrNotExist},
		"create with slash":        {"none/", w | create, guestfs.ErrIsDirectory},
		"missing":                  {"none", r, fs.ErrNotExist},
		"directory":                {"dir", r, nil},
		"directory with slash":     {"dir/", r | directory, nil},
		"directory for writing":    {"dir", r | w, guestfs.ErrIsDirectory},
		"directory only":           {"dir", r | w | directory, nil},
		"truncate directory":       {"dir", trunc, guestfs.ErrIsDirectory},
		"create directory":         {"dir2", create | directory, guestfs.ErrInvalid},
		"file as directory":        {"file", directory, guestfs.ErrNotDirectory},
		"input":                    {"input", r, nil},
		"input, create":            {"input", r | create, nil},
		"input for writing":        {"input", w, guestfs.ErrReadOnly},
		"input, truncated":         {"input", r | trunc, guestfs.ErrReadOnly},
		"input by another name":    {"dir/../input", w, guestfs.ErrReadOnly},
		"truncate without writing": {"file", r | trunc, nil},
	}
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, dir string) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				write(t, f, "file", []byte("0123456789"))
				if err := f.Mkdir("dir"); err != nil {
					require.ErrorIs(t, err, fs.ErrExist)
				}
				x, err := f.Open(tt.name, tt.flags)
				requireNoHost(t, err, dir)
				if tt.want != nil {
					require.ErrorIs(t, err, tt.want)
					return
				}
				require.NoError(t, err)
				size, err := x.Size()
				require.NoError(t, err)
				if tt.flags&trunc != 0 {
					require.Zero(t, size)
				}
				_, err = x.Write([]byte("x"))
				require.Equal(t, tt.flags&w != 0 && !x.IsDirectory(), err == nil, "%v", err)
				require.NoError(t, x.Close())
				require.NoError(t, x.Close())
				_, err = x.Read(make([]byte, 1))
				require.ErrorIs(t, err, guestfs.ErrClosed)
			})
		}
		require.Zero(t, f.Usage().OpenFiles)
	})
}

func TestFile(t *testing.T) {
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, _ string) {
		x, err := f.Open("file", guestfs.Read|guestfs.Write|guestfs.Create)
		require.NoError(t, err)
		n, err := x.Write([]byte("0123456789"))
		require.NoError(t, err)
		require.Equal(t, 10, n)
		n, err = x.WriteAt([]byte("ab"), 3)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		at, err := x.Seek(-8, io.SeekCurrent)
		require.NoError(t, err)
		require.Equal(t, int64(2), at)
		b := make([]byte, 4)
		n, err = x.Read(b)
		require.NoError(t, err)
		require.Equal(t, "2ab5", string(b[:n]))
		n, err = x.ReadAt(b, 8)
		require.Equal(t, io.EOF, err)
		require.Equal(t, "89", string(b[:n]))
		_, err = x.ReadAt(b, math.MaxInt64-2)
		require.Equal(t, io.EOF, err)

		for name, call := range map[string]func() error{
			"seek before":   func() error { _, err := x.Seek(-1, io.SeekStart); return err },
			"seek whence":   func() error { _, err := x.Seek(0, 3); return err },
			"seek overflow": func() error { _, err := x.Seek(math.MaxInt64, io.SeekEnd); return err },
			"read before":   func() error { _, err := x.ReadAt(b, -1); return err },
			"write before":  func() error { _, err := x.WriteAt(b, -1); return err },
			"write beyond":  func() error { _, err := x.WriteAt(b, math.MaxInt64); return err },
			"truncate":      func() error { return x.Truncate(-1) },
			"allocate":      func() error { return x.Allocate(math.MaxInt64, 1) },
			"allocate none": func() error { return x.Allocate(0, 0) },
		} {
			require.ErrorIs(t, call(), guestfs.ErrInvalid, name)
		}

		x.SetAppend(true)
		_, err = x.Seek(0, io.SeekStart)
		require.NoError(t, err)
		_, err = x.Write([]byte("end"))
		require.NoError(t, err)
		at, err = x.Seek(0, io.SeekCurrent)
		require.NoError(t, err)
		require.Equal(t, int64(13), at)
		require.NoError(t, x.Truncate(4))
		require.NoError(t, x.Allocate(2, 1))
		require.NoError(t, x.Allocate(4, 2))
		require.NoError(t, x.Sync())
		require.NoError(t, x.Close())
		require.Equal(t, "012a\x00\x00", read(t, f, "file"))
	})
}

// S20: inputs stay as they are, by whatever way.
func TestS20InputsAreReadOnly(t *testing.T) {
	cfg := guestfs.Config{ReadOnly: []string{"data/in", "./tree/", "later", "../nonsense"}}
	for name, open := range trees {
		t.Run(name, func(t *testing.T) {
			f, dir := stage(t, open, cfg)
			for _, name := range []string{"data/in", "tree/a/b"} {
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("keep"), 0o600))
			}
			write(t, f, "mine", []byte("x"))
			require.NoError(t, f.Mkdir("empty"))
			now := time.Now()
			for what, call := range map[string]func() error{
				"write":             func() error { _, err := f.Open("data/in", guestfs.Write); return err },
				"write below":       func() error { _, err := f.Open("tree/a/b", guestfs.Write); return err },
				"create below":      func() error { _, err := f.Open("tree/a/new", guestfs.Write|guestfs.Create); return err },
				"create missing":    func() error { _, err := f.Open("later", guestfs.Write|guestfs.Create); return err },
				"mkdir below":       func() error { return f.Mkdir("tree/new") },
				"mkdir missing":     func() error { return f.Mkdir("later") },
				"remove":            func() error { return f.Remove("data/in") },
				"remove below":      func() error { return f.Remove("tree/a/b") },
				"rmdir below":       func() error { return f.RemoveDir("tree/a") },
				"rmdir":             func() error { return f.RemoveDir("tree") },
				"rename":            func() error { return f.Rename("data/in", "x") },
				"rename below":      func() error { return f.Rename("tree/a/b", "x") },
				"rename directory":  func() error { return f.Rename("tree", "x") },
				"rename the parent": func() error { return f.Rename("data", "x") },
				"replace":           func() error { return f.Rename("mine", "data/in") },
				"replace missing":   func() error { return f.Rename("mine", "later") },
				"move in":           func() error { return f.Rename("mine", "tree/x") },
				"set times":         func() error { return f.SetTimes("data/in", now, now) },
			} {
				err := call()
				require.ErrorIs(t, err, guestfs.ErrReadOnly, what)
				requireNoHost(t, err, dir)
			}
			x, err := f.Open("data/in", guestfs.Read)
			require.NoError(t, err)
			_, err = x.Write([]byte("x"))
			require.ErrorIs(t, err, guestfs.ErrAccess)
			require.ErrorIs(t, x.Truncate(0), guestfs.ErrAccess)
			require.ErrorIs(t, x.SetTimes(now, now), guestfs.ErrReadOnly)
			require.NoError(t, x.Close())
			require.Equal(t, "keep", read(t, f, "data/in"))
			require.Equal(t, "keep", read(t, f, "tree/a/b"))
			write(t, f, "data/beside", []byte("allowed"))
			require.NoError(t, f.Limit())
		})
	}
}

func TestEverythingReadOnly(t *testing.T) {
	onTrees(t, guestfs.Config{ReadOnly: []string{"."}}, func(t *testing.T, f *guestfs.FS, _ string) {
		require.ErrorIs(t, f.Mkdir("x"), guestfs.ErrReadOnly)
		_, err := f.Open("x", guestfs.Write|guestfs.Create)
		require.ErrorIs(t, err, guestfs.ErrReadOnly)
		require.Equal(t, "the input", read(t, f, "input"))
	})
}

// S19: each quota, its text, and that what was refused left nothing behind.
func TestS19Quotas(t *testing.T) {
	open := func(t *testing.T, f *guestfs.FS, name string) *guestfs.File {
		x, err := f.Open(name, guestfs.Read|guestfs.Write|guestfs.Create)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, x.Close()) })
		return x
	}
	tests := map[string]struct {
		limits guestfs.Limits
		text   string
		hit    func(t *testing.T, f *guestfs.FS) error
		usage  guestfs.Usage
	}{
		"bytes": {guestfs.Limits{Bytes: 1 << 10}, "more than 1 KiB in files", func(t *testing.T, f *guestfs.FS) error {
			_, err := open(t, f, "a").Write(make([]byte, 1000))
			require.NoError(t, err)
			_, err = open(t, f, "b").Write(make([]byte, 25))
			return err
		}, guestfs.Usage{Bytes: 1000, Written: 1000, Entries: 2, OpenFiles: 2}},
		"hole by write": {guestfs.Limits{Bytes: 1 << 20, FileSize: 1 << 40}, "more than 1 MiB in files", func(t *testing.T, f *guestfs.FS) error {
			_, err := open(t, f, "a").WriteAt([]byte("x"), 1<<30)
			return err
		}, guestfs.Usage{Entries: 1, OpenFiles: 1}},
		"hole by truncation": {guestfs.Limits{Bytes: 3000, FileSize: 1 << 40}, "more than 3,000 bytes in files", func(t *testing.T, f *guestfs.FS) error {
			x := open(t, f, "a")
			require.NoError(t, x.Truncate(3000))
			return x.Truncate(3001)
		}, guestfs.Usage{Bytes: 3000, Entries: 1, OpenFiles: 1}},
		"hole by allocation": {guestfs.Limits{Bytes: 3000}, "a file larger than 3,000 bytes", func(t *testing.T, f *guestfs.FS) error {
			return open(t, f, "a").Allocate(3000, 1)
		}, guestfs.Usage{Entries: 1, OpenFiles: 1}},
		"file size": {guestfs.Limits{FileSize: 100}, "a file larger than 100 bytes", func(t *testing.T, f *guestfs.FS) error {
			_, err := open(t, f, "a").Write(make([]byte, 101))
			return err
		}, guestfs.Usage{Entries: 1, OpenFiles: 1}},
		"written": {guestfs.Limits{Written: 2048}, "more than 2 KiB written", func(t *testing.T, f *guestfs.FS) error {
			x := open(t, f, "a")
			for range 2 {
				_, err := x.WriteAt(make([]byte, 1024), 0)
				require.NoError(t, err)
			}
			_, err := x.WriteAt([]byte("x"), 0)
			return err
		}, guestfs.Usage{Bytes: 1024, Written: 2048, Entries: 1, OpenFiles: 1}},
		"entries by directories": {guestfs.Limits{Entries: 2}, "more than 2 files and directories", func(t *testing.T, f *guestfs.FS) error {
			require.NoError(t, f.Mkdir("a"))
			require.NoError(t, f.Mkdir("a/b"))
			return f.Mkdir("c")
		}, guestfs.Usage{Entries: 2}},
		"entries by files": {guestfs.Limits{Entries: 1}, "more than 1 files and directories", func(t *testing.T, f *guestfs.FS) error {
			write(t, f, "a", nil)
			_, err := f.Open("b", guestfs.Write|guestfs.Create)
			return err
		}, guestfs.Usage{Entries: 1}},
		"open files": {guestfs.Limits{OpenFiles: 1200, Entries: -1}, "more than 1,200 files open at once", func(t *testing.T, f *guestfs.FS) error {
			for range 1200 {
				x, err := f.Open("input", guestfs.Read)
				if err != nil {
					return err
				}
				t.Cleanup(func() { require.NoError(t, x.Close()) })
			}
			_, err := f.Open(".", guestfs.Directory)
			return err
		}, guestfs.Usage{OpenFiles: 1200}},
		"depth": {guestfs.Limits{Depth: 3}, "a path deeper than 3 directories", func(t *testing.T, f *guestfs.FS) error {
			for _, name := range []string{"a", "a/b", "a/b/c"} {
				require.NoError(t, f.Mkdir(name))
			}
			return f.Mkdir("a/b/c/d")
		}, guestfs.Usage{Entries: 3}},
		"depth by renaming": {guestfs.Limits{Depth: 3}, "a path deeper than 3 directories", func(t *testing.T, f *guestfs.FS) error {
			for _, name := range []string{"a", "a/b", "x", "x/y"} {
				require.NoError(t, f.Mkdir(name))
			}
			require.NoError(t, f.Rename("x", "a/x")) // a/x/y: just allowed
			require.NoError(t, f.Rename("a/x", "x"))
			return f.Rename("x", "a/b/x")
		}, guestfs.Usage{Entries: 4}},
		"nothing at all": {guestfs.Limits{Entries: -1, Bytes: -1}, "more than 0 files and directories", func(t *testing.T, f *guestfs.FS) error {
			return f.Mkdir("x")
		}, guestfs.Usage{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			onTrees(t, guestfs.Config{Limits: tt.limits}, func(t *testing.T, f *guestfs.FS, dir string) {
				require.NoError(t, f.Limit())
				err := tt.hit(t, f)
				require.ErrorIs(t, err, guestfs.ErrLimit)
				requireNoHost(t, err, dir)
				var limit *guestfs.LimitError
				require.ErrorAs(t, f.Limit(), &limit)
				require.Equal(t, tt.text, limit.Error())
				require.Equal(t, tt.usage, f.Usage())
			})
		})
	}
}

// What several guests share is asked for as it grows, and given back.
func TestHold(t *testing.T) {
	for _, open := range trees {
		held := int64(0)
		fsys, _ := stage(t, open, guestfs.Config{Hold: func(n int64) error {
			if held+n > 100 {
				return errors.New("no more")
			}
			held += n
			return nil
		}})
		x, err := fsys.Open("a", guestfs.Write|guestfs.Create)
		require.NoError(t, err)
		_, err = x.Write(make([]byte, 60))
		require.NoError(t, err)
		_, err = x.Write(make([]byte, 41))
		require.ErrorIs(t, err, guestfs.ErrLimit)
		require.ErrorContains(t, fsys.Limit(), "the tenant's items")
		_, err = x.Write(make([]byte, 40))
		require.NoError(t, err)
		require.ErrorIs(t, x.Truncate(101), guestfs.ErrLimit)
		require.NoError(t, x.Truncate(10))
		require.EqualValues(t, 10, held)
		require.NoError(t, x.Close())
		require.NoError(t, fsys.Remove("a"))
		require.Zero(t, held)
	}
}

func TestLimitRemembersTheFirst(t *testing.T) {
	f, _ := stage(t, guestfs.New, guestfs.Config{Limits: guestfs.Limits{Entries: -1, FileSize: 1}})
	require.Error(t, f.Mkdir("x"))
	_, err := f.Stat(strings.Repeat("a/", 70))
	require.Error(t, err)
	require.EqualError(t, f.Limit(), "more than 0 files and directories")
}

func TestDefaults(t *testing.T) {
	f, _ := stage(t, guestfs.New, guestfs.Config{})
	require.Equal(t, guestfs.Limits{
		Bytes: 4 << 30, Written: 16 << 30, FileSize: 4 << 30, Entries: 10_000, OpenFiles: 256, Depth: 64, Syncs: 64,
	}, f.Limits())
	for limit, text := range map[guestfs.LimitError]string{
		{Limit: guestfs.LimitBytes, Value: 4 << 30}:      "more than 4 GiB in files",
		{Limit: guestfs.LimitWritten, Value: 16 << 30}:   "more than 16 GiB written",
		{Limit: guestfs.LimitEntries, Value: 10_000}:     "more than 10,000 files and directories",
		{Limit: guestfs.LimitListings, Value: 1_234_567}: "more than 1,234,567 bytes of names in open directories",
		{Limit: guestfs.LimitFileSize, Value: 2 << 40}:   "a file larger than 2 TiB",
	} {
		require.EqualError(t, &limit, text)
	}
}

// Removed but open files stay charged; replaced ones too.
func TestAccounts(t *testing.T) {
	onTrees(t, guestfs.Config{Limits: guestfs.Limits{Bytes: 1000}}, func(t *testing.T, f *guestfs.FS, dir string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "old"), make([]byte, 500), 0o600))

		x, err := f.Open("a", guestfs.Read|guestfs.Write|guestfs.Create)
		require.NoError(t, err)
		_, err = x.Write(make([]byte, 800))
		require.NoError(t, err)
		require.NoError(t, f.Remove("a"))
		require.Equal(t, guestfs.Usage{Bytes: 800, Written: 800, OpenFiles: 1}, f.Usage())
		_, ok := x.Name()
		require.False(t, ok)
		require.NoError(t, x.Truncate(600))
		require.Equal(t, int64(600), f.Usage().Bytes)
		require.NoError(t, x.Close())
		require.Zero(t, f.Usage().Bytes)

		// What was there before is not charged, what is added to it is.
		y, err := f.Open("old", guestfs.Read|guestfs.Write)
		require.NoError(t, err)
		require.Zero(t, f.Usage().Bytes)
		require.NoError(t, y.Truncate(700))
		require.Equal(t, int64(200), f.Usage().Bytes)
		require.NoError(t, y.Truncate(100))
		require.Zero(t, f.Usage().Bytes)
		require.NoError(t, y.Truncate(550))
		require.Equal(t, int64(50), f.Usage().Bytes)
		require.NoError(t, y.Close())
		require.NoError(t, f.Rename("old", "renamed"))
		require.Equal(t, int64(50), f.Usage().Bytes)

		write(t, f, "new", make([]byte, 300))
		require.Equal(t, guestfs.Usage{Bytes: 350, Written: 1100, Entries: 1}, f.Usage())
		require.NoError(t, f.Rename("new", "renamed")) // replaces it
		require.Equal(t, guestfs.Usage{Bytes: 300, Written: 1100, Entries: 1}, f.Usage())
		require.NoError(t, f.Remove("renamed"))
		require.Equal(t, guestfs.Usage{Written: 1100}, f.Usage())
		require.NoError(t, f.Limit())
	})
}

func TestSyncs(t *testing.T) {
	onTrees(t, guestfs.Config{Limits: guestfs.Limits{Syncs: 2}}, func(t *testing.T, f *guestfs.FS, _ string) {
		x, err := f.Open("a", guestfs.Write|guestfs.Create)
		require.NoError(t, err)
		for range 10 {
			require.NoError(t, x.Sync())
		}
		require.NoError(t, x.Close())
		require.ErrorIs(t, x.Sync(), guestfs.ErrClosed)
		require.NoError(t, f.Limit())
	})
}

func TestRename(t *testing.T) {
	tests := map[string]struct {
		from, to string
		want     error
	}{
		"file":                      {"file", "new", nil},
		"file over file":            {"file", "file2", nil},
		"file over itself":          {"file", "dir/../file", nil},
		"file over directory":       {"file", "empty", guestfs.ErrIsDirectory},
		"file to slash":             {"file", "new/", guestfs.ErrNotDirectory},
		"file into missing":         {"file", "none/new", fs.ErrNotExist},
		"directory":                 {"dir", "new", nil},
		"directory to slash":        {"dir/", "new/", nil},
		"directory over empty":      {"dir", "empty", nil},
		"directory over full":       {"empty", "dir", guestfs.ErrNotEmpty},
		"directory over file":       {"dir", "file", guestfs.ErrNotDirectory},
		"directory into itself":     {"dir", "dir/sub", guestfs.ErrInvalid},
		"directory over its parent": {"dir/sub", "dir", guestfs.ErrNotEmpty},
		"the root":                  {".", "new", guestfs.ErrBusy},
		"over the root":             {"dir", ".", guestfs.ErrBusy},
		"missing":                   {"none", "new", fs.ErrNotExist},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, dir string) {
				for _, name := range []string{"dir", "dir/sub", "empty"} {
					require.NoError(t, f.Mkdir(name))
				}
				write(t, f, "file", []byte("file"))
				write(t, f, "file2", []byte("file2"))
				err := f.Rename(tt.from, tt.to)
				requireNoHost(t, err, dir)
				if tt.want != nil {
					require.ErrorIs(t, err, tt.want)
				} else {
					require.NoError(t, err)
				}
				requireAccounts(t, f, dir, nil)
			})
		})
	}
}

func TestOpenDirectoryFollowsItsName(t *testing.T) {
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, _ string) {
		for _, name := range []string{"a", "a/b"} {
			require.NoError(t, f.Mkdir(name))
		}
		write(t, f, "a/b/file", nil)
		d, err := f.Open("a/b", guestfs.Directory)
		require.NoError(t, err)
		require.NoError(t, f.Rename("a", "elsewhere"))
		name, ok := d.Name()
		require.True(t, ok)
		require.Equal(t, "elsewhere/b", name)
		entries, err := d.ReadDir(0, 10)
		require.NoError(t, err)
		require.Equal(t, []string{"file"}, names(entries))
		require.NoError(t, f.Remove("elsewhere/b/file"))
		require.NoError(t, f.RemoveDir("elsewhere/b"))
		_, ok = d.Name()
		require.False(t, ok)
		require.NoError(t, d.Close())
	})
}

func TestReadDir(t *testing.T) {
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, _ string) {
		require.NoError(t, f.Mkdir("dir"))
		var want []string
		for i := range 2500 {
			name := fmt.Sprintf("%04d", i)
			want = append(want, name)
			write(t, f, "dir/"+name, []byte("x"))
		}
		entries, err := f.ReadDir("dir")
		require.NoError(t, err)
		require.Equal(t, want, names(entries))
		require.Equal(t, int64(1), entries[7].Info.Size)

		d, err := f.Open("dir", guestfs.Directory)
		require.NoError(t, err)
		some, err := d.ReadDir(0, 1_000_000)
		require.NoError(t, err)
		require.Len(t, some, 1024)
		// What is removed meanwhile is left out, what remains is neither skipped nor repeated.
		require.NoError(t, f.Remove("dir/1024"))
		write(t, f, "dir/aaaa", nil)
		some, err = d.ReadDir(some[1023].Next, 3)
		require.NoError(t, err)
		require.Equal(t, []string{"1025", "1026", "1027"}, names(some))
		again, err := d.ReadDir(some[0].Next, 2)
		require.NoError(t, err)
		require.Equal(t, some[1:], again)
		for _, cookie := range []uint64{2500, 2501, math.MaxUint64} {
			none, err := d.ReadDir(cookie, 10)
			require.NoError(t, err)
			require.Empty(t, none)
		}
		none, err := d.ReadDir(0, -1)
		require.NoError(t, err)
		require.Empty(t, none)
		require.NoError(t, d.Close())
		_, err = d.ReadDir(0, 1)
		require.ErrorIs(t, err, guestfs.ErrClosed)
		_, err = f.ReadDir("dir/0001")
		require.ErrorIs(t, err, guestfs.ErrNotDirectory)
	})
}

// The memory for listings is limited, and comes back.
func TestListingsAreBounded(t *testing.T) {
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, dir string) {
		const files = 1000 // of 200 bytes
		for i := range files {
			name := fmt.Sprintf("%04d%s", i, strings.Repeat("n", 196))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
		}
		var open []*guestfs.File
		var hit error
		for range 200 {
			d, err := f.Open(".", guestfs.Directory)
			require.NoError(t, err)
			open = append(open, d)
			if _, hit = d.ReadDir(0, 1); hit != nil {
				break
			}
		}
		require.ErrorIs(t, hit, guestfs.ErrLimit)
		require.EqualError(t, f.Limit(), "more than 16 MiB of names in open directories")
		for _, d := range open {
			require.NoError(t, d.Close())
		}
		entries, err := f.ReadDir(".")
		require.NoError(t, err)
		require.Len(t, entries, files+1)
	})
}

func TestMetadata(t *testing.T) {
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, _ string) {
		write(t, f, "a", []byte("12345"))
		require.NoError(t, f.Mkdir("d"))
		a, err := f.Stat("a")
		require.NoError(t, err)
		d, err := f.Stat("d")
		require.NoError(t, err)
		require.False(t, a.Directory)
		require.True(t, d.Directory)
		require.Equal(t, int64(5), a.Size)
		require.Zero(t, d.Size)
		require.Less(t, a.Inode, uint64(10))
		require.Less(t, d.Inode, uint64(10))
		require.NotEqual(t, a.Inode, d.Inode)
		for _, at := range []time.Time{a.Modified, a.Accessed, a.Changed, d.Modified} {
			require.Zero(t, at.Nanosecond()%1e6, "finer than the guest's clock")
		}
		require.NoError(t, f.Rename("a", "d/b"))
		again, err := f.Stat("d/b")
		require.NoError(t, err)
		require.Equal(t, a.Inode, again.Inode)

		// A guest reads the times that it set, on file systems that keep them.
		set := time.Unix(1_000_000_000, 123_456_700)
		require.NoError(t, f.SetTimes("d/b", time.Time{}, set))
		again, err = f.Stat("d/b")
		require.NoError(t, err)
		require.True(t, again.Modified.Equal(set), "%v", again.Modified)
		x, err := f.Open("d/b", guestfs.Write)
		require.NoError(t, err)
		require.NoError(t, x.SetTimes(set, set.Add(time.Second)))
		again, err = x.Stat()
		require.NoError(t, err)
		require.True(t, again.Modified.Equal(set.Add(time.Second)))
		require.NoError(t, x.Close())
		require.NoError(t, f.SetTimes("d/b", time.Time{}, time.Time{}))
	})
}

func TestClose(t *testing.T) {
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, _ string) {
		x, err := f.Open("input", guestfs.Read)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.NoError(t, f.Close())
		_, err = x.Read(make([]byte, 1))
		require.ErrorIs(t, err, guestfs.ErrClosed)
		require.NoError(t, x.Close())
		_, err = f.Stat("input")
		require.ErrorIs(t, err, guestfs.ErrClosed)
		require.Zero(t, f.Usage().OpenFiles)
	})
}

func TestRootThatIsGone(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, root.Close())
	f := guestfs.New(root, guestfs.Config{})
	_, err = f.Stat("x")
	require.Error(t, err)
	require.Error(t, f.Mkdir("x"))
	require.NoError(t, f.Close())
}

// requireAccounts compares Usage with what is on the disk; there is nothing on
// it that was there before, but the input.
func requireAccounts(t testing.TB, f *guestfs.FS, dir string, open []*guestfs.File) {
	t.Helper()
	var want guestfs.Usage
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir || path == filepath.Join(dir, "input") {
			return err
		}
		want.Entries++
		info, err := d.Info()
		if err == nil && !d.IsDir() {
			want.Bytes += info.Size()
		}
		return err
	})
	require.NoError(t, err)
	inodes := map[uint64]bool{}
	for _, x := range open {
		info, err := x.Stat()
		require.NoError(t, err)
		if _, ok := x.Name(); !ok && !inodes[info.Inode] {
			want.Bytes += info.Size
			inodes[info.Inode] = true
		}
	}
	want.OpenFiles = len(open)
	got := f.Usage()
	want.Written = got.Written
	require.Equal(t, want, got)
}

// A script is a sequence of operations, given by bytes.
type script struct {
	f    *guestfs.FS
	open []*guestfs.File
}

func (s *script) name(b byte) string {
	return []string{"a", "b", "d", "d/a", "d/e", "d/e/a", "e", "e/d", "input", ".", "..", "d/../a", "d/", "../canary", "e/../../x", "d/e/../b"}[b%16]
}

// step does one operation; the result is checked by what is left behind.
func (s *script) step(op, x, y byte) {
	pick := func() *guestfs.File {
		if len(s.open) == 0 {
			return nil
		}
		return s.open[int(x)%len(s.open)]
	}
	var err error
	switch op % 12 {
	case 0, 1:
		var file *guestfs.File
		if file, err = s.f.Open(s.name(x), guestfs.Flags(y&0x7f)); err == nil {
			s.open = append(s.open, file)
		}
	case 2:
		err = s.f.Mkdir(s.name(x))
	case 3:
		err = s.f.Remove(s.name(x))
	case 4:
		err = s.f.RemoveDir(s.name(x))
	case 5:
		err = s.f.Rename(s.name(x), s.name(y))
	case 6:
		_, err = s.f.ReadDir(s.name(x))
	case 7:
		err = s.f.SetTimes(s.name(x), time.Time{}, time.Unix(int64(y), 0))
	default:
		file := pick()
		if file == nil {
			return
		}
		switch op % 12 {
		case 8:
			_, err = file.Write(make([]byte, y))
		case 9:
			_, err = file.WriteAt(make([]byte, 3), int64(y))
		case 10:
			err = file.Truncate(int64(y) * 3)
		case 11:
			err = file.Close()
			i := slices.Index(s.open, file)
			s.open = slices.Delete(s.open, i, i+1)
		}
	}
	_ = err // refusals are part of it
}

func FuzzOperations(f *testing.F) {
	f.Add([]byte{2, 2, 0, 0, 3, 0x06, 8, 0, 200, 5, 2, 6, 3, 7, 0, 11, 0, 0})
	f.Add([]byte{0, 0, 0x07, 8, 0, 100, 0, 0, 0x07, 3, 0, 0, 10, 1, 50, 0, 0, 7, 5, 0, 1, 11, 0, 0})
	f.Add([]byte{2, 2, 0, 2, 4, 0, 5, 2, 6, 5, 6, 4, 4, 2, 0, 5, 13, 0, 5, 0, 13})
	f.Add([]byte{0, 8, 0x02, 5, 0, 8, 3, 8, 0, 0, 13, 6, 2, 14, 0, 7, 8, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 600 {
			return
		}
		for _, open := range trees {
			held := int64(0)
			hold := func(n int64) error {
				if held += n; held > 550 {
					held -= n
					return errors.New("no more")
				}
				return nil
			}
			fsys, dir := stage(t, open, guestfs.Config{Hold: hold, Limits: guestfs.Limits{Bytes: 600, FileSize: 500, Entries: 5, OpenFiles: 4, Depth: 3, Written: 4000}})
			s := &script{f: fsys}
			for i := 0; i+3 <= len(ops); i += 3 {
				s.step(ops[i], ops[i+1], ops[i+2])
				requireAccounts(t, fsys, dir, s.open)
			}
			u, limits := fsys.Usage(), fsys.Limits()
			require.Equal(t, u.Bytes, held, "what is held for it")
			require.LessOrEqual(t, u.Bytes, limits.Bytes)
			require.LessOrEqual(t, u.Entries, limits.Entries)
			require.LessOrEqual(t, u.Written, limits.Written)
			for _, x := range s.open {
				require.NoError(t, x.Close())
			}
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, name := range []string{"a", "a/b", "..", "../canary", "a/../../x", "/etc", "", ".", "a/", "\x00", "é", "a\nb", "-rf", "\xff", `..\canary`, "CON", "input", "INPUT", "a:b", strings.Repeat("a/", 80)} {
		f.Add(name, "b")
	}
	f.Add("mine", "../stolen")
	f.Fuzz(func(t *testing.T, name, other string) {
		for _, open := range trees {
			fsys, dir := stage(t, open, guestfs.Config{Limits: guestfs.Limits{Bytes: 100, Entries: 4}})
			write(t, fsys, "mine", []byte("x"))
			var errs []error
			if x, err := fsys.Open(name, guestfs.Read|guestfs.Write|guestfs.Create); err == nil {
				_, err = x.Write([]byte("overwritten"))
				errs = append(errs, err, x.Close())
			} else {
				errs = append(errs, err)
			}
			errs = append(errs, fsys.Mkdir(other), fsys.Rename(name, other), fsys.Rename("mine", name),
				fsys.SetTimes(other, time.Time{}, time.Unix(1, 0)), fsys.Remove(name), fsys.RemoveDir(other))
			_, err := fsys.Stat(name)
			errs = append(errs, err)
			_, err = fsys.ReadDir(other)
			errs = append(errs, err)
			for _, err := range errs {
				requireNoHost(t, err, dir)
				if err != nil {
					require.NotContains(t, err.Error(), "\n")
				}
			}
			requireAccounts(t, fsys, dir, nil)
		}
	})
}

// Many goroutines on one file system: the accounts fit in the end.
// A file that is removed while it is opened costs what it takes up until it is
// closed, and nothing then.
func TestRemovedWhileOpened(t *testing.T) {
	var f *guestfs.FS
	removed := make(chan error, 1)
	var once sync.Once
	f, dir := stage(t, func(root *os.Root, cfg guestfs.Config) *guestfs.FS {
		return guestfs.NewHooked(root, cfg, func() {
			once.Do(func() {
				go func() { removed <- f.Remove("x") }()
				select { // before the other goes on, if it can be
				case err := <-removed:
					removed <- err
				case <-time.After(50 * time.Millisecond):
				}
			})
		})
	}, guestfs.Config{})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "x"), []byte("from the host"), 0o600))
	x, err := f.Open("x", guestfs.Read|guestfs.Write)
	require.NoError(t, err)
	require.NoError(t, <-removed)
	_, err = x.Write(make([]byte, 1000))
	require.NoError(t, err)
	require.NoError(t, x.Close())
	requireAccounts(t, f, dir, nil)
}

func TestConcurrent(t *testing.T) {
	onTrees(t, guestfs.Config{Limits: guestfs.Limits{Bytes: 5000, Entries: 8, OpenFiles: 20}}, func(t *testing.T, f *guestfs.FS, dir string) {
		var workers sync.WaitGroup
		for seed := range uint64(8) {
			workers.Go(func() {
				random := rand.New(rand.NewPCG(seed, 1))
				s := &script{f: f}
				for range 300 {
					s.step(byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32()))
				}
				for _, x := range s.open {
					if err := x.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		workers.Wait()
		requireAccounts(t, f, dir, nil)
	})
}

// Close while others work: no operation outlives it, nothing stays open.
func TestCloseWhileBusy(t *testing.T) {
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, _ string) {
		var workers sync.WaitGroup
		started := make(chan struct{}, 4)
		for range 4 {
			workers.Go(func() {
				for i := 0; ; i++ {
					x, err := f.Open("input", guestfs.Read)
					if errors.Is(err, guestfs.ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					b := make([]byte, 100)
					if n, err := x.Read(b); err == nil && !bytes.Equal(b[:n], []byte("the input")) {
						t.Errorf("read %q", b[:n])
					}
					if err := x.Close(); err != nil {
						t.Error(err)
					}
					if i == 10 {
						started <- struct{}{}
					}
				}
			})
		}
		for range 4 {
			<-started
		}
		require.NoError(t, f.Close())
		workers.Wait()
		require.Zero(t, f.Usage().OpenFiles)
	})
}

func BenchmarkOpenReadClose(b *testing.B) {
	for name, open := range trees {
		for _, at := range []string{"small", "a/b/c/small"} {
			b.Run(fmt.Sprintf("%s/depth%d", name, strings.Count(at, "/")+1), func(b *testing.B) {
				f, dir := stage(b, open, guestfs.Config{})
				require.NoError(b, os.MkdirAll(filepath.Join(dir, filepath.Dir(at)), 0o700))
				require.NoError(b, os.WriteFile(filepath.Join(dir, at), make([]byte, 4096), 0o600))
				buf := make([]byte, 4096)
				for b.Loop() {
					x, err := f.Open(at, guestfs.Read)
					if err != nil {
						b.Fatal(err)
					}
					if n, err := x.Read(buf); n != len(buf) || err != nil {
						b.Fatal(n, err)
					}
					if err := x.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkSequential(b *testing.B) {
	const block, blocks = 64 << 10, 256
	for name, open := range trees {
		f, _ := stage(b, open, guestfs.Config{Limits: guestfs.Limits{Written: math.MaxInt64}})
		buf := make([]byte, block)
		b.Run(name+"/write", func(b *testing.B) {
			b.SetBytes(block * blocks)
			for b.Loop() {
				x, err := f.Open("big", guestfs.Write|guestfs.Create|guestfs.Truncate)
				if err != nil {
					b.Fatal(err)
				}
				for range blocks {
					if _, err := x.Write(buf); err != nil {
						b.Fatal(err)
					}
				}
				if err := x.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/read", func(b *testing.B) {
			b.SetBytes(block * blocks)
			for b.Loop() {
				x, err := f.Open("big", guestfs.Read)
				if err != nil {
					b.Fatal(err)
				}
				for {
					n, err := x.Read(buf)
					if errors.Is(err, io.EOF) {
						break
					}
					if n == 0 || err != nil {
						b.Fatal(n, err)
					}
				}
				if err := x.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What an FS costs an item that uses no file, or one.
func BenchmarkNew(b *testing.B) {
	_, dir := stage(b, guestfs.New, guestfs.Config{})
	root, err := os.OpenRoot(dir)
	require.NoError(b, err)
	defer root.Close()
	for _, used := range []bool{false, true} {
		b.Run(fmt.Sprintf("used=%v", used), func(b *testing.B) {
			for b.Loop() {
				f := guestfs.New(root, guestfs.Config{ReadOnly: []string{"input"}})
				if used {
					if _, err := f.Stat("input"); err != nil {
						b.Fatal(err)
					}
				}
				if err := f.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
