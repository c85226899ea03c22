// Package sdk holds the source of the guests' SDKs, for programs that hand it to
// authors of providers.
package sdk

import "embed"

// Go is the Go SDK: the folders guest, guesttest and native below go, with their
// tests.
//
//go:embed go/guest/*.go go/guesttest/*.go go/native/*.go
var Go embed.FS
