//go:build race

package module_test

// race reports whether the race detector is on. It has nothing to find here, where
// there is one goroutine, and makes the engine's compiler many times slower: some
// of each test has to do.
const race = true
