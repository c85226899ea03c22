package llm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/llm"
)

// each runs a test for every backend.
func each(t *testing.T, test func(t *testing.T, dialect string)) {
	for _, dialect := range dialects {
		t.Run(dialect, func(t *testing.T) { test(t, dialect) })
	}
}

const paris = "The capital of France is Paris."

// variants are the ways in which one recorded answer may come over the wire.
func variants(t *testing.T, dialect, name string) map[string]reply {
	stream := fixture(t, dialect, name+".stream")
	all := map[string]reply{
		"stream":           {body: stream},
		"bytewise":         {body: stream, frame: 1},
		"in sevens":        {body: stream, frame: 7},
		"CRLF":             {body: strings.ReplaceAll(stream, "\n", "\r\n"), frame: 5},
		"no final newline": {body: strings.TrimRight(stream, "\n")},
		"no content type":  {body: stream, header: map[string]string{"Content-Type": "text/plain"}},
	}
	if dialect != llm.Ollama {
		all["keep-alives"] = reply{body: ": connected\n\n" + strings.ReplaceAll(stream, "\n\n", "\n\n: ping\n\n"), frame: 11}
		all["no spaces"] = reply{body: strings.ReplaceAll(stream, "data: ", "data:")}
		all["byte order mark"] = reply{body: "\ufeff" + stream}
	} else {
		all["empty lines"] = reply{body: strings.ReplaceAll(stream, "\n", "\n\n \n")}
	}
	if has(dialect, name+".whole") {
		whole := fixture(t, dialect, name+".whole")
		all["not a stream"] = reply{body: whole, header: map[string]string{"Content-Type": "application/json"}}
		all["not a stream, in threes"] = reply{body: "\n \t" + whole, frame: 3}
	}
	return all
}

func TestChat(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		for name, r := range variants(t, dialect, "chat") {
			t.Run(name, func(t *testing.T) {
				b := serve(t, r)
				p := open(t, dialect, b, nil)
				result := do(t, p, "ChatCompletion", map[string]any{
					"Messages": "What is the capital of France?", "SystemPrompt": "Be short.",
					"Temperature": "0.5", "MaxTokens": "100", "TopP": 0.9, "StopSequences": `["\n\n"]`,
				})
				out := result.Outputs
				require.Equal(t, paris, out["Content"])
				require.Equal(t, paris, out["Result"])
				require.Equal(t, "stop", out["FinishReason"])
				require.EqualValues(t, 24, out["PromptTokens"])
				require.EqualValues(t, 8, out["CompletionTokens"])
				require.EqualValues(t, 32, out["TotalTokens"])
				require.Equal(t, 0, out["ExitCode"])
				require.Equal(t, "req_test_1", out["RequestID"])
				require.Equal(t, dialect, out["Backend"])
				require.Contains(t, out["Model"], strings.SplitN(models[dialect], "-2", 2)[0])
				usage := out["Usage"].(map[string]any)
				require.EqualValues(t, 32, usage["TotalTokens"])
				require.EqualValues(t, 1, usage["Attempts"])
				if dialect == llm.OpenAI || dialect == llm.Anthropic {
					require.EqualValues(t, 16, usage["CachedTokens"])
					require.InDelta(t, map[string]float64{
						llm.OpenAI:    (8*2.5 + 16*1.25 + 8*10) / 1e6,
						llm.Anthropic: (8*3 + 16*0.3 + 8*15) / 1e6,
					}[dialect], usage["Cost"], 1e-12)
				} else {
					require.NotContains(t, usage, "Cost") // unknown is not nothing
				}
				require.Equal(t, []string{fmt.Sprintf("LLM ChatCompletion: model=%s, tokens=32, finish=stop", out["Model"])}, result.Log)
				require.JSONEq(t, `{"role":"assistant","content":"`+paris+`"}`, out["Message"].(string))

				got := b.only()
				require.Equal(t, paths[dialect][0], got.path)
				require.Equal(t, "application/json", got.header.Get("Content-Type"))
				require.Equal(t, "beacon", got.header.Get("User-Agent"))
				require.Equal(t, true, got.body["stream"])
				switch dialect {
				case llm.OpenAI, llm.OpenAICompatible:
					require.Equal(t, "Bearer "+key, got.header.Get("Authorization"))
					require.JSONEq(t, `{"model":"`+models[dialect]+`","messages":[{"role":"system","content":"Be short."},
						{"role":"user","content":"What is the capital of France?"}],"temperature":0.5,"top_p":0.9,"max_tokens":100,
						"stop":["\n\n"],"stream":true,"stream_options":{"include_usage":true}}`, string(got.raw))
				case llm.Anthropic:
					require.Equal(t, key, got.header.Get("X-Api-Key"))
					require.Empty(t, got.header.Get("Authorization"))
					require.Equal(t, "2023-06-01", got.header.Get("Anthropic-Version"))
					require.JSONEq(t, `{"model":"claude-sonnet-4-20250514","max_tokens":100,"system":[{"type":"text","text":"Be short."}],
						"messages":[{"role":"user","content":[{"type":"text","text":"What is the capital of France?"}]}],
						"temperature":0.5,"top_p":0.9,"stop_sequences":["\n\n"],"stream":true}`, string(got.raw))
				case llm.Ollama:
					require.Empty(t, got.header.Get("Authorization"))
					require.JSONEq(t, `{"model":"llama3","messages":[{"role":"system","content":"Be short."},
						{"role":"user","content":"What is the capital of France?"}],"stream":true,
						"options":{"temperature":0.5,"num_predict":100,"top_p":0.9,"stop":["\n\n"]}}`, string(got.raw))
				}
			})
		}
	})
}

