// Package anthropic is the backend for Anthropic's Messages API. Requests and
// answers have the types of Anthropic's own library; retries, time limits and
// the end of a stream are left to packages wire and llm.
package anthropic

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
	"github.com/anthropics/anthropic-sdk-go/packages/param"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/llm/model"
	"github.com/ultravisor/beacon/builtin/llm/secret"
	"github.com/ultravisor/beacon/builtin/llm/wire"
)

// DefaultMaxTokens is the limit of tokens when nobody gives one: the API wants
// one. It is the Node worker's.
const DefaultMaxTokens = 4096

// Config says where the service is.
type Config struct {
	// BaseURL is where the API begins, with its version: https://host/v1. Its
	// query goes with every request.
	BaseURL *url.URL
	// Key is sent as x-api-key, if there is one.
	Key secret.Value
	// Embedder answers Embed: Anthropic itself has no vectors.
	Embedder interface {
		Embed(ctx context.Context, request *model.Embedding) (model.Vectors, error)
	}
}

// A Backend implements model.Backend.
type Backend struct {
	client anthropic.Client
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
		option.WithHeader("anthropic-version", "2023-06-01"),
	}
	for name, values := range cfg.BaseURL.Query() {
		for _, value := range values {
			options = append(options, option.WithQueryAdd(name, value))
		}
	}
	if !cfg.Key.Empty() {
		options = append(options, option.WithAPIKey(cfg.Key.Reveal()))
	}
	// Not NewClient, which reads ANTHROPIC_* from the environment.
	return &Backend{anthropic.Client{Options: options}, cfg}
}

// Embed implements model.Backend.
func (b *Backend) Embed(ctx context.Context, r *model.Embedding) (model.Vectors, error) {
	return b.cfg.Embedder.Embed(ctx, r)
}

// body makes the request, and notes on what it cannot say.
func (b *Backend) body(r *model.Chat) (raw []byte, notes []string, err error) {
	p := anthropic.MessageNewParams{Model: r.Model, MaxTokens: DefaultMaxTokens, StopSequences: r.Stop}
	if r.ReasoningTokens != nil && *r.ReasoningTokens > 0 {
		p.Thinking = anthropic.ThinkingConfigParamOfEnabled(*r.ReasoningTokens)
		p.MaxTokens += *r.ReasoningTokens // of which it is a part
	}
	if r.MaxTokens != nil && *r.MaxTokens > 0 {
		p.MaxTokens = *r.MaxTokens
	}
	if r.Temperature != nil {
		p.Temperature = param.NewOpt(*r.Temperature)
	}
	if r.TopP != nil {
		p.TopP = param.NewOpt(*r.TopP)
	}
	if r.ReasoningEffort != "" {
		p.OutputConfig.Effort = anthropic.OutputConfigEffort(r.ReasoningEffort)
	}
	if p.System, p.Messages, err = messages(r.Messages); err != nil {
		return nil, nil, err
	}
	for _, t := range r.Tools {
		p.Tools = append(p.Tools, tool(t))
	}
	switch r.ToolChoice.Mode {
	case model.ChooseAuto:
		p.ToolChoice.OfAuto = &anthropic.ToolChoiceAutoParam{}
	case model.ChooseNone:
		p.ToolChoice.OfNone = &anthropic.ToolChoiceNoneParam{}
	case model.ChooseRequired:
		p.ToolChoice.OfAny = &anthropic.ToolChoiceAnyParam{}
	case model.ChooseTool:
		p.ToolChoice = anthropic.ToolChoiceParamOfTool(r.ToolChoice.Name)
	}
	switch r.Format.Type {
	case model.FormatJSONSchema:
		var schema map[string]any
		if err := json.Unmarshal(r.Format.Schema, &schema); err != nil {
			return nil, nil, beacon.Errorf(beacon.Invalid, "ResponseFormat: Anthropic wants a schema that is an object")
		}
		p.OutputConfig.Format.Schema = schema
	case model.FormatJSONObject:
		p.System = append(p.System, anthropic.TextBlockParam{Text: "Answer with one JSON object and nothing else."})
		notes = append(notes, "Anthropic has no json_object: the model was told to answer with one JSON object")
	}
	if r.Stream {
		p.SetExtraFields(map[string]any{"stream": true})
	}
	if raw, err = p.MarshalJSON(); err != nil {
		return nil, nil, fmt.Errorf("encode the request: %w", err)
	}
	raw, err = model.Patch(raw, r.Extra)
	return raw, notes, err
}

func tool(t model.Tool) anthropic.ToolUnionParam {
	if t.Native {
		return param.Override[anthropic.ToolUnionParam](t.Raw)
	}
	// The schema of a tool must be one of objects.
	schema, err := model.Patch([]byte(`{"type":"object"}`), t.Parameters)
	if err != nil {
		schema = t.Parameters
	}
	form := map[string]any{"name": t.Name, "input_schema": json.RawMessage(schema)}
	if t.Description != "" {
		form["description"] = t.Description
	}
	if t.Strict != nil {
		form["strict"] = *t.Strict
	}
	return param.Override[anthropic.ToolUnionParam](form)
}

