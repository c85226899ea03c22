package shell

import (
	"os/exec"

	"github.com/ultravisor/beacon"
)

func supported(cfg Config) error {
	if cfg.Limits != (Limits{}) {
		return beacon.Errorf(beacon.Invalid, "Limits are not supported on Windows")
	}
	return nil
}

func (Limits) apply(*exec.Cmd) {}

// An identity is the user that commands run as.
type identity struct{}

func identityOf(user string) (*identity, error) {
	if user != "" {
		return nil, beacon.Errorf(beacon.Invalid, "User is not supported on Windows")
	}
	return nil, nil
}

func (*identity) apply(*exec.Cmd) {}

func (*identity) own(*beacon.Job) error { return nil }
