//go:build !linux

package main

// forgetProgram is for kernels that count pages of files as memory of a process.
func forgetProgram() {}

func forgetMemory([]byte) {}