// messages takes the system's messages out and joins turns of one role: a user's
// turn is all that comes between two of the assistant's, the answers of tools
// first.
func messages(list []model.Message) (system []anthropic.TextBlockParam, turns []anthropic.MessageParam, err error) {
	for i, m := range list {
		fail := func(err error) error {
			return beacon.Errorf(beacon.Invalid, "message %d: %w", i, err)
		}
		var blocks []anthropic.ContentBlockParamUnion
		role := anthropic.MessageParamRoleUser
		switch m.Role {
		case model.System, model.Developer:
			for _, part := range m.Content {
				if part.Kind != model.Text {
					return nil, nil, fail(errors.New("a system's message holds text only"))
				}
				if len(part.Raw) > 0 {
					system = append(system, param.Override[anthropic.TextBlockParam](part.Raw))
				} else if part.Text != "" {
					system = append(system, anthropic.TextBlockParam{Text: part.Text})
				}
			}
			continue
		case model.User:
			if blocks, err = content(m.Content); err != nil {
				return nil, nil, fail(err)
			}
		case model.Assistant:
			role = anthropic.MessageParamRoleAssistant
			if blocks, err = assistant(m); err != nil {
				return nil, nil, fail(err)
			}
		case model.ToolRole:
			inner, err := content(m.Content)
			if err != nil {
				return nil, nil, fail(err)
			}
			blocks = append(blocks, result(m.ToolCallID, inner))
		default:
			return nil, nil, fail(fmt.Errorf("role %q is unknown to Anthropic: want system, user, assistant or tool", beacon.Excerpt(m.Role, 40)))
		}
		if len(blocks) == 0 {
			continue // the API wants no empty turns
		}
		if last := len(turns) - 1; last >= 0 && turns[last].Role == role {
			turns[last].Content = append(turns[last].Content, blocks...)
			continue
		}
		turns = append(turns, anthropic.MessageParam{Role: role, Content: blocks})
	}
	return system, turns, nil
}

func result(id string, inner []anthropic.ContentBlockParamUnion) anthropic.ContentBlockParamUnion {
	form := map[string]any{"type": "tool_result", "tool_use_id": id}
	if len(inner) > 0 {
		form["content"] = inner
	}
	return param.Override[anthropic.ContentBlockParamUnion](form)
}

func assistant(m model.Message) (blocks []anthropic.ContentBlockParamUnion, err error) {
	for _, raw := range m.Thinking {
		blocks = append(blocks, param.Override[anthropic.ContentBlockParamUnion](raw))
	}
	inner, err := content(m.Content)
	if err != nil {
		return nil, err
	}
	blocks = append(blocks, inner...)
	for _, call := range m.ToolCalls {
		var input map[string]any
		if err := json.Unmarshal([]byte(cmp.Or(call.Arguments, "{}")), &input); err != nil {
			return nil, fmt.Errorf("the arguments of tool call %s are not a JSON object", beacon.Excerpt(call.ID, 80))
		}
		blocks = append(blocks, anthropic.NewToolUseBlock(call.ID, json.RawMessage(cmp.Or(call.Arguments, "{}")), call.Name))
	}
	return blocks, nil
}

func content(parts []model.Part) (blocks []anthropic.ContentBlockParamUnion, err error) {
	for _, p := range parts {
		switch {
		case p.Kind == model.Text && len(p.Raw) > 0:
			blocks = append(blocks, param.Override[anthropic.ContentBlockParamUnion](p.Raw))
		case p.Kind == model.Text && p.Text == "":
		case p.Kind == model.Text:
			blocks = append(blocks, anthropic.NewTextBlock(p.Text))
		case p.Kind == model.Image && p.Data != "":
			blocks = append(blocks, anthropic.NewImageBlockBase64(p.MediaType, p.Data))
		case p.Kind == model.Image:
			blocks = append(blocks, anthropic.NewImageBlock(anthropic.URLImageSourceParam{URL: p.URL}))
		case p.Kind == model.File && p.Data != "" && strings.HasPrefix(p.MediaType, "text/"):
			text, err := p.Decode()
			if err != nil {
				return nil, err
			}
			blocks = append(blocks, anthropic.NewDocumentBlock(anthropic.PlainTextSourceParam{Data: string(text)}))
		case p.Kind == model.File && p.Data != "":
			blocks = append(blocks, anthropic.NewDocumentBlock(anthropic.Base64PDFSourceParam{Data: p.Data}))
		case p.Kind == model.File && p.URL != "":
			blocks = append(blocks, anthropic.NewDocumentBlock(anthropic.URLPDFSourceParam{URL: p.URL}))
		case p.Kind == model.Other:
			blocks = append(blocks, param.Override[anthropic.ContentBlockParamUnion](p.Raw))
		default:
			return nil, fmt.Errorf("a %s without data cannot be sent to Anthropic", p.Kind)
		}
	}
	return blocks, nil
}

