package llm

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/llm/model"
	"github.com/ultravisor/beacon/builtin/llm/quota"
	"github.com/ultravisor/beacon/builtin/llm/wire"
)

// A call is one item's use of the services.
type call struct {
	p   *Provider
	job *beacon.Job
	// verb names the action in the log, as the Node worker does.
	verb     string
	start    time.Time
	first    time.Time // when the first piece of an answer came
	attempts int
	// lost counts attempts that may have been charged for without an answer.
	lost  int
	log   []string
	shown shown
}

func (p *Provider) newCall(job *beacon.Job, verb string) *call {
	return &call{p: p, job: job, verb: verb, start: time.Now()}
}

// note adds a line to the item's log.
func (c *call) note(format string, args ...any) {
	c.log = append(c.log, c.p.redactor.Scrub(fmt.Sprintf(format, args...)))
}

// try asks the services in turn until one answers. do sends one request.
func (c *call) try(ctx context.Context, order []*service, vectors bool, do func(s *service, first bool) error) (*service, error) {
	var err error
	var last *service
	for i, s := range order {
		last = s
		more := i+1 < len(order)
		switch {
		case s.broken != nil:
			err = s.broken
		case vectors && s.vectorless != nil:
			err = s.vectorless
		default:
			if err = c.insist(ctx, s, more, func() error { return do(s, s == c.p.services[0]) }); err == nil {
				return s, nil
			}
			if !c.passes(ctx, err) {
				return s, err
			}
		}
		if more {
			c.note("LLM %s: %s failed (%s), %s is next", c.verb, s.name, err, order[i+1].name)
		}
	}
	return last, err
}

// order lists the services as they are to be tried: those that are left alone
// for now come last.
func (p *Provider) order() []*service {
	now := time.Now()
	until := make(map[*service]time.Time, len(p.services))
	for _, s := range p.services {
		s.mu.Lock()
		if s.until.After(now) {
			until[s] = s.until
		}
		s.mu.Unlock()
	}
	list := slices.Clone(p.services)
	slices.SortStableFunc(list, func(a, b *service) int { return until[a].Compare(until[b]) })
	return list
}

// passes reports whether another service may be asked after an error: nothing
// can have been charged, and the request itself is not at fault.
func (c *call) passes(ctx context.Context, err error) bool {
	var e *wire.Error
	if ctx.Err() != nil || !errors.As(err, &e) || e.Lost && !c.p.ambiguous {
		return false
	}
	switch e.Status {
	case 401, 402, 403, 404, 429:
		return true
	}
	return e.Retry
}

