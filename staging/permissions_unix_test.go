//go:build unix

package staging_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

func TestOutputIsAPipe(t *testing.T) {
	dir := item(t)
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir.Name(), "pipe"), 0o600))
	_, _, err := dir.Output("pipe") // nobody writes: reading would never end
	require.Equal(t, beacon.Denied, beacon.CodeOf(err))
}

// The superuser may everything, so he runs the tests of permissions again as
// somebody else.
func TestPermissionsCount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("permissions count already")
	}
	const nobody = 65534
	home := t.TempDir()
	for dir := home; len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	self, err := os.Open(os.Args[0])
	require.NoError(t, err)
	defer self.Close()
	binary := filepath.Join(home, "staging.test")
	to, err := os.OpenFile(binary, os.O_CREATE|os.O_WRONLY, 0o755)
	require.NoError(t, err)
	_, err = io.Copy(to, self)
	require.NoError(t, err)
	require.NoError(t, to.Close())
	work := filepath.Join(home, "work")
	require.NoError(t, os.Mkdir(work, 0o700))
	require.NoError(t, os.Chown(work, nobody, nobody))

	cmd := exec.Command(binary, "-test.run=TestCloseRemovesEverything|TestKilledWorkerWithoutPermissions|TestOutputMayNotBeRead", "-test.v")
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "TMPDIR="+work, "HOME="+work)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true}}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("others may not enter %s: set TMPDIR to a folder that they may", os.TempDir())
	}
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "PASS: TestCloseRemovesEverything/no_permissions")
	require.Contains(t, string(out), "PASS: TestKilledWorkerWithoutPermissions")
	require.Contains(t, string(out), "PASS: TestOutputMayNotBeRead")
}

func TestKilledWorkerWithoutPermissions(t *testing.T) {
	folder := t.TempDir()
	killed := start(t, folder)
	killed.kill(t)
	for _, name := range []string{"a/b/c", "a/b", "a", ".", ".."} {
		require.NoError(t, os.Chmod(filepath.Join(killed.dir, name), 0))
	}
	store := open(t, folder)
	require.NoDirExists(t, killed.folder())
	require.NoError(t, store.Close())
	require.Empty(t, entries(t, folder))
}

func TestOutputMayNotBeRead(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("the superuser may: see TestPermissionsCount")
	}
	dir := item(t)
	require.NoError(t, dir.WriteFile("mine", []byte("x"), 0))
	_, _, err := dir.Output("mine")
	require.ErrorIs(t, err, os.ErrPermission)
	require.NotContains(t, err.Error(), dir.Name())
}
