package guest_test

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/guest-sdk/go/guest"
	"github.com/ultravisor/beacon/guest-sdk/go/guesttest"
)

// provider makes a provider of one action.
func provider(run func(*guest.Item) error, settings ...guest.Setting) guest.Provider {
	return guest.Provider{Capability: "Test", Actions: []guest.Action{{Name: "Do", Settings: settings, Run: run}}}
}

func TestSettings(t *testing.T) {
	p := provider(func(item *guest.Item) error {
		item.Set("Text", item.Text("Text"))
		item.Set("Int", item.Int("Int"))
		item.Set("Float", item.Float("Float"))
		item.Set("Bool", item.Bool("Bool"))
		item.Set("None", item.Text("None"))
		other, ok, err := item.Lookup("Other")
		item.Set("Other", other)
		item.Set("HasOther", ok)
		item.Set("Declares", item.Declares("Other"))
		host, _, _ := item.Config("Host")
		item.Set("Config", host)
		all, _ := item.Settings()
		item.Set("All", all)
		return err
	},
		guest.Setting{Name: "Text", Default: "d"},
		guest.Setting{Name: "Int", Type: guest.Integer, Default: "3"},
		guest.Setting{Name: "Float", Type: guest.Number, Default: "0.5"},
		guest.Setting{Name: "Bool", Type: guest.Boolean, Default: "true"},
		guest.Setting{Name: "None"},
	)
	r := guesttest.Run(t, p, guesttest.Item{})
	require.NoError(t, r.Err)
	require.Equal(t, map[string]any{
		"Text": "d", "Int": 3.0, "Float": 0.5, "Bool": true, "None": "", "Other": "", "HasOther": false, "Declares": false,
		"Config": "", "All": map[string]any{}, "ExitCode": 0.0,
	}, r.Outputs)

	r = guesttest.Run(t, p, guesttest.Item{
		Settings: map[string]any{"Text": "x\n\"é", "Int": "1e3", "Float": 7, "Bool": "false", "Other": []int{1}, "None": nil},
		Config:   map[string]any{"Host": "h"},
	})
	require.NoError(t, r.Err)
	require.Equal(t, "x\n\"é", r.Outputs["Text"])
	require.Equal(t, 1000.0, r.Outputs["Int"])
	require.Equal(t, 7.0, r.Outputs["Float"])
	require.Equal(t, false, r.Outputs["Bool"])
	require.Equal(t, "[1]", r.Outputs["Other"])
	require.Equal(t, "h", r.Outputs["Config"])
}

func TestWrongSettings(t *testing.T) {
	settings := []guest.Setting{
		{Name: "Int", Type: guest.Integer}, {Name: "Float", Type: guest.Number}, {Name: "Bool", Type: guest.Boolean},
		{Name: "Mode", Options: []string{"fast", "good"}}, {Name: "Must", Required: true, Description: "what to do"},
	}
	ran := false
	p := provider(func(*guest.Item) error { ran = true; return nil }, settings...)
	tests := map[string]struct {
		settings map[string]any
		want     string
	}{
		"int":      {map[string]any{"Int": "1.5"}, `setting Int is "1.5": want a whole number`},
		"float":    {map[string]any{"Float": "x"}, `setting Float is "x": want a number`},
		"bool":     {map[string]any{"Bool": "maybe"}, `setting Bool is "maybe": want true or false`},
		"option":   {map[string]any{"Mode": "slow"}, `setting Mode is "slow": want one of fast, good`},
		"required": {map[string]any{"Must": ""}, "setting Must is missing: what to do"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := guesttest.Run(t, p, guesttest.Item{Settings: tt.settings})
			require.EqualError(t, r.Err, tt.want)
			require.False(t, ran)
		})
	}
}

