// Package sdk holds the source of the guests' SDKs, for programs that hand it to
// authors of providers.
package sdk

import (
	"embed"
	"io/fs"
)

// Go is the Go SDK: the folders guest, guesttest and native below go, with their
// tests.
//
//go:embed go/guest/*.go go/guesttest/*.go go/native/*.go
var Go embed.FS

// C is the SDK for C and C++: the header beacon.h.
var C, _ = fs.Sub(c, "c") // the folder is there

//go:embed c/beacon.h
var c embed.FS

// Rust is the crate for Rust: its Cargo.toml and the folder src.
var Rust, _ = fs.Sub(rust, "rust") // the folder is there

//go:embed rust/Cargo.toml rust/src/*.rs
var rust embed.FS

// AssemblyScript is the SDK for AssemblyScript: a folder of sources.
var AssemblyScript, _ = fs.Sub(assemblyScript, "assemblyscript/assembly") // the folder is there

//go:embed assemblyscript/assembly/*.ts
var assemblyScript embed.FS

// JavaScript says to editors what scripts find as beacon: the file beacon.d.ts. What they
// find is a part of the engine.
var JavaScript, _ = fs.Sub(javaScript, "javascript") // the folder is there

//go:embed javascript/beacon.d.ts
var javaScript embed.FS
