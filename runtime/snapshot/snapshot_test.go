package snapshot_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/runtime/snapshot"
)

var page = os.Getpagesize()

// image is one with some content on every page but each third.
func image(t testing.TB, size int) (*snapshot.Image, []byte) {
	t.Helper()
	content := make([]byte, size)
	for at := 0; at < size; at += 512 {
		if at/page%3 != 2 {
			content[at] = byte(at>>9) | 1
		}
	}
	i, err := snapshot.NewImage(size, snapshot.Piece{Bytes: content})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, i.Close()) })
	return i, content
}

func memory(t testing.TB, i *snapshot.Image, max int, method snapshot.Method) *snapshot.Memory {
	t.Helper()
	m, err := i.NewMemory(max, method)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// all runs a test with every method that works here.
func all(t *testing.T, run func(*testing.T, snapshot.Method)) {
	i, _ := image(t, page)
	require.NotEmpty(t, i.Methods())
	for _, method := range i.Methods() {
		t.Run(method.String(), func(t *testing.T) { run(t, method) })
	}
}

// Whatever a guest does to its memory, afterwards it is as before. The bytes
// beyond its size are zero when it grows again.
func TestRestore(t *testing.T) {
	all(t, func(t *testing.T, method snapshot.Method) {
		for seed := range uint64(12) {
			random := rand.New(rand.NewPCG(seed, 1))
			size := random.IntN(40) * 16384
			if seed == 0 {
				size = 0
			}
			i, content := image(t, size)
			most := size + random.IntN(6<<20)
			m := memory(t, i, most, method)
			other := memory(t, i, most, method)
			for range 12 {
				require.Equal(t, size, m.Size())
				require.True(t, bytes.Equal(content, m.Bytes()), "seed %d", seed)
				play(t, random, m)
				if random.IntN(8) == 0 { // one time in another way
					m.Use(i.Methods()[random.IntN(len(i.Methods()))])
				}
				require.NoError(t, m.Restore())
				m.Use(method)
				if random.IntN(5) == 0 {
					require.NoError(t, m.Cool())
				}
			}
			require.True(t, bytes.Equal(content, i.Bytes()), "the image has changed")
			require.True(t, bytes.Equal(content, other.Bytes()), "another memory has changed")
		}
	})
}

// play does to a memory what guests do.
func play(t *testing.T, random *rand.Rand, m *snapshot.Memory) {
	for range random.IntN(20) {
		size := len(m.Bytes())
		switch random.IntN(6) {
		case 0: // grow, a little or a lot
			grown := size + random.IntN(1<<16)
			if random.IntN(4) == 0 {
				grown = size + random.IntN(m.Max())
			}
			if ok := m.Grow(grown); ok != (grown <= m.Max()) {
				t.Fatalf("grow from %d to %d of %d: %v", size, grown, m.Max(), ok)
			} else if !ok {
				continue
			}
			require.Equal(t, grown, m.Size())
			require.True(t, bytes.Equal(make([]byte, grown-size), m.Bytes()[size:]), "what is new is zero")
		case 1: // fill
			if size > 0 {
				from := random.IntN(size)
				b := m.Bytes()[from : from+random.IntN(size-from)]
				copy(b, bytes.Repeat([]byte{byte(size) | 1}, len(b)))
			}
		case 2: // read only
			sum := byte(0)
			for at := 0; at < size; at += page {
				sum += m.Bytes()[at]
			}
			_ = sum
		default:
			for range random.IntN(30) {
				if size > 0 {
					m.Bytes()[random.IntN(size)]++
				}
			}
		}
	}
}

func FuzzRestore(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint(3))
	f.Fuzz(func(t *testing.T, a, b uint64, pages uint) {
		random := rand.New(rand.NewPCG(a, b))
		i, content := image(t, int(pages%64)*page)
		methods := i.Methods()
		m := memory(t, i, i.Size()+random.IntN(9<<20), methods[random.IntN(len(methods))])
		for range 8 {
			play(t, random, m)
			require.NoError(t, m.Restore())
			require.True(t, bytes.Equal(content, m.Bytes()))
		}
	})
}