func TestOutputs(t *testing.T) {
	values := map[string]any{
		"Text": "a\"\\\x00\n\t\r\x1f/é\u2028", "Bad": "\xffx", "True": true, "Int": -5, "Int64": int64(math.MinInt64), "Uint": uint64(math.MaxUint64),
		"Float": 1e21, "Small": 1e-7, "Float32": float32(0.1), "Nil": nil, "Bytes": []byte{0, 255, 1}, "List": []string{"a", "b\""}, "JSON": guest.JSON(`{"a":[1]}`),
	}
	r := guesttest.Run(t, provider(func(item *guest.Item) error {
		for name, v := range values {
			item.Set(name, v)
		}
		return nil
	}), guesttest.Item{})
	require.NoError(t, r.Err)
	for name, v := range values {
		if raw, ok := v.(guest.JSON); ok {
			v = json.RawMessage(raw)
		}
		b, err := json.Marshal(v)
		require.NoError(t, err)
		var want any
		require.NoError(t, json.Unmarshal(b, &want))
		require.Equal(t, want, r.Outputs[name], name)
	}
}

func TestWrongOutputsFailTheItem(t *testing.T) {
	for want, v := range map[string]any{"finite": math.NaN(), "type": struct{}{}, "empty": guest.JSON(""), "invalid": guest.JSON("{")} {
		r := guesttest.Run(t, provider(func(item *guest.Item) error { item.Set("X", v); return nil }), guesttest.Item{})
		require.ErrorContains(t, r.Err, "set output X")
		require.ErrorContains(t, r.Err, want)
	}
}

func TestOutcomes(t *testing.T) {
	tests := map[string]struct {
		run    func(*guest.Item) error
		err    string
		code   int
		stdout any
	}{
		"done":       {func(item *guest.Item) error { item.StdOut("x"); item.Result(1); return nil }, "", 0, "x"},
		"error":      {func(*guest.Item) error { return errors.New("no disk") }, "no disk", 0, nil},
		"exit":       {func(*guest.Item) error { return guest.Exit(3, "bad picture") }, "", 3, "bad picture"},
		"exit, said": {func(item *guest.Item) error { item.StdOut("said"); return guest.Exit(3, "x") }, "", 3, "said"},
		"panic":      {func(*guest.Item) error { panic("oh") }, "panic in action Do: oh", 0, nil},
		"index":      {func(item *guest.Item) error { item.Set("X", item.Hash[len(item.Hash)]); return nil }, "panic in action Do: runtime error: index out of range", 0, nil},
		"undeclared": {func(item *guest.Item) error { item.Text("X"); return nil }, "setting X is not among the Settings of action Do", 0, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := guesttest.Run(t, provider(tt.run), guesttest.Item{})
			if tt.err != "" {
				require.ErrorContains(t, r.Err, tt.err)
			} else {
				require.NoError(t, r.Err)
			}
			require.Equal(t, tt.code, r.ExitCode)
			require.Equal(t, tt.stdout, r.Outputs["StdOut"])
			if strings.HasPrefix(tt.err, "panic") {
				require.Contains(t, strings.Join(r.Log, "\n"), "guest_test.go") // the trace says where
			}
		})
	}
}

func TestReporting(t *testing.T) {
	r := guesttest.Run(t, provider(func(item *guest.Item) error {
		item.Progress(50, "half")
		item.Step(2, 4, "second")
		item.Progress(guest.Unknown, "?")
		item.Log("one\ntwo\n")
		item.Warn("three")
		item.Debug("four")
		return nil
	}), guesttest.Item{})
	require.NoError(t, r.Err)
	require.Equal(t, []string{"one", "two", "three", "four"}, r.Log)
	require.Equal(t, guest.Progress{Percent: 50, Message: "half"}, r.Progress[0])
	require.Equal(t, guest.Progress{Percent: 25, Step: 2, Total: 4, Message: "second"}, r.Progress[1])
	require.True(t, math.IsNaN(r.Progress[2].Percent))
}