// Without streaming nothing asks for pieces.
func TestStreamOff(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		off := false
		for name, test := range map[string]struct {
			change   func(*llm.Config)
			settings map[string]any
			want     bool
		}{
			"by the item":              {nil, map[string]any{"Messages": "x", "Stream": "false"}, false},
			"by the configuration":     {func(c *llm.Config) { c.Stream = &off }, map[string]any{"Messages": "x"}, false},
			"the item counts first":    {func(c *llm.Config) { c.Stream = &off }, map[string]any{"Messages": "x", "Stream": true}, true},
			"and is what it is unless": {nil, map[string]any{"Messages": "x"}, true},
		} {
			t.Run(name, func(t *testing.T) {
				b := serve(t, reply{body: fixture(t, dialect, "chat.whole")})
				require.Equal(t, paris, do(t, open(t, dialect, b, test.change), "ChatCompletion", test.settings).Outputs["Content"])
				got, present := b.only().body["stream"]
				require.Equal(t, test.want, got == true)
				require.Equal(t, test.want || dialect == llm.Ollama, present)
				require.Equal(t, test.want && strings.HasPrefix(dialect, "openai"), b.only().body["stream_options"] != nil)
			})
		}
	})
}

const weatherTools = `[{"type":"function","function":{"name":"get_weather","description":"Get the current weather",
	"parameters":{"type":"object","properties":{"location":{"type":"string","description":"City name"}},"required":["location"]}}},
	{"name":"get_time","input_schema":{"type":"object"}}]`

func TestToolUse(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		for name, r := range variants(t, dialect, "tools") {
			t.Run(name, func(t *testing.T) {
				b := serve(t, r)
				result := do(t, open(t, dialect, b, nil), "ToolUse", map[string]any{
					"Messages": "What is the weather?", "Tools": weatherTools, "ToolChoice": "auto",
				})
				out := result.Outputs
				require.Equal(t, 0, out["ExitCode"], out["StdOut"])
				require.Equal(t, "tool_calls", out["FinishReason"])
				var calls []struct {
					ID       string
					Type     string
					Function struct{ Name, Arguments string }
				}
				require.NoError(t, json.Unmarshal([]byte(out["ToolCalls"].(string)), &calls))
				require.Len(t, calls, 2)
				require.Equal(t, "call_abc123", calls[0].ID)
				require.Equal(t, "function", calls[0].Type)
				require.Equal(t, "get_weather", calls[0].Function.Name)
				require.JSONEq(t, `{"location":"San Francisco","unit":"c"}`, calls[0].Function.Arguments)
				require.Equal(t, "call_def456", calls[1].ID)
				require.Equal(t, "get_time", calls[1].Function.Name)
				require.JSONEq(t, `{}`, calls[1].Function.Arguments)
				require.EqualValues(t, 110, out["TotalTokens"])
				require.Equal(t, fmt.Sprintf("LLM ToolUse: model=%s, tokens=110, finish=tool_calls, tool_calls=2", out["Model"]), result.Log[len(result.Log)-1])

				tools, err := json.Marshal(b.only().body["tools"])
				require.NoError(t, err)
				if dialect == llm.Anthropic {
					require.JSONEq(t, `[{"name":"get_weather","description":"Get the current weather",
						"input_schema":{"type":"object","properties":{"location":{"type":"string","description":"City name"}},"required":["location"]}},
						{"name":"get_time","input_schema":{"type":"object"}}]`, string(tools))
					require.Equal(t, map[string]any{"type": "auto"}, b.only().body["tool_choice"])
					return
				}
				require.Contains(t, string(tools), `"type":"function"`)
				require.NotContains(t, string(tools), "input_schema")
			})
		}
	})
}

// A conversation with tools goes back in OpenAI's form, whatever the service.
func TestToolTurns(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		b := serve(t, reply{body: fixture(t, dialect, "tools.stream")}, reply{body: fixture(t, dialect, "chat.stream")})
		p := open(t, dialect, b, nil)
		first := do(t, p, "ToolUse", map[string]any{"Messages": "What is the weather?", "Tools": json.RawMessage(weatherTools)})
		messages := `[{"role":"user","content":"What is the weather?"},` + first.Outputs["Message"].(string) + `,
			{"role":"tool","tool_call_id":"call_abc123","content":"17 degrees"},
			{"role":"tool","tool_call_id":"call_def456","content":[{"type":"text","text":"noon"}]},
			{"role":"user","content":"Go on."}]`
		second := do(t, p, "ToolUse", map[string]any{"Messages": json.RawMessage(messages), "Tools": weatherTools})
		require.Equal(t, paris, second.Outputs["Content"])
		require.Equal(t, "[]", second.Outputs["ToolCalls"])
		require.Equal(t, "stop", second.Outputs["FinishReason"])
		sent, err := json.Marshal(b.got()[1].body["messages"])
		require.NoError(t, err)
		switch dialect {
		case llm.Anthropic:
			require.JSONEq(t, `[{"role":"user","content":[{"type":"text","text":"What is the weather?"}]},
				{"role":"assistant","content":[{"type":"tool_use","id":"call_abc123","name":"get_weather","input":{"location":"San Francisco","unit":"c"}},
					{"type":"tool_use","id":"call_def456","name":"get_time","input":{}}]},
				{"role":"user","content":[{"type":"tool_result","tool_use_id":"call_abc123","content":[{"type":"text","text":"17 degrees"}]},
					{"type":"tool_result","tool_use_id":"call_def456","content":[{"type":"text","text":"noon"}]},
					{"type":"text","text":"Go on."}]}]`, string(sent))
		case llm.Ollama:
			require.JSONEq(t, `[{"role":"user","content":"What is the weather?"},
				{"role":"assistant","content":"","tool_calls":[{"function":{"name":"get_weather","arguments":{"location":"San Francisco","unit":"c"}}},
					{"function":{"name":"get_time","arguments":{}}}]},
				{"role":"tool","content":"17 degrees","tool_name":"get_weather"},
				{"role":"tool","content":"noon","tool_name":"get_time"},
				{"role":"user","content":"Go on."}]`, string(sent))
		default:
			var list []map[string]any
			require.NoError(t, json.Unmarshal(sent, &list))
			require.Len(t, list, 5)
			call := list[1]["tool_calls"].([]any)[0].(map[string]any)
			require.Equal(t, "call_abc123", call["id"])
			require.JSONEq(t, `{"location":"San Francisco","unit":"c"}`, call["function"].(map[string]any)["arguments"].(string))
			require.Equal(t, map[string]any{"role": "tool", "tool_call_id": "call_abc123", "content": "17 degrees"}, list[2])
		}
	})
}

