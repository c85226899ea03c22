// Package abi is the border between guest and host: it turns the raw numbers
// of a call from a WebAssembly guest into checked Go values, runs the host
// function, and turns what comes back into the guest's numbers.
//
// It is the only place where a guest's pointer is looked at. A host function
// declares what its parameters are; before it runs, every pointer and length
// has been checked against the guest's memory and against a limit, and the
// function sees byte slices. It never allocates in the guest, and it never
// calls into the guest: a guest that could be re-entered could recurse through
// the host without end.
package abi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
)

// A Memory is a guest's memory, from which a native function may read and to
// which it may write.
type Memory interface {
	// Read returns the bytes themselves; false if not all are there.
	Read(offset, size uint32) ([]byte, bool)
}

// A ValueType is the type of a parameter or result as WebAssembly has it, by
// its number there.
type ValueType byte

// The types that functions on this border use.
const (
	TypeI32 ValueType = 0x7f
	TypeI64 ValueType = 0x7e
	TypeF64 ValueType = 0x7c
)

// A Library is a set of functions that guests import from the module Name.
type Library struct {
	Name      string
	Functions []Native
}

// A Native is a function of the host as an engine needs it.
type Native struct {
	Name            string
	Params, Results []ValueType
	// Memory is true when Call wants the memory of the guest that called.
	Memory bool
	// Waits is true when Call may wait for something else than the processor.
	Waits bool
	// Call takes its parameters from the stack and leaves its result there. When
	// it panics with an error, the guest ends.
	Call func(ctx context.Context, memory Memory, stack []uint64)
}

// An Errno is what a host function answers; 0 is success. The numbers belong
// to the module's interface: WASI has its list, beacon_v1 has its own.
type Errno uint32

// A Stop ends the guest when a host function panics with it: for a work item
// that is over, a limit that was hit, an exit. The guest unwinds at once and
// its instance must be thrown away.
type Stop struct{ Cause error }

func (s *Stop) Error() string { return s.Cause.Error() }

// Unwrap returns the cause.
func (s *Stop) Unwrap() error { return s.Cause }

type kind uint8

const (
	kindI32 kind = iota
	kindI64
	kindF64
	kindIn
	kindPrefix
	kindOut
	kindCell
	kindVectors
	kindPointer
)

// A Param is one parameter of a host function.
type Param struct {
	kind  kind
	limit uint32 // bytes, or number of vectors
}

// Numbers pass as they are.
var (
	I32 = Param{kind: kindI32}
	I64 = Param{kind: kindI64}
	F64 = Param{kind: kindF64}
)

// In is a pointer and a length: bytes that the host reads, at most limit.
func In(limit uint32) Param { return Param{kindIn, limit} }

// Prefix is like In, but of a longer one only the first limit bytes are read.
func Prefix(limit uint32) Param { return Param{kindPrefix, limit} }

// Out is a pointer and a length: a buffer that the host fills. A longer one
// than limit is used up to the limit.
func Out(limit uint32) Param { return Param{kindOut, limit} }

// Cell is a pointer to size bytes that the host fills.
func Cell(size uint32) Param { return Param{kindCell, size} }

// Vectors is a pointer and a count of (pointer, length) pairs, at most limit
// of them: WASI's scattered buffers.
func Vectors(limit uint32) Param { return Param{kindVectors, limit} }

// Pointer is a pointer to bytes whose number only the function knows, when it
// runs: it gets them with View, which checks it.
var Pointer = Param{kind: kindPointer}

// MaxVectorBytes bounds what one call may move through Vectors, so that a
// guest cannot make one call last for ever by naming the same bytes often.
// Longer ones are cut, which WASI allows: the call reports a short count.
const MaxVectorBytes = 8 << 20

const maxParams = 9 // path_open has the most

// A Function is one host function of an interface whose per-item state is S.
type Function[S any] struct {
	Name   string
	Params []Param
	// NoResult is for the few functions that return nothing.
	NoResult bool
	// Waits is for those that may wait for something else than the processor.
	Waits bool
	Func  func(S, *Call) Errno
}

// An Interface is a set of host functions under one import name.
type Interface[S any] struct {
	// Name is the import module's name; it contains the version.
	Name      string
	Functions []Function[S]
	// Fault answers a pointer outside of the guest's memory, Long a length over
	// the limit.
	Fault, Long Errno
	// Enter runs before each call. An error stops the guest.
	Enter func(S, context.Context) error
}

