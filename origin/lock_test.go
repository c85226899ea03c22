package origin_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/origin"
)

func TestLock(t *testing.T) {
	file := filepath.Join(t.TempDir(), origin.LockName)
	none, err := origin.ReadLock(file)
	require.NoError(t, err)
	require.Nil(t, none)
	require.Empty(t, none.Pin("a.wasm"))
	one := origin.NewLocked(digestOf(module), "resize", "1.0", []string{"secret b", "call LLM", "secret b"})
	c := none.Compare("a.wasm", one)
	require.True(t, c.New && c.Any() && !c.Asks())

	l := &origin.Lock{Modules: map[string]origin.Locked{"a.wasm": one, "oci://example.com/b:1": origin.NewLocked(digestOf(nil), "", "", nil)}}
	require.NoError(t, l.Write(file))
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, `{
  "Version": 1,
  "Modules": {
    "a.wasm": {
      "SHA256": "`+digestOf(module)+`",
      "Name": "resize",
      "Release": "1.0",
      "Permissions": [
        "call LLM",
        "secret b"
      ]
    },
    "oci://example.com/b:1": {
      "SHA256": "`+digestOf(nil)+`",
      "Permissions": []
    }
  }
}
`, string(content))
	require.NoError(t, os.Chmod(file, 0o640))
	l, err = origin.ReadLock(file)
	require.NoError(t, err)
	require.NoError(t, l.Write(file))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode().Perm(), "it stays as it was")
	require.Equal(t, digestOf(module), l.Pin("a.wasm"))

	c = l.Compare("a.wasm", one)
	require.False(t, c.Any())
	require.NoError(t, c.Refusal())
	c = l.Compare("a.wasm", origin.NewLocked(digestOf(nil), "resize", "2.0", []string{"call LLM"}))
	require.True(t, c.Any() && c.Replaced && !c.Asks())
	require.Equal(t, []string{"secret b"}, c.Less)
	require.ErrorContains(t, c.Refusal(), `run "beacon lock" to pin it`)
	c = l.Compare("a.wasm", origin.NewLocked(digestOf(nil), "resize", "2.0", []string{"call LLM", "http * https://evil.example.com\n\x1b[31m"}))
	require.True(t, c.Asks())
	err = c.Refusal()
	require.Equal(t, beacon.Refused, beacon.CodeOf(err))
	require.Equal(t, `module a.wasm has changed: sha256 `+digestOf(nil)[:12]+`, was `+digestOf(module)[:12]+` (version 2.0, was 1.0)
  + http * https://evil.example.com\u000a\u001b[31m
  - secret b
run "beacon lock --accept" to accept it`, err.Error())
	require.ErrorContains(t, l.Compare("c.wasm", one).Refusal(), "module c.wasm is not in beacon.lock")
}

func TestLocksThatAreWrong(t *testing.T) {
	for text, want := range map[string]string{
		``:                "not the JSON",
		`{"Version":2}`:   "it has version 2",
		`{}`:              "it has version 0",
		`{"Version":1} x`: "more than one",
		`{"Version":1,"Modules":{"a":{"SHA256":"` + digestOf(nil) + `"},"a":{"SHA256":"` + digestOf(module) + `"}}}`: `"a" stands in it twice`,
		`{"Version":1,"Modules":{"a":{"SHA256":"` + digestOf(nil) + `","sha256":"` + digestOf(module) + `"}}}`:       `"sha256" stands in it twice`,
		`{"Version":1,"Modules":{},"modules":{}}`:        `"modules" stands in it twice`,
		`{"Version":1,"Module":{}}`:                      `unknown field "Module"`,
		`{"Version":1,"Modules":{"a":{}}}`:               "module a has no SHA256",
		`{"Version":1,"Modules":{"a":{"SHA256":"xyz"}}}`: "module a has no SHA256",
	} {
		file := write(t, filepath.Join(t.TempDir(), "lock"), []byte(text))
		_, err := origin.ReadLock(file)
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err), text)
		require.ErrorContains(t, err, want)
	}
	_, err := origin.ReadLock(t.TempDir())
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	_, err = origin.ReadLock(write(t, filepath.Join(t.TempDir(), "lock"), []byte(strings.Repeat(" ", 17<<20))))
	require.ErrorContains(t, err, "more than")
	// Modules are by their paths, which may differ in nothing else.
	_, err = origin.ReadLock(write(t, filepath.Join(t.TempDir(), "lock"), []byte(`{"Version":1,"Modules":{"a":{"SHA256":"`+digestOf(nil)+`"},"A":{"SHA256":"`+digestOf(nil)+`"}}}`)))
	require.NoError(t, err)
	if endless := "/dev/zero"; exists(endless) {
		_, err = origin.ReadLock(endless)
		require.ErrorContains(t, err, "not a regular file")
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
