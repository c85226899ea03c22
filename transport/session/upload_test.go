package session_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/session"
)

// A file that is wanted beside of its result goes there if the server takes it,
// and otherwise inside of it, unless it is optional.
func TestUpload(t *testing.T) {
	for name, tt := range map[string]struct {
		status   int
		answer   string
		uploads  int // of two
		inResult bool
	}{
		"taken":                 {200, `{"Success":true,"FilePath":"x"}`, 2, false},
		"as Ultravisor says":    {400, `{"Error":"Binary body required"}`, 1, true},
		"as Ultravisor of ERA":  {405, `{"code":"MethodNotAllowed"}`, 1, true},
		"no such endpoint":      {404, `<html>`, 1, true},
		"this one is too large": {413, `{"Error":"The file is over the limit."}`, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				raw, _ := io.ReadAll(r.Body)
				if r.URL.Path == "/Beacon/Work/wi-1/Upload" {
					asked = append(asked, fmt.Sprintf("%s|%s|%d|%s", r.Header.Get("Content-Type"), r.Header.Get("X-Output-Filename"), r.ContentLength, raw))
					w.WriteHeader(tt.status)
					_, _ = io.WriteString(w, tt.answer)
					return
				}
				require.Equal(t, "/Beacon/Work/wi-1/Complete", r.URL.Path)
				var body struct{ Outputs map[string]any }
				require.NoError(t, json.Unmarshal(raw, &body))
				want := map[string]any{"OutputSize": 3.0}
				if tt.inResult {
					want["OutputData"] = "YWJj"
				}
				require.Equal(t, want, body.Outputs)
				_, _ = io.WriteString(w, `{"Status":"Completed"}`)
			})
			c := client(t, session.Config{ServerURL: s.URL})
			path := filepath.Join(t.TempDir(), "f")
			require.NoError(t, os.WriteFile(path, []byte("abc"), 0o600))
			f := beacon.File{Path: path, Size: 3, Name: "out é.bin", Upload: true}
			optional := f
			optional.Optional = true
			for range 2 {
				require.NoError(t, c.Report(t.Context(), transport.Report{Hash: "wi-1", Result: beacon.Result{
					Outputs: beacon.Outputs{"OutputData": f, "OutputSize": 3},
				}}))
			}
			require.Len(t, asked, tt.uploads)
			require.Equal(t, "application/octet-stream|out é.bin|3|abc", asked[0])

			tt.inResult = false
			require.NoError(t, c.Report(t.Context(), transport.Report{Hash: "wi-1", Result: beacon.Result{
				Outputs: beacon.Outputs{"OutputData": optional, "OutputSize": 3},
			}}))
		})
	}
}

// A file that is wanted inside of a result which is then too large for the server
// goes beside of it, once; where that is not taken, either, the result is refused.
func TestTooLargeInside(t *testing.T) {
	for name, status := range map[string]int{"taken beside": http.StatusOK, "not taken": http.StatusInsufficientStorage} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				raw, _ := io.ReadAll(r.Body)
				asked = append(asked, r.URL.Path[len("/Beacon/Work/wi-1/"):])
				switch {
				case strings.HasSuffix(r.URL.Path, "/Upload"):
					require.Equal(t, "abc", string(raw))
					w.WriteHeader(status)
				case strings.Contains(string(raw), "YWJj"):
					w.WriteHeader(http.StatusRequestEntityTooLarge)
				default:
					require.JSONEq(t, `{"Outputs":{"OutputSize":3},"Log":[]}`, string(raw))
				}
				_, _ = io.WriteString(w, `{}`)
			})
			c := client(t, session.Config{ServerURL: s.URL})
			path := filepath.Join(t.TempDir(), "f")
			require.NoError(t, os.WriteFile(path, []byte("abc"), 0o600))
			err := c.Report(t.Context(), transport.Report{Hash: "wi-1", Result: beacon.Result{
				Outputs: beacon.Outputs{"OutputData": beacon.File{Path: path, Size: 3, Name: "f"}, "OutputSize": 3},
			}})
			require.Equal(t, []string{"Complete", "Upload", "Complete"}, asked)
			if status == http.StatusOK {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, transport.ErrRefused)
			}
		})
	}
}
