package staging_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/staging"
)

// childFolder turns this test binary into a worker that stages there and waits.
const childFolder = "STAGING_TEST_FOLDER"

func TestMain(m *testing.M) {
	if folder := os.Getenv(childFolder); folder != "" {
		if err := child(folder); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// child stages a file, says so, and waits until its input ends or it is killed.
func child(folder string) error {
	store, err := staging.Open(folder)
	if err != nil {
		return err
	}
	dir, err := store.Create()
	if err != nil {
		return err
	}
	if err := dir.MkdirAll("a/b/c", 0o700); err != nil {
		return err
	}
	if err := dir.WriteFile("a/b/c/kept", []byte("x"), 0o600); err != nil {
		return err
	}
	fmt.Println(dir.Name())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	if err := dir.Close(); err != nil {
		return err
	}
	return store.Close()
}

type worker struct {
	cmd   *exec.Cmd
	input io.Closer
	dir   string // of its item
}

func (w worker) folder() string { return filepath.Dir(w.dir) }
func (w worker) lock() string   { return w.folder() + ".lock" }

func (w worker) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, w.cmd.Process.Kill())
	require.Error(t, w.cmd.Wait())
}

// start starts a worker in a process of its own.
func start(t *testing.T, folder string) worker {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childFolder+"="+folder)
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	dir := strings.TrimSpace(line)
	require.FileExists(t, filepath.Join(dir, "a", "b", "c", "kept"))
	return worker{cmd, input, dir}
}

func open(t *testing.T, folder string) *staging.Store {
	t.Helper()
	store, err := staging.Open(folder)
	require.NoError(t, err)
	return store
}

func entries(t *testing.T, folder string) []string {
	t.Helper()
	list, err := os.ReadDir(folder)
	require.NoError(t, err)
	names := []string{}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// item makes a store with one item's directory, which end at the end of the
// test without leaving anything.
func item(t *testing.T) *staging.Dir {
	t.Helper()
	folder := t.TempDir()
	store := open(t, folder)
	dir, err := store.Create()
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, dir.Close())
		require.NoError(t, store.Close())
		require.Empty(t, entries(t, folder))
	})
	return dir
}

func TestKilledWorker(t *testing.T) {
	folder := t.TempDir()
	// Not ours, whatever their names are like.
	require.NoError(t, os.Mkdir(filepath.Join(folder, "worker-x.lock"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "other.lock"), nil, 0o600))
	killed, alive := start(t, folder), start(t, folder)
	killed.kill(t)
	require.DirExists(t, killed.folder())

	store := open(t, folder)
	require.NoDirExists(t, killed.folder())
	require.NoFileExists(t, killed.lock())
	require.FileExists(t, filepath.Join(alive.dir, "a", "b", "c", "kept"))
	require.FileExists(t, alive.lock())

	require.NoError(t, alive.input.Close())
	require.NoError(t, alive.cmd.Wait())
	require.NoDirExists(t, alive.folder())
	require.NoFileExists(t, alive.lock())
	require.NoError(t, store.Close())
	require.Equal(t, []string{"other.lock", "worker-x.lock"}, entries(t, folder))
}

// Leftovers of every kind are in the way of many workers that start at once.
func TestOpenAtOnce(t *testing.T) {
	folder := t.TempDir()
	for range 4 {
		start(t, folder).kill(t)
	}
	require.NoError(t, os.WriteFile(filepath.Join(folder, "worker-lockonly.lock"), nil, 0o600))
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "precious"), []byte("x"), 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(folder, "worker-link")))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "worker-link.lock"), nil, 0o600))

	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 5 {
				store, err := staging.Open(folder)
				if err != nil {
					t.Error(err)
					return
				}
				dir, err := store.Create()
				if err != nil {
					t.Error(err)
					return
				}
				if err := dir.WriteFile("f", []byte("x"), 0o600); err != nil {
					t.Error(err)
				}
				if err := dir.Close(); err != nil {
					t.Error(err)
				}
				if err := store.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	require.Empty(t, entries(t, folder))
	require.FileExists(t, filepath.Join(outside, "precious"))
}

