package hostfuncs_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
)

func TestManifest(t *testing.T) {
	m, err := hostfuncs.ParseManifest([]byte(`{
		"Name": "transform", "Version": "1.0.0", "Capability": "Transform", "Description": "Does.\u001b[31m", "Unknown": [1, {}],
		"Actions": [{
			"Name": "Convert", "Description": "Converts.",
			"SettingsSchema": [
				{"Name": "To", "DataType": "String", "Required": true, "Description": "\u202eWhere", "Default": "jsonl"},
				{"Name": "N", "DataType": "Number", "Default": 1.5}, {"Name": "B", "DataType": "Boolean", "Default": true}, {"Name": "Z", "Default": null}
			],
			"Example": {"Settings": {"To": "json'l $(x)"}, "Source": "data/readings.csv", "Output": "readings.jsonl"}
		}, {"Name": "Other"}],
		"Permissions": [{"Permission": "net", "Reason": "why\nnot"}],
		"WarmUp": {"Action": "Other", "Settings": {"N": 5}, "Source": "in.csv", "Content": "a\nb", "Output": "out"}
	}`))
	require.NoError(t, err)
	require.Equal(t, hostfuncs.Manifest{
		Name: "transform", Version: "1.0.0",
		Capability: beacon.Capability{Name: "Transform", Description: `Does.\u001b[31m`, Actions: []beacon.Action{
			{
				Name: "Convert", Description: "Converts.",
				Settings: []beacon.Setting{
					{Name: "To", DataType: "String", Required: true, Description: `\u202eWhere`, Default: "jsonl"},
					{Name: "N", DataType: "Number", Default: 1.5}, {Name: "B", DataType: "Boolean", Default: true}, {Name: "Z"},
				},
				Example: &beacon.Example{Settings: map[string]string{"To": "json'l $(x)"}, Source: "data/readings.csv", Output: "readings.jsonl"},
			},
			{Name: "Other"},
		}},
		Permissions: []hostfuncs.Permission{{Permission: "net", Reason: `why\u000anot`}},
		WarmUp: &hostfuncs.WarmUp{
			Action: "Other", Settings: beacon.Settings{"N": json.RawMessage("5")}, Source: "in.csv", Content: "a\nb", Output: "out",
		},
	}, m)

	m, err = hostfuncs.ParseManifest([]byte(`{"Capability":"C","Actions":[{"Name":"A"}]}`))
	require.NoError(t, err)
	require.Equal(t, "C", m.Name, "named after its capability")
}

