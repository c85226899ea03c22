// A provider in Go that says what it finds: what earlier items left, what its
// random numbers are.
package main

import (
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ultravisor/beacon/guest-sdk/go/guest"
)

var (
	items   int
	warmed  string
	own     *rand.Rand
	started time.Time
	words   = map[string]int{"a": 1, "b": 2}
)

func hex(v uint64) string { return strconv.FormatUint(v, 16) }

func seed() error {
	var b [16]byte
	_, err := crand.Read(b[:])
	own = rand.New(rand.NewPCG(binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])))
	return err
}

func init() {
	guest.Serve(guest.Provider{
		Name: "reactor", Capability: "Reactor",
		Actions: []guest.Action{
			{Name: "Random", Run: random},
			{Name: "Leave", Run: leave},
			{Name: "Warm", Run: warm},
		},
		Initialize: func() error { started = time.Now(); return seed() },
		Reseed:     seed,
		WarmUp:     &guest.WarmUp{Action: "Warm", Source: "in.txt", Content: "from the file", Settings: map[string]string{"A": "B"}},
	})
}

// random reports a number of each kind: math/rand/v2, crypto/rand, the order of
// a map, the choice of a select, and the generator that Reseed makes.
func random(item *guest.Item) error {
	var b [8]byte
	if _, err := crand.Read(b[:]); err != nil {
		return err
	}
	order := uint64(0)
	m := map[int]int{}
	for i := range 64 {
		m[i] = i
	}
	for k := range m {
		order = order*31 + uint64(k)
	}
	choices := uint64(0)
	one, two := make(chan int, 64), make(chan int, 64)
	for range 64 {
		one <- 0
		two <- 1
	}
	for range 64 {
		select {
		case v := <-one:
			choices = choices<<1 | uint64(v)
		case v := <-two:
			choices = choices<<1 | uint64(v)
		}
	}
	item.Set("Global", hex(rand.Uint64()))
	item.Set("Secure", hex(binary.LittleEndian.Uint64(b[:])))
	item.Set("Order", hex(order))
	item.Set("Select", hex(choices))
	item.Set("Own", hex(own.Uint64()))
	item.Set("Monotonic", strconv.FormatBool(time.Since(started) >= 0))
	item.Result("ok")
	return nil
}

// leave tells what it finds, and leaves as much as it can.
func leave(item *guest.Item) error {
	entries, err := os.ReadDir(".")
	if err != nil {
		return err
	}
	item.Result("items " + strconv.Itoa(items) + ", words " + strconv.Itoa(len(words)) + ", warmed " + warmed +
		", files " + strconv.Itoa(len(entries)) + ", environment " + os.Getenv("LEFT"))
	items++
	for i := range 2000 {
		words[strings.Repeat("w", i%50)+strconv.Itoa(i)] = i
	}
	f, err := os.Create("left.txt")
	if err != nil {
		return err
	}
	if _, err := f.WriteString("a message"); err != nil {
		return err
	}
	// The file is left open, and a goroutine waits for ever.
	go func() { select {} }()
	return os.Setenv("LEFT", "something")
}

func warm(item *guest.Item) error {
	content, err := item.ReadSource()
	if err != nil {
		return err
	}
	warmed = string(content)
	return nil
}

func main() {}