// insist asks one service, more than once if its errors may pass.
func (c *call) insist(ctx context.Context, s *service, more bool, do func() error) error {
	for retry := 0; ; retry++ {
		c.attempts++
		err := do()
		if err == nil {
			s.leave(time.Time{})
			return nil
		}
		var e *wire.Error
		if !errors.As(err, &e) {
			return err
		}
		if e.Lost {
			c.lost++
		}
		if ctx.Err() != nil || !e.Retry || e.Lost && !c.p.ambiguous {
			if !e.Lost && ctx.Err() == nil && c.passes(ctx, err) {
				s.leave(time.Now().Add(c.p.cooldown))
			}
			return err
		}
		wait := e.RetryAfter
		if wait < 0 {
			wait = c.p.backoff(retry)
		}
		deadline, _ := ctx.Deadline()
		tooLong := time.Until(deadline) <= wait
		if retry >= c.p.retries || tooLong || more && e.RetryAfter > patience {
			s.leave(time.Now().Add(max(c.p.cooldown, e.RetryAfter)))
			if tooLong && retry < c.p.retries && e.RetryAfter >= 0 {
				c.note("LLM %s: the service wants to be left alone for %s, longer than there is time", c.verb, e.RetryAfter.Round(time.Millisecond))
			}
			return err
		}
		c.note("LLM %s: attempt %d failed (%s), the next is in %s", c.verb, c.attempts, err, wait.Round(time.Millisecond))
		c.job.Progress(beacon.Progress{Message: c.p.redactor.Scrub(fmt.Sprintf("%s; trying again in %s", err, wait.Round(time.Millisecond)))})
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// patience is how long a service may want to be left alone before the next one
// in the chain is asked instead.
const patience = 2 * time.Second

// leave leaves a service alone until then.
func (s *service) leave(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = until
}

// backoff doubles with each retry up to 16 times the first, less a random
// quarter, so that many workers do not come back in step.
func (p *Provider) backoff(retry int) time.Duration {
	d := p.retryDelay << min(retry, 4)
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

// shown is what of an answer was shown as progress.
type shown struct {
	text    strings.Builder
	thought int
	at      time.Time
}

// Progress shows an answer that is on its way: all of its text so far, or the
// end of a long one. So a message that is lost, or merged with the next on its
// way to the server, takes nothing with it.
const (
	showEvery = 250 * time.Millisecond
	showMost  = 4096 // bytes
)

// show notes a piece of the answer.
func (c *call) show(d model.Delta) {
	now := time.Now()
	if c.first.IsZero() {
		c.first = now
	}
	c.shown.text.WriteString(d.Text)
	c.shown.thought += len(d.Reasoning)
	if now.Sub(c.shown.at) < showEvery {
		return
	}
	c.shown.at = now
	text := c.shown.text.String()
	if text == "" {
		c.job.Progress(beacon.Progress{Message: fmt.Sprintf("reasoning (%d bytes so far)", c.shown.thought)})
		return
	}
	// A secret that the cut goes through would not be recognised.
	c.job.Progress(beacon.Progress{Message: tail(c.p.redactor.Scrub(tail(text, 4*showMost)), showMost)})
}

// tail is the end of a text.
func tail(text string, most int) string {
	if len(text) <= most {
		return text
	}
	cut := len(text) - most
	for cut < len(text) && !utf8.RuneStart(text[cut]) {
		cut++
	}
	return "…" + text[cut:]
}

// expected is what a request will probably use: four bytes to a token, a
// thousand tokens to an image, and what the answer may have.
func (p *Provider) expected(s *service, name string, vectors bool, bytes, images int, answer int64) quota.Use {
	prompt := int64(bytes/4 + 1000*images + 1)
	use := quota.Use{Tokens: prompt + answer}
	if cost, ok := p.cost(s, name, vectors, model.Usage{Prompt: prompt, Completion: answer}); ok {
		use.Cost, use.Priced = cost, true
	}
	return use
}

// cost is what a use costs, if that is known.
func (p *Provider) cost(s *service, name string, vectors bool, u model.Usage) (float64, bool) {
	found, ok := p.prices.Find(name)
	if !ok {
		table := s.prices
		if vectors {
			table = s.vectorPrices
		}
		if found, ok = table.Find(name); !ok {
			return 0, false
		}
	}
	return found.Cost(u), true
}

// used is what really was used, for the tenant's account. Answers that may have
// been charged for but were lost count as expected; so does a service that does
// not say.
func (c *call) used(expected quota.Use, u model.Usage, cost float64, priced, answered bool) quota.Use {
	use := quota.Use{Tokens: u.Total(), Cost: cost, Priced: priced}
	if answered && use.Tokens == 0 {
		use = expected
	}
	use.Tokens += int64(c.lost) * expected.Tokens
	use.Cost += float64(c.lost) * expected.Cost
	return use
}

// settle books what was used. That it cannot be kept does not take the answer
// away, which has been paid for.
func (c *call) settle(a *quota.Admission, use quota.Use) {
	c.job.Account.Add(beacon.Usage{Tokens: use.Tokens, Cost: use.Cost})
	if err := a.Settle(use); err != nil {
		c.p.log.Error("LLM: the use of a tenant is not kept", "tenant", beacon.Excerpt(c.job.Tenant, 80), "err", err)
	}
}

// usage is the output Usage.
func (c *call) usage(u model.Usage, cost float64, priced bool) map[string]any {
	out := map[string]any{
		"PromptTokens": u.Prompt, "CompletionTokens": u.Completion, "TotalTokens": u.Total(),
		"CachedTokens": u.Cached, "CacheWriteTokens": u.Written, "ReasoningTokens": u.Reasoning,
		"Attempts": c.attempts, "LatencyMs": time.Since(c.start).Milliseconds(),
	}
	if !c.first.IsZero() {
		out["TimeToFirstTokenMs"] = c.first.Sub(c.start).Milliseconds()
	}
	if priced {
		out["Cost"] = cost
	}
	if c.lost > 0 {
		out["PossiblyCharged"] = c.lost
	}
	return out
}

// message words an error for the item's result.
func (c *call) message(ctx context.Context, err error) string {
	var e *wire.Error
	switch {
	case errors.Is(context.Cause(ctx), errTimeout):
		return fmt.Sprintf("LLM request timed out after %dms.", c.p.timeout.Milliseconds())
	case ctx.Err() != nil:
		return fmt.Sprintf("LLM request failed: %s", context.Cause(ctx))
	case errors.As(err, &e):
		text := e.Error()
		if e.Status == 401 || e.Status == 403 {
			text += " (is APIKey right?)"
		}
		if e.Lost {
			text += " (not tried again, since it may have been charged; RetryAmbiguous does)"
		}
		return text
	}
	return err.Error()
}

// failed makes the result of an item that was not answered, or not as it should
// be. What arrived of an answer is kept.
func (c *call) failed(ctx context.Context, outputs beacon.Outputs, err error) (beacon.Result, error) {
	var e *wire.Error
	lost := c.lost > 0
	if ctx.Err() != nil && !lost && !errors.Is(context.Cause(ctx), errTimeout) {
		// Nothing was charged: whoever canceled may have it done elsewhere.
		return beacon.Result{Log: c.log}, context.Cause(ctx)
	}
	text := c.p.redactor.Scrub(c.message(ctx, err))
	if lost && c.p.ambiguous {
		text = strings.TrimSuffix(text, " (not tried again, since it may have been charged; RetryAmbiguous does)")
	}
	outputs[beacon.OutputExitCode] = -1
	outputs[beacon.OutputStdOut] = text
	outputs["Error"] = text
	outputs["ErrorCode"] = string(cmp.Or(codeOf(ctx, err), beacon.Failed))
	if errors.As(err, &e) {
		if e.Status != 0 {
			outputs["Status"] = e.Status
		}
		if e.RequestID != "" {
			outputs["RequestID"] = e.RequestID
		}
		if e.Type != "" || e.Code != "" {
			outputs["ErrorType"] = cmp.Or(e.Type, e.Code)
		}
	}
	c.note("LLM %s failed: %s", c.verb, text)
	c.p.log.Warn("LLM request failed", "item", beacon.Excerpt(c.job.Item.Hash, 200), "tenant", beacon.Excerpt(c.job.Tenant, 80), "err", text)
	return beacon.Result{Outputs: c.scrub(outputs), Log: c.log}, nil
}

func codeOf(ctx context.Context, err error) beacon.Code {
	var own *beacon.Error
	var e *wire.Error
	switch {
	case errors.Is(context.Cause(ctx), errTimeout), errors.As(err, &e) && e.Timeout:
		return beacon.Timeout
	case ctx.Err() != nil:
		return beacon.CodeOf(context.Cause(ctx))
	case errors.As(err, &own):
		return own.Code
	case errors.As(err, &e):
		switch {
		case e.Status == 0 && !e.Lost:
			return beacon.Unreachable
		case e.Status == 400 || e.Status == 422:
			return beacon.Invalid
		case e.Status == 401 || e.Status == 403:
			return beacon.Denied
		case e.Status == 404:
			return beacon.NotFound
		}
	}
	return beacon.Failed
}

// scrub takes secrets out of every text among the outputs.
func (c *call) scrub(outputs beacon.Outputs) beacon.Outputs {
	for name, value := range outputs {
		switch v := value.(type) {
		case string:
			outputs[name] = c.p.redactor.Scrub(v)
		case json.RawMessage:
			outputs[name] = json.RawMessage(c.p.redactor.Scrub(string(v)))
		}
	}
	return outputs
}

// deliver writes the primary value into the item's output file, if it wants one.
func (c *call) deliver(outputs beacon.Outputs) {
	text, _ := outputs[beacon.OutputResult].(string)
	if c.job.Output == "" {
		return
	}
	if err := c.job.Dir.WriteFile(c.job.Output, []byte(text), 0o600); err != nil {
		c.note("LLM %s: the output file cannot be written: %s", c.verb, err)
	}
}
