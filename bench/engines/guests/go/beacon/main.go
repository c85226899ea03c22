//go:build wasip1

// The Go guest as a provider, without the SDK: the setting Input becomes the
// output Result.
package main

import (
	"unsafe"

	"github.com/ultravisor/beacon/bench/engines/guests/go/work"
)

//go:wasmimport beacon_v1 setting
func setting(name unsafe.Pointer, n uint32, buffer unsafe.Pointer, size uint32, length unsafe.Pointer) uint32

//go:wasmimport beacon_v1 output
func output(name unsafe.Pointer, n uint32, value unsafe.Pointer, size uint32) uint32

var (
	in     = make([]byte, 4096)
	input  = []byte("Input")
	result = []byte("Result")
)

//go:wasmexport beacon_execute
func execute() int32 {
	var n uint32
	if errno := setting(unsafe.Pointer(&input[0]), 5, unsafe.Pointer(&in[0]), uint32(len(in)), unsafe.Pointer(&n)); errno != 0 {
		return int32(errno)
	}
	text, err := work.Upper(in[:n])
	if err != nil {
		return 1
	}
	// Of letters and spaces; the others return it without quotes.
	out := append(append([]byte{'"'}, text...), '"')
	return int32(output(unsafe.Pointer(&result[0]), 6, unsafe.Pointer(&out[0]), uint32(len(out))))
}

func main() {}
