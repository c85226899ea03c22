package llm

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/llm/model"
)

// Names of settings.
const (
	settingMessages        = "Messages"
	settingSystemPrompt    = "SystemPrompt"
	settingModel           = "Model"
	settingTemperature     = "Temperature"
	settingMaxTokens       = "MaxTokens"
	settingTopP            = "TopP"
	settingStop            = "StopSequences"
	settingFormat          = "ResponseFormat"
	settingEffort          = "ReasoningEffort"
	settingReasoningTokens = "ReasoningTokens"
	settingStream          = "Stream"
	settingExtra           = "Extra"
	settingTools           = "Tools"
	settingToolChoice      = "ToolChoice"
	settingText            = "Text"
	settingDimensions      = "Dimensions"
)

// sourcePath stands in a part of a message for the item's staged source.
const sourcePath = "{SourcePath}"

// maxFile bounds a file that goes into a message.
const maxFile = 32 << 20

// structured returns a setting that is JSON: as it is, or as the text of a
// string. ok is false for a string that is not JSON; then text has it.
func structured(s beacon.Settings, name string) (raw json.RawMessage, text string, ok bool) {
	raw = bytes.TrimSpace(s[name])
	if len(raw) > 0 && raw[0] != '"' {
		return raw, "", true
	}
	text = s.Text(name)
	if trimmed := []byte(strings.TrimSpace(text)); json.Valid(trimmed) {
		return trimmed, text, true
	}
	return nil, text, false
}

// wrong is the error of a setting.
func wrong(name, format string, args ...any) error {
	return beacon.Errorf(beacon.Invalid, name+": "+format, args...)
}

// number reads a setting, or else what the configuration has.
func number(s beacon.Settings, name string, fallback *float64) (*float64, error) {
	if !s.Has(name) {
		return fallback, nil
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(s.Text(name)), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return nil, wrong(name, "%q is not a number", beacon.Excerpt(s.Text(name), 80))
	}
	return &v, nil
}

// whole reads a setting that counts something.
func whole(s beacon.Settings, name string, fallback *float64) (*int64, error) {
	v, err := number(s, name, fallback)
	if v == nil || err != nil {
		return nil, err
	}
	n := int64(*v)
	if n < 1 || *v > 1e9 {
		return nil, wrong(name, "%v is not a number of 1 and more", *v)
	}
	return &n, nil
}

// chatRequest reads the settings of ChatCompletion and ToolUse. Notes are for
// the item's log.
func (p *Provider) chatRequest(job *beacon.Job) (r *model.Chat, notes []string, err error) {
	s := job.Item.Settings
	r = &model.Chat{Model: s.Text(settingModel), ReasoningEffort: s.Text(settingEffort), Stream: p.stream}
	if r.Messages, notes, err = readMessages(job); err != nil {
		return nil, nil, err
	}
	d := p.defaults
	if r.Temperature, err = number(s, settingTemperature, d.Temperature); err != nil {
		return nil, nil, err
	}
	if r.TopP, err = number(s, settingTopP, d.TopP); err != nil {
		return nil, nil, err
	}
	if r.MaxTokens, err = whole(s, settingMaxTokens, d.MaxTokens); err != nil {
		return nil, nil, err
	}
	if r.ReasoningTokens, err = whole(s, settingReasoningTokens, nil); err != nil {
		return nil, nil, err
	}
	if r.Stop, err = stops(s); err != nil {
		return nil, nil, err
	}
	if r.Format, err = format(s); err != nil {
		return nil, nil, err
	}
	if r.Extra, err = extra(s, "model", "stream", "messages"); err != nil {
		return nil, nil, err
	}
	if s.Has(settingStream) {
		if r.Stream, err = s.Bool(settingStream); err != nil {
			return nil, nil, err
		}
	}
	if r.Tools, err = tools(s); err != nil {
		return nil, nil, err
	}
	r.ToolChoice, err = toolChoice(s, r.Tools)
	return r, notes, err
}

