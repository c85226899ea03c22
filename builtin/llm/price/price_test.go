package price_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/builtin/llm/model"
	"github.com/ultravisor/beacon/builtin/llm/price"
)

func TestBuiltIn(t *testing.T) {
	tables, err := price.BuiltIn()
	require.NoError(t, err)
	require.Len(t, tables, 3)
	for name, table := range tables {
		require.NotEmpty(t, table, name)
		require.NoError(t, table.Validate())
	}
}

func TestFind(t *testing.T) {
	table := price.Table{"claude-sonnet-4": {Input: 3}, "gpt-4o": {Input: 2.5}, "gpt-4o-2024-05-13": {Input: 5}, "Mine": {Input: 1}}
	for name, want := range map[string]float64{
		"claude-sonnet-4":          3,
		"claude-sonnet-4-20250514": 3,
		"claude-sonnet-4-latest":   3,
		"gpt-4o-2024-05-13":        5,
		"gpt-4o-2024-08-06":        2.5,
		"GPT-4o":                   2.5,
		"Mine":                     1,
	} {
		p, ok := table.Find(name)
		require.True(t, ok, name)
		require.Equal(t, want, p.Input, name)
	}
	for _, name := range []string{"", "gpt-4o-mini", "claude-sonnet-4-5", "gpt-4"} {
		_, ok := table.Find(name)
		require.False(t, ok, name)
	}
}

func TestCost(t *testing.T) {
	half, more := 1.0, 3.0
	p := price.Price{Input: 2, Output: 10, CachedInput: &half, CacheWrite: &more}
	require.InDelta(t, (500*2+400*1+100*3+200*10)/1e6, p.Cost(model.Usage{Prompt: 1000, Cached: 400, Written: 100, Completion: 200, Reasoning: 150}), 1e-12)
	require.InDelta(t, (1000*2+200*10)/1e6, price.Price{Input: 2, Output: 10}.Cost(model.Usage{Prompt: 1000, Cached: 400, Completion: 200}), 1e-12)
	require.Error(t, price.Table{"x": {Input: -1}}.Validate())
}