func TestFiles(t *testing.T) {
	r := guesttest.Run(t, provider(func(item *guest.Item) error {
		source, err := item.OpenSource()
		if err != nil {
			return err
		}
		first := make([]byte, 5)
		if _, err := io.ReadFull(source, first); err != nil {
			return err
		}
		item.Set("Size", source.Size())
		item.Set("Count", source.Count())
		item.Set("Percent", source.Percent())
		all, err := item.ReadSource()
		if err != nil {
			return err
		}
		other, err := item.Open("dir/other.txt")
		if err != nil {
			return err
		}
		b, err := io.ReadAll(other)
		if err != nil {
			return err
		}
		w, err := item.Create("dir/made.txt")
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil { // and it is left open
			return err
		}
		return item.WriteOutput(append(all, first...))
	}), guesttest.Item{Source: "hello world", OutputName: "out", Files: map[string]string{"dir/other.txt": "other"}})
	require.NoError(t, r.Err)
	require.Equal(t, "hello worldhello", r.Output)
	require.Equal(t, "other", r.Files["dir/made.txt"])
	require.Equal(t, 11.0, r.Outputs["Size"])
	require.Equal(t, 5.0, r.Outputs["Count"])
	require.InDelta(t, 45.45, r.Outputs["Percent"], 0.01)
}

func TestFileErrors(t *testing.T) {
	tests := map[string]struct {
		run  func(*guest.Item) error
		want string
	}{
		"no source": {func(i *guest.Item) error { _, err := i.ReadSource(); return err }, "no source file"},
		"no output": {func(i *guest.Item) error { return i.WriteOutput(nil) }, "no output file"},
		"outside":   {func(i *guest.Item) error { _, err := i.Open("../x"); return err }, "relative to the item's directory"},
		"absolute":  {func(i *guest.Item) error { _, err := i.Create("/etc/x"); return err }, "relative to the item's directory"},
		"drive":     {func(i *guest.Item) error { _, err := i.Create(`c:\x`); return err }, "relative to the item's directory"},
		"empty":     {func(i *guest.Item) error { _, err := i.Open(""); return err }, "relative to the item's directory"},
		"missing":   {func(i *guest.Item) error { _, err := i.Open("x"); return err }, "x: "},
		"directory": {func(i *guest.Item) error { _, err := i.Open("dir"); return err }, "directory"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := guesttest.Run(t, provider(tt.run), guesttest.Item{Files: map[string]string{"dir/x": ""}})
			require.ErrorContains(t, r.Err, tt.want)
		})
	}
}

func TestEnding(t *testing.T) {
	r := guesttest.Run(t, provider(func(item *guest.Item) error {
		ctx, stop := item.Context()
		defer stop()
		if !item.Cancelled() || !errors.Is(ctx.Err(), ctx.Err()) {
			return errors.New("not cancelled")
		}
		<-ctx.Done()
		return ctx.Err()
	}), guesttest.Item{Cancelled: true})
	require.EqualError(t, r.Err, "context canceled")

	r = guesttest.Run(t, provider(func(item *guest.Item) error {
		left, ok := item.Remaining()
		ctx, stop := item.Context()
		defer stop()
		deadline, has := ctx.Deadline()
		if !ok || !has || left <= 0 || left > time.Hour || time.Until(deadline) > time.Hour || ctx.Err() != nil {
			return errors.New("wrong deadline")
		}
		return nil
	}), guesttest.Item{Timeout: time.Hour})
	require.NoError(t, r.Err)

	r = guesttest.Run(t, provider(func(item *guest.Item) error {
		ctx, stop := item.Context()
		defer stop()
		for ctx.Err() == nil { // never yields
		}
		return ctx.Err()
	}), guesttest.Item{Timeout: time.Millisecond})
	require.EqualError(t, r.Err, "context deadline exceeded")
}

