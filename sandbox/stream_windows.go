package sandbox

import (
	"errors"
	"io"
	"os"
	"os/exec"

	"github.com/ultravisor/beacon/sandbox/wire"
)

// pipes are a connection of two.
type pipes struct {
	io.Reader
	io.WriteCloser
	read io.Closer
}

func (p pipes) Close() error { return errors.Join(p.WriteCloser.Close(), p.read.Close()) }

// connect gives a command that has not started its end of a connection, and
// returns ours. started must be called when the command has started or failed to.
func connect(cmd *exec.Cmd) (stream io.ReadWriteCloser, started func(), err error) {
	in, toProcess, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	fromProcess, out, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, in.Close(), toProcess.Close())
	}
	cmd.Stdin, cmd.Stdout = in, out
	return pipes{fromProcess, toProcess, fromProcess}, func() {
		_, _ = in.Close(), out.Close() // they were handed on
	}, nil
}

// supervisor is this process's end of its connection.
func supervisor() (io.ReadWriteCloser, error) {
	in, out := os.Stdin, os.Stdout
	os.Stdin, os.Stdout = nil, os.Stderr
	return pipes{in, out, in}, nil
}

// exitCPU is an exit code that there is not.
const exitCPU = -1

// endAtLimit does nothing: there is no limit.
func endAtLimit() {}

// kill ends a process.
func kill(cmd *exec.Cmd) { _ = cmd.Process.Kill() } // that it has ended already is as good

// wasKilled reports whether a process was ended by somebody else.
func wasKilled(*os.ProcessState) bool { return false }

// openLane is for systems that have lanes.
func openLane(n int) (*wire.Lane, error) { return wire.OpenLane(n) }

// closeInherited has nothing to do: only the handles that are named are inherited.
func closeInherited() {}
