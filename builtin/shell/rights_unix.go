//go:build unix

package shell

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/ultravisor/beacon"
)

func supported(Config) error { return nil }

// limiting has the shell set limits, which every process that it starts has
// from then on, and become the command. The arguments are option and value in
// turn, then "--" and the command.
const limiting = `while [ "$1" != -- ]; do
	case $1 in
	-u) ulimit -u "$2" 2>/dev/null || ulimit -p "$2" 2>/dev/null ;;
	*) ulimit "$1" "$2" ;;
	esac || exit 126
	shift 2
done
shift
exec "$@"`

// apply puts the limits around a command.
func (l Limits) apply(cmd *exec.Cmd) {
	if l == (Limits{}) {
		return
	}
	args := []string{"/bin/sh", "-c", limiting, "beacon"}
	for _, limit := range []struct {
		option string
		value  int64
	}{
		{"-t", l.CPUSeconds}, {"-v", (l.MemoryBytes + 1023) / 1024}, {"-f", (l.FileBytes + 511) / 512}, {"-n", l.OpenFiles}, {"-u", l.Processes},
	} {
		if limit.value > 0 {
			args = append(args, limit.option, strconv.FormatInt(limit.value, 10))
		}
	}
	args = append(args, "--", cmd.Path)
	cmd.Args = append(args, cmd.Args[1:]...)
	cmd.Path = args[0]
}

// An identity is the user that commands run as.
type identity struct{ uid, gid uint32 }

func identityOf(user string) (*identity, error) {
	if user == "" {
		return nil, nil
	}
	uid, gid, both := strings.Cut(user, ":")
	u, err := strconv.ParseUint(uid, 10, 32)
	g := u
	if err == nil && both {
		g, err = strconv.ParseUint(gid, 10, 32)
	}
	if err != nil {
		return nil, beacon.Errorf(beacon.Invalid, "User %q is not a number, or two with a colon between", beacon.Excerpt(user, 80))
	}
	if os.Geteuid() != 0 {
		return nil, beacon.Errorf(beacon.Invalid, "User is set, but the worker is not root: only root can run commands as somebody else")
	}
	return &identity{uint32(u), uint32(g)}, nil //nolint:gosec // 32 bits
}

func (i *identity) apply(cmd *exec.Cmd) {
	if i == nil {
		return
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: i.uid, Gid: i.gid}
}

// own gives the item's directory and its sources to the user, and a way there.
func (i *identity) own(job *beacon.Job) error {
	if i == nil {
		return nil
	}
	// Above it are folders of the worker, whose names nobody can list.
	if err := os.Chmod(filepath.Dir(job.Dir.Name()), 0o711); err != nil { //nolint:gosec // see above
		return fmt.Errorf("open the way to the item's directory: %w", err)
	}
	if err := os.Lchown(job.Dir.Name(), int(i.uid), int(i.gid)); err != nil {
		return fmt.Errorf("give the item's directory to the user: %w", err)
	}
	for _, name := range job.Sources {
		if err := job.Dir.Lchown(name, int(i.uid), int(i.gid)); err != nil {
			return fmt.Errorf("give the source to the user: %w", err)
		}
	}
	return nil
}
