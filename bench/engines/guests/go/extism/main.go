//go:build wasip1

// The Go guest as a plugin of Extism. Its memory is another one: input and
// output are copied eight bytes at a time, as Extism's SDKs do it.
package main

import (
	"encoding/binary"

	"github.com/ultravisor/beacon/bench/engines/guests/go/work"
)

//go:wasmimport extism:host/env input_length
func inputLength() uint64

//go:wasmimport extism:host/env input_load_u64
func inputLoad8(at uint64) uint64

//go:wasmimport extism:host/env input_load_u8
func inputLoad(at uint64) uint32

//go:wasmimport extism:host/env alloc
func kernelAlloc(n uint64) uint64

//go:wasmimport extism:host/env store_u64
func store8(at, value uint64)

//go:wasmimport extism:host/env store_u8
func store(at uint64, value uint32)

//go:wasmimport extism:host/env output_set
func outputSet(at, n uint64)

var in []byte

//go:wasmexport run
func run() int32 {
	n := inputLength()
	if n > uint64(cap(in)) {
		in = make([]byte, n)
	}
	in = in[:n]
	i := uint64(0)
	for ; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(in[i:], inputLoad8(i))
	}
	for ; i < n; i++ {
		in[i] = byte(inputLoad(i))
	}
	text, err := work.Upper(in)
	if err != nil {
		return 1
	}
	n = uint64(len(text))
	to := kernelAlloc(n)
	for i = 0; i+8 <= n; i += 8 {
		store8(to+i, binary.LittleEndian.Uint64(text[i:]))
	}
	for ; i < n; i++ {
		store(to+i, uint32(text[i]))
	}
	outputSet(to, n)
	return 0
}

func main() {}
