// Package model is what is asked of a language model and what it answers, the
// same for every service. Its form is OpenAI's, in which Ultravisor's settings
// are; a backend translates.
package model

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// A Backend is one service. Its methods may be called concurrently and end
// soon after ctx does; their errors are *wire.Error wherever the service or the
// way to it failed, and beacon.Error where the request cannot be expressed. A
// Backend sends at most one request per call and never repeats one: whether to
// try again is its caller's decision.
type Backend interface {
	// Chat asks for a completion. Each piece that arrives is passed to onDelta,
	// in the goroutine of the call. With an error the Answer holds what had
	// arrived.
	Chat(ctx context.Context, request *Chat, onDelta func(Delta)) (Answer, error)
	// Embed asks for one vector per text, in their order.
	Embed(ctx context.Context, request *Embedding) (Vectors, error)
}

// A Chat is a request for a completion. Pointers and empty values are left to
// the service.
type Chat struct {
	Model       string
	Messages    []Message
	Tools       []Tool
	ToolChoice  ToolChoice
	Temperature *float64
	TopP        *float64
	MaxTokens   *int64
	Stop        []string
	Format      Format
	// ReasoningEffort is a word of the service's: low, medium, high.
	ReasoningEffort string
	// ReasoningTokens bounds what is spent on reasoning, where a service knows
	// such a bound.
	ReasoningTokens *int64
	// Stream asks for the answer in pieces.
	Stream bool
	// Extra is a JSON merge patch (RFC 7396) on the body of the request.
	Extra json.RawMessage
}

// Roles of messages.
const (
	System    = "system"
	Developer = "developer" // a newer word for system
	User      = "user"
	Assistant = "assistant"
	ToolRole  = "tool"
)

// A Message is one turn of a conversation.
type Message struct {
	Role    string
	Content []Part
	// ToolCalls are what an assistant asked for, ToolCallID is which of them a
	// tool's message answers.
	ToolCalls  []ToolCall
	ToolCallID string
	// Thinking are the blocks of reasoning of an earlier Answer, which a service
	// may want back unchanged.
	Thinking []json.RawMessage
	// Raw is the whole message in OpenAI's form, without Thinking.
	Raw json.RawMessage
}

// Text joins the text of the message.
func (m Message) Text() string {
	text := ""
	for _, p := range m.Content {
		text += p.Text
	}
	return text
}

// Kinds of parts.
const (
	Text  = "text"
	Image = "image"
	File  = "file"
	Other = "other" // only the service knows
)

// A Part is a piece of a message's content.
type Part struct {
	Kind string
	Text string // of a Text
	// Where an Image or a File is: at a URL, or here, in base64.
	URL       string
	MediaType string
	Data      string
	Name      string
	// Raw is the part as it was given.
	Raw json.RawMessage
}

// Location is where the data is: a URL, which holds what is here.
func (p Part) Location() string {
	if p.Data == "" {
		return p.URL
	}
	return "data:" + p.MediaType + ";base64," + p.Data
}

// Decode returns the data that is here.
func (p Part) Decode() ([]byte, error) {
	data, err := base64.StdEncoding.DecodeString(p.Data)
	if err != nil {
		return nil, fmt.Errorf("the data of a %s is not base64", p.Kind)
	}
	return data, nil
}

// A Tool is a function that the model may ask for.
type Tool struct {
	Name        string
	Description string
	Parameters  json.RawMessage // a JSON schema
	Strict      *bool
	// Raw is the tool as it was given; Native says that it is not a function
	// but something of the service's own.
	Raw    json.RawMessage
	Native bool
}

// Modes of a ToolChoice. The zero value leaves it to the service.
const (
	ChooseAuto     = "auto"
	ChooseNone     = "none"
	ChooseRequired = "required" // some tool
	ChooseTool     = "tool"     // the one that is named
)

// A ToolChoice says whether the model may, must or must not use tools.
type ToolChoice struct {
	Mode string
	Name string
}

// Types of a Format. The zero value is text.
const (
	FormatText       = "text"
	FormatJSONObject = "json_object"
	FormatJSONSchema = "json_schema"
)

// A Format is the form of an answer's text.
type Format struct {
	Type   string
	Name   string
	Schema json.RawMessage
	Strict *bool
}

// A Delta is a piece of an answer that arrives in pieces.
type Delta struct {
	Text      string
	Reasoning string
}

// A ToolCall is a use of a tool that the model asks for.
type ToolCall struct {
	ID        string
	Name      string
	Arguments string // JSON
}

// Reasons why an answer ended.
const (
	FinishStop          = "stop"
	FinishLength        = "length"
	FinishToolCalls     = "tool_calls"
	FinishContentFilter = "content_filter"
	FinishError         = "error"
)

// An Answer is a completion.
type Answer struct {
	Model     string
	Content   string
	Reasoning string
	ToolCalls []ToolCall
	Thinking  []json.RawMessage
	// Finish is one of the reasons above, StopReason the service's own word.
	Finish     string
	StopReason string
	Usage      Usage
	RequestID  string
	// Notes say what of the request the service cannot do and did without.
	Notes []string
}

// Usage counts tokens. Cached and Written are parts of Prompt, Reasoning is one
// of Completion.
type Usage struct {
	Prompt     int64
	Completion int64
	Cached     int64 // read from the service's cache
	Written    int64 // written to it
	Reasoning  int64
}

// Total is what was used altogether.
func (u Usage) Total() int64 { return u.Prompt + u.Completion }

// Add adds what another request used.
func (u Usage) Add(v Usage) Usage {
	return Usage{u.Prompt + v.Prompt, u.Completion + v.Completion, u.Cached + v.Cached, u.Written + v.Written, u.Reasoning + v.Reasoning}
}

// An Embedding is a request for vectors.
type Embedding struct {
	Model string
	Texts []string
	// Dimensions shortens the vectors, where a model can.
	Dimensions *int64
	Extra      json.RawMessage
}

// Vectors are the embeddings of texts, in their order.
type Vectors struct {
	Model     string
	Vectors   [][]float64
	Usage     Usage
	RequestID string
}
