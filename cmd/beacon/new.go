package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon/scaffold"
)

func newNewCommand(s streams) *cobra.Command {
	var lang string
	cmd := &cobra.Command{
		Use:   "new NAME --lang LANGUAGE",
		Short: "Begin a provider: source, cases for its tests, and the SDK",
		Long: `Begin a provider in the folder NAME: source, cases for its tests, and the SDK, so
that it builds without a network. LANGUAGE is one of: ` + strings.Join(scaffold.Languages(), ", ") + `.`,
		Example: `  beacon new hello --lang go
  beacon test hello
  beacon run --module hello`,
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) != 1:
				return usagef("new takes one name, which is that of a folder to be made")
			case lang == "":
				return usagef("--lang is missing: there are %s", strings.Join(scaffold.Languages(), ", "))
			}
			names, err := scaffold.Create(args[0], lang)
			if err != nil {
				return err
			}
			for _, name := range names {
				if !strings.HasPrefix(name, "sdk/") {
					fmt.Fprintln(s.out, filepath.Join(args[0], filepath.FromSlash(name)))
				}
			}
			fmt.Fprintf(s.out, "\nNext:\n  %s\n  %s\n", quote([]string{self(), "test", args[0]}), quote([]string{self(), "run", "--module", args[0]}))
			return nil
		},
	}
	cmd.Flags().StringVarP(&lang, "lang", "l", "", "the language: "+strings.Join(scaffold.Languages(), ", "))
	return cmd
}
