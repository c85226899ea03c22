//go:build unix

package confine

import (
	"errors"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// limitUnix sets the limits that all systems have.
func limitUnix(r Rules) error {
	errs := []error{setLimit(unix.RLIMIT_CORE, 0)}
	if r.CPU > 0 {
		seconds := uint64(math.Ceil(float64(r.CPU) / float64(time.Second)))
		errs = append(errs, unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: seconds, Max: seconds + 2}))
	}
	if r.OpenFiles > 0 {
		errs = append(errs, setLimit(unix.RLIMIT_NOFILE, r.OpenFiles))
	}
	if r.FileSize > 0 {
		errs = append(errs, setLimit(unix.RLIMIT_FSIZE, uint64(r.FileSize)))
	}
	return errors.Join(errs...)
}

// setLimit lowers a limit, for good.
func setLimit(resource int, most uint64) error {
	var have unix.Rlimit
	if err := unix.Getrlimit(resource, &have); err != nil {
		return err
	}
	most = min(most, have.Max)
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: most, Max: most})
}
