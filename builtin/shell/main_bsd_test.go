//go:build unix && !linux

package shell

var tasks map[string]func() int
