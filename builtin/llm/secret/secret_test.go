package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/builtin/llm/secret"
)

const key = `sk-proj/AbC+123=="x"`

func TestValueIsNeverPrinted(t *testing.T) {
	v := secret.New(key)
	type holder struct {
		Key    secret.Value
		hidden secret.Value
	}
	h := holder{v, v}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v, "h", h)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v, "h", h)
	raw, err := json.Marshal(map[string]any{"v": v, "h": h})
	require.NoError(t, err)
	shown := log.String() + string(raw)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		shown += fmt.Sprintf(verb, v) + fmt.Sprintf(verb, h) + fmt.Sprintf(verb, &h) + fmt.Sprintf(verb, []secret.Value{v})
	}
	require.NotContains(t, shown, "AbC")
	require.Contains(t, shown, secret.Mask)
	require.Equal(t, key, v.Reveal())
	require.True(t, secret.Value{}.Empty())
}

func TestResolve(t *testing.T) {
	t.Setenv("LLM_TEST_KEY", "from the environment")
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte("from a file\r\n"), 0o600))
	for in, want := range map[string]string{
		"sk-1":          "sk-1",
		"":              "",
		"$LLM_TEST_KEY": "from the environment",
		"file:" + file:  "from a file",
	} {
		v, err := secret.Resolve(in)
		require.NoError(t, err)
		require.Equal(t, want, v.Reveal())
	}
	_, err := secret.Resolve("$LLM_TEST_NO_KEY")
	require.ErrorContains(t, err, "the worker's environment has no LLM_TEST_NO_KEY")
	_, err = secret.Resolve("file:" + file + ".missing")
	require.Error(t, err)
}

func TestRedactor(t *testing.T) {
	r := secret.NewRedactor(secret.New(key), secret.New(key[:12]), secret.New("none"), secret.New(""))
	for _, form := range []string{
		key, url.QueryEscape(key), url.PathEscape(key), strings.TrimSuffix(string(must(json.Marshal(key)))[1:], `"`),
		base64.StdEncoding.EncodeToString([]byte(key)), key[:12],
	} {
		require.Equal(t, "Bearer "+secret.Mask+", says none", r.Scrub("Bearer "+form+", says none"))
	}
	var nobody *secret.Redactor
	require.Equal(t, key, nobody.Scrub(key))
	require.Nil(t, secret.NewRedactor(secret.New("none")))
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