func stops(s beacon.Settings) ([]string, error) {
	if !s.Has(settingStop) {
		return nil, nil
	}
	raw, text, ok := structured(s, settingStop)
	if !ok {
		return []string{text}, nil
	}
	var list []string
	var one string
	switch {
	case json.Unmarshal(raw, &list) == nil:
		return list, nil
	case json.Unmarshal(raw, &one) == nil:
		return []string{one}, nil
	case text != "":
		return []string{text}, nil
	}
	return nil, wrong(settingStop, "want a JSON array of texts")
}

// extra reads what is passed on as it is. Some fields have a setting of their
// own, and the request would not be what this provider takes it for.
func extra(s beacon.Settings, own ...string) (json.RawMessage, error) {
	if !s.Has(settingExtra) {
		return nil, nil
	}
	raw, _, ok := structured(s, settingExtra)
	var object map[string]json.RawMessage
	if !ok || json.Unmarshal(raw, &object) != nil {
		return nil, wrong(settingExtra, "want a JSON object with fields of the request")
	}
	for _, name := range own {
		if _, has := object[name]; has {
			return nil, wrong(settingExtra, "%s has a setting of its own", name)
		}
	}
	return raw, nil
}

// format reads ResponseFormat: a word, OpenAI's form of it, or a JSON schema.
func format(s beacon.Settings) (f model.Format, err error) {
	if !s.Has(settingFormat) {
		return f, nil
	}
	raw, text, ok := structured(s, settingFormat)
	if !ok || raw[0] != '{' {
		f.Type = strings.TrimSpace(text)
	} else {
		var form struct {
			Type   json.RawMessage `json:"type"`
			Schema *struct {
				Name   string          `json:"name"`
				Schema json.RawMessage `json:"schema"`
				Strict *bool           `json:"strict"`
			} `json:"json_schema"`
		}
		if err := json.Unmarshal(raw, &form); err != nil {
			return f, wrong(settingFormat, "%s", err)
		}
		_ = json.Unmarshal(form.Type, &f.Type) // a schema's type may be a list
		switch {
		case form.Schema != nil:
			f = model.Format{Type: model.FormatJSONSchema, Name: form.Schema.Name, Schema: form.Schema.Schema, Strict: form.Schema.Strict}
		case f.Type != model.FormatText && f.Type != model.FormatJSONObject:
			f = model.Format{Type: model.FormatJSONSchema, Schema: raw}
		}
	}
	switch f.Type {
	case model.FormatText:
		return model.Format{}, nil
	case model.FormatJSONObject:
	case model.FormatJSONSchema:
		if len(f.Schema) == 0 {
			return f, wrong(settingFormat, "json_schema wants a schema: give {\"type\":\"json_schema\",\"json_schema\":{\"name\":…,\"schema\":…}}, or the schema itself")
		}
		f.Name = cmp.Or(f.Name, "response")
	default:
		return f, wrong(settingFormat, "%q is unknown: want text, json_object or a JSON schema", beacon.Excerpt(f.Type, 80))
	}
	return f, nil
}