func TestToolChoice(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		named := map[string]any{"type": "function", "function": map[string]any{"name": "get_time"}}
		for choice, want := range map[string]map[string]any{
			`auto`:     {llm.OpenAI: "auto", llm.Anthropic: map[string]any{"type": "auto"}},
			`none`:     {llm.OpenAI: "none", llm.Anthropic: map[string]any{"type": "none"}},
			`required`: {llm.OpenAI: "required", llm.Anthropic: map[string]any{"type": "any"}},
			`any`:      {llm.OpenAI: "required", llm.Anthropic: map[string]any{"type": "any"}},
			`get_time`: {llm.OpenAI: named, llm.Anthropic: map[string]any{"type": "tool", "name": "get_time"}},
			`{"type":"function","function":{"name":"get_time"}}`: {llm.OpenAI: named, llm.Anthropic: map[string]any{"type": "tool", "name": "get_time"}},
			`{"type":"tool","name":"get_time"}`:                  {llm.OpenAI: named, llm.Anthropic: map[string]any{"type": "tool", "name": "get_time"}},
		} {
			b := serve(t, reply{body: fixture(t, dialect, "chat.stream")})
			result := do(t, open(t, dialect, b, nil), "ToolUse", map[string]any{"Messages": "x", "Tools": weatherTools, "ToolChoice": choice})
			require.Equal(t, 0, result.Outputs["ExitCode"], result.Log)
			body := b.only().body
			switch dialect {
			case llm.Ollama: // has no such thing
				require.NotContains(t, body, "tool_choice")
				tools, _ := body["tools"].([]any)
				require.Len(t, tools, map[string]int{"auto": 2, "none": 0, "required": 2, "any": 2}[choice]+map[bool]int{strings.Contains(choice, "get_time"): 1}[true], choice)
			case llm.Anthropic:
				require.Equal(t, want[llm.Anthropic], body["tool_choice"], choice)
			default:
				require.Equal(t, want[llm.OpenAI], body["tool_choice"], choice)
			}
		}
		b := serve(t, reply{})
		result := do(t, open(t, dialect, b, nil), "ToolUse", map[string]any{"Messages": "x", "Tools": weatherTools, "ToolChoice": "get_weekday"})
		require.Contains(t, result.Outputs["Error"], `there is no tool "get_weekday"`)
		require.Empty(t, b.got())
	})
}

func TestFinishReasons(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		for name, want := range map[string]string{"length": "length", "filter": "content_filter"} {
			if !has(dialect, name+".stream") {
				continue
			}
			b := serve(t, reply{body: fixture(t, dialect, name+".stream")})
			out := do(t, open(t, dialect, b, nil), "ChatCompletion", ask).Outputs
			require.Equal(t, want, out["FinishReason"], name)
			require.Equal(t, 0, out["ExitCode"])
			require.NotEmpty(t, out["Content"])
		}
	})
}

func TestReasoning(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		name := "reasoning.stream"
		if !has(dialect, name) {
			name = "chat.stream" // OpenAI keeps its reasoning to itself
		}
		b := serve(t, reply{body: fixture(t, dialect, name)})
		p := open(t, dialect, b, nil)
		settings := map[string]any{"Messages": "What is the capital of France?", "ReasoningEffort": "high", "ReasoningTokens": 2000}
		out := do(t, p, "ChatCompletion", settings).Outputs
		body := b.only().body
		switch dialect {
		case llm.Anthropic:
			require.Equal(t, map[string]any{"type": "enabled", "budget_tokens": 2000.0}, body["thinking"])
			require.Equal(t, map[string]any{"effort": "high"}, body["output_config"])
			require.Equal(t, 6096.0, body["max_tokens"])
			require.EqualValues(t, 5, out["Usage"].(map[string]any)["ReasoningTokens"])
			// A next turn gives the blocks back.
			do(t, p, "ChatCompletion", map[string]any{"Messages": json.RawMessage(`[{"role":"user","content":"x"},` + out["Message"].(string) + `,{"role":"user","content":"y"}]`)})
			turn := b.got()[1].body["messages"].([]any)[1].(map[string]any)["content"].([]any)
			require.Equal(t, map[string]any{"type": "thinking", "thinking": "A capital. Easy.", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA"}, turn[0])
		case llm.Ollama:
			require.Equal(t, "high", body["think"])
		default:
			require.Equal(t, "high", body["reasoning_effort"])
		}
		if dialect == llm.OpenAI {
			require.NotContains(t, out, "Reasoning")
			return
		}
		require.Equal(t, "A capital. Easy.", out["Reasoning"])
		require.Equal(t, "Paris", out["Content"])
	})
}

const citySchema = `{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}`

