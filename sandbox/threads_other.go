//go:build !linux

package sandbox

func threads(int) int { return 0 }