// tools reads Tools in OpenAI's form, or in Anthropic's.
func tools(s beacon.Settings) ([]model.Tool, error) {
	if !s.Has(settingTools) {
		return nil, nil
	}
	raw, _, ok := structured(s, settingTools)
	var list []json.RawMessage
	if !ok || json.Unmarshal(raw, &list) != nil {
		return nil, wrong(settingTools, "want a JSON array of tools")
	}
	var out []model.Tool
	for i, raw := range list {
		type form struct {
			Type        string          `json:"type"`
			Name        string          `json:"name"`
			Description string          `json:"description"`
			Parameters  json.RawMessage `json:"parameters"`
			InputSchema json.RawMessage `json:"input_schema"`
			Strict      *bool           `json:"strict"`
		}
		var t struct {
			form
			Function *form `json:"function"`
		}
		if err := json.Unmarshal(raw, &t); err != nil {
			return nil, wrong(settingTools, "tool %d: %s", i, beacon.Excerpt(err.Error(), 200))
		}
		f := t.form
		if t.Function != nil {
			f = *t.Function
		}
		native := t.Function == nil && t.Type != "" && t.Type != "function" && t.Type != "custom"
		if f.Name == "" && !native {
			return nil, wrong(settingTools, "tool %d has no name", i)
		}
		parameters := f.Parameters
		if len(parameters) == 0 {
			parameters = f.InputSchema
		}
		if trimmed := bytes.TrimSpace(parameters); len(trimmed) > 0 && trimmed[0] != '{' {
			if string(trimmed) != "null" {
				return nil, wrong(settingTools, "the parameters of tool %s are not a JSON schema", beacon.Excerpt(f.Name, 80))
			}
			parameters = nil
		}
		out = append(out, model.Tool{Name: f.Name, Description: f.Description, Parameters: parameters, Strict: f.Strict, Raw: raw, Native: native})
	}
	return out, nil
}

// toolChoice reads a word, the name of a tool, or OpenAI's or Anthropic's form.
func toolChoice(s beacon.Settings, tools []model.Tool) (c model.ToolChoice, err error) {
	if !s.Has(settingToolChoice) {
		return c, nil
	}
	raw, text, ok := structured(s, settingToolChoice)
	word := strings.TrimSpace(text)
	if ok && raw[0] == '{' {
		var form struct {
			Type     string `json:"type"`
			Name     string `json:"name"`
			Function struct {
				Name string `json:"name"`
			} `json:"function"`
		}
		if err := json.Unmarshal(raw, &form); err != nil {
			return c, wrong(settingToolChoice, "%s", beacon.Excerpt(err.Error(), 200))
		}
		word = cmp.Or(form.Function.Name, form.Name, form.Type)
	}
	switch word {
	case model.ChooseAuto, model.ChooseNone, model.ChooseRequired:
		return model.ToolChoice{Mode: word}, nil
	case "any":
		return model.ToolChoice{Mode: model.ChooseRequired}, nil
	}
	for _, t := range tools {
		if t.Name == word {
			return model.ToolChoice{Mode: model.ChooseTool, Name: word}, nil
		}
	}
	return c, wrong(settingToolChoice, "there is no tool %q: want auto, none, required or the name of one of Tools", beacon.Excerpt(word, 80))
}

// readMessages reads Messages, and puts SystemPrompt before them if none of them
// is the system's.
func readMessages(job *beacon.Job) (list []model.Message, notes []string, err error) {
	s := job.Item.Settings
	if s.Has(settingMessages) {
		raw, text, ok := structured(s, settingMessages)
		var items []json.RawMessage
		switch {
		case ok && json.Unmarshal(raw, &items) == nil && raw[0] == '[':
		case text == "" && raw[0] == '{':
			items = []json.RawMessage{raw}
		case text == "":
			return nil, nil, wrong(settingMessages, "want a JSON array of messages, or text")
		default:
			if strings.HasPrefix(strings.TrimSpace(text), "[{") {
				notes = append(notes, "Messages is not valid JSON and counts as the user's text.")
			}
			items = []json.RawMessage{said(model.User, text)}
		}
		for i, item := range items {
			m, err := readMessage(job, item)
			if err != nil {
				return nil, nil, wrong(settingMessages, "message %d: %w", i, err)
			}
			list = append(list, m)
		}
	}
	if s.Has(settingSystemPrompt) {
		for _, m := range list {
			if m.Role == model.System || m.Role == model.Developer {
				return list, notes, nil
			}
		}
		m, err := readMessage(job, said(model.System, s.Text(settingSystemPrompt)))
		if err != nil {
			return nil, nil, wrong(settingSystemPrompt, "%w", err)
		}
		list = append([]model.Message{m}, list...)
	}
	return list, notes, nil
}