func TestOpenWhereItCannot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, folder := range []string{file, filepath.Join(file, "below")} {
		_, err := staging.Open(folder)
		require.ErrorContains(t, err, "staging folder")
	}
}

func TestCreateAtOnce(t *testing.T) {
	folder := t.TempDir()
	store := open(t, folder)
	var all sync.WaitGroup
	var seen sync.Map
	for range 32 {
		all.Go(func() {
			for range 20 {
				dir, err := store.Create()
				if err != nil {
					t.Error(err)
					return
				}
				if _, again := seen.LoadOrStore(dir.Name(), true); again {
					t.Error("two items have one directory")
				}
				if f, err := dir.Create("same-name"); err != nil {
					t.Error(err)
				} else if err := f.Close(); err != nil {
					t.Error(err)
				}
				if err := dir.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	require.NoError(t, store.Close())
	require.Empty(t, entries(t, folder))
}

func TestCloseWithOpenItems(t *testing.T) {
	folder := t.TempDir()
	store := open(t, folder)
	dir, err := store.Create()
	require.NoError(t, err)
	require.NoError(t, dir.WriteFile("f", nil, 0o600))
	require.ErrorContains(t, store.Close(), "1 work items still had a directory")
	require.Empty(t, entries(t, folder), "they are removed all the same")
	require.NoError(t, dir.Root.Close())
}

// Whatever an item leaves, nothing of it stays, and nothing else goes.
func TestCloseRemovesEverything(t *testing.T) {
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	require.NoError(t, os.WriteFile(precious, []byte("x"), 0o640))
	tests := map[string]func(t *testing.T, dir *staging.Dir){
		"nothing": func(*testing.T, *staging.Dir) {},
		"thousands of entries": func(t *testing.T, dir *staging.Dir) {
			for i := range 3000 {
				require.NoError(t, dir.WriteFile(fmt.Sprintf("file-%d", i), nil, 0o600))
			}
			require.NoError(t, dir.Mkdir("sub", 0o700))
			for i := range 2000 {
				require.NoError(t, dir.Mkdir(fmt.Sprintf("sub/%d", i), 0o700))
			}
		},
		"a deep tree": func(t *testing.T, dir *staging.Dir) {
			top, err := dir.OpenRoot(".")
			require.NoError(t, err)
			for range 2500 { // deeper than a path may be long
				require.NoError(t, top.WriteFile("f", nil, 0o600))
				require.NoError(t, top.Mkdir("d", 0o700))
				next, err := top.OpenRoot("d")
				require.NoError(t, err)
				require.NoError(t, top.Close())
				top = next
			}
			require.NoError(t, top.Close())
		},
		"odd names": func(t *testing.T, dir *staging.Dir) {
			for _, name := range []string{"-rf", " ", "new\nline", "\xff\xfe", ".empty-1", ".hidden", "*", strings.Repeat("n", 255), "\u202e"} {
				require.NoError(t, dir.Mkdir(name, 0o700))
				require.NoError(t, dir.WriteFile(name+"/"+name, nil, 0o600))
			}
		},
		"links": func(t *testing.T, dir *staging.Dir) {
			require.NoError(t, dir.Symlink(outside, "to-directory"))
			require.NoError(t, dir.Symlink(precious, "to-file"))
			require.NoError(t, dir.Symlink("loop", "loop"))
			require.NoError(t, dir.Symlink("../../..", "up"))
			require.NoError(t, os.Link(precious, filepath.Join(dir.Name(), "hard")))
		},
		"no permissions": func(t *testing.T, dir *staging.Dir) {
			require.NoError(t, dir.MkdirAll("a/b/c", 0o700))
			require.NoError(t, dir.WriteFile("a/b/c/f", nil, 0))
			for _, name := range []string{"a/b/c", "a/b", "a", "."} {
				require.NoError(t, dir.Chmod(name, 0))
			}
		},
	}
	for name, leave := range tests {
		t.Run(name, func(t *testing.T) { leave(t, item(t)) })
	}
	info, err := os.Stat(precious)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o640), info.Mode().Perm())
	require.Equal(t, int64(1), info.Size())
}

func TestImport(t *testing.T) {
	dir := item(t)
	path := filepath.Join(t.TempDir(), "source")
	content := strings.Repeat("0123456789abcdef", 5<<20/16)
	for name, size := range map[string]int{"empty": 0, "small": 3, "large": len(content)} {
		require.NoError(t, os.WriteFile(path, []byte(content[:size]), 0o600))
		f, err := os.Open(path)
		require.NoError(t, err)
		require.NoError(t, dir.Import(t.Context(), name, f))
		require.NoError(t, f.Close())
		got, err := dir.ReadFile(name)
		require.NoError(t, err)
		require.True(t, content[:size] == string(got))
	}
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	require.ErrorIs(t, dir.Import(t.Context(), "small", f), fs.ErrExist)
	require.Error(t, dir.Import(t.Context(), "../out", f))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	require.ErrorIs(t, dir.Import(ctx, "late", f), io.ErrClosedPipe)
}

func TestOutput(t *testing.T) {
	dir := item(t)
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("secret"), 0o600))
	require.NoError(t, dir.WriteFile("plain", []byte("hello"), 0o600))
	require.NoError(t, dir.WriteFile("empty", nil, 0o600))
	require.NoError(t, dir.Mkdir("directory", 0o700))
	require.NoError(t, dir.Symlink("plain", "link inside"))
	require.NoError(t, dir.Symlink(secret, "link outside"))
	require.NoError(t, dir.Symlink("nowhere", "dangling"))
	require.NoError(t, os.Link(secret, filepath.Join(dir.Name(), "hard link")))

	for name, want := range map[string]string{"plain": "hello", "empty": ""} {
		f, info, err := dir.Output(name)
		require.NoError(t, err)
		got, err := io.ReadAll(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.Equal(t, want, string(got))
		require.EqualValues(t, len(want), info.Size())
		require.Equal(t, filepath.Join(dir.Name(), name), f.Name())
	}
	for _, name := range []string{"directory", "link inside", "link outside", "dangling", "hard link"} {
		_, _, err := dir.Output(name)
		require.Equal(t, beacon.Denied, beacon.CodeOf(err), name)
		require.ErrorContains(t, err, name+" is not a regular file")
	}
	_, _, err := dir.Output("missing")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotContains(t, err.Error(), dir.Name())
	_, _, err = dir.Output("../" + filepath.Base(dir.Name()))
	require.Error(t, err)
}

var names = map[string]bool{
	"data.csv": true, "a": true, ".hidden": true, "..a": true, "with space": true, "ünïcode": true, "-rf": true,
	"a'b\"c$(d)": true, strings.Repeat("n", 255): true, ".part": true,
	"": false, ".": false, "..": false, "a/b": false, "/a": false, "../a": false, `a\b`: false, "c:": false, "a:stream": false,
	"a\x00b": false, "a\nb": false, "a\tb": false, "\x1b[2J": false, "\xff": false, "a\u202eb": false, "\u200b": false, "\u2028": false,
	strings.Repeat("n", 256): false, "a/": false,
}

// S22: what is no name of a file in one directory is refused.
func TestCheckName(t *testing.T) {
	for name, good := range names {
		err := staging.CheckName("SourceFilename", name)
		if good {
			require.NoError(t, err, "%q", name)
			continue
		}
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err), "%q", name)
		require.ErrorContains(t, err, "SourceFilename")
	}
}

