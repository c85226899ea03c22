package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
)

// An outcome shows what became of a work item and chooses the exit code.
type outcome struct {
	streams
	asJSON, quiet, passthrough bool
}

// show prints a result, or the provider's error, and returns the error that
// ends the command; nil for success.
func (o outcome) show(result beacon.Result, failure error, took time.Duration) error {
	if o.asJSON {
		if err := o.json(result, failure, took); err != nil {
			return err
		}
		if failure != nil {
			return &coded{itemExitCode(failure), errSaid}
		}
	} else {
		if err := o.text(result); err != nil {
			return err
		}
		if failure != nil {
			return &coded{itemExitCode(failure), failure}
		}
	}
	code := result.ExitCode()
	switch {
	case code == 0:
		return nil
	case o.passthrough:
		// The system keeps eight bits; a failure stays one.
		return &coded{max(1, int(uint8(code))), errSaid} //nolint:gosec // see above
	case o.asJSON:
		return &coded{exitFailed, errSaid}
	}
	return &coded{exitFailed, fmt.Errorf("the item failed with exit code %d", code)}
}

// itemExitCode is for errors of providers, where even a wrong setting is a
// failed item and not a wrong call of this command.
func itemExitCode(err error) int {
	switch code := exitCode(err); code {
	case exitLimit, exitInterrupted:
		return code
	}
	if beacon.CodeOf(err) == beacon.Invalid {
		return exitUsage
	}
	return exitFailed
}

func (o outcome) json(result beacon.Result, failure error, took time.Duration) error {
	type problem struct {
		Code    beacon.Code
		Message string
	}
	shown := struct {
		Outputs    beacon.Outputs
		Log        []string
		Error      *problem `json:",omitempty"`
		DurationMs int64
	}{result.Outputs, result.Log, nil, took.Milliseconds()}
	if shown.Outputs == nil {
		shown.Outputs = beacon.Outputs{}
	}
	if shown.Log == nil {
		shown.Log = []string{}
	}
	if failure != nil {
		shown.Error = &problem{beacon.CodeOf(failure), failure.Error()}
	}
	enc := json.NewEncoder(o.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(shown); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// text prints what the work printed to standard output, and everything else to
// standard error.
func (o outcome) text(result beacon.Result) error {
	if !o.quiet {
		for _, line := range result.Log {
			fmt.Fprintln(o.err, line)
		}
	}
	printed := textOf(result.Outputs[beacon.OutputStdOut])
	if raw, err := base64.StdEncoding.DecodeString(textOf(result.Outputs[hostfuncs.OutputStdOutBase64])); err == nil && len(raw) > 0 {
		printed = string(raw)
	}
	if main := textOf(result.Outputs[beacon.OutputResult]); printed == "" && main != "" {
		printed = strings.TrimSuffix(main, "\n") + "\n"
	}
	if _, err := io.WriteString(o.out, tame(o.out, printed)); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("print the result: %w", err)
	}
	if o.quiet {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(result.Outputs)) {
		switch name {
		case beacon.OutputStdOut, beacon.OutputResult, beacon.OutputExitCode, hostfuncs.OutputStdOutBase64, "OutputData":
			continue
		}
		fmt.Fprintf(o.err, "%s: %s\n", beacon.Excerpt(name, 100), beacon.Excerpt(textOf(result.Outputs[name]), 500))
	}
	return nil
}

// textOf is an output as text: JSON strings without their quotes.
func textOf(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.RawMessage:
		return beacon.Settings{"": v}.Text("")
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(raw)
}

// tame keeps strangers' output from driving the terminal, and ends its last
// line. Into a file or a pipe everything goes as it is.
func tame(w io.Writer, s string) string {
	if !isTerminal(w) {
		return s
	}
	var b strings.Builder
	for line := range strings.Lines(s) {
		body, ended := strings.CutSuffix(line, "\n")
		b.WriteString(beacon.Excerpt(body, len(body)))
		if ended {
			b.WriteByte('\n')
		}
	}
	if s != "" && !strings.HasSuffix(s, "\n") {
		b.WriteByte('\n') // the prompt, and what goes to standard error, begin a line
	}
	return b.String()
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
