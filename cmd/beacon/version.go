package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	goruntime "runtime"
)

// version is set by release builds.
var version = "dev"

func newVersionCommand(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(s.out, "beacon %s (%s %s/%s, wazero %s)\n",
				version, goruntime.Version(), goruntime.GOOS, goruntime.GOARCH, engineVersion())
			return err
		},
	}
}

func engineVersion() string {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/tetratelabs/wazero" {
				return dep.Version
			}
		}
	}
	return "unknown"
}
