//go:build !wasip1

package guest

// Serve makes p the provider of this module. Call it once, from an init
// function: a reactor's main is never run. Off WebAssembly it does nothing.
func Serve(Provider) {}