func TestResponseFormat(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		good, text := fixture(t, dialect, "json.stream"), fixture(t, dialect, "chat.stream")
		wrapped := `{"type":"json_schema","json_schema":{"name":"place","schema":` + citySchema + `,"strict":true}}`
		b := serve(t, reply{body: good})
		p := open(t, dialect, b, nil)
		for _, f := range []any{"json_object", `{"type":"json_object"}`, wrapped, json.RawMessage(wrapped), json.RawMessage(citySchema)} {
			out := do(t, p, "ChatCompletion", map[string]any{"Messages": "x", "ResponseFormat": f}).Outputs
			require.Equal(t, 0, out["ExitCode"], out["StdOut"])
			require.Equal(t, `{"city":"Paris"}`, out["Content"])
		}
		all := b.got()
		var schema any
		require.NoError(t, json.Unmarshal([]byte(citySchema), &schema))
		switch dialect {
		case llm.Anthropic:
			require.NotContains(t, all[0].body, "output_config")
			require.Equal(t, map[string]any{"format": map[string]any{"type": "json_schema", "schema": schema}}, all[2].body["output_config"])
			require.Equal(t, all[2].body["output_config"], all[4].body["output_config"])
		case llm.Ollama:
			require.Equal(t, "json", all[0].body["format"])
			require.Equal(t, schema, all[2].body["format"])
		default:
			require.Equal(t, map[string]any{"type": "json_object"}, all[0].body["response_format"])
			require.Equal(t, all[0].body["response_format"], all[1].body["response_format"])
			require.Equal(t, map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "place", "schema": schema, "strict": true}}, all[2].body["response_format"])
			require.Equal(t, map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "response", "schema": schema}}, all[4].body["response_format"])
		}

		// What a service promises is checked here all the same.
		for name, test := range map[string]struct {
			body   string
			format any
			want   string
		}{
			"not JSON":        {text, "json_object", "the answer is not JSON"},
			"another schema":  {good, json.RawMessage(`{"type":"object","properties":{"city":{"type":"number"}}}`), `the answer does not fit the schema: at "/city"`},
			"cut by a limit":  {fixture(t, dialect, "length.stream"), "json_object", "raise MaxTokens"},
			"not an object":   {strings.ReplaceAll(strings.ReplaceAll(good, `{\"city\":`, `[`), `\"Paris\"}`, `1]`), "json_object", "but not an object"},
			"missing, broken": {good, json.RawMessage(`{"type":"object","required":["country"]}`), "country"},
		} {
			b := serve(t, reply{body: test.body})
			out := do(t, open(t, dialect, b, nil), "ChatCompletion", map[string]any{"Messages": "x", "ResponseFormat": test.format}).Outputs
			require.Equal(t, -1, out["ExitCode"], name)
			require.Equal(t, "error", out["FinishReason"], name)
			require.Contains(t, out["Error"], test.want, name)
			require.NotEmpty(t, out["Content"], name) // it was paid for
			require.Len(t, b.got(), 1, name)
		}
	})
}

// A schema that doubles itself with every step is refused, one that refers to
// itself is not.
func TestSchemaBombs(t *testing.T) {
	b := serve(t, reply{body: fixture(t, llm.OpenAI, "json.stream")})
	p := open(t, llm.OpenAI, b, nil)
	bomb := `{"$ref":"#/$defs/a0","$defs":{`
	for i := range 40 {
		bomb += fmt.Sprintf(`"a%d":{"allOf":[{"$ref":"#/$defs/a%d"},{"$ref":"#/$defs/a%d"}]},`, i, i+1, i+1)
	}
	out := do(t, p, "ChatCompletion", map[string]any{"Messages": "x", "ResponseFormat": json.RawMessage(bomb + `"a40":{"type":"object"}}}`)}).Outputs
	require.Contains(t, out["Error"], "the schema is larger than 20000 values")
	require.Empty(t, b.got())
	tree := `{"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"city":{"type":"string"},"children":{"type":"array","items":{"$ref":"#/$defs/node"}}}}}}`
	out = do(t, p, "ChatCompletion", map[string]any{"Messages": "x", "ResponseFormat": json.RawMessage(tree)}).Outputs
	require.Equal(t, 0, out["ExitCode"], out["Error"])
}

// A schema that cannot be used is refused before anything is paid for, and what
// it refers to is neither read nor fetched.
func TestBadSchemas(t *testing.T) {
	b := serve(t, reply{})
	p := open(t, llm.OpenAI, b, nil)
	for _, f := range []string{
		`{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"wrong"}}}`,
		`{"type":"json_schema","json_schema":{"name":"x"}}`,
		`{"type":"json_schema","json_schema":{"name":"x","schema":{"$ref":"file:///etc/passwd"}}}`,
		`{"type":"json_schema","json_schema":{"name":"x","schema":{"$ref":"` + b.URL + `/schema"}}}`,
		`json_objekt`, `[1]`,
	} {
		out := do(t, p, "ChatCompletion", map[string]any{"Messages": "x", "ResponseFormat": f}).Outputs
		require.Equal(t, -1, out["ExitCode"])
		require.Contains(t, out["Error"], "ResponseFormat: ")
		require.NotContains(t, out["Error"], "root:")
	}
	require.Empty(t, b.got())
}

func TestEmbedding(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		b := serve(t, reply{body: fixture(t, dialect, "embed.whole")})
		result := do(t, open(t, dialect, b, nil), "Embedding", map[string]any{"Text": "The quick brown fox jumps over the lazy dog.", "Dimensions": "3"})
		out := result.Outputs
		require.Equal(t, "[0.0023064255,-0.009327292,-0.0028842222]", out["Embedding"])
		require.Equal(t, out["Embedding"], out["Result"])
		require.Equal(t, 3, out["Dimensions"])
		require.Equal(t, "text-embedding-3-small", out["Model"])
		require.Equal(t, 0, out["ExitCode"])
		require.EqualValues(t, 9, out["Usage"].(map[string]any)["PromptTokens"])
		require.Equal(t, []string{"LLM Embedding: model=text-embedding-3-small, dimensions=3"}, result.Log)
		got := b.only()
		require.Equal(t, paths[dialect][1], got.path)
		switch dialect {
		case llm.Ollama:
			require.JSONEq(t, `{"model":"text-embedding-3-small","input":["The quick brown fox jumps over the lazy dog."],"dimensions":3}`, string(got.raw))
		case llm.Anthropic:
			require.JSONEq(t, `{"model":"text-embedding-3-small","input":["The quick brown fox jumps over the lazy dog."],"output_dimension":3}`, string(got.raw))
			require.Equal(t, "Bearer "+key, got.header.Get("Authorization"))
		default:
			require.JSONEq(t, `{"model":"text-embedding-3-small","input":"The quick brown fox jumps over the lazy dog.","dimensions":3}`, string(got.raw))
		}
	})
}

