//go:build wasip1

// The Go guest with the plain interface: alloc(n) -> pointer, run(pointer, n)
// -> pointer<<32 | n.
package main

import (
	"unsafe"

	"github.com/ultravisor/beacon/bench/engines/guests/go/work"
)

var in, out []byte

//go:wasmexport alloc
func alloc(n int32) int32 {
	if int(n) > cap(in) {
		in = make([]byte, n)
	}
	return int32(uintptr(unsafe.Pointer(&in[:1][0])))
}

//go:wasmexport run
func run(p, n int32) int64 {
	var err error
	if out, err = work.Upper(unsafe.Slice((*byte)(unsafe.Pointer(uintptr(p))), n)); err != nil {
		return 0
	}
	return int64(uintptr(unsafe.Pointer(&out[0])))<<32 | int64(len(out))
}

// warm is for what is initialised in advance: one item has been done.
//
//go:wasmexport warm
func warm() {
	item := []byte(`{"id":"a","tags":["b"],"n":1,"text":"the quick brown fox"}`)
	p := alloc(256)
	n := copy(in[:256], item)
	run(p, int32(n))
}

func main() {}