func TestManifestRefusals(t *testing.T) {
	with := func(action string) string { return `{"Capability":"C","Actions":[` + action + `]}` }
	for name, tt := range map[string]struct{ raw, want string }{
		"empty":                {"", "not the JSON"},
		"warm-up, no action":   {`{"Capability":"C","Actions":[{"Name":"A"}],"WarmUp":{"Action":"B"}}`, `WarmUp has an Action "B", which is none`},
		"warm-up, a path":      {`{"Capability":"C","Actions":[{"Name":"A"}],"WarmUp":{"Action":"A","Source":"../x"}}`, `WarmUp: "../x" must be a plain file name`},
		"warm-up, no source":   {`{"Capability":"C","Actions":[{"Name":"A"}],"WarmUp":{"Action":"A","Content":"x"}}`, "no name of a Source"},
		"null":                 {"null", "Capability is missing"},
		"number for a name":    {`{"Capability":"C","Actions":[{"Name":"A","SettingsSchema":[{"Name":1}]}]}`, "Actions.SettingsSchema.Name is of the JSON type number, which it cannot be"},
		"array":                {"[]", "not the JSON"},
		"cut off":              {`{"Capability":"C"`, "not the JSON"},
		"rest":                 {with(`{"Name":"A"}`) + "x", "not the JSON"},
		"no UTF-8 text":        {`{"Capability":"` + "\xff" + `","Actions":[{"Name":"A"}]}`, "may hold letters"},
		"too long":             {strings.Repeat(" ", 1<<20+1), "1048577 bytes, limit 1048576"},
		"no capability":        {`{"Actions":[{"Name":"A"}]}`, "Capability is missing"},
		"bad capability":       {`{"Capability":"a b","Actions":[{"Name":"A"}]}`, `Capability "a b" may hold`},
		"path capability":      {`{"Capability":"../x","Actions":[{"Name":"A"}]}`, `may hold letters`},
		"long capability":      {`{"Capability":"` + strings.Repeat("a", 129) + `","Actions":[{"Name":"A"}]}`, "1 to 128 bytes"},
		"no actions":           {`{"Capability":"C"}`, "Actions is empty"},
		"many actions":         {with(strings.Repeat(`{"Name":"A"},`, 256) + `{"Name":"A"}`), "257 actions, limit 256"},
		"action without name":  {with(`{}`), `action "" must have`},
		"action with controls": {with(`{"Name":"\u001b[2J"}`), "may hold"},
		"action twice":         {with(`{"Name":"A"},{"Name":"A"}`), "action A stands twice"},
		"many settings":        {with(`{"Name":"A","SettingsSchema":[` + strings.Repeat(`{},`, 256) + `{}]}`), "257 settings, limit 256"},
		"default of objects":   {with(`{"Name":"A","SettingsSchema":[{"Name":"S","Default":[{},{}]}]}`), "Default must be"},
		"default, long":        {with(`{"Name":"A","SettingsSchema":[{"Name":"S","Default":"` + strings.Repeat("x", 5000) + `"}]}`), "Default must be"},
		"default out of range": {with(`{"Name":"A","SettingsSchema":[{"Default":1` + strings.Repeat("0", 100_000) + `}]}`), "Default is of the JSON type number"},
		"wrong type":           {with(`{"Name":5}`), "Actions.Name is of the JSON type number"},
		"many permissions":     {`{"Capability":"C","Actions":[{"Name":"A"}],"Permissions":[` + strings.Repeat(`{},`, 256) + `{}]}`, "257 permissions, limit 256"},
		"example outside":      {with(`{"Name":"A","Example":{"Source":"../../secret"}}`), "inside of the provider's folder"},
		"example absolute":     {with(`{"Name":"A","Example":{"Output":"/tmp/x"}}`), "inside of the provider's folder"},
		"example with drive":   {with(`{"Name":"A","Example":{"Output":"C:x"}}`), "inside of the provider's folder"},
		"example, backslash":   {with(`{"Name":"A","Example":{"Source":"..\\x"}}`), "inside of the provider's folder"},
		"example, control":     {with(`{"Name":"A","Example":{"Source":"a\rb"}}`), "inside of the provider's folder"},
		"example setting":      {with(`{"Name":"A","Example":{"Settings":{"S":"a\nrm"}}}`), "must be one line"},
		"example setting name": {with(`{"Name":"A","Example":{"Settings":{"S\u202e":"a"}}}`), "must be one line"},
		"many examples":        {with(`{"Name":"A","Example":{"Settings":{` + many(257) + `}}}`), "257 settings"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := hostfuncs.ParseManifest([]byte(tt.raw))
			require.Equal(t, beacon.Refused, beacon.CodeOf(err))
			require.ErrorContains(t, err, tt.want)
			requirePresentable(t, err.Error())
			require.LessOrEqual(t, len(err.Error()), 1000)
		})
	}
}

func many(n int) string {
	entries := make([]string, n)
	for i := range entries {
		raw, _ := json.Marshal(strings.Repeat("n", i+1)) // of a string
		entries[i] = string(raw) + `:"v"`
	}
	return strings.Join(entries, ",")
}

// requirePresentable is S24 for one text.
func requirePresentable(t testing.TB, text string) {
	t.Helper()
	require.Equal(t, beacon.Excerpt(text, len(text)), text, "control characters")
	require.LessOrEqual(t, len(text), 4096)
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"Capability":"C","Actions":[{"Name":"A","SettingsSchema":[{"Name":"S","Default":1}],"Example":{"Settings":{"S":"1"},"Source":"a"}}]}`))
	f.Add([]byte(`{"Capability":"C","Actions":[{"Name":"A"}],"Permissions":[{}]}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"Capability":"\u001b","Actions":[]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := hostfuncs.ParseManifest(raw)
		if err != nil {
			require.Equal(t, beacon.Refused, beacon.CodeOf(err))
			requirePresentable(t, err.Error())
			return
		}
		texts := []string{m.Name, m.Version, m.Capability.Name, m.Capability.Description}
		for _, a := range m.Capability.Actions {
			texts = append(texts, a.Name, a.Description)
			for _, s := range a.Settings {
				texts = append(texts, s.Name, s.DataType, s.Description)
			}
			if a.Example != nil {
				texts = append(texts, a.Example.Source, a.Example.Output)
				for name, value := range a.Example.Settings {
					texts = append(texts, name, value)
				}
			}
		}
		for _, p := range m.Permissions {
			texts = append(texts, p.Permission, p.Reason)
		}
		for _, text := range texts {
			require.Equal(t, beacon.Excerpt(text, len(text)), text)
		}
		_, err = beacon.NewRegistry(provider{capability: m.Capability})
		require.NoError(t, err)
	})
}

// A provider that is only registered.
type provider struct {
	beacon.Provider
	capability beacon.Capability
}

func (p provider) Capability() beacon.Capability { return p.capability }
