// Command generate makes up readings of weather stations, as CSV: the data that
// the example works on. The same seed makes the same file.
//
//	go run ./generate -rows 9000 -o data/readings.csv
//	go run ./generate -size 1GB -o big.csv
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("generate", flag.ContinueOnError)
	flags.SetOutput(stderr)
	rows := flags.Int64("rows", 0, "how many rows; 0 is no limit")
	size := flags.String("size", "", "about how many bytes, such as 1GB or 64MiB; the last row is whole")
	seed := flags.Uint64("seed", 1, "what to begin the random numbers with")
	output := flags.String("o", "", "the `file` to write; standard output when left out")
	if err := flags.Parse(args); err != nil {
		return err
	}
	limit := int64(math.MaxInt64)
	if *size != "" {
		if limit, err = parseSize(*size); err != nil {
			return err
		}
	}
	if *rows <= 0 {
		if *size == "" {
			return errors.New("say how much: -rows or -size")
		}
		*rows = math.MaxInt64
	}
	if *output == "" {
		return Generate(stdout, *seed, *rows, limit)
	}
	f, err := os.Create(*output)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return Generate(f, *seed, *rows, limit)
}

func parseSize(s string) (int64, error) {
	for _, unit := range []struct {
		name  string
		bytes float64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}} {
		if digits, ok := strings.CutSuffix(s, unit.name); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
			if err != nil || !(n >= 1) || n*unit.bytes > 1<<50 {
				break
			}
			return int64(n * unit.bytes), nil
		}
	}
	return 0, fmt.Errorf("size %q: want a number and B, KB, MB, GB, KiB, MiB or GiB", s)
}

// What observers write. Empty most of the time.
var notes = []string{
	"sensor cleaned", "fog, visibility below 100 m", `gauge reads "low"`, "snow on the mast",
	"storm damage, wind vane replaced", "données vérifiées", "测量正常", "gust > 20 m/s", "battery 12.1 V; ok",
	"\"checked\"\nsecond visit", "ice; reading estimated", "Δ to reference 0.3 °C",
}

// A station is a place with a climate of its own.
type station struct {
	code                        []byte
	warmth, swing, wet, exposed float64
}

const stations = 240

// Generate writes a header and rows of readings to w, until there are as many,
// or so many bytes. Every station reports every ten minutes.
func Generate(w io.Writer, seed uint64, rows, size int64) error {
	random := rand.New(rand.NewPCG(seed, 0x7265616464696e67)) //nolint:gosec // data, not secrets
	places := make([]station, stations)
	for i := range places {
		places[i] = station{
			code:   fmt.Appendf(nil, "ST-%04d", 100+i*37),
			warmth: 4 + 14*random.Float64(), swing: 3 + 7*random.Float64(),
			wet: random.Float64(), exposed: 1 + 9*random.Float64(),
		}
	}
	buf := make([]byte, 0, 1<<20)
	buf = append(buf, "time,station,temperature,humidity,wind,rain,quality,note\n"...)
	written := int64(0)
	now := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	var stamp []byte
	var season, hour float64
	for row := int64(0); row < rows && written+int64(len(buf)) < size; row++ {
		if len(buf) > cap(buf)-512 {
			n, err := w.Write(buf)
			written += int64(n)
			if err != nil {
				return err
			}
			buf = buf[:0]
		}
		place := &places[row%stations]
		if row%stations == 0 {
			stamp = now.AppendFormat(stamp[:0], time.RFC3339)
			season = -math.Cos(2 * math.Pi * float64(now.YearDay()) / 365.25)
			hour = -math.Cos(2 * math.Pi * float64(now.Hour()*60+now.Minute()-180) / 1440)
			now = now.Add(10 * time.Minute)
		}
		// One draw of 64 bits is enough for a row's numbers.
		bits := random.Uint64()
		draw := func(n uint) float64 {
			v := float64(bits&(1<<n-1)) / float64(uint64(1)<<n)
			bits >>= n
			return v
		}
		temperature := place.warmth + 9*season + place.swing/2*hour + 4*(draw(10)-0.5)
		humidity := math.Min(100, 45+35*place.wet-8*hour+20*draw(8))
		gust := draw(10)
		wind := place.exposed * (0.3 + 2*gust*gust*gust)
		rain := 0.0
		if shower := draw(10); shower < 0.12*place.wet {
			rain = 40 * shower
		}
		odd := int(draw(12) * 4096)

		buf = append(buf, stamp...)
		buf = append(buf, ',')
		buf = append(buf, place.code...)
		buf = append(buf, ',')
		if odd%101 != 0 { // now and then the sensor says nothing
			buf = appendTenths(buf, temperature)
		}
		buf = append(buf, ',')
		buf = strconv.AppendInt(buf, int64(humidity), 10)
		buf = append(buf, ',')
		buf = appendTenths(buf, wind)
		buf = append(buf, ',')
		buf = appendTenths(buf, rain)
		buf = append(buf, ',', "AAAAAAAAAAAABBCD"[odd&15], ',')
		if odd%41 == 0 {
			buf = appendField(buf, notes[odd/41%len(notes)])
		}
		buf = append(buf, '\n')
	}
	_, err := w.Write(buf)
	return err
}

// appendTenths writes a number with one decimal.
func appendTenths(b []byte, f float64) []byte {
	n := int64(math.Round(f * 10))
	if n < 0 {
		b = append(b, '-')
		n = -n
	}
	b = strconv.AppendInt(b, n/10, 10)
	return append(b, '.', byte('0'+n%10))
}

func appendField(b []byte, s string) []byte {
	if !strings.ContainsAny(s, ",\"\r\n") {
		return append(b, s...)
	}
	b = append(b, '"')
	b = append(b, strings.ReplaceAll(s, `"`, `""`)...)
	return append(b, '"')
}
