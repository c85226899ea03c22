package llm_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/llm"
)

// Messages may be text, JSON in text, or JSON.
func TestMessages(t *testing.T) {
	user := `{"content":"hi","role":"user"}`
	for name, test := range map[string]struct {
		settings map[string]any
		want     string
	}{
		"text":                     {map[string]any{"Messages": "hi"}, `[` + user + `]`},
		"JSON in text":             {map[string]any{"Messages": `[{"role":"user","content":"hi"}]`}, `[` + user + `]`},
		"JSON":                     {map[string]any{"Messages": json.RawMessage(`[{"role":"user","content":"hi"}]`)}, `[` + user + `]`},
		"one message":              {map[string]any{"Messages": json.RawMessage(`{"role":"user","content":"hi"}`)}, `[` + user + `]`},
		"text that is JSON":        {map[string]any{"Messages": `{"a":1}`}, `[{"content":"{\"a\":1}","role":"user"}]`},
		"a number as text":         {map[string]any{"Messages": `42`}, `[{"content":"42","role":"user"}]`},
		"broken JSON is text":      {map[string]any{"Messages": `[{"role":"user"`}, `[{"content":"[{\"role\":\"user\"","role":"user"}]`},
		"with a system prompt":     {map[string]any{"Messages": "hi", "SystemPrompt": "s"}, `[{"content":"s","role":"system"},` + user + `]`},
		"which one has":            {map[string]any{"Messages": `[{"role":"system","content":"t"}]`, "SystemPrompt": "s"}, `[{"content":"t","role":"system"}]`},
		"or the developer":         {map[string]any{"Messages": `[{"role":"developer","content":"t"}]`, "SystemPrompt": "s"}, `[{"content":"t","role":"developer"}]`},
		"a system prompt alone":    {map[string]any{"SystemPrompt": "s"}, `[{"content":"s","role":"system"}]`},
		"what OpenAI has besides":  {map[string]any{"Messages": `[{"role":"user","content":"hi","name":"bob","x":{"y":1.50}}]`}, `[{"content":"hi","name":"bob","role":"user","x":{"y":1.50}}]`},
		"HTML is not escaped":      {map[string]any{"Messages": "<a>&"}, `[{"content":"<a>&","role":"user"}]`},
		"no content":               {map[string]any{"Messages": `[{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":{"a":1}}}]}]`}, `[{"role":"assistant","tool_calls":[{"function":{"arguments":"{\"a\":1}","name":"f"},"id":"1","type":"function"}]}]`},
		"parts that nobody knows":  {map[string]any{"Messages": `[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"x","format":"wav"}}]}]`}, `[{"content":[{"type":"input_audio","input_audio":{"data":"x","format":"wav"}}],"role":"user"}]`},
		"Anthropic's images":       {map[string]any{"Messages": `[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"eA=="}}]}]`}, `[{"content":[{"image_url":{"url":"data:image/png;base64,eA=="},"type":"image_url"}],"role":"user"}]`},
		"blocks that came back":    {map[string]any{"Messages": `[{"role":"assistant","content":"x","thinking_blocks":[{"type":"thinking"}]}]`}, `[{"content":"x","role":"assistant"}]`},
		"the image's own settings": {map[string]any{"Messages": `[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y","detail":"low"}}]}]`}, `[{"content":[{"image_url":{"url":"https://x/y","detail":"low"},"type":"image_url"}],"role":"user"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, reply{body: fixture(t, llm.OpenAI, "chat.whole")})
			result := do(t, open(t, llm.OpenAI, b, nil), "ChatCompletion", test.settings)
			require.Equal(t, 0, result.Outputs["ExitCode"], result.Log)
			var sent struct{ Messages json.RawMessage }
			require.NoError(t, json.Unmarshal(b.only().raw, &sent))
			require.Equal(t, test.want, string(sent.Messages))
			require.Equal(t, name == "broken JSON is text", strings.Contains(strings.Join(result.Log, "\n"), "Messages is not valid JSON"))
		})
	}
}

// What is wrong with an item is said before anything is sent.
func TestBadSettings(t *testing.T) {
	b := serve(t, reply{})
	p := open(t, llm.OpenAI, b, nil)
	message := func(m string) map[string]any { return map[string]any{"Messages": json.RawMessage(`[` + m + `]`)} }
	for want, settings := range map[string]map[string]any{
		"Messages: message 0: want an object with role and content":                             message(`"x"`),
		"Messages: message 0: it has no role":                                                   message(`{}`),
		"Messages: message 0: a tool's message needs tool_call_id":                              message(`{"role":"tool"}`),
		"Messages: message 0: content is neither text nor a list of parts":                      message(`{"role":"user","content":5}`),
		"Messages: message 0: part 0: it has no type":                                           message(`{"role":"user","content":[{}]}`),
		"Messages: message 0: part 0: image_url has no url":                                     message(`{"role":"user","content":[{"type":"image_url"}]}`),
		"Messages: message 0: part 0: {SourcePath} is given, but the item has no source":        message(`{"role":"user","content":[{"type":"image_url","image_url":"{SourcePath}"}]}`),
		"Messages: message 0: part 0: there is no file ../../etc/passwd among the item's":       message(`{"role":"user","content":[{"type":"file","file":{"file_data":"file:../../etc/passwd"}}]}`),
		`Messages: message 0: part 0: "ftp://x" is not http, https, data, file or {SourcePath}`: message(`{"role":"user","content":[{"type":"image_url","image_url":"ftp://x"}]}`),
		"Messages: message 0: part 0: want data:TYPE;base64,DATA":                               message(`{"role":"user","content":[{"type":"image_url","image_url":"data:image/png,x"}]}`),
		"Messages: message 0: part 0: the data is not an image but text/html":                   message(`{"role":"user","content":[{"type":"image_url","image_url":"data:text/html;base64,eA=="}]}`),
		"Messages: message 0: a tool call has no function's name":                               message(`{"role":"assistant","tool_calls":[{}]}`),
		"Messages: want a JSON array of messages, or text":                                      {"Messages": 5},
		`Temperature: "warm" is not a number`:                                                   {"Messages": "x", "Temperature": "warm"},
		`TopP: "NaN" is not a number`:                                                           {"Messages": "x", "TopP": "NaN"},
		"MaxTokens: -5 is not a number of 1 and more":                                           {"Messages": "x", "MaxTokens": -5},
		"StopSequences: want a JSON array of texts":                                             {"Messages": "x", "StopSequences": 5},
		`setting Stream is "perhaps": want true or false`:                                       {"Messages": "x", "Stream": "perhaps"},
		"Tools: want a JSON array of tools":                                                     {"Messages": "x", "Tools": "x"},
		"Tools: tool 0 has no name":                                                             {"Messages": "x", "Tools": `[{"type":"function","function":{}}]`},
		"Tools: the parameters of tool f are not a JSON schema":                                 {"Messages": "x", "Tools": `[{"name":"f","parameters":[]}]`},
	} {
		out := do(t, p, "ChatCompletion", settings).Outputs
		require.Equal(t, -1, out["ExitCode"], want)
		require.Contains(t, out["Error"], want)
		require.Equal(t, "invalid", out["ErrorCode"], want)
	}
	out := do(t, p, "Embedding", map[string]any{"Text": json.RawMessage(`[1,2]`)}).Outputs
	require.Contains(t, out["Error"], "Text: want a text or a JSON array of texts")
	require.Empty(t, b.got())

	none := open(t, llm.OpenAI, b, func(c *llm.Config) { c.Model, c.EmbeddingModel = "", "" })
	require.Contains(t, do(t, none, "ChatCompletion", ask).Outputs["Error"], "Model: none is given, and none is configured")
	require.Contains(t, do(t, none, "Embedding", map[string]any{"Text": "x"}).Outputs["Error"], "Model: none is given")
	require.Empty(t, b.got())
}

const png = "\x89PNG\r\n\x1a\nrest"

// An image is at a URL, in the item, or the staged source.
func TestImages(t *testing.T) {
	data := base64.StdEncoding.EncodeToString([]byte(png))
	each(t, func(t *testing.T, dialect string) {
		for url, staged := range map[string]bool{
			"{SourcePath}": true, "file:photo.png": true, "file://photo.png": true, "data:image/png;base64," + data: true, "https://example.com/cat.jpg": false,
		} {
			b := serve(t, reply{body: fixture(t, dialect, "chat.whole")})
			j := job(t, "ChatCompletion", map[string]any{"Messages": []any{map[string]any{"role": "user", "content": []any{
				map[string]any{"type": "text", "text": "What is this?"},
				map[string]any{"type": "image_url", "image_url": map[string]any{"url": url}},
			}}}})
			require.NoError(t, j.Dir.WriteFile("photo.png", []byte(png), 0o600))
			j.Source = "photo.png"
			result, err := open(t, dialect, b, nil).Run(t.Context(), j)
			require.NoError(t, err)
			if dialect == llm.Ollama && !staged {
				require.Contains(t, result.Outputs["Error"], "images are not fetched by Ollama: stage the file (SourceURL) and give {SourcePath} as its url")
				continue
			}
			require.Equal(t, 0, result.Outputs["ExitCode"], result.Log)
			message := b.only().body["messages"].([]any)[0].(map[string]any)
			switch {
			case dialect == llm.Ollama:
				require.Equal(t, map[string]any{"role": "user", "content": "What is this?", "images": []any{data}}, message)
			case dialect == llm.Anthropic && staged:
				require.Equal(t, map[string]any{"type": "image", "source": map[string]any{"type": "base64", "media_type": "image/png", "data": data}}, message["content"].([]any)[1])
			case dialect == llm.Anthropic:
				require.Equal(t, map[string]any{"type": "image", "source": map[string]any{"type": "url", "url": url}}, message["content"].([]any)[1])
			case staged:
				require.Equal(t, "data:image/png;base64,"+data, message["content"].([]any)[1].(map[string]any)["image_url"].(map[string]any)["url"])
			default:
				require.Equal(t, url, message["content"].([]any)[1].(map[string]any)["image_url"].(map[string]any)["url"])
			}
		}
	})
}

// Documents go to the services that take them.
func TestFiles(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		for content, media := range map[string]string{"%PDF-1.4 x": "application/pdf", "plain words": "text/plain"} {
			b := serve(t, reply{body: fixture(t, dialect, "chat.whole")})
			j := job(t, "ChatCompletion", map[string]any{"Messages": json.RawMessage(`[{"role":"user","content":[{"type":"file","file":{"file_data":"{SourcePath}"}}]}]`)})
			require.NoError(t, j.Dir.WriteFile("paper", []byte(content), 0o600))
			j.Source = "paper"
			result, err := open(t, dialect, b, nil).Run(t.Context(), j)
			require.NoError(t, err)
			data := base64.StdEncoding.EncodeToString([]byte(content))
			switch dialect {
			case llm.Ollama:
				require.Contains(t, result.Outputs["Error"], "text and images are all that Ollama takes, not paper")
			case llm.Anthropic:
				block := b.only().body["messages"].([]any)[0].(map[string]any)["content"].([]any)[0].(map[string]any)
				require.Equal(t, "document", block["type"])
				if media == "text/plain" {
					require.Equal(t, map[string]any{"type": "text", "media_type": media, "data": content}, block["source"])
				} else {
					require.Equal(t, map[string]any{"type": "base64", "media_type": media, "data": data}, block["source"])
				}
			default:
				part := b.only().body["messages"].([]any)[0].(map[string]any)["content"].([]any)[0]
				require.Equal(t, map[string]any{"type": "file", "file": map[string]any{"filename": "paper", "file_data": "data:" + media + ";base64," + data}}, part)
			}
		}
	})
}

func TestLargeFile(t *testing.T) {
	b := serve(t, reply{})
	j := job(t, "ChatCompletion", map[string]any{"Messages": json.RawMessage(`[{"role":"user","content":[{"type":"image_url","image_url":"file:large"}]}]`)})
	f, err := j.Dir.Create("large")
	require.NoError(t, err)
	require.NoError(t, f.Truncate(33<<20))
	require.NoError(t, f.Close())
	result, err := open(t, llm.OpenAI, b, nil).Run(t.Context(), j)
	require.NoError(t, err)
	require.Contains(t, result.Outputs["Error"], "large is larger than 33554432 bytes")
}

// OpenAI's newer models take the limit of tokens under another name.
func TestMaxCompletionTokens(t *testing.T) {
	for model, want := range map[string]string{"gpt-4o": "max_tokens", "o3-mini": "max_completion_tokens", "gpt-5-mini": "max_completion_tokens", "gpt-oss": "max_tokens"} {
		b := serve(t, reply{body: fixture(t, llm.OpenAI, "chat.whole")})
		do(t, open(t, llm.OpenAI, b, nil), "ChatCompletion", map[string]any{"Messages": "x", "MaxTokens": 7, "Model": model})
		require.Equal(t, 7.0, b.only().body[want], model)
		b = serve(t, reply{body: fixture(t, llm.OpenAI, "chat.whole")})
		do(t, open(t, llm.OpenAICompatible, b, nil), "ChatCompletion", map[string]any{"Messages": "x", "MaxTokens": 7, "Model": model})
		require.Equal(t, 7.0, b.only().body["max_tokens"], model)
	}
}

// Servers do not all number the pieces of tool calls.
func TestToolCallsWithoutNumbers(t *testing.T) {
	piece := func(call string) string {
		return `data: {"model":"m","choices":[{"index":0,"delta":{"tool_calls":[` + call + `]}}]}` + "\n\n"
	}
	b := serve(t, reply{body: piece(`{"id":"1","function":{"name":"a","arguments":"{\"x\":"}}`) + piece(`{"function":{"arguments":"1}"}}`) +
		piece(`{"id":"2","function":{"name":"b","arguments":{"y":2}}}`) + "data: [DONE]\n\n"})
	out := do(t, open(t, llm.OpenAICompatible, b, nil), "ToolUse", map[string]any{"Messages": "x", "Tools": weatherTools}).Outputs
	require.Equal(t, "tool_calls", out["FinishReason"])
	require.JSONEq(t, `[{"id":"1","type":"function","function":{"name":"a","arguments":"{\"x\":1}"}},
		{"id":"2","type":"function","function":{"name":"b","arguments":"{\"y\":2}"}}]`, out["ToolCalls"].(string))
}

func TestConfigurationErrors(t *testing.T) {
	for want, cfg := range map[string]llm.Config{
		`Backend is "openia": want openai, anthropic, ollama, openai-compatible`: {Service: llm.Service{Backend: "openia"}},
		"BaseURL is missing: openai-compatible needs to know":                    {Service: llm.Service{Backend: llm.OpenAICompatible}},
		"BaseURL is not a URL such as":                                           {Service: llm.Service{BaseURL: "api.openai.com"}},
		"EmbeddingBaseURL is not a URL":                                          {Service: llm.Service{EmbeddingBaseURL: "x"}},
		"Headers: idempotency-key cannot be set":                                 {Service: llm.Service{Headers: map[string]string{"idempotency-key": "x"}}},
		"times and numbers cannot be below zero":                                 {TimeoutMs: -1},
		"fallback 1: ":                                                           {Fallbacks: []llm.Service{{Backend: "x", BaseURL: "http://x"}}},
	} {
		_, err := llm.New(cfg)
		require.ErrorContains(t, err, want)
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	}
	_, err := llm.New(llm.Config{})
	require.NoError(t, err)
}

// A key that is not there fails the items, not the worker.
func TestMissingKey(t *testing.T) {
	b := serve(t, reply{})
	var log strings.Builder
	p := open(t, llm.OpenAI, b, func(c *llm.Config) { c.APIKey, c.Log = "$LLM_TEST_NO_SUCH_KEY", logTo(&log) })
	require.NoError(t, p.Initialize(t.Context()))
	require.Contains(t, log.String(), "the worker's environment has no LLM_TEST_NO_SUCH_KEY")
	out := do(t, p, "ChatCompletion", ask).Outputs
	require.Equal(t, "APIKey: the worker's environment has no LLM_TEST_NO_SUCH_KEY", out["Error"])
	require.Equal(t, -1, out["ExitCode"])
	require.Empty(t, b.got())
}

// An Ollama server that is not there yet is no reason not to start.
func TestOllamaPing(t *testing.T) {
	var log strings.Builder
	b := serve(t, reply{})
	p := open(t, llm.Ollama, b, func(c *llm.Config) { c.Log = logTo(&log) })
	require.NoError(t, p.Initialize(t.Context()))
	require.Contains(t, log.String(), "the Ollama server is there")
	b.Close()
	require.NoError(t, p.Initialize(t.Context()))
	require.Contains(t, log.String(), "the Ollama server cannot be reached; it may come later")
}

func TestHeaders(t *testing.T) {
	t.Setenv("LLM_TEST_HEADER", "azure-secret-key")
	each(t, func(t *testing.T, dialect string) {
		b := serve(t, reply{body: fixture(t, dialect, "chat.whole")}, reply{status: 400, body: `{"error":"azure-secret-key"}`})
		p := open(t, dialect, b, func(c *llm.Config) { c.Headers = map[string]string{"api-key": "$LLM_TEST_HEADER"} })
		require.Equal(t, paris, do(t, p, "ChatCompletion", ask).Outputs["Content"])
		require.Equal(t, "azure-secret-key", b.only().header.Get("Api-Key"))
		require.Contains(t, do(t, p, "ChatCompletion", ask).Outputs["Error"], "[redacted]")
	})
}

// Embeddings from another service get its key and not the chat's.
func TestEmbeddingElsewhere(t *testing.T) {
	each(t, func(t *testing.T, dialect string) {
		for name, own := range map[string]string{"with a key": "sk-embedding-key", "without": ""} {
			chat := serve(t, reply{body: fixture(t, dialect, "chat.whole")})
			embed := serve(t, reply{body: fixture(t, dialect, "embed.whole")})
			p := open(t, dialect, chat, func(c *llm.Config) {
				c.EmbeddingBaseURL = strings.Replace(embed.URL, "127.0.0.1", "localhost", 1)
				c.EmbeddingAPIKey = own
				c.Headers = map[string]string{"X-Private": "secret-header-1"}
			})
			require.Equal(t, paris, do(t, p, "ChatCompletion", ask).Outputs["Content"])
			out := do(t, p, "Embedding", map[string]any{"Text": "x"}).Outputs
			require.Equal(t, 0, out["ExitCode"], out["Error"])
			require.Equal(t, "secret-header-1", chat.only().header.Get("X-Private"))
			require.Empty(t, embed.only().header.Get("X-Private"))
			want := ""
			if own != "" {
				want = "Bearer " + own
			}
			require.Equal(t, want, embed.only().header.Get("Authorization"), name)
			require.Empty(t, embed.only().header.Get("X-Api-Key"))
		}
	})
}

// Anthropic has no embeddings of its own, and says what to do.
func TestAnthropicEmbedding(t *testing.T) {
	t.Setenv("VOYAGE_API_KEY", "")
	p := open(t, llm.Anthropic, nil, func(c *llm.Config) { c.EmbeddingModel = "" })
	out := do(t, p, "Embedding", map[string]any{"Text": "x", "Model": "voyage-3.5"}).Outputs
	require.Contains(t, out["Error"], "Anthropic has no embeddings: set EmbeddingAPIKey (or VOYAGE_API_KEY in the worker's environment)")
	require.Equal(t, -1, out["ExitCode"])
}

// Tenants of a request are no part of what a service sees.
func TestTenantStaysHere(t *testing.T) {
	b := serve(t, reply{body: fixture(t, llm.OpenAI, "chat.whole")})
	j := job(t, "ChatCompletion", ask)
	j.Tenant = "acme-private"
	_, err := open(t, llm.OpenAI, b, nil).Run(t.Context(), j)
	require.NoError(t, err)
	require.NotContains(t, string(b.only().raw), "acme")
}
