package llm_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	openaioption "github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/builtin/llm"
)

// The conversation that both sides of the comparison send.
var conversation = map[string]any{
	"SystemPrompt": "Be short.",
	"Messages": []any{
		map[string]any{"role": "user", "content": []any{
			map[string]any{"type": "text", "text": "What is this, and the weather?"},
			map[string]any{"type": "image_url", "image_url": map[string]any{"url": "data:image/png;base64," + base64.StdEncoding.EncodeToString([]byte(png))}},
		}},
		map[string]any{"role": "assistant", "tool_calls": []any{
			map[string]any{"id": "call_1", "type": "function", "function": map[string]any{"name": "get_weather", "arguments": `{"location":"Paris"}`}},
		}},
		map[string]any{"role": "tool", "tool_call_id": "call_1", "content": "17 degrees"},
	},
	"Tools":      weatherTools,
	"ToolChoice": "get_weather", "Temperature": 0.5, "TopP": 0.9, "MaxTokens": 100, "StopSequences": `["END"]`,
	"ResponseFormat": `{"type":"json_schema","json_schema":{"name":"place","schema":` + citySchema + `,"strict":true}}`,
}

var weatherSchema = map[string]any{
	"type":       "object",
	"properties": map[string]any{"location": map[string]any{"type": "string", "description": "City name"}},
	"required":   []string{"location"},
}

// same compares what we send with what the service's own library sends when a
// program uses it as its documentation has it. Only the library's notes on
// itself may differ.
func same(t *testing.T, ours, theirs request) {
	t.Helper()
	require.Equal(t, theirs.path, ours.path)
	require.JSONEq(t, string(theirs.raw), string(ours.raw))
	for name := range theirs.header {
		switch name {
		case "User-Agent", "Content-Length", "X-Stainless-Timeout":
			continue
		}
		require.Equal(t, theirs.header[name], ours.header[name], name)
	}
}

func TestRequestsAreThoseOfOpenAI(t *testing.T) {
	b := serve(t, reply{body: fixture(t, llm.OpenAI, "json.stream")})
	do(t, open(t, llm.OpenAI, b, nil), "ToolUse", conversation)

	theirs := serve(t, reply{body: fixture(t, llm.OpenAI, "json.stream"), header: map[string]string{"Content-Type": "text/event-stream"}})
	client := openai.NewClient(openaioption.WithBaseURL(theirs.URL+"/v1"), openaioption.WithAPIKey(key), openaioption.WithHTTPClient(theirs.Client()))
	var schema map[string]any
	require.NoError(t, json.Unmarshal([]byte(citySchema), &schema))
	params := openai.ChatCompletionNewParams{
		Model: "gpt-4o",
		Messages: []openai.ChatCompletionMessageParamUnion{
			openai.SystemMessage("Be short."),
			openai.UserMessage([]openai.ChatCompletionContentPartUnionParam{
				openai.TextContentPart("What is this, and the weather?"),
				openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: "data:image/png;base64," + base64.StdEncoding.EncodeToString([]byte(png))}),
			}),
			{OfAssistant: &openai.ChatCompletionAssistantMessageParam{ToolCalls: []openai.ChatCompletionMessageToolCallUnionParam{{
				OfFunction: &openai.ChatCompletionMessageFunctionToolCallParam{ID: "call_1", Function: openai.ChatCompletionMessageFunctionToolCallFunctionParam{
					Name: "get_weather", Arguments: `{"location":"Paris"}`,
				}},
			}}}},
			openai.ToolMessage("17 degrees", "call_1"),
		},
		Tools: []openai.ChatCompletionToolUnionParam{
			openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{
				Name: "get_weather", Description: openai.String("Get the current weather"), Parameters: weatherSchema,
			}),
			openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: "get_time", Parameters: shared.FunctionParameters{"type": "object"}}),
		},
		ToolChoice:  openai.ToolChoiceOptionFunctionToolChoice(openai.ChatCompletionNamedToolChoiceFunctionParam{Name: "get_weather"}),
		Temperature: openai.Float(0.5), TopP: openai.Float(0.9), MaxTokens: openai.Int(100),
		Stop: openai.ChatCompletionNewParamsStopUnion{OfStringArray: []string{"END"}},
		ResponseFormat: openai.ChatCompletionNewParamsResponseFormatUnion{OfJSONSchema: &shared.ResponseFormatJSONSchemaParam{
			JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{Name: "place", Schema: schema, Strict: openai.Bool(true)},
		}},
		StreamOptions: openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)},
	}
	stream := client.Chat.Completions.NewStreaming(t.Context(), params)
	for stream.Next() {
		_ = stream.Current()
	}
	require.NoError(t, stream.Err())
	same(t, b.only(), theirs.only())

	// Embeddings, one and many.
	for _, texts := range [][]string{{"a"}, {"a", "b"}} {
		name := map[int]string{1: "embed.whole", 2: "batch.whole"}[len(texts)]
		b, theirs := serve(t, reply{body: fixture(t, llm.OpenAI, name)}), serve(t, reply{body: fixture(t, llm.OpenAI, name), header: map[string]string{"Content-Type": "application/json"}})
		text, input := any(texts[0]), openai.EmbeddingNewParamsInputUnion{OfString: openai.String(texts[0])}
		if len(texts) > 1 {
			text, input = texts, openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: texts}
		}
		do(t, open(t, llm.OpenAI, b, nil), "Embedding", map[string]any{"Text": text, "Dimensions": 2})
		client := openai.NewClient(openaioption.WithBaseURL(theirs.URL+"/v1"), openaioption.WithAPIKey(key))
		_, err := client.Embeddings.New(t.Context(), openai.EmbeddingNewParams{Model: "text-embedding-3-small", Input: input, Dimensions: openai.Int(2)})
		require.NoError(t, err)
		same(t, b.only(), theirs.only())
		http.DefaultClient.CloseIdleConnections()
	}
}

