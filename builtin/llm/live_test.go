//go:build live

package llm_test

import (
	"cmp"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/builtin/llm"
)

// The services themselves, for users with keys:
//
//	OPENAI_API_KEY=… ANTHROPIC_API_KEY=… VOYAGE_API_KEY=… OLLAMA_MODEL=llama3.2 OPENAI_COMPATIBLE_URL=… OPENAI_COMPATIBLE_MODEL=… \
//		go test -tags live -run TestLive -v ./builtin/llm
//
// What is not set is skipped. It costs some hundredths of a cent.
func TestLive(t *testing.T) {
	services := map[string]llm.Config{}
	if os.Getenv("OPENAI_API_KEY") != "" {
		services[llm.OpenAI] = llm.Config{Service: llm.Service{
			APIKey: "$OPENAI_API_KEY", Model: cmp.Or(os.Getenv("OPENAI_MODEL"), "gpt-4o-mini"), EmbeddingModel: "text-embedding-3-small",
		}}
	}
	if os.Getenv("ANTHROPIC_API_KEY") != "" {
		c := llm.Config{Service: llm.Service{Backend: llm.Anthropic, APIKey: "$ANTHROPIC_API_KEY", Model: cmp.Or(os.Getenv("ANTHROPIC_MODEL"), "claude-haiku-4-5")}}
		if os.Getenv("VOYAGE_API_KEY") != "" {
			c.EmbeddingModel = "voyage-3.5-lite"
		}
		services[llm.Anthropic] = c
	}
	if model := os.Getenv("OLLAMA_MODEL"); model != "" {
		services[llm.Ollama] = llm.Config{Service: llm.Service{
			Backend: llm.Ollama, BaseURL: os.Getenv("OLLAMA_URL"), Model: model, EmbeddingModel: os.Getenv("OLLAMA_EMBEDDING_MODEL"),
		}}
	}
	if url := os.Getenv("OPENAI_COMPATIBLE_URL"); url != "" {
		services[llm.OpenAICompatible] = llm.Config{Service: llm.Service{
			Backend: llm.OpenAICompatible, BaseURL: url, APIKey: os.Getenv("OPENAI_COMPATIBLE_KEY"),
			Model: os.Getenv("OPENAI_COMPATIBLE_MODEL"), EmbeddingModel: os.Getenv("OPENAI_COMPATIBLE_EMBEDDING_MODEL"),
		}}
	}
	for _, dialect := range dialects {
		cfg, ok := services[dialect]
		t.Run(dialect, func(t *testing.T) {
			if !ok {
				t.Skip("its environment variables are not set")
			}
			p, err := llm.New(cfg)
			require.NoError(t, err)
			defer func() { require.NoError(t, p.Shutdown(t.Context())) }()
			for _, stream := range []bool{true, false} {
				result := do(t, p, "ChatCompletion", map[string]any{"Messages": "What is the capital of France? One word.", "MaxTokens": 50, "Stream": stream})
				t.Log(result)
				require.Equal(t, 0, result.Outputs["ExitCode"])
				require.Contains(t, result.Outputs["Content"], "Paris")
				require.Positive(t, result.Outputs["PromptTokens"])

				settings := map[string]any{"Messages": "What is the weather in Paris? Use the tool.", "Tools": weatherTools, "MaxTokens": 300, "Stream": stream}
				result = do(t, p, "ToolUse", settings)
				t.Log(result)
				require.Equal(t, "tool_calls", result.Outputs["FinishReason"])
				var calls []struct{ ID string }
				require.NoError(t, json.Unmarshal([]byte(result.Outputs["ToolCalls"].(string)), &calls))
				turns := `[{"role":"user","content":"What is the weather in Paris? Use the tool."},` + result.Outputs["Message"].(string)
				for _, c := range calls {
					turns += `,{"role":"tool","tool_call_id":"` + c.ID + `","content":"17 degrees"}`
				}
				settings["Messages"] = json.RawMessage(turns + "]")
				result = do(t, p, "ToolUse", settings)
				t.Log(result)
				require.Contains(t, result.Outputs["Content"], "17")
			}
			result := do(t, p, "ChatCompletion", map[string]any{"Messages": "Name the capital of France.", "ResponseFormat": json.RawMessage(citySchema), "MaxTokens": 100})
			t.Log(result)
			require.JSONEq(t, `{"city":"Paris"}`, result.Outputs["Content"].(string))
			if cfg.EmbeddingModel != "" {
				result = do(t, p, "Embedding", map[string]any{"Text": `["a","b"]`})
				require.Equal(t, 0, result.Outputs["ExitCode"], result.Log)
				require.Equal(t, 2, result.Outputs["Count"])
			}
			result = do(t, p, "ChatCompletion", map[string]any{"Messages": "x", "Model": "no-such-model-exists"})
			t.Log(result)
			require.Equal(t, -1, result.Outputs["ExitCode"])
		})
	}
}
