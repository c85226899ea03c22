// Package ollama is the backend for Ollama's own API, which streams JSON values
// in lines.
package ollama

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/llm/model"
	"github.com/ultravisor/beacon/builtin/llm/secret"
	"github.com/ultravisor/beacon/builtin/llm/wire"
)

// Config says where the server is.
type Config struct {
	// BaseURL is the server's root, to which /api is added.
	BaseURL *url.URL
	// Key is sent as a bearer token, if there is one: a server of one's own
	// wants none, but a proxy before it may.
	Key secret.Value
}

// A Backend implements model.Backend.
type Backend struct {
	cfg  Config
	http *http.Client
}

var _ model.Backend = (*Backend)(nil)

// New makes a backend that sends its requests through the client.
func New(cfg Config, client *wire.Client) *Backend { return &Backend{cfg, client.HTTP()} }

// A message is a turn, in requests and answers.
type message struct {
	Role      string   `json:"role"`
	Content   string   `json:"content"`
	Thinking  string   `json:"thinking,omitempty"`
	Images    []string `json:"images,omitempty"`
	ToolCalls []call   `json:"tool_calls,omitempty"`
	ToolName  string   `json:"tool_name,omitempty"`
}

type call struct {
	ID       string   `json:"id,omitempty"`
	Function function `json:"function"`
}

type function struct {
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"`
}

type chat struct {
	Model    string          `json:"model"`
	Messages []message       `json:"messages"`
	Stream   bool            `json:"stream"`
	Tools    []any           `json:"tools,omitempty"`
	Format   json.RawMessage `json:"format,omitempty"`
	Think    any             `json:"think,omitempty"`
	Options  *options        `json:"options,omitempty"`
}

type options struct {
	Temperature *float64 `json:"temperature,omitempty"`
	NumPredict  *int64   `json:"num_predict,omitempty"`
	TopP        *float64 `json:"top_p,omitempty"`
	Stop        []string `json:"stop,omitempty"`
}

// body makes the request, and notes on what it cannot say.
func body(r *model.Chat) (raw []byte, notes []string, err error) {
	c := chat{Model: r.Model, Stream: r.Stream, Messages: []message{}}
	names := map[string]string{} // of tools, by the id of a call
	for i, m := range r.Messages {
		converted, err := convert(m, names)
		if err != nil {
			return nil, nil, beacon.Errorf(beacon.Invalid, "message %d: %w", i, err)
		}
		c.Messages = append(c.Messages, converted)
	}
	tools := r.Tools
	switch r.ToolChoice.Mode {
	case model.ChooseNone:
		tools = nil
	case model.ChooseRequired:
		notes = append(notes, "Ollama cannot be made to use a tool: ToolChoice required counts as auto")
	case model.ChooseTool:
		tools = nil
		for _, t := range r.Tools {
			if t.Name == r.ToolChoice.Name {
				tools = append(tools, t)
			}
		}
		notes = append(notes, "Ollama cannot be made to use a tool: it was offered no other")
	}
	for _, t := range tools {
		c.Tools = append(c.Tools, tool(t))
	}
	switch r.Format.Type {
	case model.FormatJSONObject:
		c.Format = json.RawMessage(`"json"`)
	case model.FormatJSONSchema:
		c.Format = r.Format.Schema
	}
	switch r.ReasoningEffort {
	case "":
	case "none", "off", "false":
		c.Think = false
	case "on", "true":
		c.Think = true
	default:
		c.Think = r.ReasoningEffort
	}
	if r.ReasoningTokens != nil {
		notes = append(notes, "Ollama has no limit of tokens for reasoning: ReasoningTokens does not count")
	}
	if r.Temperature != nil || r.MaxTokens != nil || r.TopP != nil || len(r.Stop) > 0 {
		c.Options = &options{Temperature: r.Temperature, NumPredict: r.MaxTokens, TopP: r.TopP, Stop: r.Stop}
	}
	if raw, err = model.Encode(c); err != nil {
		return nil, nil, fmt.Errorf("encode the request: %w", err)
	}
	raw, err = model.Patch(raw, r.Extra)
	return raw, notes, err
}

func tool(t model.Tool) any {
	if t.Native {
		return t.Raw
	}
	function := map[string]any{"name": t.Name, "description": t.Description}
	if len(t.Parameters) > 0 {
		function["parameters"] = t.Parameters
	}
	return map[string]any{"type": "function", "function": function}
}

func convert(m model.Message, names map[string]string) (message, error) {
	out := message{Role: m.Role}
	if m.Role == model.Developer {
		out.Role = model.System
	}
	for _, p := range m.Content {
		switch {
		case p.Kind == model.Text:
			out.Content += p.Text
		case p.Kind == model.Image && p.Data != "":
			out.Images = append(out.Images, p.Data)
		case p.Kind == model.Image:
			return out, errors.New("images are not fetched by Ollama: stage the file (SourceURL) and give {SourcePath} as its url, or give its data")
		default:
			return out, fmt.Errorf("text and images are all that Ollama takes, not %s", beacon.Excerpt(cmp.Or(p.Name, p.Kind), 80))
		}
	}
	for _, c := range m.ToolCalls {
		names[c.ID] = c.Name
		arguments := json.RawMessage(cmp.Or(strings.TrimSpace(c.Arguments), "{}"))
		if !json.Valid(arguments) {
			return out, fmt.Errorf("the arguments of tool call %s are not JSON", beacon.Excerpt(c.ID, 80))
		}
		out.ToolCalls = append(out.ToolCalls, call{Function: function{Name: c.Name, Arguments: arguments}})
	}
	if m.Role == model.ToolRole {
		out.ToolName = names[m.ToolCallID]
	}
	return out, nil
}

