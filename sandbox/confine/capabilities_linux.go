package confine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The arguments of capset, for the life of the process: an empty set for the
// calling thread.
var (
	capabilityHeader = &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	noCapabilities   = &[2]unix.CapUserData{}
)

func capabilities() (header, data uintptr) {
	return uintptr(unsafe.Pointer(capabilityHeader)), uintptr(unsafe.Pointer(noCapabilities))
}