type stateKey[S any] struct{}

// WithState gives the guest that is called with the returned context its state.
func WithState[S any](ctx context.Context, state S) context.Context {
	return context.WithValue(ctx, stateKey[S]{}, state)
}

// WithStates is WithState for three interfaces at once.
func WithStates[A, B, C any](ctx context.Context, a A, b B, c C) context.Context {
	return &states[A, B, C]{ctx, a, b, c}
}

type states[A, B, C any] struct {
	context.Context
	a A
	b B
	c C
}

func (s *states[A, B, C]) Value(key any) any {
	switch key.(type) {
	case stateKey[A]:
		return s.a
	case stateKey[B]:
		return s.b
	case stateKey[C]:
		return s.c
	}
	return s.Context.Value(key)
}

// State returns what WithState put into the context.
func State[S any](ctx context.Context) (S, bool) {
	state, ok := ctx.Value(stateKey[S]{}).(S)
	return state, ok
}

// A Call is one call of a host function: its parameters, checked. The slices
// are the guest's own memory: they are valid until the function returns, and
// whatever is kept must be copied.
type Call struct {
	Ctx     context.Context
	numbers [maxParams]uint64
	bytes   [maxParams][]byte
	vectors [][]byte
	memory  Memory
}

// U32 returns parameter i, an I32, as an unsigned number.
func (c *Call) U32(i int) uint32 { return uint32(c.numbers[i]) }

// U64 returns parameter i, an I64, as an unsigned number.
func (c *Call) U64(i int) uint64 { return c.numbers[i] }

// I64 returns parameter i, an I64.
func (c *Call) I64(i int) int64 { return int64(c.numbers[i]) }

// F64 returns parameter i, an F64.
func (c *Call) F64(i int) float64 { return math.Float64frombits(c.numbers[i]) }

// Bytes returns parameter i, an In, Prefix, Out or Cell.
func (c *Call) Bytes(i int) []byte { return c.bytes[i] }

// Text returns a copy of parameter i, an In or Prefix, as a string.
func (c *Call) Text(i int) string { return string(c.bytes[i]) }

// Vectors returns the buffers of the call's Vectors parameter.
func (c *Call) Vectors() [][]byte { return c.vectors }

// View returns the size bytes at parameter i, a Pointer. It is false when they
// are not all in the guest's memory.
func (c *Call) View(i int, size uint32) ([]byte, bool) {
	return view(c.memory, uint32(c.numbers[i]), size)
}

// PutU32 stores a number in parameter i, a Cell of 4 bytes.
func (c *Call) PutU32(i int, v uint32) { binary.LittleEndian.PutUint32(c.bytes[i], v) }

// PutU64 stores a number in parameter i, a Cell of 8 bytes.
func (c *Call) PutU64(i int, v uint64) { binary.LittleEndian.PutUint64(c.bytes[i], v) }

// check resolves the parameters from the stack. ok is false where errno says why.
func (c *Call) check(params []Param, mem Memory, stack []uint64, fault, long Errno) (errno Errno, ok bool) {
	at := 0
	for i, p := range params {
		first := stack[at]
		at++
		switch p.kind {
		case kindI32, kindI64, kindF64, kindPointer:
			c.numbers[i] = first
			continue
		}
		size := p.limit
		if p.kind != kindCell {
			size = uint32(stack[at])
			at++
		}
		switch p.kind {
		case kindIn:
			if size > p.limit {
				return long, false
			}
		case kindPrefix, kindOut:
			size = min(size, p.limit)
		case kindVectors:
			if size > p.limit {
				return long, false
			}
			if !c.gather(mem, uint32(first), size) {
				return fault, false
			}
			continue
		}
		if c.bytes[i], ok = view(mem, uint32(first), size); !ok {
			return fault, false
		}
	}
	return 0, true
}

// view returns the guest's bytes. The capacity is cut, so that an append in a
// host function cannot write on into the guest's memory.
func view(mem Memory, offset, size uint32) ([]byte, bool) {
	if mem == nil {
		return nil, false
	}
	b, ok := mem.Read(offset, size)
	return b[:len(b):len(b)], ok
}

