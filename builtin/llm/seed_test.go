package llm_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin"
	"github.com/ultravisor/beacon/builtin/llm"
)

// The configurations of the Node worker's page on this provider, each with an
// address of a server of the tests instead of the service's own.
func TestSeedConfigurations(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", key)
	t.Setenv("ANTHROPIC_API_KEY", key)
	for dialect, config := range map[string]string{
		llm.OpenAI:           `{"Backend":"openai","BaseURL":"ADDRESS","APIKey":"$OPENAI_API_KEY","Model":"gpt-4","DefaultParameters":{"Temperature":0.7,"MaxTokens":4096}}`,
		llm.Anthropic:        `{"Backend":"anthropic","BaseURL":"ADDRESS","APIKey":"$ANTHROPIC_API_KEY","Model":"claude-sonnet-4-20250514"}`,
		llm.Ollama:           `{"Backend":"ollama","BaseURL":"ADDRESS","Model":"llama3"}`,
		llm.OpenAICompatible: `{"Backend":"openai-compatible","BaseURL":"ADDRESS","Model":"mistral-7b"}`,
	} {
		b := serve(t, reply{body: fixture(t, dialect, "chat.whole")})
		var s beacon.Settings
		require.NoError(t, json.Unmarshal([]byte(strings.Replace(config, "ADDRESS", b.URL, 1)), &s))
		p, err := builtin.Open("LLM", s, builtin.Host{})
		require.NoError(t, err)
		require.Equal(t, "LLM", p.Capability().Name)
		require.NoError(t, p.(beacon.Initializer).Initialize(t.Context()))
		result, err := p.Run(t.Context(), job(t, "ChatCompletion", ask))
		require.NoError(t, err)
		require.Equal(t, paris, result.Outputs["Content"])
		got := b.only()
		require.Equal(t, map[string]string{
			llm.OpenAI: "gpt-4", llm.Anthropic: "claude-sonnet-4-20250514", llm.Ollama: "llama3", llm.OpenAICompatible: "mistral-7b",
		}[dialect], got.body["model"])
		switch dialect {
		case llm.OpenAI:
			require.Equal(t, "Bearer "+key, got.header.Get("Authorization"))
			require.Equal(t, 0.7, got.body["temperature"])
			require.Equal(t, 4096.0, got.body["max_tokens"])
		case llm.Anthropic:
			require.Equal(t, key, got.header.Get("X-Api-Key"))
			require.Equal(t, 4096.0, got.body["max_tokens"]) // the API wants a number
		default:
			require.Empty(t, got.header.Get("Authorization"))
		}
		require.NoError(t, p.(beacon.Shutdowner).Shutdown(t.Context()))
	}
}

