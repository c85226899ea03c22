package main

import "os"

// heapSlack is how much a worker's heap may grow beyond what Go gives it before it
// is collected: a worker has little that lives and makes much that does not, and Go
// collects from 4 MiB on, which is every 200 commands.
const heapSlack = 12 << 20

// slack is memory that nobody uses, so none of it is resident; but Go counts it as
// in use, and lets the heap grow by as much again before it collects. Other
// than a higher GOGC that adds no more to a large heap than to a small one. It is
// nil where somebody has said when Go is to collect.
func slack() []byte {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	held := make([]byte, heapSlack)
	forgetMemory(held) // Go may have cleared what was in use before
	return held
}
