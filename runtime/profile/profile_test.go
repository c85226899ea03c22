package profile_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	pprof "github.com/google/pprof/profile"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/runtime/profile"
)

// Whatever a module is and tells, a profile can be written, and what it says adds
// up to what was used.
func FuzzRecorder(f *testing.F) {
	for _, name := range []string{"profile", "trap", "branching", "recursion", "tiny"} {
		content, err := os.ReadFile(filepath.Join("..", "testdata", name+".wasm"))
		require.NoError(f, err)
		f.Add(content, []byte("\x00\x00\x05\x00\x01\x00\x05\x00\xff\xff\x05\x00\x02\x00\x00\x01"))
		f.Add(content, bytes.Repeat([]byte("\x00\x00\x01\x00"), 300)) // deeper than is told
	}
	f.Fuzz(func(t *testing.T, content, marks []byte) {
		p, err := profile.New("subject", content, module.Limits{})
		if err != nil {
			return
		}
		r, used := p.Record(), int64(0)
		for ; len(marks) >= 4; marks = marks[4:] {
			used += int64(binary.LittleEndian.Uint16(marks[2:]))
			r.Mark(int32(int16(binary.LittleEndian.Uint16(marks))), used) //nolint:gosec // with its sign
		}
		r.End(used)
		total := p.Total()
		require.LessOrEqual(t, total, used)
		var out bytes.Buffer
		require.NoError(t, p.Write(&out))
		read, err := pprof.Parse(&out)
		require.NoError(t, err)
		sum := int64(0)
		for _, s := range read.Sample {
			sum += s.Value[0]
		}
		require.Equal(t, total, sum)
	})
}