// Texts keep their order over answers that do not and over several requests.
func TestEmbeddingBatch(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		two := reply{body: fixture(t, dialect, "batch.whole")}
		for name, text := range map[string]any{
			"as text": `["a","b","c","d"]`,
			"as JSON": json.RawMessage(`["a","b","c","d"]`),
		} {
			b := serve(t, two)
			p := open(t, dialect, b, func(c *llm.Config) { c.EmbeddingBatch = 2 })
			var shown []string
			j := job(t, "Embedding", map[string]any{"Text": text})
			j.OnProgress = func(p beacon.Progress) { shown = append(shown, p.Message) }
			result, err := p.Run(t.Context(), j)
			require.NoError(t, err)
			require.Equal(t, "[[1,2e-7],[0.5,-0.25],[1,2e-7],[0.5,-0.25]]", result.Outputs["Embedding"], name)
			require.Equal(t, 2, result.Outputs["Dimensions"])
			require.Equal(t, 4, result.Outputs["Count"])
			require.EqualValues(t, 8, result.Outputs["Usage"].(map[string]any)["TotalTokens"])
			require.Equal(t, []string{"LLM Embedding: model=text-embedding-3-small, dimensions=2, count=4"}, result.Log)
			require.Equal(t, []string{"2 of 4 texts"}, shown)
			require.Len(t, b.got(), 2)
			require.Equal(t, []any{"c", "d"}, b.got()[1].body["input"])
		}
		// An answer with other vectors than asked for is none.
		b := serve(t, two)
		out := do(t, open(t, dialect, b, nil), "Embedding", map[string]any{"Text": `["a","b","c"]`}).Outputs
		require.Equal(t, -1, out["ExitCode"])
		require.Contains(t, out["Error"], "it has 2 vectors for 3 texts")
		require.Equal(t, "[]", out["Embedding"])
	})
}

func TestEmbeddingOfNothing(t *testing.T) {
	p := open(t, llm.OpenAI, nil, nil)
	for _, text := range []any{"", json.RawMessage("null"), "[]"} {
		result := do(t, p, "Embedding", map[string]any{"Text": text})
		require.Equal(t, []string{"LLM Embedding: no text provided."}, result.Log)
		require.Equal(t, "[]", result.Outputs["Embedding"])
		require.Equal(t, 0, result.Outputs["Dimensions"])
		require.Equal(t, -1, result.Outputs["ExitCode"])
	}
}

// Text that only looks like JSON is text.
func TestEmbeddingOfNumbers(t *testing.T) {
	b := serve(t, reply{body: fixture(t, llm.OpenAI, "embed.whole")})
	do(t, open(t, llm.OpenAI, b, nil), "Embedding", map[string]any{"Text": "[1, 2]"})
	require.Equal(t, "[1, 2]", b.only().body["input"])
}

// An error that may pass is tried again, as often as is configured and as late
// as the service says.
func TestRetries(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		body, failure := fixture(t, dialect, "chat.stream"), fixture(t, dialect, "error.whole")
		for _, status := range []int{408, 409, 429, 500, 502, 503, 529} {
			b := serve(t, reply{status: status, body: failure, header: map[string]string{"Retry-After": "0"}}, reply{body: body})
			result := do(t, open(t, dialect, b, nil), "ChatCompletion", ask)
			require.Equal(t, paris, result.Outputs["Content"], status)
			require.EqualValues(t, 2, result.Outputs["Usage"].(map[string]any)["Attempts"])
			require.NotContains(t, result.Outputs["Usage"], "PossiblyCharged")
			require.Contains(t, result.Log[0], fmt.Sprintf("LLM ChatCompletion: attempt 1 failed (LLM API error (%d): Rate limit reached for requests), the next is in 0s", status))
			require.Len(t, b.got(), 2)
			require.Equal(t, b.got()[0].raw, b.got()[1].raw)
		}
		for _, status := range []int{400, 401, 403, 404, 413, 422} {
			b := serve(t, reply{status: status, body: failure}, reply{body: body})
			out := do(t, open(t, dialect, b, nil), "ChatCompletion", ask).Outputs
			require.Equal(t, -1, out["ExitCode"])
			require.Equal(t, "error", out["FinishReason"])
			require.Equal(t, "", out["Content"])
			require.Equal(t, status, out["Status"])
			require.Equal(t, "req_test_1", out["RequestID"])
			require.Contains(t, out["Error"], fmt.Sprintf("LLM API error (%d): Rate limit reached for requests", status))
			require.Equal(t, out["Error"], out["StdOut"])
			require.Len(t, b.got(), 1)
		}
		// For good: three attempts, then the service's words.
		b := serve(t, reply{status: 429, body: failure})
		result := do(t, open(t, dialect, b, nil), "ChatCompletion", ask)
		require.Len(t, b.got(), 3)
		require.Equal(t, "LLM ChatCompletion failed: LLM API error (429): Rate limit reached for requests", result.Log[len(result.Log)-1])
		none := 0
		b = serve(t, reply{status: 429, body: failure})
		do(t, open(t, dialect, b, func(c *llm.Config) { c.MaxRetries = &none }), "ChatCompletion", ask)
		require.Len(t, b.got(), 1)
		// A service that wants more time than there is, is not waited for.
		b = serve(t, reply{status: 429, body: failure, header: map[string]string{"Retry-After": "3600"}})
		result = do(t, open(t, dialect, b, nil), "ChatCompletion", ask)
		require.Len(t, b.got(), 1)
		require.Contains(t, strings.Join(result.Log, "\n"), "the service wants to be left alone for 1h0m0s, longer than there is time")
		// A word of the service's counts more than its status.
		b = serve(t, reply{status: 500, body: failure, header: map[string]string{"X-Should-Retry": "false"}})
		do(t, open(t, dialect, b, nil), "ChatCompletion", ask)
		require.Len(t, b.got(), 1)
	})
}

