// Command transform is a provider that transforms tables: CSV and JSON lines of
// any size, in one pass and constant memory.
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags="-s -w" -o transform.wasm .
//
// What it does is in package provider, how in package table.
package main

import (
	"github.com/ultravisor/beacon/examples/wasm/transform/provider"
	"github.com/ultravisor/beacon/guest-sdk/go/guest"
)

func init() { guest.Serve(provider.New()) }

func main() {}
