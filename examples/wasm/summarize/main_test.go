package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestSplit(t *testing.T) {
	require.Equal(t, []string{"short"}, split("short", 100))
	require.Equal(t, []string{"one two", "three"}, split("one two three", 9), "after a word")
	require.Equal(t, []string{"A first. It ends.", "A second one."}, split("A first. It ends. A second one.", 24), "after a sentence")
	require.Equal(t, []string{"a\n\nb b", "c c c"}, split("a\n\nb b\n\nc c c", 9), "after a paragraph")
	text := strings.Repeat("ä", 1000)
	parts := split(text, 101)
	require.Equal(t, text, strings.Join(parts, ""))
	for _, p := range parts {
		require.True(t, utf8.ValidString(p))
		require.LessOrEqual(t, len(p), 101)
	}
}
