// Package openai is the backend for OpenAI and for the many servers that speak
// its API. Requests and answers have the types of OpenAI's own library; what
// the library would do on its own (retries, reading the environment, ending a
// stream that was cut as if it were whole) is left to packages wire and llm.
package openai

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/shared"

	"github.com/ultravisor/beacon/builtin/llm/model"
	"github.com/ultravisor/beacon/builtin/llm/secret"
	"github.com/ultravisor/beacon/builtin/llm/wire"
)

// Config says where the service is.
type Config struct {
	// BaseURL is where the API begins, with its version: https://host/v1. Its
	// query goes with every request.
	BaseURL *url.URL
	// Key is sent as a bearer token, if there is one.
	Key secret.Value
	// Compatible says that this is not OpenAI's own service: then the older name
	// of the limit of tokens is used for all models.
	Compatible bool
}

// A Backend implements model.Backend.
type Backend struct {
	client openai.Client
	cfg    Config
}

var _ model.Backend = (*Backend)(nil)

// New makes a backend that sends its requests through the client.
func New(cfg Config, client *wire.Client) *Backend {
	base := *cfg.BaseURL
	base.RawQuery = ""
	options := []option.RequestOption{
		option.WithBaseURL(base.String()),
		option.WithHTTPClient(client.HTTP()),
		option.WithMaxRetries(0),
		option.WithHeader("User-Agent", "beacon"),
	}
	for name, values := range cfg.BaseURL.Query() {
		for _, value := range values {
			options = append(options, option.WithQueryAdd(name, value))
		}
	}
	if !cfg.Key.Empty() {
		options = append(options, option.WithAPIKey(cfg.Key.Reveal()))
	}
	// Not NewClient, which reads OPENAI_* from the environment: a key of OpenAI's
	// must not reach another service.
	return &Backend{openai.Client{Options: options}, cfg}
}

// reasoning are OpenAI's models that want the limit of tokens under its newer
// name, and take no other.
var reasoning = regexp.MustCompile(`^(o\d|gpt-[5-9])`)

// body makes the request.
func (b *Backend) body(r *model.Chat) ([]byte, error) {
	p := openai.ChatCompletionNewParams{Model: r.Model, ReasoningEffort: shared.ReasoningEffort(r.ReasoningEffort)}
	for _, m := range r.Messages {
		p.Messages = append(p.Messages, param.Override[openai.ChatCompletionMessageParamUnion](m.Raw))
	}
	if r.Temperature != nil {
		p.Temperature = param.NewOpt(*r.Temperature)
	}
	if r.TopP != nil {
		p.TopP = param.NewOpt(*r.TopP)
	}
	if r.MaxTokens != nil {
		if !b.cfg.Compatible && reasoning.MatchString(r.Model) {
			p.MaxCompletionTokens = param.NewOpt(*r.MaxTokens)
		} else {
			p.MaxTokens = param.NewOpt(*r.MaxTokens)
		}
	}
	if len(r.Stop) > 0 {
		p.Stop.OfStringArray = r.Stop
	}
	for _, t := range r.Tools {
		p.Tools = append(p.Tools, tool(t))
	}
	switch r.ToolChoice.Mode {
	case model.ChooseAuto, model.ChooseNone, model.ChooseRequired:
		p.ToolChoice.OfAuto = param.NewOpt(r.ToolChoice.Mode)
	case model.ChooseTool:
		p.ToolChoice.OfFunctionToolChoice = &openai.ChatCompletionNamedToolChoiceParam{
			Function: openai.ChatCompletionNamedToolChoiceFunctionParam{Name: r.ToolChoice.Name},
		}
	}
	switch r.Format.Type {
	case model.FormatJSONObject:
		p.ResponseFormat.OfJSONObject = &shared.ResponseFormatJSONObjectParam{}
	case model.FormatJSONSchema:
		schema := shared.ResponseFormatJSONSchemaJSONSchemaParam{Name: r.Format.Name, Schema: r.Format.Schema}
		if r.Format.Strict != nil {
			schema.Strict = param.NewOpt(*r.Format.Strict)
		}
		p.ResponseFormat.OfJSONSchema = &shared.ResponseFormatJSONSchemaParam{JSONSchema: schema}
	}
	if r.Stream {
		p.StreamOptions.IncludeUsage = param.NewOpt(true)
		p.SetExtraFields(map[string]any{"stream": true})
	}
	raw, err := p.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	return model.Patch(raw, r.Extra)
}

func tool(t model.Tool) openai.ChatCompletionToolUnionParam {
	if t.Native {
		return param.Override[openai.ChatCompletionToolUnionParam](t.Raw)
	}
	function := map[string]any{"name": t.Name}
	if t.Description != "" {
		function["description"] = t.Description
	}
	if len(t.Parameters) > 0 {
		function["parameters"] = t.Parameters
	}
	if t.Strict != nil {
		function["strict"] = *t.Strict
	}
	return param.Override[openai.ChatCompletionToolUnionParam](map[string]any{"type": "function", "function": function})
}

