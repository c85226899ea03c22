package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/executor"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/submit"
)

type submitOptions struct {
	streams
	server     string
	capability string
	action     string
	settings   settingFlags
	source     string
	output     string
	timeout    time.Duration
	key        string
	affinity   string
	priority   float64
	detach     bool
	asJSON     bool
	quiet      bool
	tls        tlsFlags
	nats       natsFlags
	login      loginFlags
}

func newSubmitCommand(s streams) *cobra.Command {
	o := &submitOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "submit --capability NAME [flags]",
		Short: "Hand a work item to a server and wait for its result",
		Example: `  beacon submit --capability Transform --set To=jsonl --source data.csv --output data.jsonl
  beacon submit --server http://10.0.0.5:54321 --capability Shell --set Command=date --detach
  beacon submit --server https://hub:54321 --user ann --password file:/run/secrets/ann --capability Shell --set Command=date`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("priority") && !o.detach {
				return usagef("--priority goes with --detach: items that are waited for have none")
			}
			o.tls.choose(cmd.Flags(), config{})
			return o.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.server, "server", "s", cmp.Or(os.Getenv("BEACON_SERVER"), "http://"+defaultListen), "the server's URL, or those of a NATS cluster that hubs share (nats://a,nats://b), also BEACON_SERVER")
	f.StringVarP(&o.capability, "capability", "c", "", "the capability that is asked for")
	f.StringVarP(&o.action, "action", "a", "", "the action; default is the capability's first")
	f.StringVar(&o.source, "source", "", "a file to work on; it is uploaded to the server")
	f.StringVarP(&o.output, "output", "o", "", "where to put the output file")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long the item may take")
	f.BoolVar(&o.detach, "detach", false, "do not wait: print the item's hash and end")
	f.StringVar(&o.key, "idempotency-key", "", "with --detach: submitting the same key again is the same item")
	f.StringVar(&o.affinity, "affinity", "", "items with the same key go to the same beacon")
	f.Float64Var(&o.priority, "priority", 0, "with --detach: higher goes first")
	f.BoolVar(&o.asJSON, "json", false, "print the whole result as JSON")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print neither progress nor log")
	o.settings.register(f)
	o.tls.register(f)
	o.nats.register(f)
	o.login.register(f)
	return cmd
}

func (o *submitOptions) run(ctx context.Context) (err error) {
	switch {
	case o.capability == "":
		return usagef("--capability is missing: name what is asked for")
	case o.timeout <= 0:
		return usagef("--timeout %s: want a time above zero, such as 30s", o.timeout)
	case o.detach && o.output != "":
		return usagef("--output does not go with --detach: there is nobody to write it")
	}
	settings, err := o.settings.settings(o.in)
	if err != nil {
		return err
	}
	if err := checkFiles(o.source, o.output); err != nil {
		return err
	}
	secure, err := o.tls.config()
	if err != nil {
		return err
	}
	options, err := o.login.config(o.server)
	if err != nil {
		return err
	}
	if standard, ok := http.DefaultTransport.(*http.Transport); ok && secure != nil {
		own := standard.Clone()
		own.TLSClientConfig = secure
		options.Transport = own
	}
	shown, closeHub, err := o.nats.reach(ctx, o.server, &options, o.err)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeHub()) }()
	o.server = shown
	client, err := submit.New(options)
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	if err := o.offered(ctx, client); err != nil {
		return err
	}
	bar := newBar(o.err, o.quiet || o.asJSON)
	if o.source != "" {
		if err := o.upload(ctx, client, settings, bar); err != nil {
			return err
		}
	}
	if o.output != "" {
		settings.SetText("OutputFilename", outputName(settings, o.output))
		settings.SetText("ReturnOutputAsBase64", "true")
	}
	item := protocol.Submission{
		Capability: o.capability, Action: o.action, Settings: settings,
		AffinityKey: o.affinity, TimeoutMs: float64(o.timeout.Milliseconds()),
	}
	if o.detach {
		if o.priority != 0 {
			item.Priority = &o.priority
		}
		hash, err := client.Enqueue(ctx, item, o.key)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(o.out, beacon.Excerpt(hash, 1000))
		return err
	}
	return o.dispatch(ctx, client, item, bar)
}

