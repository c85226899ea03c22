//go:build wasip1

package guest

import (
	"time"
	"unsafe"
)

// refusal is an error number with what the host has to say about it.
func refusal(errno uint32) error {
	if errno == 0 {
		return nil
	}
	text, err := fill(importLastError)
	if err != nil {
		return Errno(errno)
	}
	return &hostError{text, Errno(errno)}
}

type hostError struct {
	text  string
	errno Errno
}

func (e *hostError) Error() string { return e.text }
func (e *hostError) Unwrap() error { return e.errno }

// An open handle is a request or a call. Its number may be another's once it is
// closed.
type open struct {
	handle uint32
	closed bool
}

func (o *open) Close() error {
	if o.closed {
		return nil
	}
	o.closed = true
	return refusal(importHandleClose(o.handle))
}

// use is the number, one that there never is after Close.
func (o *open) use() uint32 {
	if o.closed {
		return ^uint32(0)
	}
	return o.handle
}

func (imports) WaitAny(timeout time.Duration, of []Handle) (int, error) {
	handles := make([]uint32, len(of)+1) // one more, so that there is a first
	for i, h := range of {
		handles[i] = h.(interface{ use() uint32 }).use()
	}
	ms := int64(-1)
	if timeout >= 0 {
		ms = int64((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	var index uint32
	err := refusal(importHandleWait(unsafe.Pointer(&handles[0]), uint32(len(of)*4), ms, unsafe.Pointer(&index)))
	return int(index), err
}

type exchange struct{ open }

func (imports) Send(_ *Request, json JSON) (Exchange, error) {
	p, n := pointer(string(json))
	var handle uint32
	if err := refusal(importHTTPOpen(p, n, unsafe.Pointer(&handle))); err != nil {
		return nil, err
	}
	return &exchange{open{handle: handle}}, nil
}

func (x *exchange) Write(b []byte) (int, error) {
	var n uint32
	err := refusal(importHTTPWrite(x.use(), unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b)), unsafe.Pointer(&n)))
	return int(n), err
}

func (x *exchange) Wait() (int, error) {
	var status uint32
	err := refusal(importHTTPWait(x.use(), unsafe.Pointer(&status)))
	return int(status), err
}

func (x *exchange) Response() (JSON, error) {
	s, err := fill(func(buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32 {
		return importHTTPResponse(x.use(), buf, size, length)
	})
	return JSON(s), err
}

func (x *exchange) Header(name string) (string, bool, error) {
	p, n := pointer(name)
	return found(fill(func(buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32 {
		return importHTTPHeader(x.use(), p, n, buf, size, length)
	}))
}

func (x *exchange) Read(b []byte) (int, error) {
	var n uint32
	err := refusal(importHTTPRead(x.use(), unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b)), unsafe.Pointer(&n)))
	return int(n), err
}

type invocation struct{ open }

func (imports) Begin(_ *Call, json JSON) (Invocation, error) {
	p, n := pointer(string(json))
	var handle uint32
	if err := refusal(importCallOpen(p, n, unsafe.Pointer(&handle))); err != nil {
		return nil, err
	}
	return &invocation{open{handle: handle}}, nil
}

func (c *invocation) Progress() (JSON, bool, error) {
	s, ok, err := found(fill(func(buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32 {
		return importCallProgress(c.use(), buf, size, length)
	}))
	return JSON(s), ok, err
}

func (c *invocation) Wait() error { return refusal(importCallWait(c.use())) }

func (c *invocation) Result() (JSON, error) {
	s, err := fill(func(buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32 {
		return importCallResult(c.use(), buf, size, length)
	})
	return JSON(s), err
}

func (imports) HasSecret(name string) bool {
	p, n := pointer(name)
	return importSecret(p, n) == 0
}
