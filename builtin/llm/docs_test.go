package llm_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin"
	"github.com/ultravisor/beacon/builtin/llm"
)

// Every example of the README works: configurations are taken, items answered.
func TestReadme(t *testing.T) {
	page, err := os.ReadFile("README.md")
	require.NoError(t, err)
	t.Setenv("OPENAI_API_KEY", key)
	t.Setenv("ANTHROPIC_API_KEY", key)
	configurations, items := 0, 0
	for _, block := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		dec := json.NewDecoder(strings.NewReader(block[1]))
		for {
			var s beacon.Settings
			err := dec.Decode(&s)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, block[1])
			if s.Has("Messages") {
				items++
				each(t, func(t *testing.T, dialect string) {
					action, answer := "ChatCompletion", "chat.stream"
					if s.Has("Tools") {
						action, answer = "ToolUse", "tools.stream"
					}
					b := serve(t, reply{body: fixture(t, dialect, answer)})
					j := job(t, action, nil)
					j.Item.Settings = s
					require.NoError(t, j.Dir.WriteFile("photo.png", []byte(png), 0o600))
					j.Source = "photo.png"
					result, err := open(t, dialect, b, nil).Run(t.Context(), j)
					require.NoError(t, err)
					require.Equal(t, 0, result.Outputs["ExitCode"], result.Log)
				})
				continue
			}
			configurations++
			if s.Has("Providers") {
				var list []struct{ Config beacon.Settings }
				require.NoError(t, json.Unmarshal(s["Providers"], &list))
				s = list[0].Config
			}
			if s.Has("BudgetFile") {
				s.SetText("BudgetFile", t.TempDir()+"/budgets.json")
			}
			p, err := builtin.Open("LLM", s, builtin.Host{})
			require.NoError(t, err)
			require.NoError(t, p.(beacon.Shutdowner).Shutdown(t.Context()))
		}
	}
	require.Equal(t, 6, configurations)
	require.Equal(t, 4, items)

	// The tables know all that there is.
	for _, a := range open(t, llm.OpenAI, nil, nil).Capability().Actions {
		for _, s := range a.Settings {
			require.Contains(t, string(page), "`"+s.Name+"`", a.Name)
		}
	}
}
