package module_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"

	"github.com/ultravisor/beacon/runtime/module"
)

// bombs are small modules that keep an engine busy for long, each of a size n.
var bombs = map[string]func(n int) string{
	"branches": func(n int) string {
		return "\x02\x40" + strings.Repeat("\x20\x00\x0d\x00", n) + "\x0b\x0b"
	},
	"blocks":     func(n int) string { return strings.Repeat("\x02\x40", n) + strings.Repeat("\x0b", n) + "\x0b" },
	"loops":      func(n int) string { return strings.Repeat("\x03\x40", n) + strings.Repeat("\x0b", n) + "\x0b" },
	"neighbours": func(n int) string { return strings.Repeat("\x03\x40\x20\x00\x0d\x00\x0b", n) + "\x0b" },
	"ifs":        func(n int) string { return strings.Repeat("\x20\x00\x04\x40\x01\x0b", n) + "\x0b" },
	"ifs in ifs": func(n int) string { return strings.Repeat("\x20\x00\x04\x40", n) + strings.Repeat("\x0b", n) + "\x0b" },
	"table":      func(n int) string { return "\x20\x00\x0e" + leb(uint64(n)) + strings.Repeat("\x00", n+1) + "\x0b" },
	"tables": func(n int) string {
		return strings.Repeat("\x02\x40\x20\x00\x0e\x64"+strings.Repeat("\x00", 101)+"\x0b", n) + "\x0b"
	},
	"returns":     func(n int) string { return strings.Repeat("\x20\x00\x04\x40\x0f\x0b", n) + "\x0b" },
	"calls":       func(n int) string { return strings.Repeat("\x20\x00\x10\x00", n) + "\x0b" },
	"arithmetic":  func(n int) string { return strings.Repeat("\x20\x00\x20\x00\x6a\x21\x00", n) + "\x0b" },
	"grow":        func(n int) string { return strings.Repeat("\x20\x00\x40\x00\x21\x00", n) + "\x0b" },
	"bulk":        func(n int) string { return strings.Repeat("\x20\x00\x20\x00\x20\x00\xfc\x0b\x00", n) + "\x0b" },
	"deep values": func(n int) string { return strings.Repeat("\x20\x00", n) + strings.Repeat("\x1a", n) + "\x0b" },
	"switch":      func(n int) string { return switching(n, func(i int) int { return min(i+2, n-1) }) },
	"switch back": func(n int) string { return switching(n, func(i int) int { return i / 2 }) },
	"globals":     func(n int) string { return strings.Repeat("\x23\x00\x21\x00\x20\x00\x24\x00", n) + "\x0b" },
}

// switching is a loop of n places to go to, where one may go on to another from each.
func switching(n int, next func(place int) int) string {
	var code strings.Builder
	code.WriteString("\x03\x40" + strings.Repeat("\x02\x40", n) + "\x20\x00\x0e" + leb(uint64(n-1)))
	for i := range n {
		code.WriteString(leb(uint64(i)))
	}
	for i := range n {
		code.WriteString("\x0b\x20\x00\x04\x40\x41" + positive(next(i)) + "\x21\x00\x0c" + leb(uint64(n-i)) + "\x0b")
	}
	return code.String() + "\x0b\x0b"
}

// positive is a number of i32.const.
func positive(n int) string {
	if b := leb(uint64(n)); b[len(b)-1]&0x40 == 0 {
		return b
	}
	b := []byte(leb(uint64(n)))
	b[len(b)-1] |= 0x80
	return string(append(b, 0))
}

// bomb is a module with one function (i32) -> () of that code and many locals.
func bomb(code string, locals int) []byte {
	return []byte(header + section(1, "\x01\x60\x01\x7f\x00") + section(3, "\x01\x00") + section(5, "\x01\x00\x01") +
		section(6, "\x01\x7f\x01\x41\x00\x0b") + section(10, "\x01"+body("\x01"+leb(uint64(locals))+"\x7f"+code)))
}