func FuzzCheckName(f *testing.F) {
	for name := range names {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if err := staging.CheckName("what", name); err != nil {
			require.LessOrEqual(t, len(err.Error()), 1000)
			require.True(t, utf8.ValidString(err.Error()))
			return
		}
		require.True(t, utf8.ValidString(name))
		require.NotContains(t, []string{"", ".", ".."}, name)
		require.Equal(t, name, filepath.Base(name))
		require.LessOrEqual(t, len(name), 255)
		require.False(t, strings.ContainsFunc(name, unicode.IsControl))
	})
}

// An item finds an empty directory whatever the one before it did, and what the
// one before remembers leads nowhere.
func TestDirectoriesAreReused(t *testing.T) {
	store, err := staging.Open(t.TempDir())
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	inode := func(d *staging.Dir) os.FileInfo {
		info, err := os.Stat(d.Name())
		require.NoError(t, err)
		return info
	}
	last, err := store.Create()
	require.NoError(t, err)
	tests := map[string]struct {
		use   func(d *staging.Dir) error
		again bool
	}{
		"nothing":     {func(*staging.Dir) error { return nil }, true},
		"made, gone":  {func(d *staging.Dir) error { return errors.Join(d.WriteFile("f", nil, 0o600), d.Remove("f")) }, true},
		"a file":      {func(d *staging.Dir) error { return d.WriteFile("f", []byte("secret"), 0o600) }, false},
		"a directory": {func(d *staging.Dir) error { return d.Mkdir("d", 0o700) }, false},
		"its mode":    {func(d *staging.Dir) error { return os.Chmod(d.Name(), 0o777) }, false},
		"unreadable":  {func(d *staging.Dir) error { return os.Chmod(d.Name(), 0) }, false},
		"moved away":  {func(d *staging.Dir) error { return os.Rename(d.Name(), d.Name()+"x") }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before, path := inode(last), last.Name()
			require.NoError(t, tt.use(last))
			require.NoError(t, last.Close())
			require.NoDirExists(t, path)
			_, err := last.Create("late")
			require.ErrorIs(t, err, os.ErrClosed)
			next, err := store.Create()
			require.NoError(t, err)
			require.NotEqual(t, path, next.Name())
			found, err := os.ReadDir(next.Name())
			require.NoError(t, err)
			require.Empty(t, found)
			info := inode(next)
			if os.PathSeparator == '/' {
				require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
				if tt.again { // a new one may get the number of the one before
					require.True(t, os.SameFile(before, info))
				}
			}
			last = next
		})
	}
	// One that is kept can go, as an empty folder does.
	path := last.Name()
	require.NoError(t, last.Close())
	kept, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	for _, e := range kept {
		require.NoError(t, os.Remove(filepath.Join(filepath.Dir(path), e.Name())))
	}
	last, err = store.Create()
	require.NoError(t, err)
	require.NoError(t, last.Close())

	var all []*staging.Dir
	for range 40 {
		d, err := store.Create()
		require.NoError(t, err)
		all = append(all, d)
	}
	for _, d := range all {
		require.NoError(t, d.Close())
	}
	kept, err = os.ReadDir(filepath.Dir(last.Name()))
	require.NoError(t, err)
	require.Len(t, kept, 16)
}