func said(role, text string) json.RawMessage {
	raw, err := model.Encode(map[string]string{"role": role, "content": text})
	if err != nil {
		panic(fmt.Sprintf("a text did not encode: %v", err)) // which cannot happen
	}
	return raw
}

// readMessage reads a message in OpenAI's form.
func readMessage(job *beacon.Job, raw json.RawMessage) (m model.Message, err error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return m, fmt.Errorf("want an object with role and content")
	}
	var form struct {
		Role       string            `json:"role"`
		ToolCallID string            `json:"tool_call_id"`
		Thinking   []json.RawMessage `json:"thinking_blocks"`
		ToolCalls  []struct {
			ID       string `json:"id"`
			Function struct {
				Name      string          `json:"name"`
				Arguments json.RawMessage `json:"arguments"`
			} `json:"function"`
		} `json:"tool_calls"`
	}
	if err := json.Unmarshal(raw, &form); err != nil {
		return m, fmt.Errorf("%s", beacon.Excerpt(err.Error(), 200))
	}
	m.Role, m.ToolCallID, m.Thinking = form.Role, form.ToolCallID, form.Thinking
	switch {
	case m.Role == "":
		return m, fmt.Errorf("it has no role")
	case m.Role == model.ToolRole && m.ToolCallID == "":
		return m, fmt.Errorf("a tool's message needs tool_call_id, the id of the call that it answers")
	}
	delete(fields, "thinking_blocks")
	if len(form.ToolCalls) > 0 {
		var calls []any
		for _, c := range form.ToolCalls {
			if c.Function.Name == "" {
				return m, fmt.Errorf("a tool call has no function's name")
			}
			// Text in OpenAI's form, but people also write the object itself.
			text := string(c.Function.Arguments)
			_ = json.Unmarshal(c.Function.Arguments, &text)
			call := model.ToolCall{ID: c.ID, Name: c.Function.Name, Arguments: text}
			m.ToolCalls = append(m.ToolCalls, call)
			calls = append(calls, toolCallForm(call))
		}
		if fields["tool_calls"], err = model.Encode(calls); err != nil {
			return m, err
		}
	}
	if fields["content"], err = readContent(job, &m, fields["content"]); err != nil {
		return m, err
	}
	if fields["content"] == nil {
		delete(fields, "content")
	}
	m.Raw, err = model.Encode(fields)
	return m, err
}

// toolCallForm is a tool call in OpenAI's form.
func toolCallForm(c model.ToolCall) any {
	return map[string]any{"id": c.ID, "type": "function", "function": map[string]string{"name": c.Name, "arguments": c.Arguments}}
}

// readContent reads text or a list of parts into the message, and returns it in
// OpenAI's form with files put in.
func readContent(job *beacon.Job, m *model.Message, raw json.RawMessage) (json.RawMessage, error) {
	var text string
	var parts []json.RawMessage
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return raw, nil
	case json.Unmarshal(raw, &text) == nil:
		m.Content = []model.Part{{Kind: model.Text, Text: text}}
		return raw, nil
	case json.Unmarshal(raw, &parts) != nil:
		return nil, fmt.Errorf("content is neither text nor a list of parts")
	}
	for i, raw := range parts {
		part, form, err := readPart(job, raw)
		if err != nil {
			return nil, fmt.Errorf("part %d: %w", i, err)
		}
		m.Content = append(m.Content, part)
		parts[i] = form
	}
	return model.Encode(parts)
}

