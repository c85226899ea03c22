package protocol_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/protocol"
)

func TestTimestamp(t *testing.T) {
	at := protocol.Timestamp{Time: time.Date(2026, 11, 22, 12, 18, 18, 900_000_000, time.FixedZone("", 3600))}
	raw, err := json.Marshal(at)
	require.NoError(t, err)
	require.Equal(t, `"2026-11-22T11:18:18.900Z"`, string(raw))

	tests := map[string]struct {
		in   string
		zero bool
		bad  bool
	}{
		"its own form": {in: string(raw)},
		"null":         {in: "null", zero: true},
		"empty":        {in: `""`, zero: true},
		"not a time":   {in: `"yesterday"`, bad: true},
		"not a string": {in: "4", bad: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got protocol.Timestamp
			err := json.Unmarshal([]byte(tt.in), &got)
			if tt.bad {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.zero, got.IsZero())
			if !tt.zero {
				require.True(t, got.Equal(at.Time))
			}
		})
	}
	raw, err = json.Marshal(protocol.Timestamp{})
	require.NoError(t, err)
	require.Equal(t, "null", string(raw))
}

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, protocol.WriteFrame(&b, protocol.FrameProgress, []byte(`{"Percent":1}`)))
	require.NoError(t, protocol.WriteFrame(&b, protocol.FrameOutput, nil))
	require.Equal(t, []byte{1, 0, 0, 0, 13}, b.Bytes()[:5])
	whole := bytes.Clone(b.Bytes())

	kind, payload, err := protocol.ReadFrame(&b, 13)
	require.NoError(t, err)
	require.Equal(t, protocol.FrameProgress, kind)
	require.Equal(t, `{"Percent":1}`, string(payload))
	kind, payload, err = protocol.ReadFrame(&b, 13)
	require.NoError(t, err)
	require.Equal(t, protocol.FrameOutput, kind)
	require.Empty(t, payload)
	_, _, err = protocol.ReadFrame(&b, 13)
	require.Equal(t, io.EOF, err)

	for _, cut := range []int{3, 5, 12} {
		_, _, err = protocol.ReadFrame(bytes.NewReader(whole[:cut]), 13)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", cut)
	}
	_, _, err = protocol.ReadFrame(bytes.NewReader(whole), 12)
	require.ErrorContains(t, err, "limit of 12")
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{4, 0, 0, 0, 2, '{', '}'})
	f.Add([]byte{5, 255, 255, 255, 255, 1})
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		var again bytes.Buffer
		for {
			kind, payload, err := protocol.ReadFrame(r, 1<<20)
			if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				require.Equal(t, in, append([]byte{}, again.Bytes()...))
				return
			}
			if err != nil {
				return
			}
			require.NoError(t, protocol.WriteFrame(&again, kind, payload))
		}
	})
}

func TestFinal(t *testing.T) {
	for _, s := range []string{protocol.StatusComplete, protocol.StatusError, protocol.StatusCanceled, protocol.StatusTimeout} {
		require.True(t, protocol.Final(s))
	}
	require.False(t, protocol.Final(protocol.StatusPending))
	require.False(t, protocol.Final(protocol.StatusRunning))
}
