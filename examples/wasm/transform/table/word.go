package table

import (
	"bytes"
	"math/bits"
)

// Eight bytes at a time: a module has no SIMD, but 64-bit words. Patterns hold
// one byte eight times.

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

func pattern(c byte) uint64 { return ones * uint64(c) }

// load64 reads eight bytes at i; the compiler makes it one instruction. Buffers
// have padding so that this is possible at every byte of their data.
func load64(b []byte, i int) uint64 {
	b = b[i : i+8]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}

func store64(b []byte, i int, w uint64) {
	b = b[i : i+8]
	b[0], b[1], b[2], b[3] = byte(w), byte(w>>8), byte(w>>16), byte(w>>24)
	b[4], b[5], b[6], b[7] = byte(w>>32), byte(w>>40), byte(w>>48), byte(w>>56)
}

// zeros has the high bit of the lowest zero byte of w, and none below it; bits
// above the lowest one mean nothing. It is 0 if no byte is zero.
func zeros(w uint64) uint64 { return (w - ones) &^ w & highs }

// lowest is the index of the byte with the lowest bit of m.
func lowest(m uint64) int { return bits.TrailingZeros64(m) >> 3 }

// masks has the first n bytes set at n, up to 8.
var masks = [16]uint64{
	0, 1<<8 - 1, 1<<16 - 1, 1<<24 - 1, 1<<32 - 1, 1<<40 - 1, 1<<48 - 1, 1<<56 - 1, 1<<64 - 1,
}

func indexByte(b []byte, c byte) int { return bytes.IndexByte(b, c) }
