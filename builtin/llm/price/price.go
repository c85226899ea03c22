// Package price says what the use of a language model costs. Prices change, and
// only the service's own count: what a configuration says comes before the
// table here, and a model that neither knows has no cost, rather than none.
package price

import (
	"bytes"
	_ "embed" // for the table
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/ultravisor/beacon/builtin/llm/model"
)

// A Price is in US dollars per million tokens.
type Price struct {
	Input  float64
	Output float64
	// CachedInput is for input that the service had in its cache, CacheWrite for
	// what it put there; nil means the price of Input.
	CachedInput *float64 `json:",omitempty"`
	CacheWrite  *float64 `json:",omitempty"`
}

// Cost is what a use costs, in US dollars.
func (p Price) Cost(u model.Usage) float64 {
	cached, written := p.Input, p.Input
	if p.CachedInput != nil {
		cached = *p.CachedInput
	}
	if p.CacheWrite != nil {
		written = *p.CacheWrite
	}
	plain := max(0, u.Prompt-u.Cached-u.Written)
	micro := float64(plain)*p.Input + float64(u.Cached)*cached + float64(u.Written)*written + float64(u.Completion)*p.Output
	return micro / 1e6
}

// A Table has prices by the name of the model.
type Table map[string]Price

//go:embed prices.json
var builtIn []byte

// BuiltIn returns the list prices of the services' own models, of the day that
// the table names, by service: openai, anthropic, voyage.
func BuiltIn() (map[string]Table, error) {
	var file struct {
		Date   string
		Prices map[string]Table
	}
	dec := json.NewDecoder(bytes.NewReader(builtIn))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, fmt.Errorf("read the price table: %w", err)
	}
	return file.Prices, nil
}

// Validate reports prices that make no sense.
func (t Table) Validate() error {
	for name, p := range t {
		all := []float64{p.Input, p.Output}
		for _, q := range []*float64{p.CachedInput, p.CacheWrite} {
			if q != nil {
				all = append(all, *q)
			}
		}
		if name == "" || slices.ContainsFunc(all, func(f float64) bool { return f < 0 || math.IsNaN(f) || math.IsInf(f, 0) }) {
			return fmt.Errorf("the price of model %q: want dollars per million tokens, 0 or more", name)
		}
	}
	return nil
}

// dated are the endings that name a version of a model, all of one price.
var dated = regexp.MustCompile(`(-\d{4}-\d{2}-\d{2}|-\d{8}|-latest)$`)

// Find returns the price of a model: under its name, or under its name without
// the date of a version.
func (t Table) Find(name string) (Price, bool) {
	if p, ok := t[name]; ok {
		return p, true
	}
	p, ok := t[dated.ReplaceAllString(strings.ToLower(name), "")]
	return p, ok
}