// What a guest has once had stays within bounds when it is gone.
func TestOwnIsBounded(t *testing.T) {
	all(t, func(t *testing.T, method snapshot.Method) {
		i, content := image(t, 6<<20)
		m := memory(t, i, 32<<20, method)
		for range 3 {
			require.True(t, m.Grow(20<<20))
			copy(m.Bytes(), bytes.Repeat([]byte{1}, m.Size()))
			require.NoError(t, m.Restore())
			if method != snapshot.Compare {
				require.LessOrEqual(t, m.Own(), 4<<20)
			}
			require.True(t, bytes.Equal(content, m.Bytes()))
		}
		require.NoError(t, m.Cool())
		require.True(t, bytes.Equal(content, m.Bytes()))
	})
}

func TestChanged(t *testing.T) {
	i, _ := image(t, 10*page)
	m := memory(t, i, 20*page, i.Methods()[0])
	require.Empty(t, m.Changed())
	require.True(t, m.Grow(15*page))
	for _, p := range []int{0, 2, 9, 12} {
		m.Bytes()[p*page+p] ^= 1
	}
	require.Equal(t, []int{0, 2, 9, 12}, m.Changed())
	require.Subset(t, m.Written(), []int{0, 2, 9, 12})
	require.NoError(t, m.Restore())
	require.Empty(t, m.Changed())
}

// What was written to is known, even if it is the same as before.
func TestWritten(t *testing.T) {
	i, _ := image(t, 10*page)
	if len(i.Methods()) < 3 {
		t.Skip("the system cannot tell")
	}
	m := memory(t, i, 20*page, i.Methods()[0])
	require.Empty(t, m.Written())
	for _, p := range []int{1, 2, 7} {
		copy(m.Bytes()[p*page:], i.Bytes()[p*page:p*page+8])
	}
	require.Equal(t, []int{1, 2, 7}, m.Written())
	require.Empty(t, m.Changed())
}

func TestPieces(t *testing.T) {
	i, err := snapshot.NewImage(3*page, snapshot.Piece{Offset: page - 2, Bytes: []byte("across")}, snapshot.Piece{Offset: page, Bytes: []byte{0, 'b'}})
	require.NoError(t, err)
	want := make([]byte, 3*page)
	copy(want[page-2:], "ac\x00bss")
	require.Equal(t, want, i.Bytes())
	require.NoError(t, i.Close())

	for _, p := range []snapshot.Piece{{Offset: -1}, {Offset: page + 1}, {Offset: page, Bytes: []byte{1}}, {Bytes: make([]byte, page+1)}} {
		_, err := snapshot.NewImage(page, p)
		require.ErrorContains(t, err, "outside of an image")
	}
}

// The image lives as long as a memory needs it.
func TestCloseOrder(t *testing.T) {
	i, err := snapshot.NewImage(page, snapshot.Piece{Bytes: []byte("content")})
	require.NoError(t, err)
	m, err := i.NewMemory(2*page, i.Methods()[0])
	require.NoError(t, err)
	require.NoError(t, i.Close())
	m.Bytes()[0] = 'x'
	require.NoError(t, m.Restore())
	require.Equal(t, "content", string(m.Bytes()[:7]))
	require.NoError(t, m.Close())
}

func TestRefused(t *testing.T) {
	i, _ := image(t, 2*page)
	_, err := i.NewMemory(page, snapshot.Compare)
	require.ErrorContains(t, err, "cannot hold an image")
	_, err = i.NewMemory(2*page, snapshot.Method(9))
	require.ErrorContains(t, err, "method 9")
}

