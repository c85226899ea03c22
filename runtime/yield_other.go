//go:build !linux

package runtime

func yieldProcessor() {}
