//go:build unix

package executor

import "syscall"

// nonblock makes opening a pipe that nobody reads an error, instead of waiting
// for ever.
const nonblock = syscall.O_NONBLOCK
