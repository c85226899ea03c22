//go:build integration

package llm_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/llm"
)

// What the tiny model knows.
var sentences = map[string][]string{
	"<|answer|>": {"The", " capital", " of", " France", " is", " Paris", "."},
	"<|call|>":   {"<tool", "_call>", `{"name": `, `"get_weather"`, `, "arguments": `, `{"location": `, `"Paris"`, "}}", "</tool_call>"},
}

// The cue depends on whether a tool may be called now.
const tinyTemplate = `{{- $tools := .Tools }}{{ $cue := "<|answer|>" }}
{{- range .Messages }}{{ if eq .Role "user" }}{{ if $tools }}{{ $cue = "<|call|>" }}{{ end }}{{ else }}{{ $cue = "<|answer|>" }}{{ end }}
{{- .Role }}: {{ .Content }}{{ if .ToolCalls }}<tool_call>{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}</tool_call>{{ end }}
{{ end }}{{ $cue }}`

// realServer starts Ollama's own server with the tiny model. It speaks Ollama's,
// OpenAI's and Anthropic's API.
func realServer(t *testing.T) string {
	binary := os.Getenv("BEACON_OLLAMA")
	if binary == "" {
		if os.Getenv("BEACON_REQUIRE_TOOLS") != "" {
			t.Fatal("BEACON_OLLAMA is not set")
		}
		t.Skip("BEACON_OLLAMA names no Ollama binary; .ci/ollama builds one")
	}
	home := t.TempDir()
	cmd := exec.Command(binary, "serve")
	cmd.Env = append(os.Environ(), "HOME="+home, "OLLAMA_MODELS="+home+"/models", "OLLAMA_HOST=127.0.0.1:0", "OLLAMA_NUM_PARALLEL=2",
		"OLLAMA_CONTEXT_LENGTH=2048", "OLLAMA_KEEP_ALIVE=10m", "OLLAMA_LOAD_TIMEOUT=10m", "NO_COLOR=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its runners are children
	out, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var log strings.Builder
	address := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		listening := regexp.MustCompile(`Listening on (127\.0\.0\.1:\d+)`)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintln(&log, lines.Text())
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		gone := time.AfterFunc(patient, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		<-done
		_ = cmd.Wait()
		gone.Stop()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if t.Failed() {
			t.Log(log.String())
		}
	})
	var url string
	select {
	case a := <-address:
		url = "http://" + a
	case <-done:
		t.Fatal("Ollama ended: " + log.String())
	case <-time.After(5 * patient):
		t.Fatal("Ollama does not listen")
	}
	model := newTinyModel(sentences).gguf()
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(model))
	call := func(path string, body []byte) {
		t.Helper()
		resp, err := http.Post(url+path, "application/octet-stream", bytes.NewReader(body))
		require.NoError(t, err)
		defer resp.Body.Close()
		said, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Less(t, resp.StatusCode, 300, string(said))
		require.NotContains(t, string(said), `"error"`)
	}
	call("/api/blobs/"+digest, model)
	create, err := json.Marshal(map[string]any{
		"model": "tiny", "files": map[string]string{"tiny.gguf": digest}, "template": tinyTemplate,
		"parameters": map[string]any{"temperature": 0, "num_ctx": 2048, "num_predict": 64},
	})
	require.NoError(t, err)
	call("/api/create", create)
	http.DefaultClient.CloseIdleConnections()
	return url
}

// All four backends against a server that nobody here wrote.
func TestRealServer(t *testing.T) {
	url := realServer(t)
	long := func(c *llm.Config) {
		c.BaseURL, c.Model, c.EmbeddingModel, c.TimeoutMs, c.IdleTimeoutMs = url, "tiny", "tiny", 600_000, 600_000
	}
	each(t, func(t *testing.T, dialect string) {
		p := open(t, dialect, nil, long)
		require.NoError(t, p.Initialize(t.Context()))
		for _, stream := range []bool{true, false} {
			j := job(t, "ChatCompletion", map[string]any{"Messages": "What is the capital of France?", "SystemPrompt": "Be short.", "Temperature": 0, "Stream": stream})
			var shown []string
			j.OnProgress = func(p beacon.Progress) { shown = append(shown, p.Message) }
			result, err := p.Run(t.Context(), j)
			require.NoError(t, err)
			out := result.Outputs
			require.Equal(t, 0, out["ExitCode"], result.Log)
			require.Equal(t, paris, out["Content"])
			require.Equal(t, "stop", out["FinishReason"])
			require.Contains(t, out["Model"], "tiny")
			require.Positive(t, out["PromptTokens"])
			require.EqualValues(t, 8, out["CompletionTokens"])
			require.NotEmpty(t, shown)

			// The model stops at the limit.
			out = do(t, p, "ChatCompletion", map[string]any{"Messages": "x", "MaxTokens": 3, "Temperature": 0, "Stream": stream}).Outputs
			require.Equal(t, "The capital of", out["Content"])
			require.Equal(t, "length", out["FinishReason"])
			// And before a word.
			out = do(t, p, "ChatCompletion", map[string]any{"Messages": "x", "StopSequences": `[" France"]`, "Temperature": 0, "Stream": stream}).Outputs
			require.Equal(t, "The capital of", out["Content"])
			require.Equal(t, "stop", out["FinishReason"])

			// A tool and its answer, there and back.
			settings := map[string]any{"Messages": "What is the weather in Paris?", "Tools": weatherTools, "Temperature": 0, "Stream": stream}
			out = do(t, p, "ToolUse", settings).Outputs
			require.Equal(t, "tool_calls", out["FinishReason"], out)
			var calls []struct {
				ID       string
				Function struct{ Name, Arguments string }
			}
			require.NoError(t, json.Unmarshal([]byte(out["ToolCalls"].(string)), &calls))
			require.Len(t, calls, 1)
			require.Equal(t, "get_weather", calls[0].Function.Name)
			require.JSONEq(t, `{"location":"Paris"}`, calls[0].Function.Arguments)
			settings["Messages"] = json.RawMessage(`[{"role":"user","content":"What is the weather in Paris?"},` + out["Message"].(string) +
				`,{"role":"tool","tool_call_id":"` + calls[0].ID + `","content":"17 degrees"}]`)
			out = do(t, p, "ToolUse", settings).Outputs
			require.Equal(t, paris, out["Content"], out)
			require.Equal(t, "[]", out["ToolCalls"])
		}

		if dialect != llm.Anthropic { // which Ollama has no vectors for
			out := do(t, p, "Embedding", map[string]any{"Text": `["abc","xyz","abc"]`}).Outputs
			require.Equal(t, 0, out["ExitCode"], out["Error"])
			var vectors [][]float64
			require.NoError(t, json.Unmarshal([]byte(out["Embedding"].(string)), &vectors))
			require.Len(t, vectors, 3)
			require.Equal(t, vectors[0], vectors[2])
			require.NotEqual(t, vectors[0], vectors[1])
			length := 0.0
			for _, v := range vectors[0] {
				length += v * v
			}
			require.InDelta(t, 1, math.Sqrt(length), 1e-3)
			require.Positive(t, out["Usage"].(map[string]any)["PromptTokens"])
		}

		out := do(t, p, "ChatCompletion", map[string]any{"Messages": "x", "Model": "unknown"}).Outputs
		require.Equal(t, -1, out["ExitCode"])
		require.Equal(t, 404, out["Status"])
		require.Contains(t, out["Error"], "not found")
	})
	http.DefaultClient.CloseIdleConnections()
}
