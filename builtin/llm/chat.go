package llm

import (
	"context"
	"fmt"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/llm/model"
	"github.com/ultravisor/beacon/builtin/llm/quota"
)

// chat carries out ChatCompletion and ToolUse.
func (p *Provider) chat(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	withTools := job.Item.Action == actionTools
	c := p.newCall(job, job.Item.Action)
	outputs := func(a model.Answer, name string) beacon.Outputs {
		return c.chatOutputs(a, name, withTools)
	}
	request, notes, err := p.chatRequest(job)
	for _, n := range notes {
		c.note("LLM %s: %s", c.verb, n)
	}
	empty := model.Answer{Finish: model.FinishError}
	switch {
	case err != nil:
		return c.failed(ctx, outputs(empty, ""), err)
	case len(request.Messages) == 0:
		return c.refused(outputs(empty, ""), fmt.Sprintf("LLM %s: no messages provided.", c.verb)), nil
	case withTools && len(request.Tools) == 0:
		return c.refused(outputs(empty, ""), fmt.Sprintf("LLM %s: no tools provided.", c.verb)), nil
	}
	check, err := newChecker(request.Format)
	if err != nil {
		return c.failed(ctx, outputs(empty, ""), err)
	}
	wanted := request.Model
	name := func(s *service, first bool) string {
		if first && wanted != "" || s.model == "" {
			return wanted
		}
		return s.model
	}
	own := p.services[0]
	if name(own, true) == "" {
		return c.failed(ctx, outputs(empty, ""), wrong(settingModel, "none is given, and none is configured"))
	}
	expected := p.expectedChat(own, name(own, true), request)
	admission, err := p.meter.Admit(ctx, job.Tenant, expected)
	if err != nil {
		return c.failed(ctx, outputs(empty, name(own, true)), err)
	}
	var answer model.Answer
	s, err := c.try(ctx, p.order(), false, func(s *service, first bool) (err error) {
		r := *request
		r.Model = name(s, first)
		c.shown = shown{}
		if r.Model == "" {
			return wrong(settingModel, "none is given, and none is configured for %s", s.name)
		}
		answer, err = s.backend.Chat(ctx, &r, c.show)
		if answer.Model == "" {
			answer.Model = r.Model
		}
		return err
	})
	priceName := name(s, s == own)
	cost, priced := p.cost(s, priceName, false, answer.Usage)
	if !priced {
		cost, priced = p.cost(s, answer.Model, false, answer.Usage)
	}
	c.settle(admission, c.used(expected, answer.Usage, cost, priced, err == nil))
	if answer.Model == "" {
		answer.Model = priceName
	}
	known := priced && answer.Usage.Total() > 0
	finished := func(out beacon.Outputs) beacon.Outputs {
		out["Usage"] = c.usage(answer.Usage, cost, known)
		out["Backend"] = s.name
		return out
	}
	for _, n := range answer.Notes {
		c.note("LLM %s: %s.", c.verb, n)
	}
	if err == nil {
		err = check(answer)
	} else {
		answer.Finish = model.FinishError
	}
	if err != nil {
		answer.Finish = model.FinishError
		return c.failed(ctx, finished(outputs(answer, answer.Model)), err)
	}
	out := finished(outputs(answer, answer.Model))
	out[beacon.OutputExitCode] = 0
	out = c.scrub(out)
	c.deliver(out)
	line := fmt.Sprintf("LLM %s: model=%s, tokens=%d, finish=%s", c.verb, beacon.Excerpt(answer.Model, 200), answer.Usage.Total(), answer.Finish)
	if withTools {
		line += fmt.Sprintf(", tool_calls=%d", len(answer.ToolCalls))
	}
	c.note("%s", line)
	return beacon.Result{Outputs: out, Log: c.log}, nil
}

// refused makes the result of an item that asks for nothing, in the Node
// worker's words.
func (c *call) refused(outputs beacon.Outputs, line string) beacon.Result {
	outputs[beacon.OutputExitCode] = -1
	outputs[beacon.OutputStdOut] = line
	outputs["Error"] = line
	outputs["ErrorCode"] = string(beacon.Invalid)
	return beacon.Result{Outputs: outputs, Log: append(c.log, line)}
}

// chatOutputs are those of an answer, or of as much of it as there is.
func (c *call) chatOutputs(a model.Answer, name string, withTools bool) beacon.Outputs {
	out := beacon.Outputs{
		"Content": a.Content, "Model": name, "FinishReason": a.Finish,
		"PromptTokens": a.Usage.Prompt, "CompletionTokens": a.Usage.Completion, "TotalTokens": a.Usage.Total(),
		beacon.OutputResult: a.Content,
	}
	if withTools || len(a.ToolCalls) > 0 {
		out["ToolCalls"] = "[]"
	}
	message := map[string]any{"role": model.Assistant, "content": a.Content}
	if len(a.ToolCalls) > 0 {
		calls := make([]any, len(a.ToolCalls))
		for i, call := range a.ToolCalls {
			calls[i] = toolCallForm(call)
		}
		if raw, err := model.Encode(calls); err == nil {
			out["ToolCalls"] = string(raw)
		}
		message["tool_calls"] = calls
	}
	if len(a.Thinking) > 0 {
		message["thinking_blocks"] = a.Thinking
	}
	if a.Content != "" || len(a.ToolCalls) > 0 {
		// What a next turn's Messages want back.
		if raw, err := model.Encode(message); err == nil {
			out["Message"] = string(raw)
		}
	}
	for key, value := range map[string]string{"Reasoning": a.Reasoning, "StopReason": a.StopReason, "RequestID": a.RequestID} {
		if value != "" {
			out[key] = value
		}
	}
	return out
}

func (p *Provider) expectedChat(s *service, name string, r *model.Chat) quota.Use {
	bytes, images := 0, 0
	for _, m := range r.Messages {
		for _, part := range m.Content {
			if part.Kind == model.Text {
				bytes += len(part.Text)
			} else {
				images++
			}
		}
		for _, call := range m.ToolCalls {
			bytes += len(call.Arguments)
		}
	}
	for _, t := range r.Tools {
		bytes += len(t.Raw)
	}
	answer := int64(1000)
	if r.MaxTokens != nil {
		answer = *r.MaxTokens
	}
	return p.expected(s, name, false, bytes, images, answer)
}