// Whatever form an error has, its words are found.
func TestErrorForms(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":{"message":"m","type":"t","code":"c"}}`: "LLM API error (400): m",
		`{"error":"m"}`: "LLM API error (400): m",
		`{"type":"error","error":{"type":"t","message":"m"}}`: "LLM API error (400): m",
		`{"message":"m"}`: "LLM API error (400): m",
		`{"object":"error","message":"m","code":40001}`: "LLM API error (400): m",
		`{"detail":"m"}`: "LLM API error (400): m",
		`{"detail":[{"loc":["body"],"msg":"m","type":"missing"}]}`: "LLM API error (400): m",
		`{"error":{"reason":"x"}}`:                                 `LLM API error (400): {"reason":"x"}`,
		`{}`:                                                       "LLM API error (400): {}",
		``:                                                         "LLM API error (400): no reason given",
		`nope`:                                                     "LLM API error (400): nope",
		"<html><head><title>Bad\n Gateway</title></head><body>x</body>":        "LLM API error (400): the answer is a web page (Bad Gateway), not the service's JSON; is BaseURL right?",
		"<!DOCTYPE html><p>" + strings.Repeat("x", 100000):                     "LLM API error (400): the answer is a web page, not the service's JSON; is BaseURL right?",
		`{"error":{"message":"` + strings.Repeat("x", 3000) + "\u202e" + `"}}`: "LLM API error (400): " + strings.Repeat("x", 2000) + "…",
	} {
		each(t, func(t *testing.T, dialect string) {
			b := serve(t, reply{status: 400, body: body})
			require.Equal(t, want, do(t, open(t, dialect, b, nil), "ChatCompletion", ask).Outputs["Error"])
		})
	}
}

// An error that comes first in a stream is an answer: nothing was worked.
func TestErrorFirstInStream(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		b := serve(t, reply{body: fixture(t, dialect, "error-first.stream")}, reply{body: fixture(t, dialect, "chat.stream")})
		result := do(t, open(t, dialect, b, nil), "ChatCompletion", ask)
		require.Equal(t, paris, result.Outputs["Content"], result.Log)
		require.Len(t, b.got(), 2)
	})
}

// An error in the middle of an answer, and an answer that is cut, keep what there
// is, and are not paid for again.
func TestBrokenStreams(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		stream := fixture(t, dialect, "chat.stream")
		half := stream[:strings.Index(stream, " Paris")]
		for name, test := range map[string]struct {
			r       reply
			content string
			want    string
		}{
			"an error":              {reply{body: fixture(t, dialect, "error.stream")}, "The cap", "LLM API error (500)"},
			"the connection breaks": {reply{body: half, cut: true}, "The capital of France is", "the answer was cut off"},
			"it ends in a line":     {reply{body: half}, "The capital of France is", ""},
			"it ends after a line":  {reply{body: stream[:strings.LastIndex(half, "\n")+1]}, "The capital of France is", "the answer was cut off"},
			"a piece is no JSON":    {reply{body: strings.Replace(stream, `" Paris"`, `" Paris`, 1)}, "The capital of France is", "the answer cannot be read"},
			"nothing comes":         {reply{cut: true, header: map[string]string{"Content-Type": "text/event-stream"}}, "", "the answer was cut off"},
			"nothing, ended well":   {reply{}, "", "the answer was cut off"},
			"a web page":            {reply{body: "<html><title>Login</title>"}, "", "a web page (Login)"},
			"a long line":           {reply{body: half + strings.Repeat("x", 17<<20)}, "The capital of France is", "is longer than 16777216 bytes"},
		} {
			t.Run(name, func(t *testing.T) {
				b := serve(t, test.r)
				out := do(t, open(t, dialect, b, nil), "ChatCompletion", ask).Outputs
				require.Equal(t, test.content, out["Content"])
				require.Equal(t, test.content, out["Result"])
				require.Equal(t, "error", out["FinishReason"])
				require.Equal(t, -1, out["ExitCode"])
				require.Contains(t, out["Error"], test.want)
				require.Contains(t, out["Error"], "not tried again, since it may have been charged")
				require.EqualValues(t, 1, out["Usage"].(map[string]any)["PossiblyCharged"])
				require.Len(t, b.got(), 1)

				// Unless that is wanted.
				b = serve(t, test.r, reply{body: stream})
				result := do(t, open(t, dialect, b, func(c *llm.Config) { c.RetryAmbiguous = true }), "ChatCompletion", ask)
				if test.want == "the answer was cut off" || test.want == "LLM API error (500)" {
					require.Equal(t, paris, result.Outputs["Content"], result.Log)
					require.EqualValues(t, 2, result.Outputs["Usage"].(map[string]any)["Attempts"])
					require.EqualValues(t, 1, result.Outputs["Usage"].(map[string]any)["PossiblyCharged"])
				}
			})
		}
	})
}

// What comes after the end of an answer cannot take it away.
func TestCutAfterTheEnd(t *testing.T) {
	for dialect, after := range map[string]string{llm.OpenAI: `"finish_reason":"stop"`, llm.OpenAICompatible: `"finish_reason":"stop"`, llm.Anthropic: "event: message_stop"} {
		stream := fixture(t, dialect, "chat.stream")
		at := strings.Index(stream, after)
		end := at + strings.Index(stream[at:], "\n\n") + 2
		if dialect == llm.Anthropic {
			end = at
		}
		b := serve(t, reply{body: stream[:end], cut: true})
		out := do(t, open(t, dialect, b, nil), "ChatCompletion", ask).Outputs
		require.Equal(t, paris, out["Content"], dialect)
		require.Equal(t, "stop", out["FinishReason"])
		require.Equal(t, 0, out["ExitCode"])
	}
}

// An answer that comes at once and is cut is lost.
func TestTruncatedAnswer(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		whole := fixture(t, dialect, "chat.whole")
		for name, r := range map[string]reply{
			"by the connection": {body: whole[:len(whole)/2], header: map[string]string{"Content-Length": fmt.Sprint(len(whole))}, cut: true},
			"in chunks":         {body: whole[:len(whole)/2], cut: true},
			"by the service":    {body: whole[:len(whole)/2]},
			"before it":         {mute: true},
		} {
			b := serve(t, r)
			out := do(t, open(t, dialect, b, nil), "ChatCompletion", map[string]any{"Messages": "x", "Stream": false}).Outputs
			require.Equal(t, -1, out["ExitCode"], name)
			require.Contains(t, out["Error"], "may have been charged", name)
			require.Len(t, b.got(), 1, name)
		}
	})
}

// A line of some megabytes is a line like others.
func TestHugeAnswer(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		long := strings.Repeat("x", 4<<20)
		b := serve(t, reply{body: strings.Replace(fixture(t, dialect, "chat.stream"), `" Paris"`, `" `+long+`"`, 1)})
		out := do(t, open(t, dialect, b, nil), "ChatCompletion", ask).Outputs
		require.Equal(t, "The capital of France is "+long+".", out["Content"])
	})
}