// post sends a request. The answer's body must be closed.
func (b *Backend) post(ctx context.Context, path string, body []byte) (*http.Response, error) {
	ctx, failure := wire.Keep(ctx)
	var resp *http.Response
	if err := b.client.Post(ctx, path, body, &resp); err != nil {
		return nil, failure(err)
	}
	return resp, nil
}

// Chat implements model.Backend.
func (b *Backend) Chat(ctx context.Context, r *model.Chat, onDelta func(model.Delta)) (model.Answer, error) {
	raw, err := b.body(r)
	if err != nil {
		return model.Answer{}, err
	}
	resp, err := b.post(ctx, "chat/completions", raw)
	if err != nil {
		return model.Answer{}, err
	}
	defer resp.Body.Close()
	a := &assembly{onDelta: onDelta}
	a.answer.RequestID = wire.RequestID(resp.Header)
	in := bufio.NewReader(resp.Body)
	if wire.IsJSON(in) {
		err = a.whole(in)
	} else {
		err = a.stream(in)
	}
	return a.finish(err)
}

// An assembly puts an answer together.
type assembly struct {
	answer  model.Answer
	onDelta func(model.Delta)
	calls   []model.ToolCall
	slots   map[int64]int // of calls, by the stream's index
	content strings.Builder
	thought strings.Builder
	ended   bool
}

// whole reads an answer that comes at once.
func (a *assembly) whole(in io.Reader) error {
	raw, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if err := failure(raw); err != nil {
		return err
	}
	var c openai.ChatCompletion
	if err := json.Unmarshal(raw, &c); err != nil {
		return wire.Unreadable(err, raw)
	}
	if len(c.Choices) == 0 {
		return wire.Unreadable(errors.New("it has no choices"), nil)
	}
	choice := c.Choices[0]
	a.answer.Model = c.Model
	a.usage(c.Usage)
	a.text(choice.Message.Content, choice.Message.RawJSON())
	for _, call := range choice.Message.ToolCalls {
		a.calls = append(a.calls, model.ToolCall{
			ID: call.ID, Name: call.Function.Name,
			Arguments: arguments(call.Function.Arguments, call.RawJSON()),
		})
	}
	a.refusal(choice.Message.Refusal)
	a.ended, a.answer.StopReason = true, choice.FinishReason
	return nil
}

// stream reads an answer that comes in pieces.
func (a *assembly) stream(in io.Reader) error {
	events := wire.NewEvents(in)
	for {
		event, err := events.Next()
		if errors.Is(err, io.EOF) && a.ended {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return wire.Cut()
		}
		if err != nil {
			return err
		}
		data := bytes.TrimSpace(event.Data)
		if len(data) == 0 {
			continue
		}
		if string(data) == "[DONE]" {
			a.ended = true
			return nil
		}
		if err := failure(data); err != nil {
			return err
		}
		var chunk openai.ChatCompletionChunk
		if err := json.Unmarshal(data, &chunk); err != nil {
			return wire.Unreadable(err, data)
		}
		a.chunk(chunk)
	}
}

func (a *assembly) chunk(c openai.ChatCompletionChunk) {
	if c.Model != "" {
		a.answer.Model = c.Model
	}
	if c.JSON.Usage.Valid() {
		a.usage(c.Usage)
	}
	for _, choice := range c.Choices {
		if choice.Index != 0 {
			continue // more than one was asked for, by Extra
		}
		a.text(choice.Delta.Content, choice.Delta.RawJSON())
		a.refusal(choice.Delta.Refusal)
		for _, call := range choice.Delta.ToolCalls {
			a.call(call)
		}
		if choice.FinishReason != "" {
			a.ended, a.answer.StopReason = true, choice.FinishReason
		}
	}
}

// call adds a piece of a tool call. Most services number the calls; some send
// each whole, with an id of its own and no number.
func (a *assembly) call(c openai.ChatCompletionChunkChoiceDeltaToolCall) {
	if a.slots == nil {
		a.slots = map[int64]int{}
	}
	i, known := a.slots[c.Index]
	if !known || c.ID != "" && a.calls[i].ID != "" && a.calls[i].ID != c.ID {
		i = len(a.calls)
		a.calls = append(a.calls, model.ToolCall{})
		a.slots[c.Index] = i
	}
	call := &a.calls[i]
	if call.ID == "" {
		call.ID = c.ID
	}
	if call.Name == "" {
		call.Name = c.Function.Name
	}
	call.Arguments += arguments(c.Function.Arguments, c.RawJSON())
}

// arguments are JSON in a string; some services send the JSON itself.
func arguments(text, raw string) string {
	if text != "" {
		return text
	}
	var call struct {
		Function struct {
			Arguments json.RawMessage `json:"arguments"`
		} `json:"function"`
	}
	if json.Unmarshal([]byte(raw), &call) != nil {
		return ""
	}
	if args := call.Function.Arguments; len(args) > 0 && args[0] == '{' {
		return string(args)
	}
	return ""
}