func TestLifecycle(t *testing.T) {
	var calls []string
	p := provider(func(*guest.Item) error { calls = append(calls, "run"); return nil })
	p.Initialize = func() error { calls = append(calls, "initialize"); return nil }
	p.Shutdown = func() error { calls = append(calls, "shutdown"); return nil }
	require.NoError(t, guesttest.Run(t, p, guesttest.Item{}).Err)
	require.Equal(t, []string{"initialize", "run", "shutdown"}, calls)

	p.Shutdown = func() error { panic("late") }
	require.EqualError(t, guesttest.Run(t, p, guesttest.Item{}).Err, "panic in shutdown: late")
	p.Initialize = func() error { return errors.New("no licence") }
	require.EqualError(t, guesttest.Run(t, p, guesttest.Item{}).Err, "initialize: no licence")
}

func TestValidate(t *testing.T) {
	run := func(*guest.Item) error { return nil }
	tests := map[string]struct {
		p    guest.Provider
		want string
	}{
		"no capability":   {guest.Provider{}, "no Capability"},
		"no actions":      {guest.Provider{Capability: "C"}, "no actions"},
		"nameless":        {guest.Provider{Capability: "C", Actions: []guest.Action{{Run: run}}}, "without a name"},
		"twice":           {guest.Provider{Capability: "C", Actions: []guest.Action{{Name: "A", Run: run}, {Name: "A", Run: run}}}, "declared twice"},
		"no Run":          {guest.Provider{Capability: "C", Actions: []guest.Action{{Name: "A"}}}, "has no Run"},
		"setting":         {provider(run, guest.Setting{}), "setting without a name"},
		"setting twice":   {provider(run, guest.Setting{Name: "S"}, guest.Setting{Name: "S"}), "declares setting S twice"},
		"wrong default":   {provider(run, guest.Setting{Name: "S", Type: guest.Integer, Default: "x"}), `the default of setting S is "x"`},
		"default, option": {provider(run, guest.Setting{Name: "S", Default: "x", Options: []string{"y"}}), "want one of y"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, tt.p.Validate(), tt.want)
			require.ErrorContains(t, guesttest.Run(t, tt.p, guesttest.Item{}).Err, tt.want)
		})
	}
}

func TestManifest(t *testing.T) {
	p := provider(nil,
		guest.Setting{Name: "To", Description: "a \"b\"", Required: true, Options: []string{"x", "y"}},
		guest.Setting{Name: "N", Type: guest.Integer, Default: "4"},
		guest.Setting{Name: "F", Type: guest.Number, Default: "0.25"},
		guest.Setting{Name: "B", Type: guest.Boolean, Default: "true"},
	)
	p.Name, p.Version, p.Description = "test", "1.2.3", "é"
	p.Permissions = []guest.Permission{{Permission: "http:example.org", Reason: "to fetch"}}
	p.Actions[0].Example = &guest.Example{Settings: map[string]string{"b": "2", "a": "1"}, Source: "s", Output: "o"}
	p.WarmUp = &guest.WarmUp{Settings: map[string]string{"To": "x"}, Source: "w", Content: "\"c\"", Output: "o2"}
	require.JSONEq(t, `{"Name":"test","Version":"1.2.3","Capability":"Test","Description":"é",
		"Actions":[{"Name":"Do","Description":"","SettingsSchema":[
			{"Name":"To","DataType":"String","Required":true,"Description":"a \"b\"","Options":["x","y"]},
			{"Name":"N","DataType":"Number","Required":false,"Description":"","Default":4},
			{"Name":"F","DataType":"Number","Required":false,"Description":"","Default":0.25},
			{"Name":"B","DataType":"Boolean","Required":false,"Description":"","Default":true}],
			"Example":{"Settings":{"a":"1","b":"2"},"Source":"s","Output":"o"}}],
		"Permissions":[{"Permission":"http:example.org","Reason":"to fetch"}],
		"WarmUp":{"Action":"Do","Settings":{"To":"x"},"Source":"w","Content":"\"c\"","Output":"o2"}}`, string(p.Manifest()))
	require.Equal(t, p.Manifest(), p.Manifest())
}
