package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/ultravisor/beacon"
)

// settingFlags are those of commands that make a work item.
type settingFlags struct {
	set  []string
	file string
}

func (f *settingFlags) register(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.set, "set", nil, "a setting: NAME=TEXT, or NAME:=JSON; may be repeated")
	flags.StringVar(&f.file, "settings", "", "a file with settings as a JSON object, - for standard input")
}

// maxSettingsFile is far above what any server takes.
const maxSettingsFile = 64 << 20

// settings puts together the file and then the single settings, which win.
func (f *settingFlags) settings(in io.Reader) (beacon.Settings, error) {
	s := beacon.Settings{}
	if f.file != "" {
		if f.file != "-" {
			file, err := os.Open(f.file)
			if err != nil {
				return nil, usagef("--settings %s: %w", f.file, unwrapPath(err))
			}
			defer file.Close()
			in = file
		}
		raw, err := io.ReadAll(io.LimitReader(in, maxSettingsFile+1))
		if err != nil {
			return nil, usagef("--settings %s: %w", f.file, unwrapPath(err))
		}
		if len(raw) > maxSettingsFile {
			return nil, usagef("--settings %s: more than %d bytes", f.file, maxSettingsFile)
		}
		if s, err = parseObject(raw); err != nil {
			return nil, usagef("--settings %s: %w", f.file, err)
		}
	}
	for _, text := range f.set {
		name, value, found := strings.Cut(text, "=")
		asJSON := strings.HasSuffix(name, ":")
		name = strings.TrimSuffix(name, ":")
		switch {
		case !found || name == "":
			return nil, usagef("--set %q: want NAME=TEXT or NAME:=JSON", text)
		case asJSON && !json.Valid([]byte(value)):
			return nil, usagef("--set %q: what follows := is not JSON (text values take =)", text)
		case asJSON:
			s[name] = json.RawMessage(value)
		default:
			s.SetText(name, value)
		}
	}
	return s, nil
}

func parseObject(raw []byte) (beacon.Settings, error) {
	var s beacon.Settings
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&s); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			return nil, fmt.Errorf("not a JSON object: %s", kind.Value)
		}
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if s == nil {
		return nil, errors.New("not a JSON object: null")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	return s, nil
}
