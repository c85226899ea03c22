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
