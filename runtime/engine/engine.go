// Package engine is what Beacon wants of a WebAssembly engine, and wazero in
// that role. No other package but tests knows which engine it is.
package engine

import (
	"context"

	"github.com/ultravisor/beacon/hostfuncs/abi"
)

// An Engine translates modules into machine code. It may be used concurrently.
type Engine interface {
	// Compile translates a module that imports nothing but functions of the
	// libraries. cacheDir keeps the translation, for the next process; "" does
	// not. Each Code stands alone: no module can see another. With offsets, which
	// take time and memory, traps tell where in the code they happened. The binary
	// has no custom sections but that of names.
	Compile(ctx context.Context, binary []byte, libraries []abi.Library, cacheDir string, offsets bool) (Code, error)
}

// Code is a translated module. It may be used concurrently.
type Code interface {
	// Instantiate makes an instance. Nothing of the guest's is executed: the
	// module has no start function. memory is there as long as the instance is,
	// and longer than what the module says it needs; nil for a module without.
	Instantiate(ctx context.Context, memory Memory) (Instance, error)
	// Close frees the code. All instances must be closed.
	Close(ctx context.Context) error
}

// A Memory is the linear memory of one instance.
type Memory interface {
	// Bytes is the memory as it is now.
	Bytes() []byte
	// Grow makes it size bytes long, or answers false. Bytes may move.
	Grow(size int) bool
}

// An Instance is one instance of a module. It is used by one goroutine at a
// time.
type Instance interface {
	// Function finds an exported function; nil if there is none.
	Function(export string) Function
	// Global finds an exported global; nil if there is none.
	Global(export string) Global
	// Resized tells the engine that its host has changed the memory's size. When
	// it is false, the engine cannot know, and the instance is of no more use.
	Resized() bool
	// Close frees the instance, but not its memory.
	Close(ctx context.Context) error
}

// A Function is an exported function of one instance.
type Function interface {
	// Call takes the parameters from the stack and leaves the results there. When
	// a native function panics with an error, Call returns an error that wraps
	// it. The guest's own faults are of type *Trap.
	Call(ctx context.Context, stack []uint64) error
}

// A Global is an exported mutable global of one instance, of a type other than
// v128 or a reference. The number has the bits of the value.
type Global interface {
	Get() uint64
	Set(value uint64)
}

// A Trap is a fault of the guest.
type Trap struct {
	// Reason is what the engine says, such as "unreachable".
	Reason string
	// Stack has the guest's functions that were called, the innermost first. It
	// may be cut.
	Stack []Frame
}

// A Frame is a call of a guest's function.
type Frame struct {
	// Function is its name, which is the guest's own choice, and its type.
	Function string
	// Offset is where in the content of the section of code the instruction is
	// that trapped or called; 0 is unknown.
	Offset uint32
}

func (t *Trap) Error() string {
	text := t.Reason
	for _, f := range t.Stack {
		text += "\n\tat " + f.Function
	}
	return text
}
