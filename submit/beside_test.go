package submit_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/submit"
)

// An output that was too large to be inside of a result is fetched from beside of
// it, and what comes must be what the server has listed.
func TestOutputBesideOfTheResult(t *testing.T) {
	const content = "large"
	digest := sha256.Sum256([]byte(content))
	sum := hex.EncodeToString(digest[:])
	for name, tt := range map[string]struct {
		files, body string
		status      int
		says        string
	}{
		"there":         {fmt.Sprintf(`[{"Name":"o","URL":"/Beacon/File/old/o","Size":3,"SHA256":"x"},{"Name":"o","URL":"/Beacon/File/f/o","Size":5,"SHA256":%q}]`, sum), content, 200, ""},
		"not there":     {`[{"Name":"other","URL":"/Beacon/File/f/other","Size":5,"SHA256":"x"}]`, content, 200, "does not have the output o"},
		"elsewhere":     {`[{"Name":"o","URL":"http://example.com/o","Size":5,"SHA256":"x"}]`, content, 200, "does not have the output o"},
		"gone":          {fmt.Sprintf(`[{"Name":"o","URL":"/Beacon/File/f/o","Size":5,"SHA256":%q}]`, sum), `{"Error":"There is no such file."}`, 404, "404"},
		"another":       {fmt.Sprintf(`[{"Name":"o","URL":"/Beacon/File/f/o","Size":5,"SHA256":%q}]`, sum), "LARGE", 200, "not the one that it has listed"},
		"cut off":       {fmt.Sprintf(`[{"Name":"o","URL":"/Beacon/File/f/o","Size":5,"SHA256":%q}]`, sum), "lar", 200, "not the one that it has listed"},
		"more and more": {fmt.Sprintf(`[{"Name":"o","URL":"/Beacon/File/f/o","Size":5,"SHA256":%q}]`, sum), "large and larger", 200, "not the one that it has listed"},
	} {
		t.Run(name, func(t *testing.T) {
			c := client(t, submit.Config{ServerURL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/Beacon/Work/DispatchStream":
					w.Header().Set("Content-Type", "application/octet-stream")
					_ = protocol.WriteFrame(w, protocol.FrameResult, []byte(`{"Success":true,"WorkItemHash":"wi-1","Outputs":{"OutputFilename":"o","OutputSize":5,"ExitCode":0},"Log":[]}`))
				case "/Beacon/Work/wi-1":
					fmt.Fprintf(w, `{"WorkItemHash":"wi-1","Files":%s}`, tt.files)
				case "/Beacon/File/f/o":
					w.WriteHeader(tt.status)
					fmt.Fprint(w, tt.body)
				default:
					t.Errorf("asked for %s", r.URL.Path)
				}
			}))})
			var output bytes.Buffer
			result, err := c.Dispatch(within(t), do("file"), nil, &output)
			if tt.says != "" {
				require.ErrorContains(t, err, tt.says)
				return
			}
			require.NoError(t, err)
			require.Equal(t, content, output.String())
			require.Equal(t, beacon.Outputs{"OutputFilename": "o", "OutputSize": 5.0, "ExitCode": 0.0}, result.Outputs)

			_, err = c.Dispatch(within(t), do("file"), nil, nil)
			require.NoError(t, err, "nobody wants it")
		})
	}
}