func TestRequestsAreThoseOfAnthropic(t *testing.T) {
	b := serve(t, reply{body: fixture(t, llm.Anthropic, "json.stream")})
	do(t, open(t, llm.Anthropic, b, nil), "ToolUse", conversation)

	theirs := serve(t, reply{body: fixture(t, llm.Anthropic, "json.stream"), header: map[string]string{"Content-Type": "text/event-stream"}})
	client := anthropic.NewClient(anthropicoption.WithBaseURL(theirs.URL), anthropicoption.WithAPIKey(key), anthropicoption.WithHTTPClient(theirs.Client()))
	var schema map[string]any
	require.NoError(t, json.Unmarshal([]byte(citySchema), &schema))
	stream := client.Messages.NewStreaming(t.Context(), anthropic.MessageNewParams{
		Model: "claude-sonnet-4-20250514", MaxTokens: 100,
		System: []anthropic.TextBlockParam{{Text: "Be short."}},
		Messages: []anthropic.MessageParam{
			anthropic.NewUserMessage(
				anthropic.NewTextBlock("What is this, and the weather?"),
				anthropic.NewImageBlockBase64("image/png", base64.StdEncoding.EncodeToString([]byte(png)))),
			anthropic.NewAssistantMessage(anthropic.NewToolUseBlock("call_1", json.RawMessage(`{"location":"Paris"}`), "get_weather")),
			anthropic.NewUserMessage(anthropic.ContentBlockParamUnion{OfToolResult: &anthropic.ToolResultBlockParam{
				ToolUseID: "call_1",
				Content:   []anthropic.ToolResultBlockParamContentUnion{{OfText: &anthropic.TextBlockParam{Text: "17 degrees"}}},
			}}),
		},
		Tools: []anthropic.ToolUnionParam{
			{OfTool: &anthropic.ToolParam{
				Name: "get_weather", Description: anthropic.String("Get the current weather"),
				InputSchema: anthropic.ToolInputSchemaParam{Properties: weatherSchema["properties"], Required: []string{"location"}},
			}},
			{OfTool: &anthropic.ToolParam{Name: "get_time", InputSchema: anthropic.ToolInputSchemaParam{Type: "object"}}},
		},
		ToolChoice:  anthropic.ToolChoiceParamOfTool("get_weather"),
		Temperature: anthropic.Float(0.5), TopP: anthropic.Float(0.9), StopSequences: []string{"END"},
		OutputConfig: anthropic.OutputConfigParam{Format: anthropic.JSONOutputFormatParam{Schema: schema}},
	})
	for stream.Next() {
		_ = stream.Current()
	}
	require.NoError(t, stream.Err())
	require.NoError(t, stream.Close())
	same(t, b.only(), theirs.only())
}