// outputName keeps the file's name, unless the source has it already.
func outputName(settings beacon.Settings, path string) string {
	name := filepath.Base(path)
	if name == settings.Text("SourceFilename") {
		return "output-" + name
	}
	return name
}

// offered says at once that nobody can do the work, where the server would let
// the item wait until its time is over.
func (o *submitOptions) offered(ctx context.Context, client *submit.Client) error {
	names, err := client.Capabilities(ctx)
	if err != nil {
		return serverError(o.server, err)
	}
	if slices.Contains(names, o.capability) || o.detach {
		return nil
	}
	have := "none is connected"
	if len(names) > 0 {
		have = "there is " + beacon.Excerpt(strings.Join(names, ", "), 500)
	}
	return &coded{exitServer, fmt.Errorf("no beacon at %s offers %s: %s", o.server, o.capability, have)}
}

// serverError gives what a server did not take the exit code of servers.
func serverError(server string, err error) error {
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return fmt.Errorf("%w; trust its authority with --ca-file, or this one certificate with --fingerprint", err)
	}
	var status *submit.StatusError
	if errors.As(err, &status) {
		return &coded{exitServer, fmt.Errorf("server %s: %w", server, err)}
	}
	return err
}

func (o *submitOptions) upload(ctx context.Context, client *submit.Client, settings beacon.Settings, bar *bar) error {
	info, err := os.Stat(o.source)
	if err != nil {
		return usagef("--source %s: %w", o.source, unwrapPath(err))
	}
	name, size := filepath.Base(o.source), info.Size()
	url, err := client.Upload(ctx, name, size,
		func() (io.ReadCloser, error) { return os.Open(o.source) },
		func(sent int64) {
			p := beacon.Progress{Message: fmt.Sprintf("uploading %s: %s of %s", name, executor.Size(sent), executor.Size(size))}
			if size > 0 {
				p.Percent, p.HasPercent = float64(sent)*100/float64(size), true
			}
			bar.update(p)
		})
	bar.end()
	if err != nil {
		return serverError(o.server, err)
	}
	settings.SetText("SourceURL", url)
	if !settings.Has("SourceFilename") {
		settings.SetText("SourceFilename", name)
	}
	return nil
}

func (o *submitOptions) dispatch(ctx context.Context, client *submit.Client, item protocol.Submission, bar *bar) (err error) {
	var output io.Writer
	var file *os.File
	if o.output != "" {
		if file, err = os.CreateTemp(filepath.Dir(o.output), "."+filepath.Base(o.output)+".*"); err != nil {
			return usagef("--output %s: cannot write there: %w", o.output, unwrapPath(err))
		}
		output = file
		defer func() {
			if file != nil {
				err = errors.Join(err, file.Close(), os.Remove(file.Name()))
			}
		}()
	}
	started := time.Now()
	result, failure := client.Dispatch(ctx, item, bar.update, output)
	bar.end()
	if failure != nil && beacon.CodeOf(failure) != beacon.Failed {
		return serverError(o.server, failure)
	}
	if file != nil && failure == nil && result.ExitCode() == 0 {
		if _, ok := result.Outputs["OutputFilename"]; !ok {
			return &coded{exitFailed, fmt.Errorf("the item succeeded without an output file; %s is not written", o.output)}
		}
		err := errors.Join(file.Chmod(0o644), file.Close(), os.Rename(file.Name(), o.output))
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", o.output, err), os.Remove(file.Name()))
		}
		if file = nil; err != nil {
			return err
		}
	}
	return outcome{o.streams, o.asJSON, o.quiet, false}.show(result, failure, time.Since(started))
}
