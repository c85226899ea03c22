// Command module is a provider for the test of what leads out of an item, inside
// of WebAssembly and outside.
package main

import "github.com/ultravisor/beacon/guest-sdk/go/guest/testdata/reach"

func init() { reach.Serve() }

func main() {}
