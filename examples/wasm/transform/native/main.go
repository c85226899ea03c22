// Command native is the provider transform as an ordinary program, to compare
// with the module: it runs the same code, without WebAssembly.
//
//	go run ./native -action Convert -set To=jsonl -source data/readings.csv -output readings.jsonl
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/ultravisor/beacon/examples/wasm/transform/provider"
	"github.com/ultravisor/beacon/guest-sdk/go/guest"
	"github.com/ultravisor/beacon/guest-sdk/go/native"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "transform:", err)
		os.Exit(1)
	}
}

type settings map[string]json.RawMessage

func (s settings) String() string { return "" }

func (s settings) Set(pair string) error {
	name, value, ok := strings.Cut(pair, "=")
	if !ok || name == "" {
		return errors.New("want name=value")
	}
	raw, err := json.Marshal(value)
	s[name] = raw
	return err
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	h := &native.Host{Values: map[string]json.RawMessage{}, Cancel: ctx.Done()}
	flags := flag.NewFlagSet("transform", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&h.Item.Action, "action", "", "the action; the first one when left out")
	flags.StringVar(&h.Item.SourcePath, "source", "", "the `file` to read")
	flags.StringVar(&h.Item.OutputPath, "output", "", "the `file` to write")
	flags.Var(settings(h.Values), "set", "a setting, `name=value`; may be repeated")
	progress := flags.Bool("progress", false, "print progress")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: settings are given with -set", flags.Arg(0))
	}
	if *progress {
		h.OnProgress = func(p guest.Progress) { _, _ = fmt.Fprintf(stderr, "%3.0f%% %s\n", p.Percent, p.Message) } // to look at; nothing depends on it
	}
	h.OnLog = func(line native.LogLine) { _, _ = fmt.Fprintln(stderr, line.Text) } // likewise
	result, err := native.Run(provider.New(), h)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(result.Outputs))
	for name := range result.Outputs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if _, err := fmt.Fprintf(stdout, "%s=%s\n", name, result.Outputs[name]); err != nil {
			return err
		}
	}
	return nil
}