// The work items of the page.
func TestSeedItems(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		b := serve(t, reply{body: fixture(t, dialect, "chat.whole")})
		p := open(t, dialect, b, nil)
		result := do(t, p, "ChatCompletion", map[string]any{
			"Messages": `[{"role": "user", "content": "Summarize this text: ..."}]`, "SystemPrompt": "You are a helpful assistant.",
			"Temperature": 0.5, "MaxTokens": 1000,
		})
		for name, want := range map[string]any{"Content": paris, "FinishReason": "stop", "Result": paris} {
			require.Equal(t, want, result.Outputs[name])
		}
		for _, name := range []string{"Model", "PromptTokens", "CompletionTokens", "TotalTokens"} {
			require.Contains(t, result.Outputs, name)
		}
		result = do(t, p, "ChatCompletion", map[string]any{"Messages": "What is the capital of France?", "Model": "gpt-4"})
		require.Equal(t, paris, result.Outputs["Content"])
		require.Equal(t, "gpt-4", b.got()[1].body["model"])

		e := serve(t, reply{body: strings.ReplaceAll(fixture(t, dialect, "embed.whole"), "text-embedding-3-small", "text-embedding-ada-002")})
		result = do(t, open(t, dialect, e, nil), "Embedding", map[string]any{"Text": "The quick brown fox jumps over the lazy dog."})
		var vector []float64
		require.NoError(t, json.Unmarshal([]byte(result.Outputs["Embedding"].(string)), &vector))
		require.Len(t, vector, result.Outputs["Dimensions"].(int))
		require.Equal(t, result.Outputs["Embedding"], result.Outputs["Result"])
		require.Equal(t, []string{"LLM Embedding: model=text-embedding-ada-002, dimensions=3"}, result.Log)

		w := serve(t, reply{body: fixture(t, dialect, "tools.whole")})
		result = do(t, open(t, dialect, w, nil), "ToolUse", map[string]any{
			"Messages": `[{"role":"user","content":"What is the weather in San Francisco?"}]`,
			"Tools": `[
				{
					"type": "function",
					"function":
					{
						"name": "get_weather",
						"description": "Get the current weather",
						"parameters":
						{
							"type": "object",
							"properties":
							{
								"location": { "type": "string", "description": "City name" }
							},
							"required": ["location"]
						}
					}
				}
			]`,
			"ToolChoice": "get_weather", "Temperature": "0", "MaxTokens": "100",
		})
		require.Equal(t, "tool_calls", result.Outputs["FinishReason"], result.Log)
		require.Contains(t, result.Outputs["ToolCalls"], `{"function":{"arguments":"{\"location\":`)
		for _, name := range []string{"Content", "Model", "PromptTokens", "CompletionTokens", "TotalTokens", "Result"} {
			require.Contains(t, result.Outputs, name)
		}
	})
}

// What is missing is said in the Node worker's words, and before anything is
// sent. Unlike there, it does not count as success.
func TestSeedRefusals(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		b := serve(t, reply{})
		p := open(t, dialect, b, nil)
		for _, test := range []struct {
			action   string
			settings map[string]any
			log      string
		}{
			{"ChatCompletion", nil, "LLM ChatCompletion: no messages provided."},
			{"ChatCompletion", map[string]any{"Messages": "[]"}, "LLM ChatCompletion: no messages provided."},
			{"ToolUse", map[string]any{"Tools": weatherTools}, "LLM ToolUse: no messages provided."},
			{"ToolUse", map[string]any{"Messages": "x"}, "LLM ToolUse: no tools provided."},
			{"ToolUse", map[string]any{"Messages": "x", "Tools": "[]"}, "LLM ToolUse: no tools provided."},
			{"Embedding", nil, "LLM Embedding: no text provided."},
		} {
			result := do(t, p, test.action, test.settings)
			require.Equal(t, []string{test.log}, result.Log)
			require.Equal(t, -1, result.Outputs["ExitCode"])
			if test.action == "Embedding" {
				continue
			}
			require.Equal(t, "error", result.Outputs["FinishReason"])
			require.Equal(t, "", result.Outputs["Model"])
			require.EqualValues(t, 0, result.Outputs["TotalTokens"])
			if test.action == "ToolUse" {
				require.Equal(t, "[]", result.Outputs["ToolCalls"])
			}
		}
		require.Empty(t, b.got())
	})
}

// The schemas that the page promises, with what is new.
func TestCapability(t *testing.T) {
	c := open(t, llm.OpenAI, nil, nil).Capability()
	require.Len(t, c.Actions, 3)
	require.Equal(t, "ChatCompletion", c.Actions[0].Name) // the default
	want := map[string][]string{
		"ChatCompletion": {"Messages", "SystemPrompt", "Model", "Temperature", "MaxTokens", "TopP", "StopSequences", "ResponseFormat"},
		"Embedding":      {"Text", "Model"},
		"ToolUse":        {"Messages", "Tools", "Model", "ToolChoice", "Temperature", "MaxTokens"},
	}
	for _, a := range c.Actions {
		byName := map[string]beacon.Setting{}
		for _, s := range a.Settings {
			byName[s.Name] = s
		}
		for _, name := range want[a.Name] {
			require.Contains(t, byName, name, a.Name)
		}
		require.Equal(t, a.Name == "ToolUse", byName["Messages"].Required)
		require.Equal(t, a.Name == "Embedding", byName["Text"].Required)
	}
}
