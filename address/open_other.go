//go:build !unix

package address

const nonblock = 0