func TestMeasure(t *testing.T) {
	i, _ := image(t, 64*page)
	timings, err := i.Measure([]int{0, 1, 7, 30, 63}, []int{0, 7, 70})
	require.NoError(t, err)
	var methods []snapshot.Method
	for _, timing := range timings {
		require.Positive(t, timing.Time)
		methods = append(methods, timing.Method)
	}
	require.ElementsMatch(t, i.Methods(), methods)
	fastest, _, err := i.Fastest([]int{1, 2}, []int{0, 7, 70})
	require.NoError(t, err)
	require.Contains(t, i.Methods(), fastest)
	require.True(t, slices.IsSortedFunc(timings, func(a, b snapshot.Timing) int { return int(a.Time - b.Time) }))
}

// BenchmarkRestore is one item that writes to some pages, and its end.
func BenchmarkRestore(b *testing.B) {
	for _, size := range []int{64 << 10, 128 << 10, 3 << 20, 16 << 20} {
		for _, dirty := range []int{1, 8, 32, 128} {
			i, _ := image(b, size)
			if dirty > size/page {
				continue
			}
			for _, method := range i.Methods() {
				b.Run(fmt.Sprintf("size=%dK/pages=%d/%s", size>>10, dirty, method), func(b *testing.B) {
					m := memory(b, i, 64<<20, method)
					for b.Loop() {
						for p := range dirty {
							m.Bytes()[p*(size/dirty)]++
						}
						if err := m.Restore(); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}

// What the kernel itself writes, as when a file is read into the memory, is a
// write like any other.
func TestKernelWrites(t *testing.T) {
	file, err := os.Open(os.Args[0])
	require.NoError(t, err)
	defer file.Close()
	all(t, func(t *testing.T, method snapshot.Method) {
		i, content := image(t, 20*page)
		m := memory(t, i, 40*page, method)
		for round := range 8 {
			require.True(t, m.Grow(30*page))
			for _, at := range []int{3, 10, 19, 25} {
				n, err := file.ReadAt(m.Bytes()[at*page+round:at*page+round+100], 0)
				require.NoError(t, err)
				require.Equal(t, 100, n)
			}
			require.Contains(t, m.Changed(), 10)
			require.NoError(t, m.Restore())
			require.True(t, bytes.Equal(content, m.Bytes()))
		}
	})
}

// Of a memory whose guest marks what it writes to nothing is asked: what is marked goes
// back to the image, and what is behind it, as far as a store may reach.
func TestRestoreMarked(t *testing.T) {
	const slack = 15
	all(t, func(t *testing.T, method snapshot.Method) {
		for seed := range uint64(20) {
			random := rand.New(rand.NewPCG(seed, 5))
			granule := 1024 << random.IntN(3)
			i, content := image(t, (1+random.IntN(64*granule/65536+1)%4)*65536/4)
			m := memory(t, i, 1<<20, method)
			for range 10 {
				marks := uint64(0)
				for range random.IntN(10) {
					at := random.IntN(i.Size() - 20)
					marks |= 1 << (at / granule)
					for n := range 1 + random.IntN(slack+1) {
						m.Bytes()[at+n]++
					}
				}
				if i.Size() > 64*granule { // they mean nothing then
					marks = random.Uint64()
				}
				switch random.IntN(5) {
				case 0:
					marks = 1<<64 - 1
					m.Bytes()[random.IntN(i.Size())]++
				case 1:
					require.True(t, m.Grow(i.Size()+65536))
					m.Bytes()[i.Size()]++
					marks = 0
				}
				require.NoError(t, m.RestoreMarked(marks, granule, slack))
				require.True(t, bytes.Equal(content, m.Bytes()))
				require.Empty(t, m.Changed())
			}
		}
	})
}

// Marks that lie are noticed, at least the first time.
func TestRestoreMarkedWrongly(t *testing.T) {
	i, _ := image(t, 65536)
	m := memory(t, i, 65536, i.Methods()[0])
	m.Bytes()[5000]++
	require.ErrorIs(t, m.RestoreMarked(1, 1024, 15), snapshot.ErrNotRestored)
}