// A tenant's folder stays as long as somebody holds it, and has no other tenant's
// directories in it.
func TestS3Folders(t *testing.T) {
	s, err := staging.Open(t.TempDir())
	require.NoError(t, err)
	s.Separate()
	var folders []string
	for _, tenant := range []string{beacon.DefaultTenant, "other"} {
		folder, release, err := s.Folder(tenant)
		require.NoError(t, err)
		for range 3 {
			d, err := s.CreateFor(tenant)
			require.NoError(t, err)
			require.Equal(t, folder, filepath.Dir(d.Name()))
			require.NoError(t, d.Close())
			require.DirExists(t, folder)
		}
		folders = append(folders, folder)
		require.NoError(t, release())
	}
	require.Equal(t, filepath.Dir(folders[0]), filepath.Dir(folders[1]))
	require.NotEqual(t, folders[0], folders[1])
	_, release, err := s.Folder("other")
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, release(), "the store may be closed before")
}

// Each tenant has its own reused directories, and of many tenants that come once
// little is left.
func TestDirectoriesOfTenants(t *testing.T) {
	s, err := staging.Open(t.TempDir())
	require.NoError(t, err)
	use := func(tenant string) (folder string, info os.FileInfo) {
		d, err := s.CreateFor(tenant)
		require.NoError(t, err)
		info, err = os.Stat(d.Name())
		require.NoError(t, err)
		require.NoError(t, d.Close())
		require.NoDirExists(t, d.Name())
		return filepath.Dir(d.Name()), info
	}
	one, first := use("one")
	other, second := use("other")
	require.NotEqual(t, one, other)
	if os.PathSeparator == '/' {
		require.False(t, os.SameFile(first, second), "nobody gets what was another tenant's")
		_, again := use("one")
		require.True(t, os.SameFile(first, again))
	}
	var work sync.WaitGroup
	for n := range 4 {
		work.Go(func() {
			for i := range 300 {
				d, err := s.CreateFor(fmt.Sprint("tenant ", i%(100+n)))
				if !assert.NoError(t, err) {
					return
				}
				assert.NoError(t, d.WriteFile("f", nil, 0o600))
				assert.NoError(t, d.Close())
			}
		})
	}
	work.Wait()
	for i := range 300 {
		use(fmt.Sprint("tenant ", i))
	}
	left, err := os.ReadDir(filepath.Dir(one))
	require.NoError(t, err)
	require.LessOrEqual(t, len(left), 64+256)
	require.NoError(t, s.Close())
	require.NoDirExists(t, filepath.Dir(one))
}

