package executor

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/staging"
)

// Settings that the executor reads, whatever the provider.
const (
	settingSourceURL    = "SourceURL"
	settingSourceName   = "SourceFilename"
	settingSourceSHA256 = "SourceSHA256"
	settingSources      = "Sources"
	settingOutputName   = "OutputFilename"
	settingOutputFile   = "OutputFile" // the name of the same in workflows
	settingOutputs      = "Outputs"
	settingReturnOutput = "ReturnOutputAsBase64"
	settingAffinity     = "AffinityKey"
)

// Settings lists the names of the settings that the executor reads for every
// provider.
func Settings() []string {
	return []string{
		settingSourceURL, settingSourceName, settingSourceSHA256, settingSources,
		settingOutputName, settingOutputFile, settingOutputs, settingReturnOutput, settingAffinity,
	}
}

// The most that one item may name.
const (
	maxSources = 100
	maxOutputs = 100
	maxPattern = 1024
	maxList    = 4 << 20 // bytes of one of the lists
	// Each alternative in braces is tried with each of those that follow.
	maxAlternatives = 256
	defaultName     = "source_file"
)

// A request is what an item says about files.
type request struct {
	sources  []source
	outputs  []output
	affinity string
	wish     wish
}

// A source is a file to stage.
type source struct {
	url, name, sha256 string
}

// An output is a file to collect, or a pattern for some.
type output struct {
	name     string
	pattern  bool
	optional bool
}

// A wish says whether outputs are to be part of the result.
type wish int

const (
	unsaid wish = iota
	asBase64
	notAtAll
)

// newRequest reads and checks an item's settings, before anything is done.
func newRequest(s beacon.Settings) (request, error) {
	r := request{affinity: s.Text(settingAffinity)}
	var err error
	if r.wish, err = wishOf(s); err != nil {
		return request{}, err
	}
	if err := r.readSources(s); err != nil {
		return request{}, err
	}
	if err := r.readOutputs(s); err != nil {
		return request{}, err
	}
	for _, o := range r.outputs {
		if i := slices.IndexFunc(r.sources, func(src source) bool { return src.name == o.name }); i >= 0 {
			return request{}, beacon.Errorf(beacon.Invalid, "a source and an output are both called %q: give the output another name", o.name)
		}
	}
	return r, nil
}

func wishOf(s beacon.Settings) (wish, error) {
	if !s.Has(settingReturnOutput) {
		return unsaid, nil
	}
	wanted, err := s.Bool(settingReturnOutput)
	if wanted {
		return asBase64, err
	}
	return notAtAll, err
}

func (r *request) readSources(s beacon.Settings) error {
	if s.Has(settingSourceURL) {
		r.sources = append(r.sources, source{s.Text(settingSourceURL), cmp.Or(s.Text(settingSourceName), defaultName), s.Text(settingSourceSHA256)})
	}
	entries, err := list(s, settingSources)
	if err != nil {
		return err
	}
	if len(entries) > maxSources {
		return beacon.Errorf(beacon.Invalid, "%s has %d entries, limit %d", settingSources, len(entries), maxSources)
	}
	for i, raw := range entries {
		var e struct{ URL, Filename, SHA256 string }
		if err := entry(raw, &e.URL, &e); err != nil || e.URL == "" {
			return beacon.Errorf(beacon.Invalid, "entry %d of %s: want {\"URL\": …, \"Filename\": …, \"SHA256\": …}", i+1, settingSources)
		}
		if e.Filename == "" {
			e.Filename = nameOf(e.URL, i)
		}
		r.sources = append(r.sources, source{e.URL, e.Filename, e.SHA256})
	}
	seen := map[string]bool{}
	for _, src := range r.sources {
		if err := staging.CheckName(settingSourceName, src.name); err != nil {
			return err
		}
		if seen[src.name] {
			return beacon.Errorf(beacon.Invalid, "two sources are called %q: give one of them another Filename", src.name)
		}
		seen[src.name] = true
		if src.sha256 != "" {
			if err := staging.CheckSHA256(settingSourceSHA256, src.sha256); err != nil {
				return err
			}
		}
	}
	return nil
}

