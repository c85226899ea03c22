package llm

import "github.com/ultravisor/beacon"

// The actions.
const (
	actionChat      = "ChatCompletion"
	actionEmbedding = "Embedding"
	actionTools     = "ToolUse"
)

// Capability implements beacon.Provider.
func (p *Provider) Capability() beacon.Capability {
	text := func(name string, required bool, description string) beacon.Setting {
		return beacon.Setting{Name: name, DataType: "String", Required: required, Description: description}
	}
	number := func(name, description string) beacon.Setting {
		return beacon.Setting{Name: name, DataType: "Number", Description: description}
	}
	common := []beacon.Setting{
		text(settingModel, false, "Override model name"),
		number(settingTemperature, "Sampling temperature (0-2)"),
		number(settingMaxTokens, "Maximum tokens to generate"),
		number(settingTopP, "Nucleus sampling parameter"),
		text(settingStop, false, "JSON array of stop sequences"),
		text(settingFormat, false, `"text", "json_object", or a JSON schema`),
		text(settingEffort, false, "How much to reason, in the service's words, such as low, medium, high"),
		number(settingReasoningTokens, "Maximum tokens of reasoning"),
		{Name: settingStream, DataType: "Boolean", Description: "Show the answer as it comes", Default: true},
		text(settingExtra, false, "JSON object that is merged into the request; null removes a field"),
	}
	chat := append([]beacon.Setting{
		text(settingMessages, false, "JSON array of message objects [{role, content}], or the user's text"),
		text(settingSystemPrompt, false, "System prompt text (prepended as system message)"),
	}, common...)
	tools := append([]beacon.Setting{
		text(settingMessages, true, "JSON array of message objects"),
		text(settingTools, true, "JSON array of tool definitions"),
		text(settingToolChoice, false, `"auto", "none", "required", or the name of a tool`),
		text(settingSystemPrompt, false, "System prompt text (prepended as system message)"),
	}, common...)
	return beacon.Capability{
		Name:        "LLM",
		Description: "Asks language models: OpenAI, Anthropic, Ollama and services compatible with OpenAI.",
		Actions: []beacon.Action{
			{
				Name: actionChat, Description: "Send messages to an LLM and receive a completion.", Settings: chat,
				Example: &beacon.Example{Settings: map[string]string{settingMessages: "What is the capital of France?"}},
			},
			{
				Name: actionEmbedding, Description: "Generate embeddings for text input.",
				Settings: []beacon.Setting{
					text(settingText, true, "Text to embed (string or JSON array for batch)"),
					text(settingModel, false, "Override embedding model"),
					number(settingDimensions, "Length of the vectors, where the model can shorten them"),
					text(settingExtra, false, "JSON object that is merged into the request; null removes a field"),
				},
			},
			{Name: actionTools, Description: "Chat completion with tool/function definitions.", Settings: tools},
		},
	}
}