func TestUnreachable(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		// Nobody listens on port 1, nor gets it meanwhile, as a port that was just let go.
		out := do(t, open(t, dialect, nil, func(c *llm.Config) { c.BaseURL = "http://127.0.0.1:1" }), "ChatCompletion", ask).Outputs
		require.Equal(t, -1, out["ExitCode"])
		require.Equal(t, "unreachable", out["ErrorCode"])
		require.Contains(t, out["Error"], "LLM request failed: ")
		require.NotContains(t, out["Error"], "charged")
		usage := out["Usage"].(map[string]any)
		require.EqualValues(t, 3, usage["Attempts"])
		require.NotContains(t, usage, "PossiblyCharged")
	})
}

// Each time limit ends a request, says which it was, and leaves no connection.
func TestTimeouts(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		t.Parallel()
		stream := fixture(t, dialect, "chat.stream")
		half := stream[:strings.LastIndex(stream[:strings.Index(stream, " Paris")], "\n")+1]
		for name, test := range map[string]struct {
			r       reply
			change  func(*llm.Config)
			want    string
			content string
		}{
			"first byte": {reply{hold: true}, func(c *llm.Config) { c.FirstByteTimeoutMs = 2000 }, "no byte of an answer within 2s (FirstByteTimeoutMs)", ""},
			"idle":       {reply{body: half, hold: true}, func(c *llm.Config) { c.IdleTimeoutMs = 2000 }, "the answer stopped for 2s (IdleTimeoutMs)", "The capital of France is"},
			"total":      {reply{body: half, hold: true}, func(c *llm.Config) { c.TimeoutMs = 4000 }, "LLM request timed out after 4000ms.", "The capital of France is"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := serve(t, test.r)
				out := do(t, open(t, dialect, b, test.change), "ChatCompletion", ask).Outputs
				require.Equal(t, -1, out["ExitCode"])
				require.Contains(t, out["Error"], test.want)
				require.Equal(t, "timeout", out["ErrorCode"])
				require.EqualValues(t, 1, out["Usage"].(map[string]any)["PossiblyCharged"])
				require.Equal(t, test.content, out["Content"])
				await(t, b.left)
				require.Len(t, b.got(), 1)
			})
		}
	})
}

// An item that is canceled ends its request at once. Whether that is an error,
// which servers may repeat, or a result depends on whether it may be charged.
func TestCancel(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		b := serve(t, reply{hold: true})
		p := open(t, dialect, b, nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		var result beacon.Result
		var err error
		var done sync.WaitGroup
		done.Go(func() { result, err = p.Run(ctx, job(t, "ChatCompletion", ask)) })
		await(t, b.arrived)
		cancel(beacon.Errorf(beacon.Canceled, "canceled by the server"))
		done.Wait()
		require.NoError(t, err)
		require.Equal(t, "LLM request failed: canceled by the server", result.Outputs["Error"])
		require.Equal(t, "canceled", result.Outputs["ErrorCode"])
		await(t, b.left)

		_, err = p.Run(ctx, job(t, "ChatCompletion", ask))
		require.ErrorContains(t, err, "canceled by the server")
		require.Equal(t, beacon.Canceled, beacon.CodeOf(err))
		require.Len(t, b.got(), 1)
	})
}

// Text is shown as it comes, with all that came before it.
func TestProgress(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		stream := fixture(t, dialect, "chat.stream")
		b := serve(t, reply{body: stream, frame: 1})
		p := open(t, dialect, b, nil)
		j := job(t, "ChatCompletion", ask)
		var shown []string
		j.OnProgress = func(p beacon.Progress) { shown = append(shown, p.Message) }
		result, err := p.Run(t.Context(), j)
		require.NoError(t, err)
		require.NotEmpty(t, shown)
		before := ""
		for _, text := range shown {
			require.True(t, strings.HasPrefix(paris, text), text)
			require.Greater(t, len(text), len(before))
			before = text
		}
		require.Equal(t, paris, result.Outputs["Content"])
		require.LessOrEqual(t, len(shown), 7)
		usage := result.Outputs["Usage"].(map[string]any)
		require.LessOrEqual(t, usage["TimeToFirstTokenMs"].(int64), usage["LatencyMs"].(int64))
	})
}

// A thousand streams that are left in the middle leave nothing behind: TestMain
// checks for goroutines, and the server waits for every connection to end.
func TestCancelManyStreams(t *testing.T) {
	const streams, atOnce = 1000, 20
	each(t, func(t *testing.T, dialect string) {
		stream := fixture(t, dialect, "chat.stream")
		b := serve(t, reply{body: stream[:strings.LastIndex(stream[:strings.Index(stream, " Paris")], "\n")+1], hold: true})
		p := open(t, dialect, b, nil)
		var all sync.WaitGroup
		slots := make(chan struct{}, atOnce)
		for range streams / len(dialects) {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				j := job(t, "ChatCompletion", ask)
				j.OnProgress = func(beacon.Progress) { cancel() }
				result, err := p.Run(ctx, j)
				if err != nil || !strings.HasPrefix(result.Outputs["Content"].(string), "The") {
					t.Errorf("a canceled stream: %v %v", result.Outputs, err)
				}
			})
		}
		all.Wait()
		for range streams / len(dialects) {
			await(t, b.left)
		}
	})
}