// post sends a request. The answer's body must be closed.
func (b *Backend) post(ctx context.Context, path string, raw []byte) (*http.Response, error) {
	ctx, failure := wire.Keep(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.cfg.BaseURL.JoinPath(path).String(), bytes.NewReader(raw))
	if err != nil {
		return nil, failure(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "beacon")
	b.authorize(req)
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, failure(err)
	}
	return resp, nil
}

func (b *Backend) authorize(req *http.Request) {
	if !b.cfg.Key.Empty() {
		req.Header.Set("Authorization", "Bearer "+b.cfg.Key.Reveal())
	}
}

// Ping asks whether the server is there.
func (b *Backend) Ping(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.cfg.BaseURL.JoinPath("api/tags").String(), nil)
	if err != nil {
		return err
	}
	b.authorize(req)
	resp, err := b.http.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// A piece is one line of an answer, and a whole answer as well.
type piece struct {
	Model      string          `json:"model"`
	Message    message         `json:"message"`
	Done       bool            `json:"done"`
	DoneReason string          `json:"done_reason"`
	Prompt     int64           `json:"prompt_eval_count"`
	Completion int64           `json:"eval_count"`
	Error      json.RawMessage `json:"error"`
}

// Chat implements model.Backend.
func (b *Backend) Chat(ctx context.Context, r *model.Chat, onDelta func(model.Delta)) (model.Answer, error) {
	raw, notes, err := body(r)
	if err != nil {
		return model.Answer{}, err
	}
	resp, err := b.post(ctx, "api/chat", raw)
	if err != nil {
		return model.Answer{Notes: notes}, err
	}
	defer resp.Body.Close()
	answer, err := read(resp.Body, onDelta)
	answer.RequestID, answer.Notes = wire.RequestID(resp.Header), notes
	return answer, wire.After(err, answer.Content != "" || answer.Reasoning != "" || len(answer.ToolCalls) > 0)
}

// read takes an answer in lines; one that comes at once is one line.
func read(in io.Reader, onDelta func(model.Delta)) (answer model.Answer, err error) {
	lines := wire.NewLines(in)
	var content, thought strings.Builder
	defer func() { answer.Content, answer.Reasoning = content.String(), thought.String() }()
	for {
		line, err := lines.NextJSON()
		if errors.Is(err, io.EOF) {
			return answer, wire.Cut()
		}
		if err != nil {
			return answer, err
		}
		var p piece
		if err := json.Unmarshal(line, &p); err != nil {
			return answer, wire.Unreadable(err, line)
		}
		if len(p.Error) > 0 && string(p.Error) != "null" {
			return answer, wire.StreamError(line)
		}
		answer.Model = cmp.Or(p.Model, answer.Model)
		content.WriteString(p.Message.Content)
		thought.WriteString(p.Message.Thinking)
		if p.Message.Content != "" || p.Message.Thinking != "" {
			onDelta(model.Delta{Text: p.Message.Content, Reasoning: p.Message.Thinking})
		}
		for _, c := range p.Message.ToolCalls {
			answer.ToolCalls = append(answer.ToolCalls, model.ToolCall{
				// Older servers give no id, but the answer of a tool needs one.
				ID: cmp.Or(c.ID, "call_"+strings.ToLower(rand.Text())), Name: c.Function.Name,
				Arguments: arguments(c.Function.Arguments),
			})
		}
		if p.Done {
			answer.StopReason = p.DoneReason
			answer.Usage = model.Usage{Prompt: p.Prompt, Completion: p.Completion}
			answer.Finish = finish(p.DoneReason, len(answer.ToolCalls))
			return answer, nil
		}
	}
}

// arguments are an object here, and text in the form that all backends share.
func arguments(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil && text != "" {
		return text
	}
	if len(raw) == 0 || string(raw) == "null" {
		return "{}"
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return b.String()
}

func finish(reason string, calls int) string {
	switch {
	case reason == "length":
		return model.FinishLength
	case calls > 0:
		return model.FinishToolCalls
	}
	return model.FinishStop
}

// Embed implements model.Backend.
func (b *Backend) Embed(ctx context.Context, r *model.Embedding) (model.Vectors, error) {
	form := map[string]any{"model": r.Model, "input": r.Texts}
	if r.Dimensions != nil {
		form["dimensions"] = *r.Dimensions
	}
	raw, err := model.Encode(form)
	if err != nil {
		return model.Vectors{}, fmt.Errorf("encode the request: %w", err)
	}
	if raw, err = model.Patch(raw, r.Extra); err != nil {
		return model.Vectors{}, err
	}
	resp, err := b.post(ctx, "api/embed", raw)
	if err != nil {
		return model.Vectors{}, err
	}
	defer resp.Body.Close()
	v := model.Vectors{RequestID: wire.RequestID(resp.Header)}
	if raw, err = io.ReadAll(resp.Body); err != nil {
		return v, err
	}
	var answer struct {
		Model      string          `json:"model"`
		Embeddings [][]float64     `json:"embeddings"`
		Prompt     int64           `json:"prompt_eval_count"`
		Error      json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return v, wire.Unreadable(err, raw)
	}
	if len(answer.Error) > 0 && string(answer.Error) != "null" {
		return v, wire.StreamError(raw)
	}
	v.Model, v.Usage.Prompt, v.Vectors = answer.Model, answer.Prompt, answer.Embeddings
	if len(v.Vectors) != len(r.Texts) {
		return v, wire.Unreadable(fmt.Errorf("it has %d vectors for %d texts", len(v.Vectors), len(r.Texts)), nil)
	}
	for _, vector := range v.Vectors {
		if len(vector) == 0 {
			return v, wire.Unreadable(errors.New("a vector is empty"), nil)
		}
	}
	return v, nil
}
