package openai

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
// as an error of the service; what was shown is what the answer holds.
func FuzzStream(f *testing.F) {
	for _, dialect := range []string{"openai", "openai-compatible"} {
		for _, name := range []string{"chat", "tools", "filter", "json", "length", "error", "error-first"} {
			raw, err := os.ReadFile("../testdata/" + dialect + "/" + name + ".stream")
			require.NoError(f, err)
			f.Add(raw)
		}
		whole, err := os.ReadFile("../testdata/" + dialect + "/tools.whole")
		require.NoError(f, err)
		f.Add(whole)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		read := func(r *bufio.Reader) (answer model.Answer, shown string, err error) {
			a := &assembly{onDelta: func(d model.Delta) { shown += d.Text }}
			if wire.IsJSON(r) {
				err = a.whole(r)
			} else {
				err = a.stream(r)
			}
			answer, err = a.finish(err)
			return answer, shown, err
		}
		answer, shown, err := read(bufio.NewReader(bytes.NewReader(in)))
		require.Equal(t, shown, answer.Content)
		again, _, err2 := read(bufio.NewReader(iotest.HalfReader(bytes.NewReader(in))))
		require.Equal(t, answer, again)
		require.Equal(t, err == nil, err2 == nil)
		if err != nil {
			var failed *wire.Error
			require.True(t, errors.As(err, &failed))
			require.NotEmpty(t, failed.Message)
			return
		}
		require.Contains(t, []string{model.FinishStop, model.FinishLength, model.FinishToolCalls, model.FinishContentFilter, model.FinishError}, answer.Finish)
	})
}

func BenchmarkStream(b *testing.B) {
	one := []byte(`data: {"id":"c","object":"chat.completion.chunk","created":1764072000,"model":"gpt-4o","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}` + "\n\n")
	in := append(bytes.Repeat(one, 1000), "data: [DONE]\n\n"...)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		a := &assembly{onDelta: func(model.Delta) {}}
		_, err := a.finish(a.stream(bytes.NewReader(in)))
		require.NoError(b, err)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "µs/piece")
}