// readPart reads one part, and returns it in OpenAI's form.
func readPart(job *beacon.Job, raw json.RawMessage) (p model.Part, form json.RawMessage, err error) {
	var f struct {
		Type  string          `json:"type"`
		Text  string          `json:"text"`
		Image json.RawMessage `json:"image_url"`
		File  *struct {
			Name string `json:"filename"`
			Data string `json:"file_data"`
			ID   string `json:"file_id"`
		} `json:"file"`
		Source *struct { // Anthropic's
			Type      string `json:"type"`
			MediaType string `json:"media_type"`
			Data      string `json:"data"`
			URL       string `json:"url"`
		} `json:"source"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return p, nil, fmt.Errorf("%s", beacon.Excerpt(err.Error(), 200))
	}
	p.Raw = raw
	switch {
	case f.Type == "text":
		p.Kind, p.Text = model.Text, f.Text
		return p, raw, nil
	case f.Type == "image_url":
		var image struct {
			URL    string `json:"url"`
			Detail string `json:"detail,omitempty"`
		}
		if json.Unmarshal(f.Image, &image.URL) != nil && json.Unmarshal(f.Image, &image) != nil || image.URL == "" {
			return p, nil, fmt.Errorf("image_url has no url")
		}
		p.Kind = model.Image
		if err := place(job, &p, image.URL); err != nil {
			return p, nil, err
		}
		if p.Data != "" && !strings.HasPrefix(p.MediaType, "image/") {
			return p, nil, fmt.Errorf("%s is not an image but %s", beacon.Excerpt(cmp.Or(p.Name, "the data"), 80), beacon.Excerpt(p.MediaType, 80))
		}
		image.URL = p.Location()
		form, err = model.Encode(map[string]any{"type": "image_url", "image_url": image})
		return p, form, err
	case f.Type == "image" && f.Source != nil:
		p.Kind, p.MediaType, p.Data, p.URL = model.Image, f.Source.MediaType, f.Source.Data, f.Source.URL
		form, err = model.Encode(map[string]any{"type": "image_url", "image_url": map[string]string{"url": p.Location()}})
		return p, form, err
	case f.Type == "file" && f.File != nil && f.File.ID == "":
		p.Kind = model.File
		if err := place(job, &p, f.File.Data); err != nil {
			return p, nil, err
		}
		p.Name = cmp.Or(f.File.Name, p.Name, "file")
		form, err = model.Encode(map[string]any{"type": "file", "file": map[string]string{"filename": p.Name, "file_data": p.Location()}})
		return p, form, err
	case f.Type == "":
		return p, nil, fmt.Errorf("it has no type")
	}
	p.Kind = model.Other
	p.Name = f.Type
	return p, raw, nil
}

// place says where an image or a file is: at a URL of the web, in a data URL, or
// among the item's files.
func place(job *beacon.Job, p *model.Part, where string) error {
	scheme, rest, _ := strings.Cut(where, ":")
	switch {
	case where == sourcePath:
		if job.Source == "" {
			return fmt.Errorf("%s is given, but the item has no source: set SourceURL", sourcePath)
		}
		return stage(job, p, job.Source)
	case scheme == "file":
		return stage(job, p, strings.TrimPrefix(rest, "//"))
	case scheme == "data":
		head, data, found := strings.Cut(rest, ",")
		media, encoding, _ := strings.Cut(head, ";")
		if !found || !strings.HasSuffix(encoding, "base64") {
			return fmt.Errorf("want data:TYPE;base64,DATA")
		}
		p.MediaType, p.Data = media, data
		return nil
	case scheme == "http" || scheme == "https":
		p.URL = where
		return nil
	}
	return fmt.Errorf("%q is not http, https, data, file or %s", beacon.Excerpt(where, 80), sourcePath)
}

// stage reads one of the item's files.
func stage(job *beacon.Job, p *model.Part, name string) error {
	f, err := job.Dir.Open(name)
	if err != nil {
		return fmt.Errorf("there is no file %s among the item's", beacon.Excerpt(name, 80))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", beacon.Excerpt(name, 80))
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", beacon.Excerpt(name, 80), err)
	}
	if len(raw) > maxFile {
		return fmt.Errorf("%s is larger than %d bytes, the limit for a file in a message", beacon.Excerpt(name, 80), maxFile)
	}
	p.Name = name
	p.MediaType, _, _ = strings.Cut(http.DetectContentType(raw), ";")
	p.Data = base64.StdEncoding.EncodeToString(raw)
	return nil
}