// nameOf makes a name of a URL's last part, if that is fit to be one.
func nameOf(address string, index int) string {
	if u, err := url.Parse(address); err == nil {
		if name := path.Base(u.Path); staging.CheckName("", name) == nil {
			return name
		}
	}
	return fmt.Sprintf("%s_%d", defaultName, index+1)
}

func (r *request) readOutputs(s beacon.Settings) error {
	if name := cmp.Or(s.Text(settingOutputName), s.Text(settingOutputFile)); name != "" {
		if err := staging.CheckPath(settingOutputName, name); err != nil {
			return err
		}
		r.outputs = append(r.outputs, output{name: name})
	}
	entries, err := list(s, settingOutputs)
	if err != nil {
		return err
	}
	if len(entries) > maxOutputs {
		return beacon.Errorf(beacon.Invalid, "%s has %d entries, limit %d", settingOutputs, len(entries), maxOutputs)
	}
	for i, raw := range entries {
		var e struct {
			Filename string
			Optional bool
		}
		if err := entry(raw, &e.Filename, &e); err != nil || e.Filename == "" {
			return beacon.Errorf(beacon.Invalid, "entry %d of %s: want a file name or pattern, or {\"Filename\": …, \"Optional\": true}", i+1, settingOutputs)
		}
		o := output{name: e.Filename, optional: e.Optional, pattern: strings.ContainsAny(e.Filename, `*?[{`)}
		if !o.pattern {
			if err := staging.CheckPath(settingOutputs, o.name); err != nil {
				return err
			}
		} else if len(o.name) > maxPattern || !doublestar.ValidatePattern(o.name) || strings.Contains(o.name, "..") || strings.HasPrefix(o.name, "/") {
			return beacon.Errorf(beacon.Invalid, "%s: %q is not a pattern such as *.csv or **/*.png", settingOutputs, beacon.Excerpt(o.name, 80))
		}
		if o.pattern && alternatives(o.name) > maxAlternatives {
			return beacon.Errorf(beacon.Invalid, "%s: the braces of %q mean more than %d patterns: name them one by one", settingOutputs, beacon.Excerpt(o.name, 80), maxAlternatives)
		}
		if slices.ContainsFunc(r.outputs, func(other output) bool { return other.name == o.name }) {
			continue // said twice
		}
		r.outputs = append(r.outputs, o)
	}
	return nil
}

// alternatives is how many patterns without braces a pattern means, at most.
func alternatives(pattern string) int {
	all := 1
	var open []int
	for _, r := range pattern {
		switch n := len(open) - 1; {
		case r == '{':
			open = append(open, 1)
		case r == ',' && n >= 0:
			open[n]++
		case r == '}' && n >= 0:
			all = min(all*open[n], maxAlternatives+1)
			open = open[:n]
		}
	}
	return all
}

// list reads a setting that is a JSON array, which on the wire may be inside of
// a string.
func list(s beacon.Settings, name string) ([]json.RawMessage, error) {
	if !s.Has(name) {
		return nil, nil
	}
	text := s.Text(name)
	if len(text) > maxList { // each entry takes much more memory than its text
		return nil, beacon.Errorf(beacon.Invalid, "setting %s has %d bytes, limit %d", name, len(text), maxList)
	}
	var entries []json.RawMessage
	if err := json.Unmarshal([]byte(text), &entries); err != nil {
		return nil, beacon.Errorf(beacon.Invalid, "setting %s is not a JSON array", name)
	}
	return entries, nil
}

// entry reads text, or an object whose keys are those of into and no others.
func entry(raw json.RawMessage, text *string, into any) error {
	if json.Unmarshal(raw, text) == nil {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// names of the sources.
func (r request) sourceNames() []string {
	var names []string
	for _, src := range r.sources {
		names = append(names, src.name)
	}
	return names
}

// outputNames are those of the outputs whose names are known before.
func (r request) outputNames() []string {
	var names []string
	for _, o := range r.outputs {
		if !o.pattern {
			names = append(names, o.name)
		}
	}
	return names
}

func first(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[0]
}
