//go:build !linux

package sandbox_test

func sendsBack() bool { return false }