func (c *Call) gather(mem Memory, offset, count uint32) bool {
	table, ok := view(mem, offset, count*8) // count is at most a few thousand
	if !ok {
		return false
	}
	left := uint32(MaxVectorBytes)
	for ; len(table) > 0; table = table[8:] {
		size := binary.LittleEndian.Uint32(table[4:])
		b, ok := view(mem, binary.LittleEndian.Uint32(table), size)
		if !ok {
			return false
		}
		size = min(size, left)
		b = b[:size:size]
		left -= size
		if len(b) > 0 {
			c.vectors = append(c.vectors, b)
		}
	}
	return true
}

// usesMemory reports whether the function has a pointer.
func (f Function[S]) usesMemory() bool {
	return slices.ContainsFunc(f.Params, func(p Param) bool {
		return p.kind != kindI32 && p.kind != kindI64 && p.kind != kindF64
	})
}

func (f Function[S]) types() (params, results []ValueType) {
	for _, p := range f.Params {
		switch p.kind {
		case kindI64:
			params = append(params, TypeI64)
		case kindF64:
			params = append(params, TypeF64)
		case kindI32, kindCell, kindPointer:
			params = append(params, TypeI32)
		case kindIn, kindPrefix, kindOut, kindVectors:
			params = append(params, TypeI32, TypeI32)
		}
	}
	if !f.NoResult {
		results = []ValueType{TypeI32}
	}
	return params, results
}

// Signatures gives the types of all functions by name.
func (x Interface[S]) Signatures() map[string]Signature {
	all := make(map[string]Signature, len(x.Functions))
	for _, f := range x.Functions {
		params, results := f.types()
		all[f.Name] = Signature{params, results, f.usesMemory()}
	}
	return all
}

// A Signature is the type of a host function.
type Signature struct {
	Params, Results []ValueType
	// Memory is true of a function with pointers: its guest needs a memory.
	Memory bool
}

// Library returns the functions for an engine. A function with too many
// parameters is a mistake of ours, and a panic.
func (x Interface[S]) Library() Library {
	pool := &sync.Pool{New: func() any { return new(Call) }}
	library := Library{Name: x.Name}
	for _, f := range x.Functions {
		if len(f.Params) > maxParams {
			panic(fmt.Sprintf("host function %s.%s has %d parameters, limit %d", x.Name, f.Name, len(f.Params), maxParams))
		}
		params, results := f.types()
		library.Functions = append(library.Functions, Native{
			Name: f.Name, Params: params, Results: results, Memory: f.usesMemory(), Waits: f.Waits, Call: x.adapter(f, pool),
		})
	}
	return library
}

func (x Interface[S]) adapter(f Function[S], pool *sync.Pool) func(context.Context, Memory, []uint64) {
	return func(ctx context.Context, memory Memory, stack []uint64) {
		state, ok := State[S](ctx)
		if !ok {
			panic(&Stop{fmt.Errorf("host function %s.%s was called outside of a work item", x.Name, f.Name)})
		}
		if x.Enter != nil {
			if err := x.Enter(state, ctx); err != nil {
				panic(&Stop{err})
			}
		}
		c, _ := pool.Get().(*Call) // the pool holds nothing else
		defer func() {
			clear(c.vectors) // a pooled call points into no guest
			*c = Call{vectors: c.vectors[:0]}
			pool.Put(c)
			if fault := recover(); fault != nil {
				panic(stopOf(fault, x.Name, f.Name))
			}
		}()
		c.Ctx, c.memory = ctx, memory
		errno, ok := c.check(f.Params, c.memory, stack, x.Fault, x.Long)
		if ok {
			errno = f.Func(state, c)
		}
		if !f.NoResult {
			stack[0] = uint64(errno)
		}
	}
}

// ErrHost marks a fault of the host itself in a host function.
var ErrHost = errors.New("host function failed")

// stopOf keeps a Stop and turns any other panic, which is a fault of ours,
// into one: an engine might put our stack and paths into the error's text.
func stopOf(fault any, module, name string) *Stop {
	if err, ok := fault.(error); ok {
		var stop *Stop
		if errors.As(err, &stop) {
			return stop
		}
	}
	return &Stop{fmt.Errorf("%w: %s.%s: %v", ErrHost, module, name, fault)}
}
