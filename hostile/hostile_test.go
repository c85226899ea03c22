package hostile_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

// The time of those items that use it up.
const deadline = 40 * time.Millisecond

// S4, S12, S13, S16, S17, S19, S20, S21, S23, S24, S26, S30: no module of the
// corpus reads, writes, lists, links or learns what is not its own, each ends at
// its limit, twice, the worker serves the next item, and nothing is left of it
// all.
func TestCorpus(t *testing.T) { corpus(t, specimens(t), false) }

// S1, S2: the same where items run in processes of their tenants, for each
// seventh of the modules; for all if BEACON_HOSTILE is all.
func TestCorpusInProcesses(t *testing.T) {
	modules := specimens(t)
	if os.Getenv("BEACON_HOSTILE") != "all" {
		n := -1
		called := []string{"honest", "writer", "numbers", "deaf", "time-sleep", "trap-names", "flood-forged-failure"} // others call them
		modules = slices.DeleteFunc(modules, func(s specimen) bool {
			n++
			return n%7 != 0 && !slices.Contains(called, s.name)
		})
	}
	corpus(t, modules, true)
}

func corpus(t *testing.T, modules []specimen, isolated bool) {
	honest := modules[slices.IndexFunc(modules, func(s specimen) bool { return s.name == "honest" })]
	first := newWorld(t, []specimen{honest}, isolated) // what is opened once and for all is open now
	first.item(t.Context(), honest, "", time.Hour)
	first.close()
	before := descriptors(t)
	w := newWorld(t, modules, isolated)
	around, hidden := w.outside(), w.hidden()
	var slowest time.Duration
	var slow string
	for _, s := range modules {
		t.Run(s.name, func(t *testing.T) {
			if slices.Contains(s.wants, "refused") && w.refused[s.name] != nil {
				require.Equal(t, beacon.Refused, beacon.CodeOf(w.refused[s.name]))
				requireHidden(t, hidden, w.refused[s.name].Error())
				return
			}
			require.NoError(t, w.refused[s.name])
			timeout := time.Hour // which only a hang would reach
			if slices.Contains(s.wants, string(beacon.Timeout)) {
				timeout = deadline
			}
			var ended []string
			// What an item leaves for its successor of the same tenant must not be there.
			for _, tenant := range []string{"", "", "acme"} {
				outcome, said := w.item(t.Context(), s, tenant, timeout)
				for timeout < time.Hour && strings.Contains(said, "File transfer preparation failed") {
					timeout *= 2 // it was over before the guest began
					outcome, said = w.item(t.Context(), s, tenant, timeout)
				}
				if wrong := attempt(outcome); wrong != "" {
					t.Fatalf("%s: %s", wrong, beacon.Excerpt(said, 4000))
				}
				require.Contains(t, s.wants, outcome, beacon.Excerpt(said, 4000))
				requireHidden(t, hidden, said)
				requirePlain(t, said)
				ended = append(ended, outcome)
				require.Equal(t, around, w.outside(), "what is around it has changed")
			}
			if s.name == "secret-to-itself" {
				_, asked := w.asked.Load("GET /v1/echo")
				require.True(t, asked, "who may ask does")
			}
			begin := time.Now()
			outcome, said := w.item(t.Context(), honest, "", time.Hour)
			took := time.Since(begin)
			require.Equal(t, "ok", outcome, beacon.Excerpt(said, 4000))
			require.Contains(t, said, "the source")
			if took > slowest {
				slowest, slow = took, s.name
			}
			if isolated {
				require.Equal(t, w.box.Stats().Running, 0, "items that are left in processes")
			}
			t.Logf("%s; the next item took %s", strings.Join(ended, ", "), took.Round(10*time.Microsecond))
		})
	}
	require.Zero(t, w.visits.Load(), "somebody asked the server that nobody may ask")
	w.close()
	// A connection that was given up is closed beside.
	require.Eventually(t, func() bool {
		now := descriptors(t)
		return now[0] <= before[0] && now[1] <= before[1]
	}, time.Minute, time.Millisecond, "descriptors and children that are left")
	left, err := os.ReadDir(w.staging)
	require.NoError(t, err)
	require.Len(t, left, 1, "but for the canary nothing is left")
	t.Logf("%d modules, %d items; the slowest next item took %s (after %s)", len(modules), 4*len(modules), slowest, slow)
}

// attempt says which attempt of a module went wrong, by its exit code.
func attempt(outcome string) string {
	var code int
	if _, err := fmt.Sscanf(outcome, "exit %d", &code); err != nil || code < 100_000 {
		return ""
	}
	if code > 200_000 {
		return fmt.Sprintf("step %d, which must succeed, does not", code-200_000)
	}
	return fmt.Sprintf("attempt %d, which must not succeed, does", code-100_000)
}

func requireHidden(t *testing.T, hidden map[string]string, said string) {
	t.Helper()
	for what, word := range hidden {
		if strings.Contains(said, word) {
			at := strings.Index(said, word)
			t.Fatalf("%s is revealed: %q", what, said[max(0, at-100):min(len(said), at+100)])
		}
	}
}

// requirePlain looks for what drives terminals in errors and logs; outputs are
// the guest's own.
func requirePlain(t *testing.T, said string) {
	t.Helper()
	log, _, _ := strings.Cut(said, "\n{")
	for line := range strings.SplitSeq(log, "\n") {
		require.LessOrEqual(t, len(line), 64<<10)
		require.NotContains(t, line, "\x1b")
		require.NotContains(t, line, "\u202e")
	}
}