// text adds text, and reasoning, which has no place in OpenAI's own API, but in
// that of others.
func (a *assembly) text(content, raw string) {
	thought := ""
	if strings.Contains(raw, `"reasoning`) {
		var more struct {
			Content   string `json:"reasoning_content"`
			Reasoning string `json:"reasoning"`
		}
		if json.Unmarshal([]byte(raw), &more) == nil {
			thought = more.Content
			if thought == "" {
				thought = more.Reasoning
			}
		}
	}
	if content == "" && thought == "" {
		return
	}
	a.content.WriteString(content)
	a.thought.WriteString(thought)
	a.onDelta(model.Delta{Text: content, Reasoning: thought})
}

// refusal is text, too, but the answer counts as withheld.
func (a *assembly) refusal(text string) {
	if text == "" {
		return
	}
	a.text(text, "")
	a.answer.Finish = model.FinishContentFilter
}

func (a *assembly) usage(u openai.CompletionUsage) {
	a.answer.Usage = model.Usage{
		Prompt: u.PromptTokens, Completion: u.CompletionTokens,
		Cached: u.PromptTokensDetails.CachedTokens, Reasoning: u.CompletionTokensDetails.ReasoningTokens,
	}
}

// finish completes the answer, or says how much of it there is.
func (a *assembly) finish(err error) (model.Answer, error) {
	answer := a.answer
	answer.Content, answer.Reasoning, answer.ToolCalls = a.content.String(), a.thought.String(), a.calls
	var failed *wire.Error
	if err != nil && a.ended && errors.As(err, &failed) && failed.Status == 0 {
		// What was lost is what comes after the end of the answer.
		err = nil
	}
	if err != nil {
		return answer, wire.After(err, answer.Content != "" || answer.Reasoning != "" || len(answer.ToolCalls) > 0)
	}
	if answer.Finish == "" {
		answer.Finish = finish(answer.StopReason)
	}
	if answer.Finish == model.FinishStop && len(answer.ToolCalls) > 0 {
		answer.Finish = model.FinishToolCalls
	}
	return answer, nil
}

func finish(reason string) string {
	switch reason {
	case "length", "max_tokens":
		return model.FinishLength
	case "tool_calls", "function_call":
		return model.FinishToolCalls
	case "content_filter":
		return model.FinishContentFilter
	case "error":
		return model.FinishError
	}
	return model.FinishStop
}

// failure finds an error where an answer should be.
func failure(raw []byte) error {
	if !bytes.Contains(raw, []byte(`"error"`)) {
		return nil
	}
	var form struct {
		Error   json.RawMessage `json:"error"`
		Choices json.RawMessage `json:"choices"`
	}
	if json.Unmarshal(raw, &form) == nil && len(form.Error) > 0 && string(form.Error) != "null" {
		return wire.StreamError(raw)
	}
	return nil
}

// Embed implements model.Backend.
func (b *Backend) Embed(ctx context.Context, r *model.Embedding) (model.Vectors, error) {
	p := openai.EmbeddingNewParams{Model: r.Model}
	if len(r.Texts) == 1 {
		p.Input.OfString = param.NewOpt(r.Texts[0])
	} else {
		p.Input.OfArrayOfStrings = r.Texts
	}
	if r.Dimensions != nil {
		p.Dimensions = param.NewOpt(*r.Dimensions)
	}
	raw, err := p.MarshalJSON()
	if err != nil {
		return model.Vectors{}, fmt.Errorf("encode the request: %w", err)
	}
	if raw, err = model.Patch(raw, r.Extra); err != nil {
		return model.Vectors{}, err
	}
	resp, err := b.post(ctx, "embeddings", raw)
	if err != nil {
		return model.Vectors{}, err
	}
	defer resp.Body.Close()
	return ReadEmbeddings(resp, len(r.Texts))
}

// ReadEmbeddings reads an answer with so many vectors, in the form that others
// have taken over from OpenAI.
func ReadEmbeddings(resp *http.Response, count int) (model.Vectors, error) {
	v := model.Vectors{RequestID: wire.RequestID(resp.Header)}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return v, err
	}
	if err := failure(raw); err != nil {
		return v, err
	}
	var answer struct {
		Model string `json:"model"`
		Data  []struct {
			Index     *int      `json:"index"`
			Embedding []float64 `json:"embedding"`
		} `json:"data"`
		Usage struct {
			Prompt int64 `json:"prompt_tokens"`
			Total  int64 `json:"total_tokens"`
		} `json:"usage"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return v, wire.Unreadable(err, raw)
	}
	v.Model, v.Usage.Prompt = answer.Model, max(answer.Usage.Prompt, answer.Usage.Total)
	if len(answer.Data) != count {
		return v, wire.Unreadable(fmt.Errorf("it has %d vectors for %d texts", len(answer.Data), count), nil)
	}
	v.Vectors = make([][]float64, count)
	for i, d := range answer.Data {
		if d.Index != nil {
			i = *d.Index
		}
		if i < 0 || i >= count || v.Vectors[i] != nil || len(d.Embedding) == 0 {
			return v, wire.Unreadable(errors.New("its vectors are not those of the texts"), nil)
		}
		v.Vectors[i] = d.Embedding
	}
	return v, nil
}
