//go:build !unix

package executor

// nonblock is for systems whose file systems have pipes.
const nonblock = 0
