//go:build wasip1

package guest

import (
	"errors"
	"strings"
	"time"
	"unsafe"
)

// The functions of beacon_v1; hostfuncs/ABI.md describes them. The linker drops
// those that a provider does not reach. Files come by WASI, through package os.

//go:wasmimport beacon_v1 work_item
func importWorkItem(buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32

//go:wasmimport beacon_v1 settings
func importSettings(buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32

//go:wasmimport beacon_v1 setting
func importSetting(name unsafe.Pointer, nameLen uint32, buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32

//go:wasmimport beacon_v1 config
func importConfig(name unsafe.Pointer, nameLen uint32, buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32

//go:wasmimport beacon_v1 progress
func importProgress(percent float64, step, total uint32, message unsafe.Pointer, messageLen uint32) uint32

//go:wasmimport beacon_v1 log
func importLog(level uint32, text unsafe.Pointer, textLen uint32) uint32

//go:wasmimport beacon_v1 output
func importOutput(name unsafe.Pointer, nameLen uint32, json unsafe.Pointer, jsonLen uint32) uint32

//go:wasmimport beacon_v1 fail
func importFail(message unsafe.Pointer, messageLen uint32) uint32

//go:wasmimport beacon_v1 describe
func importDescribe(json unsafe.Pointer, jsonLen uint32) uint32

//go:wasmimport beacon_v1 remaining
func importRemaining(milliseconds unsafe.Pointer) uint32

//go:wasmimport beacon_v1 cancelled
func importCancelled() uint32

//go:wasmimport beacon_v1 last_error
func importLastError(buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32

//go:wasmimport beacon_v1 handle_wait
func importHandleWait(handles unsafe.Pointer, size uint32, milliseconds int64, index unsafe.Pointer) uint32

//go:wasmimport beacon_v1 handle_close
func importHandleClose(handle uint32) uint32

//go:wasmimport beacon_v1 http_open
func importHTTPOpen(request unsafe.Pointer, requestLen uint32, handle unsafe.Pointer) uint32

//go:wasmimport beacon_v1 http_write
func importHTTPWrite(handle uint32, data unsafe.Pointer, size uint32, n unsafe.Pointer) uint32

//go:wasmimport beacon_v1 http_wait
func importHTTPWait(handle uint32, status unsafe.Pointer) uint32

//go:wasmimport beacon_v1 http_response
func importHTTPResponse(handle uint32, buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32

//go:wasmimport beacon_v1 http_header
func importHTTPHeader(handle uint32, name unsafe.Pointer, nameLen uint32, buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32

//go:wasmimport beacon_v1 http_read
func importHTTPRead(handle uint32, buf unsafe.Pointer, size uint32, n unsafe.Pointer) uint32

//go:wasmimport beacon_v1 call_open
func importCallOpen(request unsafe.Pointer, requestLen uint32, handle unsafe.Pointer) uint32

//go:wasmimport beacon_v1 call_progress
func importCallProgress(handle uint32, buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32

//go:wasmimport beacon_v1 call_wait
func importCallWait(handle uint32) uint32

//go:wasmimport beacon_v1 call_result
func importCallResult(handle uint32, buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32

//go:wasmimport beacon_v1 secret
func importSecret(name unsafe.Pointer, nameLen uint32) uint32

const (
	errnoNotFound = 3
	errnoRange    = 4
	errnoCanceled = 7
	maxLog        = 64 << 10
)

// imports is the Host that a module has.
type imports struct{}

func pointer(s string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))
}

// fill calls a function that fills a buffer, again with a larger one when it
// was too small.
func fill(call func(buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32) (string, error) {
	buf := make([]byte, 512)
	for {
		var length uint32
		errno := call(unsafe.Pointer(unsafe.SliceData(buf)), uint32(len(buf)), unsafe.Pointer(&length))
		switch {
		case errno == errnoRange && int(length) > len(buf):
			buf = make([]byte, length)
		case errno != 0:
			return "", Errno(errno)
		case int(length) > len(buf):
			return "", errors.New("the host said more than it wrote")
		default:
			return string(buf[:length]), nil
		}
	}
}

func (imports) WorkItem() (WorkItem, error) {
	s, err := fill(importWorkItem)
	if err != nil {
		return WorkItem{}, err
	}
	return parseWorkItem(s)
}

func (imports) Settings() (JSON, error) {
	s, err := fill(importSettings)
	return JSON(s), err
}

func (imports) Setting(name string) (string, bool, error) {
	p, n := pointer(name)
	return found(fill(func(buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32 {
		return importSetting(p, n, buf, size, length)
	}))
}

func (imports) Config(name string) (string, bool, error) {
	p, n := pointer(name)
	return found(fill(func(buf unsafe.Pointer, size uint32, length unsafe.Pointer) uint32 {
		return importConfig(p, n, buf, size, length)
	}))
}

func found(s string, err error) (string, bool, error) {
	if err == Errno(errnoNotFound) {
		return "", false, nil
	}
	return s, err == nil, err
}

// Progress is a courtesy: when the host does not want it, the work goes on.
func (imports) Progress(p Progress) {
	text, n := pointer(p.Message)
	importProgress(p.Percent, uint32(p.Step), uint32(p.Total), text, n)
}

func (imports) Log(level Level, text string) {
	for len(text) > maxLog {
		// The host cuts longer calls, so this cuts them first, between lines.
		cut := strings.LastIndexByte(text[:maxLog], '\n') + 1
		if cut == 0 {
			cut = maxLog
		}
		p, n := pointer(text[:cut])
		importLog(uint32(level), p, n)
		text = text[cut:]
	}
	p, n := pointer(text)
	importLog(uint32(level), p, n)
}

func (imports) Output(name string, value JSON) error {
	p, n := pointer(name)
	v, size := pointer(string(value))
	if errno := importOutput(p, n, v, size); errno != 0 {
		return Errno(errno)
	}
	return nil
}

func (imports) Remaining() (time.Duration, bool) {
	var ms uint64
	if importRemaining(unsafe.Pointer(&ms)) != 0 || ms > uint64(1<<63-1)/uint64(time.Millisecond) {
		return 0, false
	}
	return time.Duration(ms) * time.Millisecond, true
}

func (imports) Cancelled() bool { return importCancelled() == errnoCanceled }

func (imports) Dir() string { return "/work" }