// S7: the largest of each that the limits let through compiles in bounded time. How
// long it takes is printed, in both grades; where proofs are not asked for, of
// those of an eighth of the size, which takes a fiftieth of the time.
func TestCompileBombs(t *testing.T) {
	divisor := 8
	switch {
	case os.Getenv("BEACON_PROOFS") != "":
		divisor = 1
	case short():
		divisor = 64
	}
	var worst time.Duration
	var name string
	for shape, code := range bombs {
		for _, locals := range []int{0, 80} {
			t.Run(fmt.Sprintf("%s, %d locals", shape, locals), func(t *testing.T) {
				largest := func() int { // by bisection
					low, high := 1, 1<<20
					for low < high-1 {
						middle := (low + high) / 2
						if _, _, err := meter(bomb(code(middle), locals), module.Limits{}); err == nil {
							low = middle
						} else {
							require.True(t, excused(err), "%v", err)
							high = middle
						}
					}
					return low
				}()
				largest = max(1, largest/divisor)
				line := fmt.Sprintf("%7d", largest)
				for _, grade := range []string{"deadline", "exact"} {
					r, err := module.Rewrite(bomb(code(largest), locals), module.Options{Grade: grades[grade]})
					require.NoError(t, err)
					engine := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfig().WithCoreFeatures(features))
					begin := time.Now()
					_, err = engine.CompileModule(t.Context(), r.Binary)
					took := time.Since(begin)
					require.NoError(t, err)
					require.NoError(t, engine.Close(context.Background()))
					line += fmt.Sprintf(", %s %d KB in %s", grade, len(r.Binary)>>10, took.Round(time.Millisecond))
					if took > worst {
						worst, name = took, shape
					}
				}
				t.Log(line)
			})
		}
	}
	t.Logf("worst: %s (%s)", worst.Round(time.Millisecond), name)
}

// S5: what loops add to a module is in proportion to it, whatever variables they
// have to take along.
func TestLoopsInProportion(t *testing.T) {
	code := "\x01\x3c\x7f" + strings.Repeat("\x03\x40\x0b", 500) + "\x0b" // 60 variables
	many := strings.Repeat(body(code), 300)
	file := header + section(1, "\x01\x60\x00\x00") + section(3, leb(300)+strings.Repeat("\x00", 300)) + section(10, leb(300)+many)
	switches := strings.Repeat(body("\x01\x3c\x7f"+switching(100, func(int) int { return 0 })), 300)
	switched := header + section(1, "\x01\x60\x00\x00") + section(3, leb(300)+strings.Repeat("\x00", 300)) + section(10, leb(300)+switches)
	for name, grade := range grades {
		for _, file := range []string{file, switched} {
			r, err := module.Rewrite([]byte(file), module.Options{Grade: grade})
			require.NoError(t, err)
			require.Less(t, len(r.Binary), 15*len(file), name)
		}
	}
}

// S11: a long row of calls that nobody charges for comes to the host in between.
func TestCallsInARow(t *testing.T) {
	callee := body("\x01\x01\x7f" + strings.Repeat("\x20\x00\x21\x00", 250) + "\x0b")
	caller := body("\x00" + strings.Repeat("\x10\x00", 50_000) + "\x0b")
	file := header + section(1, "\x01\x60\x00\x00") + section(3, "\x02\x00\x00") + section(7, "\x01\x01f\x00\x01") + section(10, "\x02"+callee+caller)
	r, err := module.Rewrite([]byte(file), module.Options{})
	require.NoError(t, err)
	engine := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features))
	defer engine.Close(t.Context())
	refills := offerFuel(t.Context(), t, engine, 1<<40)
	instance, err := engine.InstantiateWithConfig(t.Context(), r.Binary, wazero.NewModuleConfig())
	require.NoError(t, err)
	_, err = instance.ExportedFunction("f").Call(t.Context())
	require.NoError(t, err)
	require.Greater(t, *refills, 100)
}
