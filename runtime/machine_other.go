//go:build !linux

package runtime

func machineMemory() int64 { return otherMemory }
