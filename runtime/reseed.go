package runtime

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"io"
	mrand "math/rand/v2"
)

// A goRandom is where in a guest's memory the Go runtime has the state of its
// random numbers. Package math/rand/v2, the order of maps and of select come
// from there: of a snapshot they would be the same in every item. Renewed before
// each item, they are as in a program that has just been started.
//
// What the runtime has made of its random numbers before the snapshot stays, as
// it does in a server that runs for long: the keys with which it hashes.
type goRandom struct {
	states []int
	// cheap is a generator of less quality, for decisions of the scheduler; 0 if
	// it was not found.
	cheap int
}

// The layout of a generator, internal/chacha8rand.State: 32 numbers of 64 bits
// that were made, the seed of 32 bytes, and three of 32 bits: how many of the
// numbers are used, how many there are, and a counter of blocks.
const (
	goNumbers = 32
	goSeed    = goNumbers * 8
	goUsed    = goSeed + 32
	goMade    = goUsed + 4
	goBlock   = goUsed + 8
	goState   = goUsed + 12
	// The cheap generator follows that of the thread: two numbers of 32 bits.
	goCheap = goState + 4
)

// findGoRandom looks for the runtime's generators in the memory of a guest
// whose first 32 random bytes are given. Its first generator is seeded with
// them; four numbers of it seed the second one, of the only thread there is, and
// the next four become the first one's new seed (runtime.randinit, mrandinit).
// So all that both have made is known, and stands in the memory as it is: if
// not both are found, each once, this is not the Go runtime that is known here,
// and nothing will be touched.
func findGoRandom(memory, first []byte) goRandom {
	if len(first) != 32 {
		return goRandom{}
	}
	type made struct {
		numbers []byte // those of a block that are never seeds
		before  int    // how many numbers of the first generator were used before
	}
	first64 := map[int]uint64{} // what each generator makes first, by before
	expected := map[uint64]made{}
	boot := mrand.NewChaCha8([32]byte(first))
	var drawn []uint64
	for range 64 {
		drawn = append(drawn, boot.Uint64())
	}
	for before := range 40 {
		var seed [32]byte
		for i := range 4 {
			binary.LittleEndian.PutUint64(seed[i*8:], drawn[before+i])
		}
		generator := mrand.NewChaCha8(seed)
		for block := range 256 {
			n := goNumbers
			if block%4 == 3 {
				n -= 4 // the last ones seed the next blocks
			}
			var numbers []byte
			for range n {
				numbers = binary.LittleEndian.AppendUint64(numbers, generator.Uint64())
			}
			if block == 0 {
				first64[before] = binary.LittleEndian.Uint64(numbers)
			}
			expected[binary.LittleEndian.Uint64(numbers)] = made{numbers[:(goNumbers-4)*8], before}
		}
	}
	found := map[int][]int{}
	for at := 0; at+goState <= len(memory); at += 8 {
		m, ok := expected[binary.LittleEndian.Uint64(memory[at:])]
		if !ok || !bytes.Equal(memory[at:at+len(m.numbers)], m.numbers) {
			continue
		}
		used, made := binary.LittleEndian.Uint32(memory[at+goUsed:]), binary.LittleEndian.Uint32(memory[at+goMade:])
		if block := binary.LittleEndian.Uint32(memory[at+goBlock:]); used <= made && made <= goNumbers && block <= 12 && block%4 == 0 {
			found[m.before] = append(found[m.before], at)
		}
	}
	for before, states := range found {
		if next := found[before+4]; len(found) == 2 && len(states) == 1 && len(next) == 1 {
			g := goRandom{states: []int{states[0], next[0]}}
			if at := states[0] + goCheap; at+8 <= len(memory) && follows(first64[before], memory[at:at+8]) {
				g.cheap = at
			}
			return g
		}
	}
	return goRandom{}
}

// follows reports whether a state of the cheap generator, two halves of its 64
// bits, comes after the first one (runtime.cheaprand where numbers of 64 bits
// cannot be multiplied to 128).
func follows(first uint64, state []byte) bool {
	const most = 1 << 20
	s1, s0 := uint32(first), uint32(first>>32)
	want1, want0 := binary.LittleEndian.Uint32(state), binary.LittleEndian.Uint32(state[4:])
	for range most {
		if s1 == want1 && s0 == want0 {
			return true
		}
		s1 ^= s1 << 17
		s1, s0 = s0, s1^s0^s1>>7^s0>>16
	}
	return false
}

// known reports whether the generators were found.
func (g goRandom) known() bool { return len(g.states) > 0 }

// within reports whether all is inside of a memory of that size.
func (g goRandom) within(size int) bool {
	for _, at := range g.states {
		if at < 0 || at > size-goState {
			return false
		}
	}
	return g.cheap >= 0 && (g.cheap == 0 || g.cheap <= size-8)
}

// renew gives the generators new seeds, and has them make new numbers before
// they give the next one.
func (g goRandom) renew(memory []byte) (renewed bool) {
	for _, at := range g.states {
		_, _ = rand.Read(memory[at+goSeed : at+goUsed]) // never fails
		binary.LittleEndian.PutUint32(memory[at+goUsed:], goNumbers)
		binary.LittleEndian.PutUint32(memory[at+goMade:], goNumbers)
		binary.LittleEndian.PutUint32(memory[at+goBlock:], 0)
	}
	if g.cheap > 0 {
		_, _ = rand.Read(memory[g.cheap : g.cheap+8])
		memory[g.cheap] |= 1 // all zeros would stay so
	}
	return len(g.states) > 0 || g.cheap > 0
}

// A randomTap is the host's random source, and keeps the first bytes that were
// asked for.
type randomTap struct {
	asked bool
	first []byte
}

func (r *randomTap) Read(p []byte) (int, error) {
	n, err := io.ReadFull(rand.Reader, p)
	if !r.asked {
		r.asked, r.first = true, bytes.Clone(p)
	}
	return n, err
}
