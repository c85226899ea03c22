//go:build unix

package guestfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/guestfs"
)

// plant puts into dir whatever must not exist for the guest.
func plant(t *testing.T, dir string) []string {
	t.Helper()
	outside := filepath.Join(filepath.Dir(dir), "canary")
	in := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.Mkdir(in("real"), 0o700))
	require.NoError(t, os.WriteFile(in("real/file"), []byte("real"), 0o600))
	for name, target := range map[string]string{
		"relative":  "../canary",
		"absolute":  outside,
		"parent":    "..",
		"top":       "/",
		"process":   "/proc/self",
		"inside":    "real/file",
		"directory": "real",
		"here":      ".",
		"dangling":  "nothing",
		"loop":      "loop",
		"input-two": "input",
	} {
		require.NoError(t, os.Symlink(target, in(name)))
	}
	require.NoError(t, os.Symlink("../../canary", in("real/up")))
	require.NoError(t, os.Link(in("real/file"), in("hard")))
	require.NoError(t, syscall.Mkfifo(in("fifo"), 0o600))
	// The path of a socket must be short.
	short, err := os.MkdirTemp("", "s")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(short)) })
	listener, err := net.Listen("unix", filepath.Join(short, "s"))
	require.NoError(t, err)
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, os.Rename(filepath.Join(short, "s"), in("socket")))
	require.NoError(t, listener.Close())
	names := []string{
		"relative", "absolute", "parent", "top", "process", "inside", "directory", "here", "dangling", "loop",
		"input-two", "real/up", "hard", "real/file", "fifo", "socket",
	}
	// Only the superuser makes devices, and not everywhere.
	if err := syscall.Mknod(in("zero"), syscall.S_IFCHR|0o600, 1<<8|5); err == nil {
		names = append(names, "zero")
	}
	return names
}

// S19: what is neither a directory nor a regular file with one link is never
// opened, followed, changed, replaced, removed or listed.
func TestS19PlantedThingsDoNotExist(t *testing.T) {
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, dir string) {
		planted := plant(t, dir)
		write(t, f, "mine", []byte("x"))
		refused := func(what string, err error) {
			t.Helper()
			require.Error(t, err, what)
			requireNoHost(t, err, dir)
		}
		names2 := append([]string{}, planted...)
		for _, through := range []string{"parent", "directory", "here", "top", "process", "relative", "fifo", "socket", "hard"} {
			for _, rest := range []string{"canary", "file", "real/file", "input", "mine", "environ", "cwd", "new", "etc/passwd"} {
				names2 = append(names2, through+"/"+rest)
			}
		}
		for _, name := range names2 {
			for _, flags := range []guestfs.Flags{
				guestfs.Read, guestfs.Write, guestfs.Read | guestfs.Write | guestfs.Create, guestfs.Directory, guestfs.Truncate,
				guestfs.Write | guestfs.Create | guestfs.Exclusive, guestfs.Write | guestfs.Append | guestfs.Create,
			} {
				_, err := f.Open(name, flags)
				refused(fmt.Sprintf("open %s %b", name, flags), err)
			}
			_, err := f.Stat(name)
			refused("stat "+name, err)
			_, err = f.ReadDir(name)
			refused("list "+name, err)
			refused("mkdir "+name, f.Mkdir(name))
			refused("remove "+name, f.Remove(name))
			refused("rmdir "+name, f.RemoveDir(name))
			refused("rename from "+name, f.Rename(name, "moved"))
			refused("rename to "+name, f.Rename("mine", name))
			refused("set times of "+name, f.SetTimes(name, time.Now(), time.Now()))
		}
		entries, err := f.ReadDir(".")
		require.NoError(t, err)
		require.Equal(t, []string{"input", "mine", "real"}, names(entries))
		entries, err = f.ReadDir("real")
		require.NoError(t, err)
		require.Empty(t, entries)
		for _, name := range planted {
			_, err := os.Lstat(filepath.Join(dir, name))
			require.NoError(t, err, "%s was removed", name)
		}
		require.Equal(t, guestfs.Usage{Bytes: 1, Written: 1, Entries: 1}, f.Usage())
		require.NoError(t, f.Limit())
	})
}

// A planted link changes meaning when its directory is moved; it stays closed.
func TestS19MovedLinksStayClosed(t *testing.T) {
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, dir string) {
		require.NoError(t, f.Mkdir("a"))
		require.NoError(t, f.Mkdir("a/b"))
		require.NoError(t, os.Symlink("../../canary", filepath.Join(dir, "a/b/link"))) // inside, for now
		require.NoError(t, f.Rename("a/b", "b"))
		for _, name := range []string{"b/link", "b/link/x"} {
			_, err := f.Open(name, guestfs.Read|guestfs.Write|guestfs.Create)
			require.Error(t, err)
		}
	})
}

