package llm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/llm/model"
	"github.com/ultravisor/beacon/builtin/llm/wire"
)

// maxTexts bounds the texts of one item: their vectors have to fit into a result.
const maxTexts = 10_000

// maxBatchBytes bounds the texts of one request: services count some 300,000
// tokens.
const maxBatchBytes = 512 << 10

// texts reads Text: a text, or a JSON array of texts for a batch.
func texts(s beacon.Settings) (list []string, batch bool, err error) {
	if !s.Has(settingText) {
		return nil, false, nil
	}
	raw, text, ok := structured(s, settingText)
	if ok && raw[0] == '[' {
		err := json.Unmarshal(raw, &list)
		switch {
		case err == nil && len(list) > maxTexts:
			return nil, true, wrong(settingText, "%d texts are more than %d", len(list), maxTexts)
		case err == nil:
			return list, true, nil
		case text == "":
			return nil, true, wrong(settingText, "want a text or a JSON array of texts")
		}
	}
	return []string{s.Text(settingText)}, false, nil
}

// embedding carries out Embedding.
func (p *Provider) embedding(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	c := p.newCall(job, actionEmbedding)
	outputs := func(name string) beacon.Outputs {
		return beacon.Outputs{"Embedding": "[]", "Dimensions": 0, "Model": name, beacon.OutputResult: ""}
	}
	s := job.Item.Settings
	list, batch, err := texts(s)
	if err != nil {
		return c.failed(ctx, outputs(""), err)
	}
	if len(list) == 0 {
		return c.refused(outputs(""), "LLM Embedding: no text provided."), nil
	}
	dimensions, err := whole(s, settingDimensions, nil)
	if err != nil {
		return c.failed(ctx, outputs(""), err)
	}
	more, err := extra(s, "model", "input")
	if err != nil {
		return c.failed(ctx, outputs(""), err)
	}
	wanted := s.Text(settingModel)
	name := func(s *service, first bool) string {
		if first && wanted != "" || s.vectors == "" {
			return wanted
		}
		return s.vectors
	}
	own := p.services[0]
	if own.vectorless == nil && name(own, true) == "" {
		return c.failed(ctx, outputs(""), wrong(settingModel, "none is given, and neither EmbeddingModel nor Model is configured"))
	}
	bytes := 0
	for _, text := range list {
		bytes += len(text)
	}
	expected := p.expected(own, name(own, true), true, bytes, 0, 0)
	admission, err := p.meter.Admit(ctx, job.Tenant, expected)
	if err != nil {
		return c.failed(ctx, outputs(name(own, true)), err)
	}
	var all model.Vectors
	// Vectors of two models do not compare: only services with the same model
	// stand in for each other, and what one has begun it finishes.
	order := slices.DeleteFunc(p.order(), func(s *service) bool { return s != own && name(s, false) != name(own, true) })
	var chosen *service
	for from := 0; from < len(list) && err == nil; {
		to := p.batchEnd(list, from)
		var part model.Vectors
		ask := func(s *service, first bool) (err error) {
			model := name(s, first)
			if model == "" {
				return wrong(settingModel, "none is given, and none is configured for %s", s.name)
			}
			part, err = s.backend.Embed(ctx, request(model, list[from:to], dimensions, more))
			return err
		}
		if chosen == nil {
			chosen, err = c.try(ctx, order, true, ask)
		} else {
			err = c.insist(ctx, chosen, false, func() error { return ask(chosen, chosen == own) })
		}
		all.Vectors = append(all.Vectors, part.Vectors...)
		all.Usage = all.Usage.Add(part.Usage)
		if part.Model != "" {
			all.Model = part.Model
		}
		all.RequestID = part.RequestID
		if to < len(list) && err == nil {
			job.Progress(beacon.Progress{
				Percent: 100 * float64(to) / float64(len(list)), HasPercent: true,
				Message: fmt.Sprintf("%d of %d texts", to, len(list)),
			})
		}
		from = to
	}
	if all.Model == "" {
		all.Model = name(chosen, chosen == own)
	}
	if err == nil {
		err = sameLength(all.Vectors)
	}
	cost, priced := p.cost(chosen, name(chosen, chosen == own), true, all.Usage)
	c.settle(admission, c.used(expected, all.Usage, cost, priced, err == nil))
	out := outputs(all.Model)
	out["Usage"] = c.usage(all.Usage, cost, priced && all.Usage.Total() > 0)
	out["Backend"] = chosen.name
	if err != nil {
		return c.failed(ctx, out, err)
	}
	var value any = all.Vectors[0]
	if batch {
		value = all.Vectors
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return c.failed(ctx, out, beacon.Errorf(beacon.Failed, "the vectors cannot be encoded: %w", err))
	}
	out["Embedding"], out["Dimensions"], out["Count"] = string(raw), len(all.Vectors[0]), len(all.Vectors)
	out[beacon.OutputResult] = string(raw)
	out[beacon.OutputExitCode] = 0
	if all.RequestID != "" {
		out["RequestID"] = all.RequestID
	}
	out = c.scrub(out)
	c.deliver(out)
	line := fmt.Sprintf("LLM Embedding: model=%s, dimensions=%d", beacon.Excerpt(all.Model, 200), len(all.Vectors[0]))
	if batch {
		line += fmt.Sprintf(", count=%d", len(all.Vectors))
	}
	c.note("%s", line)
	return beacon.Result{Outputs: out, Log: c.log}, nil
}

func request(name string, list []string, dimensions *int64, more json.RawMessage) *model.Embedding {
	return &model.Embedding{Model: name, Texts: list, Dimensions: dimensions, Extra: more}
}

// batchEnd is where the request that begins there ends.
func (p *Provider) batchEnd(list []string, from int) int {
	bytes, to := 0, from
	for to < len(list) && to-from < p.batch {
		bytes += len(list[to])
		if to > from && bytes > maxBatchBytes {
			break
		}
		to++
	}
	return to
}

func sameLength(list [][]float64) error {
	for _, v := range list {
		if len(v) != len(list[0]) {
			return wire.Unreadable(errors.New("the vectors differ in length"), nil)
		}
	}
	return nil
}
