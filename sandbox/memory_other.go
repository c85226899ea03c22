//go:build !linux

package sandbox

func privateMemory(int) int64 { return 0 }