// Chat implements model.Backend.
func (b *Backend) Chat(ctx context.Context, r *model.Chat, onDelta func(model.Delta)) (model.Answer, error) {
	raw, notes, err := b.body(r)
	if err != nil {
		return model.Answer{}, err
	}
	ctx, failure := wire.Keep(ctx)
	var resp *http.Response
	if err := b.client.Post(ctx, "messages", raw, &resp); err != nil {
		return model.Answer{Notes: notes}, failure(err)
	}
	defer resp.Body.Close()
	a := &assembly{onDelta: onDelta}
	in := bufio.NewReader(resp.Body)
	if wire.IsJSON(in) {
		err = a.whole(in)
	} else {
		err = a.stream(in)
	}
	answer := a.answer()
	answer.RequestID, answer.Notes = wire.RequestID(resp.Header), notes
	partial := answer.Content != "" || answer.Reasoning != "" || len(answer.ToolCalls) > 0
	return answer, wire.After(err, partial)
}

// An assembly puts an answer together.
type assembly struct {
	message anthropic.Message
	onDelta func(model.Delta)
}

// whole reads an answer that comes at once.
func (a *assembly) whole(in io.Reader) error {
	raw, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	var form struct{ Type string }
	if err := json.Unmarshal(raw, &form); err != nil {
		return wire.Unreadable(err, raw)
	}
	if form.Type == "error" {
		return wire.StreamError(raw)
	}
	if err := json.Unmarshal(raw, &a.message); err != nil {
		return wire.Unreadable(err, raw)
	}
	if a.message.Type != "message" {
		return wire.Unreadable(errors.New("it is not a message"), nil)
	}
	for _, block := range a.message.Content {
		a.tell(block.Text, block.Thinking)
	}
	return nil
}

func (a *assembly) tell(text, thought string) {
	if text != "" || thought != "" {
		a.onDelta(model.Delta{Text: text, Reasoning: thought})
	}
}

// stream reads an answer that comes in pieces.
func (a *assembly) stream(in io.Reader) error {
	events := wire.NewEvents(in)
	for {
		event, err := events.Next()
		ended := a.message.StopReason != ""
		switch {
		case err == nil:
		case ended: // what was lost is what comes after the end of the answer
			return nil //nolint:nilerr // as the case says
		case errors.Is(err, io.EOF):
			return wire.Cut()
		default:
			return err
		}
		if len(bytes.TrimSpace(event.Data)) == 0 {
			continue
		}
		var e anthropic.MessageStreamEventUnion
		if err := json.Unmarshal(event.Data, &e); err != nil {
			return wire.Unreadable(err, event.Data)
		}
		switch cmp.Or(e.Type, event.Type) {
		case "error":
			return wire.StreamError(event.Data)
		case "ping":
			continue
		}
		if err := a.message.Accumulate(e); err != nil {
			return wire.Unreadable(err, nil)
		}
		switch e.Type {
		case "content_block_start":
			a.tell(e.ContentBlock.Text, e.ContentBlock.Thinking)
		case "content_block_delta":
			a.tell(e.Delta.Text, e.Delta.Thinking)
		case "message_stop":
			if !ended {
				return wire.Unreadable(errors.New("it ends without a reason"), nil)
			}
			return nil
		}
	}
}

// answer is what there is so far.
func (a *assembly) answer() model.Answer {
	m := &a.message
	answer := model.Answer{Model: m.Model, StopReason: string(m.StopReason), Finish: finish(m.StopReason)}
	for _, block := range m.Content {
		switch block.Type {
		case "text":
			answer.Content += block.Text
		case "tool_use":
			answer.ToolCalls = append(answer.ToolCalls, model.ToolCall{ID: block.ID, Name: block.Name, Arguments: cmp.Or(string(block.Input), "{}")})
		case "thinking":
			answer.Reasoning += block.Thinking
			raw, err := model.Encode(map[string]string{"type": "thinking", "thinking": block.Thinking, "signature": block.Signature})
			if err == nil {
				answer.Thinking = append(answer.Thinking, raw)
			}
		case "redacted_thinking":
			answer.Thinking = append(answer.Thinking, json.RawMessage(block.RawJSON()))
		}
	}
	u := m.Usage
	answer.Usage = model.Usage{
		Prompt:     u.InputTokens + u.CacheReadInputTokens + u.CacheCreationInputTokens,
		Completion: u.OutputTokens,
		Cached:     u.CacheReadInputTokens,
		Written:    u.CacheCreationInputTokens,
		Reasoning:  u.OutputTokensDetails.ThinkingTokens,
	}
	return answer
}

func finish(reason anthropic.StopReason) string {
	switch reason {
	case anthropic.StopReasonMaxTokens, anthropic.StopReasonModelContextWindowExceeded:
		return model.FinishLength
	case anthropic.StopReasonToolUse:
		return model.FinishToolCalls
	case anthropic.StopReasonRefusal:
		return model.FinishContentFilter
	}
	return model.FinishStop
}
