package quota_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/llm/quota"
)

func open(t *testing.T, path string, l quota.Limits) *quota.Meter {
	t.Helper()
	require.NoError(t, l.Validate())
	m := quota.New(path, func(tenant string) quota.Limits {
		if tenant == "free" {
			return quota.Limits{}
		}
		return l
	})
	require.NoError(t, m.Open())
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func admit(t *testing.T, m *quota.Meter, use quota.Use) *quota.Admission {
	t.Helper()
	a, err := m.Admit(t.Context(), "acme", use)
	require.NoError(t, err)
	return a
}

func TestRequestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, "", quota.Limits{RequestsPerMinute: 2})
		start := time.Now()
		for range 4 {
			require.NoError(t, admit(t, m, quota.Use{}).Settle(quota.Use{}))
		}
		require.Equal(t, time.Minute, time.Since(start))
		for range 100 { // another tenant does not notice
			_, err := m.Admit(t.Context(), "free", quota.Use{})
			require.NoError(t, err)
		}
		require.Equal(t, time.Minute, time.Since(start))
	})
}

// A wait that is longer than the item has time is an error at once, and costs
// the tenant nothing.
func TestRateBeyondDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, "", quota.Limits{RequestsPerMinute: 1})
		admit(t, m, quota.Use{})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		_, err := m.Admit(ctx, "acme", quota.Use{})
		require.Equal(t, beacon.CallLimit, beacon.CodeOf(err))
		require.ErrorContains(t, err, "tenant acme has used its RequestsPerMinute of 1: there is room again in 1m0s")
		require.Equal(t, start, time.Now())
		admit(t, m, quota.Use{})
		require.Equal(t, time.Minute, time.Since(start))
	})
}

func TestWaitEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, "", quota.Limits{RequestsPerMinute: 1})
		admit(t, m, quota.Use{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := m.Admit(ctx, "acme", quota.Use{})
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestTokenRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, "", quota.Limits{TokensPerMinute: 600})
		start := time.Now()
		a := admit(t, m, quota.Use{Tokens: 500})
		require.NoError(t, a.Settle(quota.Use{Tokens: 100})) // 500 left
		a = admit(t, m, quota.Use{Tokens: 500})
		require.Equal(t, start, time.Now())
		require.NoError(t, a.Settle(quota.Use{Tokens: 1100})) // 600 in debt
		admit(t, m, quota.Use{Tokens: 100})
		require.Equal(t, 70*time.Second, time.Since(start))
		// More than a minute allows is possible, with a full minute's wait.
		admit(t, m, quota.Use{Tokens: 6000})
		require.Equal(t, 130*time.Second, time.Since(start))
	})
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "sub", "budgets.json")
		limits := quota.Limits{BudgetCost: 1, BudgetTokens: 1000}
		use := func(tokens int64, cost float64) quota.Use { return quota.Use{Tokens: tokens, Cost: cost, Priced: true} }
		m := open(t, path, limits)
		require.NoError(t, admit(t, m, use(100, 0.5)).Settle(use(200, 0.25)))
		under := admit(t, m, use(100, 0.7)) // is not settled: the process dies

		err := quota.New(path, nil).Open()
		require.ErrorContains(t, err, "belongs to another worker that runs")
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
		require.NoError(t, m.Close())
		m = open(t, path, limits)
		_, err = m.Admit(t.Context(), "acme", use(1, 0.1))
		require.Equal(t, beacon.CallLimit, beacon.CodeOf(err))
		require.ErrorContains(t, err, "budget of 1 dollars, of which 0.9500 are spent or reserved")
		_, err = m.Admit(t.Context(), "acme", use(701, 0))
		require.ErrorContains(t, err, "budget of 1000 tokens, of which 300 are spent or reserved")
		_, err = m.Admit(t.Context(), "acme", quota.Use{Tokens: 1})
		require.ErrorContains(t, err, "the model has no price")
		require.NoError(t, admit(t, m, use(700, 0.05)).Settle(use(700, 0.05)))
		_, err = m.Admit(t.Context(), "free", quota.Use{Tokens: 1e9})
		require.NoError(t, err)

		time.Sleep(24 * time.Hour)
		require.NoError(t, admit(t, m, use(1000, 1)).Settle(use(0, 0)))
		require.NoError(t, under.Settle(use(1, 1))) // of another meter and day
	})
}

// What a request that outlasts its period really used does not count in the next.
func TestSettleAfterPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, "", quota.Limits{BudgetTokens: 10, BudgetPeriod: "hour"})
		a := admit(t, m, quota.Use{Tokens: 10})
		time.Sleep(time.Hour)
		b := admit(t, m, quota.Use{Tokens: 5})
		require.NoError(t, a.Settle(quota.Use{Tokens: 1000}))
		require.NoError(t, a.Settle(quota.Use{Tokens: 1000}))
		require.NoError(t, b.Settle(quota.Use{Tokens: 10}))
		_, err := m.Admit(t.Context(), "acme", quota.Use{Tokens: 1})
		require.Error(t, err)
	})
}

func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "budgets.json")
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	err := quota.New(path, nil).Open()
	require.ErrorContains(t, err, "to begin anew")
}

func TestValidate(t *testing.T) {
	require.Error(t, quota.Limits{BudgetPeriod: "week"}.Validate())
	require.Error(t, quota.Limits{BudgetCost: -1}.Validate())
	require.NoError(t, quota.Limits{}.Validate())
}
