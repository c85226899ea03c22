package dashboard

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/protocol"
)

func TestDrawings(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	busy, one := protocol.Series{StepMs: 20_000}, protocol.Series{StepMs: 20_000}
	for i := range 180 {
		step := protocol.Step{At: protocol.Timestamp{Time: at.Add(time.Duration(i) * 20 * time.Second)}}
		if i == 90 {
			alone := step
			alone.Completed, alone.WaitMs50, alone.WaitMs95, alone.RunMs50, alone.RunMs95 = 1, 5, 5, 100, 100
			one.Steps = append(one.Steps, alone)
		} else {
			one.Steps = append(one.Steps, step)
		}
		if i < 60 || i > 80 {
			step.Completed, step.Failed = 100+i%17*3, i%5
			step.WaitMs50, step.WaitMs95, step.RunMs50, step.RunMs95 = int64(20+i%7), int64(300+i%50*9), int64(900+i), int64(4000+i%13*100)
			step.Usage.Fuel = int64(1_500_000_000 + i%7*1_000_000)
		}
		busy.Steps = append(busy.Steps, step)
	}
	for name, c := range map[string]chart{"1ms": drawings[1], "1": drawings[3]} {
		idle, err := c.draw(protocol.Series{StepMs: 20_000, Steps: make([]protocol.Step, 180)}, false)
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(idle), ">"+name+"<"), "two labels are the same")
	}
	for name, s := range map[string]protocol.Series{"busy": busy, "one": one, "idle": {StepMs: 20_000, Steps: make([]protocol.Step, 180)}, "none": {}} {
		for _, c := range drawings {
			light, err := c.draw(s, false)
			require.NoError(t, err, "%s %s", name, c.Name)
			dark, err := c.draw(s, true)
			require.NoError(t, err)
			require.NotEqual(t, light, dark)
			again, err := c.draw(s, false)
			require.NoError(t, err)
			require.Equal(t, string(light), string(again))
			in := xml.NewDecoder(bytes.NewReader(light))
			for {
				token, err := in.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				require.NoError(t, err, "%s %s", name, c.Name)
				if e, ok := token.(xml.StartElement); ok {
					require.NotEqual(t, "script", e.Name.Local)
				}
			}
			require.NotContains(t, string(light), "NaN")
			if dir := os.Getenv("BEACON_SCREENSHOTS"); dir != "" {
				require.NoError(t, os.MkdirAll(dir, 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(dir, "chart-"+c.Name+"-"+name+".svg"), light, 0o600))
				require.NoError(t, os.WriteFile(filepath.Join(dir, "chart-"+c.Name+"-"+name+"-dark.svg"), dark, 0o600))
			}
		}
	}
}