// In a folder that a process of the tenant's can write to, nothing that it puts into
// a directory that is kept, or in its place, is in the next item's.
func TestS3KeptDirectories(t *testing.T) {
	if os.PathSeparator != '/' {
		t.Skip("no directories are kept here")
	}
	for name, tamper := range map[string]func(path, elsewhere string) error{
		"nothing":           func(string, string) error { return nil },
		"a file in it":      func(path, _ string) error { return os.WriteFile(filepath.Join(path, "f"), nil, 0o600) },
		"its mode":          func(path, _ string) error { return os.Chmod(path, 0o777) }, //nolint:gosec // the test's point
		"gone":              func(path, _ string) error { return os.Remove(path) },
		"a link elsewhere":  func(path, elsewhere string) error { return errors.Join(os.Remove(path), os.Symlink(elsewhere, path)) },
		"another directory": func(path, elsewhere string) error { return errors.Join(os.Remove(path), os.Rename(elsewhere, path)) },
		"a file":            func(path, _ string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := staging.Open(t.TempDir())
			require.NoError(t, err)
			s.Separate()
			defer func() { require.NoError(t, s.Close()) }()
			folder, release, err := s.Folder("tenant")
			require.NoError(t, err)
			defer func() { require.NoError(t, release()) }()
			d, err := s.CreateFor("tenant")
			require.NoError(t, err)
			first, err := os.Stat(d.Name())
			require.NoError(t, err)
			require.NoError(t, d.Close())
			kept, err := os.ReadDir(folder)
			require.NoError(t, err)
			require.Len(t, kept, 1)
			elsewhere := filepath.Join(t.TempDir(), "empty")
			require.NoError(t, os.Mkdir(elsewhere, 0o700))
			held, err := os.Open(elsewhere) // or its number may become that of a new directory
			require.NoError(t, err)
			defer held.Close() //nolint:errcheck // nothing was written
			before, err := held.Stat()
			require.NoError(t, err)
			require.NoError(t, tamper(filepath.Join(folder, kept[0].Name()), elsewhere))

			d, err = s.CreateFor("tenant")
			require.NoError(t, err)
			info, err := d.Stat(".")
			require.NoError(t, err)
			require.False(t, os.SameFile(before, info), "it is somebody else's")
			if name == "nothing" {
				require.True(t, os.SameFile(first, info))
			}
			require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
			inside, err := fs.ReadDir(d.FS(), ".")
			require.NoError(t, err)
			require.Empty(t, inside)
			require.NoError(t, d.Close())
		})
	}
}
