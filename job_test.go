package beacon_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

func TestOutputsDecode(t *testing.T) {
	var r struct{ Outputs beacon.Outputs }
	require.NoError(t, json.Unmarshal([]byte(`{"Outputs": {"A": 1e999, "B": [1, {"C": -1E400}], "D": "1e999", "E": null, "ExitCode": 3}}`), &r))
	require.Equal(t, beacon.Outputs{"A": json.RawMessage("1e999"), "B": json.RawMessage(`[1, {"C": -1E400}]`), "D": "1e999", "E": nil, "ExitCode": 3.0}, r.Outputs)
	raw, err := json.Marshal(r.Outputs)
	require.NoError(t, err)
	require.Equal(t, `{"A":1e999,"B":[1,{"C":-1E400}],"D":"1e999","E":null,"ExitCode":3}`, string(raw))
	require.NoError(t, json.Unmarshal([]byte(`{"Outputs": null}`), &r))
	require.Error(t, json.Unmarshal([]byte(`{"Outputs": [1]}`), &r))
}
