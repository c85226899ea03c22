// Command beacon runs providers for an Ultravisor server: modules that nobody
// here wrote, in a sandbox.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/sandbox"
)

// Exit codes. They are part of the command line's interface.
const (
	exitOK          = 0
	exitFailed      = 1 // the item failed: a non-zero ExitCode, or the provider's error
	exitUsage       = 2 // flags, arguments, configuration
	exitServer      = 3 // the server cannot be reached, or does not want us
	exitRefused     = 4 // a module that is invalid or not permitted
	exitLimit       = 5 // time, memory, output, files
	exitInterrupted = 130
)

func main() {
	sandbox.Main()
	forgetProgram()
	os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// streams are what a command reads and writes; tests give their own.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run is the whole program. The first signal asks the command to end, the
// second ends the process.
func run(args []string, s streams) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	release := context.AfterFunc(ctx, stop) // from now on a signal does what it always does
	defer release()

	root := newRootCommand(s)
	root.SetArgs(args)
	return report(root.ExecuteContext(ctx), s.err)
}

func newRootCommand(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:           "beacon",
		Short:         "Run providers for an Ultravisor server, untrusted ones in a sandbox",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.AddCommand(
		newRunCommand(s),
		newExecCommand(s),
		newSubmitCommand(s),
		newHubCommand(s),
		newTopCommand(s),
		newNewCommand(s),
		newBuildCommand(s),
		newTestCommand(s),
		newDevCommand(s),
		newReplayCommand(s),
		newInspectCommand(s),
		newLockCommand(s),
		newSignCommand(s),
		newVerifyCommand(s),
		newPushCommand(s),
		newPullCommand(s),
		newProvidersCommand(s),
		newDoctorCommand(s),
		newVersionCommand(s),
	)
	return root
}

// A coded error brings its exit code. An empty text was said already.
type coded struct {
	code int
	err  error
}

func (c *coded) Error() string { return c.err.Error() }
func (c *coded) Unwrap() error { return c.err }

func usage(err error) error { return &coded{exitUsage, err} }

func usagef(format string, args ...any) error { return usage(fmt.Errorf(format, args...)) }

// errSaid ends a command that has told its user already.
var errSaid = errors.New("")

// report says an error and turns it into an exit code: the one place where
// that is decided.
func report(err error, w io.Writer) int {
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintln(w, "beacon: "+err.Error())
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var c *coded
	if errors.As(err, &c) {
		return c.code
	}
	code := beacon.CodeOf(err)
	switch {
	case code.Limit():
		return exitLimit
	case code == beacon.Invalid || code == beacon.NotFound:
		return exitUsage
	case code == beacon.Unreachable || code == beacon.Rejected:
		return exitServer
	case code == beacon.Refused || code == beacon.Denied:
		return exitRefused
	case code == beacon.Canceled:
		return exitInterrupted
	case isCobraUsage(err):
		return exitUsage
	}
	return exitFailed
}

// isCobraUsage recognises cobra's complaints, which have no type.
func isCobraUsage(err error) bool {
	for _, start := range []string{"unknown command", "required flag", "accepts ", "requires at least"} {
		if strings.HasPrefix(err.Error(), start) {
			return true
		}
	}
	return false
}
