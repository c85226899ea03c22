package anthropic

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/builtin/llm/model"
	"github.com/ultravisor/beacon/builtin/llm/wire"
)

// Whatever a service sends, and however it is cut, comes out as one answer or
// as an error of the service.
func FuzzStream(f *testing.F) {
	for _, name := range []string{"chat", "tools", "filter", "json", "length", "reasoning", "error", "error-first"} {
		raw, err := os.ReadFile("../testdata/anthropic/" + name + ".stream")
		require.NoError(f, err)
		f.Add(raw)
	}
	whole, err := os.ReadFile("../testdata/anthropic/tools.whole")
	require.NoError(f, err)
	f.Add(whole)
	f.Fuzz(func(t *testing.T, in []byte) {
		read := func(r *bufio.Reader) (model.Answer, error) {
			a := &assembly{onDelta: func(model.Delta) {}}
			var err error
			if wire.IsJSON(r) {
				err = a.whole(r)
			} else {
				err = a.stream(r)
			}
			return a.answer(), err
		}
		answer, err := read(bufio.NewReader(bytes.NewReader(in)))
		again, err2 := read(bufio.NewReader(iotest.HalfReader(bytes.NewReader(in))))
		require.Equal(t, answer, again)
		require.Equal(t, err == nil, err2 == nil)
		if err != nil {
			var failed *wire.Error
			require.True(t, errors.As(err, &failed))
			require.NotEmpty(t, failed.Message)
		}
		require.Contains(t, []string{model.FinishStop, model.FinishLength, model.FinishToolCalls, model.FinishContentFilter}, answer.Finish)
	})
}
