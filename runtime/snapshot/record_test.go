package snapshot

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

var testKey = []byte("the key of these tests")

func TestRecord(t *testing.T) {
	memory := make([]byte, 5*4096+100)
	copy(memory[4096:], "on the second page")
	copy(memory[3*4096:], bytes.Repeat([]byte("x"), 4096))
	copy(memory[5*4096:], "at the end")
	r := &Record{Source: []byte("source"), Meta: []byte(`{"a":1}`), Binary: []byte("\x00asm"), Size: len(memory) + 4096, Pieces: []Piece{{Bytes: memory}}}
	file := filepath.Join(t.TempDir(), "record")
	require.NoError(t, r.Write(file, testKey))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(3*4096), "pages of zeros are left out")

	got, err := ReadRecord(file, testKey)
	require.NoError(t, err)
	require.Equal(t, r.Source, got.Source)
	require.Equal(t, r.Meta, got.Meta)
	require.Equal(t, r.Binary, got.Binary)
	i, err := NewImage(got.Size, got.Pieces...)
	require.NoError(t, err)
	require.True(t, bytes.Equal(append(memory, make([]byte, 4096)...), i.Bytes()))
	require.NoError(t, i.Close())

	// Written again, it is another file with the same content.
	require.NoError(t, got.Write(file, testKey))
	again, err := ReadRecord(file, testKey)
	require.NoError(t, err)
	require.Equal(t, got, again)
	entries, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left beside it")

	_, err = ReadRecord(file, []byte("another key"))
	require.ErrorIs(t, err, ErrRecord)
	_, err = ReadRecord(filepath.Dir(file), testKey)
	require.ErrorIs(t, err, ErrRecord)
	_, err = ReadRecord(file+"x", testKey)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Error(t, r.Write(filepath.Join(file, "x"), testKey))

	// Whatever is changed, cut off or added is noticed.
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	for at := 0; at < len(content); at += 1 + at/50 {
		changed := bytes.Clone(content)
		changed[at] ^= 1
		_, err := decode(changed, testKey)
		require.ErrorIs(t, err, ErrRecord, "byte %d", at)
		_, err = decode(content[:at], testKey)
		require.ErrorIs(t, err, ErrRecord, "%d bytes", at)
	}
	_, err = decode(append(content, 0), testKey)
	require.ErrorIs(t, err, ErrRecord)
}

func TestEmptyRecord(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, (&Record{}).encode(&b, testKey))
	r, err := decode(b.Bytes(), testKey)
	require.NoError(t, err)
	require.Empty(t, r.Pieces)
}

// Even with the key, lengths are not believed.
func FuzzRecord(f *testing.F) {
	var b bytes.Buffer
	require.NoError(f, (&Record{Meta: []byte("meta"), Size: 9, Pieces: []Piece{{Offset: 1, Bytes: []byte("piece")}}}).encode(&b, testKey))
	f.Add(b.Bytes()[len(magic) : b.Len()-32])
	f.Fuzz(func(t *testing.T, content []byte) {
		file := append([]byte(magic), content...)
		file = append(file, sum(file, testKey)...)
		r, err := decode(file, testKey)
		if err != nil {
			require.ErrorIs(t, err, ErrRecord)
			return
		}
		total := 0
		for _, p := range r.Pieces {
			total += len(p.Bytes)
		}
		require.LessOrEqual(t, len(r.Binary)+len(r.Meta)+total, len(content))
	})
}
