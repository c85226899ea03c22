package ollama

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/builtin/llm/model"
	"github.com/ultravisor/beacon/builtin/llm/wire"
)

// Whatever a server sends, and however it is cut, comes out as one answer or as
// an error of the server; what was shown is what the answer holds.
func FuzzStream(f *testing.F) {
	for _, name := range []string{"chat", "tools", "json", "length", "reasoning", "error", "error-first"} {
		raw, err := os.ReadFile("../testdata/ollama/" + name + ".stream")
		require.NoError(f, err)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		shown := ""
		answer, err := read(bytes.NewReader(in), func(d model.Delta) { shown += d.Text })
		require.Equal(t, shown, answer.Content)
		again, err2 := read(iotest.HalfReader(bytes.NewReader(in)), func(model.Delta) {})
		require.Equal(t, answer.Content, again.Content)
		require.Len(t, again.ToolCalls, len(answer.ToolCalls))
		require.Equal(t, err == nil, err2 == nil)
		if err != nil {
			var failed *wire.Error
			require.True(t, errors.As(err, &failed))
			require.NotEmpty(t, failed.Message)
			return
		}
		require.Contains(t, []string{model.FinishStop, model.FinishLength, model.FinishToolCalls}, answer.Finish)
	})
}
