package runtime

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/ultravisor/beacon/hostfuncs/abi"
	"github.com/ultravisor/beacon/runtime/module"
)

// slice is how many instructions, about, a guest executes between two visits
// to the host: some hundred microseconds. Compiled code cannot be interrupted,
// so this is also how long a guest can keep the garbage collector waiting.
const slice = 1_000_000

// errStack breaks a guest down that has called too deeply. It is what the engine
// says at its own limit.
var errStack = errors.New("stack overflow")

// offerFuel gives guests the function that they call when their fuel is used
// up. There a guest whose item is over ends.
func offerFuel(ctx context.Context, engine wazero.Runtime) error {
	refill := api.GoFunc(func(ctx context.Context, stack []uint64) {
		// Guests cannot be interrupted. Whoever waits for the processor gets it
		// here, not least the timer of the deadline.
		goruntime.Gosched()
		if int64(stack[0]) < 0 {
			panic(errStack)
		}
		if ctx.Err() != nil {
			panic(&abi.Stop{Cause: context.Cause(ctx)})
		}
		stack[0] = slice
	})
	_, err := engine.NewHostModuleBuilder(module.MeterModule).NewFunctionBuilder().
		WithGoFunction(refill, []api.ValueType{api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).
		Export(module.MeterRefill).
		Instantiate(ctx)
	if err != nil {
		return fmt.Errorf("offer fuel: %w", err)
	}
	return nil
}
