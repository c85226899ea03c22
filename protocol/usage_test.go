package protocol_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

func TestUsage(t *testing.T) {
	require.Nil(t, protocol.NewUsage(beacon.Usage{}))
	u := protocol.NewUsage(beacon.Usage{Fuel: math.MaxUint64, Memory: 1, Staged: 2, Sent: 3, Received: 4, Tokens: 5, Cost: math.NaN()})
	require.Equal(t, &protocol.Usage{Fuel: 1 << 53, Memory: 1, Staged: 2, Sent: 3, Received: 4, Tokens: 5}, u)
	require.Equal(t, protocol.Usage{Fuel: 1 << 53, Memory: 7, Staged: 2, Sent: 3, Received: 4, Tokens: 5, Cost: 1.5},
		u.Plus(protocol.Usage{Fuel: 1 << 53, Memory: 7, Cost: 1.5}))

	frame, err := protocol.EncodeComplete("wi", beacon.Result{Usage: beacon.Usage{Fuel: 12, Cost: 0.25}}, 3)
	require.NoError(t, err)
	require.Equal(t, `{"Action":"WorkComplete","WorkItemHash":"wi","Outputs":{},"Log":[],"AttemptNumber":3,"Usage":{"Fuel":12,"Cost":0.25}}`, string(frame))
	frame, err = protocol.EncodeError("wi", "no", beacon.Result{Usage: beacon.Usage{Tokens: 4}}, 0)
	require.NoError(t, err)
	require.Equal(t, `{"Action":"WorkError","WorkItemHash":"wi","ErrorMessage":"no","Log":[],"Usage":{"Tokens":4}}`, string(frame))
}

func TestDecodeUsage(t *testing.T) {
	tests := map[string]*protocol.Usage{
		``:                               nil,
		`null`:                           nil,
		`"fuel"`:                         nil,
		`[1]`:                            nil,
		`{}`:                             nil,
		`{"Fuel":-1,"Cost":-1}`:          nil,
		`{"Fuel":"7","Sent":2}`:          {Sent: 2},
		`{"Fuel":1e300,"Tokens":2.9}`:    {Fuel: 1 << 53, Tokens: 2},
		`{"Cost":1e300}`:                 {Cost: 1 << 53},
		`{"Memory":3,"Other":{"a":[1]}}`: {Memory: 3},
	}
	for raw, want := range tests {
		t.Run(raw, func(t *testing.T) { require.Equal(t, want, protocol.DecodeUsage([]byte(raw))) })
	}
}

func FuzzDecodeUsage(f *testing.F) {
	for _, raw := range []string{`{"Fuel":1}`, `{"Cost":1e999}`, `{"Fuel":-0.5,"Memory":9007199254740993}`, `[`} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		u := protocol.DecodeUsage(raw)
		if u == nil {
			return
		}
		require.GreaterOrEqual(t, u.Cost, 0.0)
		require.GreaterOrEqual(t, min(u.Fuel, u.Memory, u.Staged, u.Sent, u.Received, u.Tokens), int64(0))
		again, err := json.Marshal(u)
		require.NoError(t, err)
		require.Equal(t, u, protocol.DecodeUsage(again))
	})
}