// S19: a name is exchanged again and again while it is used. Second names of files
// are not among what it is exchanged for: while one of them is being replaced, the
// kernel still finds the file by it, and already counts one name less (seen on
// ext4), so that nobody can tell. Guests cannot make them; those that are there
// are refused, see above.
func TestS19ExchangedMeanwhile(t *testing.T) {
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, dir string) {
		in := func(name string) string { return filepath.Join(dir, name) }
		base := filepath.Dir(dir)
		secrets := in("secrets") // stands for a directory outside
		require.NoError(t, os.Mkdir(secrets, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(secrets, "file"), []byte("secret"), 0o400))
		require.NoError(t, os.Mkdir(in("plain"), 0o700))
		require.NoError(t, os.WriteFile(in("plain/file"), []byte("plain"), 0o600))

		var host sync.WaitGroup
		var exchanged atomic.Int64
		stop := make(chan struct{})
		host.Go(func() {
			makers := []func(name string) error{
				func(name string) error { return os.WriteFile(name, []byte("plain"), 0o600) },
				func(name string) error { return os.Symlink(filepath.Join(base, "canary"), name) },
				func(name string) error { return os.Symlink("../canary", name) },
				func(name string) error { return syscall.Mkfifo(name, 0o600) },
			}
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				// "x" becomes something else; "d" a directory, or a link to one outside.
				if err := makers[i%len(makers)](in("next")); err != nil {
					t.Error(err)
					return
				}
				if err := os.Rename(in("next"), in("x")); err != nil {
					t.Error(err)
					return
				}
				_ = os.Rename(in("plain"), in("d"))
				_ = os.Rename(in("d"), in("plain"))
				_ = os.Symlink(base, in("d"))
				_ = os.Remove(in("d"))
				exchanged.Add(1)
			}
		})
		// Until both sides have had their turns, however the two are scheduled.
		opened := 0
		for i := 0; !t.Failed() && (i < 4000 || exchanged.Load() < 200 || opened == 0); i++ {
			for _, name := range []string{"x", "d/file", "d/canary"} {
				x, err := f.Open(name, guestfs.Read)
				if err != nil {
					requireNoHost(t, err, dir)
					continue
				}
				b := make([]byte, 100)
				n, _ := x.Read(b)
				if got := string(b[:n]); got != "plain" && got != "" { // empty: just being made
					t.Errorf("read %q through %q", got, name)
				}
				opened++
				require.NoError(t, x.Close())
			}
			// What is made here is made in the plain directory, or not at all: the
			// canary is looked at in the end.
			if x, err := f.Open("d/canary", guestfs.Write|guestfs.Create); err == nil {
				_, err := x.Write([]byte("plain"))
				require.NoError(t, errors.Join(err, x.Close()))
			}
		}
		close(stop)
		host.Wait()
	})
}

// S24: names that hosts find odd are names like others, and errors are fit for
// a line of a log.
func TestS24OddNames(t *testing.T) {
	onTrees(t, guestfs.Config{}, func(t *testing.T, f *guestfs.FS, dir string) {
		odd := []string{"-rf", "a\nb", "\x1b[31mred", "\u202eevil", "...", " ", "*", `back\slash`, "a:b", "é", strings.Repeat("x", 255)}
		if err := os.WriteFile(filepath.Join(dir, "\xff\xfe"), nil, 0o600); err == nil {
			require.NoError(t, os.Remove(filepath.Join(dir, "\xff\xfe")))
			odd = append(odd, "\xff\xfe") // not every host takes it
		}
		for _, name := range odd {
			write(t, f, name, []byte(name))
		}
		entries, err := f.ReadDir(".")
		require.NoError(t, err)
		require.ElementsMatch(t, append(odd, "input"), names(entries))
		for _, name := range odd {
			require.Equal(t, name, read(t, f, name))
			_, err := f.Open(name, guestfs.Create|guestfs.Exclusive)
			require.ErrorIs(t, err, fs.ErrExist)
			require.NotContains(t, err.Error(), "\n")
			require.NotContains(t, err.Error(), "\x1b")
			require.Less(t, len(err.Error()), 600)
			require.NoError(t, f.Remove(name))
		}
		requireAccounts(t, f, dir, nil)
	})
}

// S21: any depth, many entries, odd names and rights; no link is followed.
func TestS21Empty(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "item")
	outside := filepath.Join(base, "outside")
	for _, name := range []string{dir, outside} {
		require.NoError(t, os.Mkdir(name, 0o700))
	}
	require.NoError(t, os.WriteFile(filepath.Join(outside, "keep"), []byte(canary), 0o600))
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()

	// Deeper than a path may be long, and than descriptors go; more entries than
	// a listing brings at once.
	const depth, entries = 1500, 20_000
	at, err := os.OpenRoot(dir)
	require.NoError(t, err)
	for range depth {
		require.NoError(t, at.Mkdir("deep", 0o700))
		next, err := at.OpenRoot("deep")
		require.NoError(t, err)
		require.NoError(t, at.Close())
		at = next
	}
	require.NoError(t, at.WriteFile("bottom", nil, 0o600))
	require.NoError(t, at.Close())

	require.NoError(t, root.Mkdir("many", 0o700))
	many, err := root.OpenRoot("many")
	require.NoError(t, err)
	for i := range entries {
		f, err := many.Create(fmt.Sprint(i))
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	require.NoError(t, many.Close())

	for _, name := range []string{"-rf", "a\nb", ".empty-1", ".empty-3", "...", strings.Repeat("x", 255)} {
		require.NoError(t, root.MkdirAll(name+"/sub/"+name, 0o700))
	}
	require.NoError(t, root.MkdirAll("closed/inner/most", 0o700))
	require.NoError(t, root.Chmod("closed/inner", 0))
	require.NoError(t, root.Chmod("closed", 0))
	require.NoError(t, root.MkdirAll("links", 0o700))
	for _, target := range []string{outside, "../../outside", "/", "..", "nothing"} {
		require.NoError(t, os.Symlink(target, filepath.Join(dir, "links", fmt.Sprint(len(target)))))
	}
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "link")))
	require.NoError(t, os.Link(filepath.Join(outside, "keep"), filepath.Join(dir, "hard")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))

	require.NoError(t, guestfs.Empty(root))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	got, err := os.ReadFile(filepath.Join(outside, "keep"))
	require.NoError(t, err)
	require.Equal(t, canary, string(got))
	require.NoError(t, guestfs.Empty(root))
}