// Keys are in none of what comes out, even if a service sends them back.
func TestKeysStaySecret(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		echo := "you sent Bearer " + key + " and " + key[:len(key)-1] + "…"
		var log strings.Builder
		for name, r := range map[string]reply{
			"error":  {status: 400, body: `{"error":{"message":"` + echo + `","type":"` + key + `"}}`, header: map[string]string{"X-Request-Id": key}},
			"page":   {status: 502, body: "<title>" + echo + "</title>"},
			"stream": {body: strings.Replace(fixture(t, dialect, "chat.stream"), " Paris", " "+key, 1), frame: 1},
			"away":   {status: 302, header: map[string]string{"Location": "http://elsewhere/?k=" + key}},
			"broken": {body: "{" + key},
		} {
			b := serve(t, r)
			none := 0
			p := open(t, dialect, b, func(c *llm.Config) {
				c.APIKey, c.MaxRetries = key, &none
				c.Log = logTo(&log)
			})
			require.NoError(t, p.Initialize(t.Context()))
			j := job(t, "ChatCompletion", ask)
			all := ""
			j.OnProgress = func(p beacon.Progress) { all += fmt.Sprint(p) }
			result, err := p.Run(t.Context(), j)
			require.NoError(t, err)
			raw, err := json.Marshal(result)
			require.NoError(t, err)
			all += string(raw) + log.String() + fmt.Sprintf("%v %+v %#v", p, p, p)
			require.NotContains(t, all, key, name)
			if name == "stream" || name == "error" {
				require.Contains(t, string(raw), "[redacted]", name)
			}
		}
	})
}

// A key does not follow a redirect.
func TestRedirect(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		other := serve(t, reply{body: fixture(t, dialect, "chat.stream")})
		b := serve(t, reply{status: http.StatusTemporaryRedirect, header: map[string]string{"Location": other.URL + "/v1?x=y"}})
		out := do(t, open(t, dialect, b, nil), "ChatCompletion", ask).Outputs
		require.Contains(t, out["Error"], "the address redirects to "+other.URL+"/v1, and keys are not sent on: set BaseURL")
		require.Empty(t, other.got())
		require.Len(t, b.got(), 1)
	})
}

func TestBaseURL(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		chat, embed := strings.TrimPrefix(paths[dialect][0], "/v1"), strings.TrimPrefix(paths[dialect][1], "/v1")
		v1 := "/v1"
		if dialect == llm.Ollama {
			v1 = ""
		}
		for base, want := range map[string]string{
			"":                    v1,
			"/":                   v1,
			"/proxy/llm":          "/proxy/llm" + v1,
			"/proxy/llm/":         "/proxy/llm" + v1,
			"/v1":                 "/v1",
			"/v1/":                "/v1",
			"/openai/v1":          "/openai/v1",
			"/v1beta/openai":      "/v1beta/openai",
			"/a%20b":              "/a%20b" + v1,
			"/p?api-version=1&x=": "/p" + v1,
		} {
			b := serve(t, reply{body: fixture(t, dialect, "chat.stream")}, reply{body: fixture(t, dialect, "embed.whole")})
			p := open(t, dialect, b, func(c *llm.Config) { c.BaseURL = b.URL + base })
			require.Equal(t, paris, do(t, p, "ChatCompletion", ask).Outputs["Content"])
			require.Equal(t, 0, do(t, p, "Embedding", map[string]any{"Text": "x"}).Outputs["ExitCode"])
			query := ""
			if strings.Contains(base, "?") {
				query = "?api-version=1&x="
			}
			require.Equal(t, want+chat+query, b.got()[0].path, base)
			require.Equal(t, want+embed+query, b.got()[1].path, base)
		}
		b := serve(t, reply{body: fixture(t, dialect, "chat.stream")})
		do(t, open(t, dialect, b, func(c *llm.Config) { c.BaseURL, c.APIPath = b.URL+"/x", "/" }), "ChatCompletion", ask)
		require.Equal(t, "/x"+chat, b.only().path)
	})
}

// Extra is merged into the request: objects are, null removes, the rest replaces.
func TestExtra(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		b := serve(t, reply{body: fixture(t, dialect, "chat.stream")})
		p := open(t, dialect, b, nil)
		for _, extra := range []any{`{"seed":12345678901234567890,"stream_options":null,"options":{"num_ctx":4096}}`, json.RawMessage(`{"seed":1}`)} {
			require.Equal(t, 0, do(t, p, "ChatCompletion", map[string]any{"Messages": "x", "Temperature": 0, "Extra": extra}).Outputs["ExitCode"])
		}
		require.Contains(t, string(b.got()[0].raw), `"seed":12345678901234567890`)
		require.NotContains(t, b.got()[0].body, "stream_options")
		require.Equal(t, 4096.0, b.got()[0].body["options"].(map[string]any)["num_ctx"])
		if dialect == llm.Ollama {
			require.Equal(t, 0.0, b.got()[0].body["options"].(map[string]any)["temperature"])
		}
		for _, bad := range []string{`{"model":"gpt-5-pro"}`, `{"stream":false}`, `[]`, `x`} {
			out := do(t, p, "ChatCompletion", map[string]any{"Messages": "x", "Extra": bad}).Outputs
			require.Contains(t, out["Error"], "Extra: ", bad)
		}
		require.Len(t, b.got(), 2)
	})
}

// The output file gets the text, too.
func TestOutputFile(t *testing.T) {
	b := serve(t, reply{body: fixture(t, llm.OpenAI, "chat.stream")})
	j := job(t, "ChatCompletion", ask)
	j.Output = "answer.txt"
	_, err := open(t, llm.OpenAI, b, nil).Run(t.Context(), j)
	require.NoError(t, err)
	raw, err := j.Dir.ReadFile("answer.txt")
	require.NoError(t, err)
	require.Equal(t, paris, string(raw))
}

func TestUnknownAction(t *testing.T) {
	_, err := open(t, llm.OpenAI, nil, nil).Run(t.Context(), job(t, "Dance", nil))
	require.ErrorContains(t, err, `LLM Provider: unknown action "Dance".`)
	var e *beacon.Error
	require.True(t, errors.As(err, &e))
}

// The limit of an item's own time counts, too, and is not ours to word.
func TestItemTimeout(t *testing.T) {
	b := serve(t, reply{hold: true})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, beacon.Errorf(beacon.Timeout, "the item ran longer than its limit"))
	defer cancel()
	result, err := open(t, llm.OpenAI, b, nil).Run(ctx, job(t, "ChatCompletion", ask))
	if err != nil { // on a slow machine the time may be over before the request is out
		require.Equal(t, beacon.Timeout, beacon.CodeOf(err))
		return
	}
	require.Contains(t, result.Outputs["Error"], "the item ran longer than its limit")
	require.Equal(t, "timeout", result.Outputs["ErrorCode"])
}
