package table_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/examples/wasm/transform/table"
)

// What encoding/csv reads without complaint is read as the same table here, and
// what is written is read back the same by encoding/csv.
func FuzzCSV(f *testing.F) {
	for _, seed := range []string{
		"a,b\n1,2\n", "a,b\r\n\"1\"\"\",\"x\ny\"\r\n\n", "a\n\"\"\n", "a,\"b,c\"\n , \n", "\"a\",b\r\n1,\r", "a;b|c\n\tx,y,z\n",
		"a,b\n\"x\"y,1\n", "a\n\"\r\n\"\n", "ab\n\"1", "\r\n\r\n\n1,2\n", "äö,ü\n€,😀\n", "a,b,c,d,e,f,g,h,i,j\n1,22,333,4444,55555,666666,7777777,88888888,999999999,\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		reader := csv.NewReader(strings.NewReader(in))
		reader.FieldsPerRecord = -1
		want, wantErr := reader.ReadAll()
		o := table.Options{From: table.CSV, To: table.CSV, Delimiter: ',', NoHeader: true, NoOutputHeader: true}
		var out bytes.Buffer
		_, err := table.Transform(&out, strings.NewReader(in), o)
		ragged := false
		for i := range want {
			ragged = ragged || len(want[i]) != len(want[0])
		}
		strange := strings.HasPrefix(in, "\ufeff") || strings.HasPrefix(in, "\xff\xfe") || strings.HasPrefix(in, "\xfe\xff") ||
			strings.HasPrefix(in, "\x1f\x8b") || strings.HasPrefix(in, "PK\x03\x04")
		if wantErr != nil || ragged || strange {
			return // they may differ here; that nothing panics is all
		}
		require.NoError(t, err)
		got, err := csv.NewReader(&out).ReadAll()
		require.NoError(t, err)
		require.Equal(t, len(want), len(got))
		for i := range want {
			require.Equal(t, want[i], got[i])
		}
	})
}

// What encoding/json takes for an object is taken here, and nothing else; and
// its values come out the same.
func FuzzJSONLines(f *testing.F) {
	for _, seed := range []string{
		`{"a":1}`, `{"a":"\u00e9\ud83d\ude00\ud800x\n\\\/\""}`, `{"a":[1,{"b":[]}],"c":null,"d":true}`, `{ "a" : -0.5e+3 , "b" : "" }`,
		`{}`, `{"a":01}`, `{"a":1,}`, `{"a":"x`, `{"a":1}x`, `{"a":tru}`, `[1]`, `{"\u0061":1,"a":2}`, "{\"a\":\"\x01\"}", "{\"a\":\"\xff\xfe\"}", `{"":0}`, `{"a":"12345678\"12345678"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		in = strings.Trim(in, " \t\r\n\ufeff")
		if in == "" || strings.ContainsAny(in, "\n") || len(in) > 1<<16 || strings.HasPrefix(in, "\xff\xfe") || strings.HasPrefix(in, "\xfe\xff") ||
			strings.HasPrefix(in, "\x1f\x8b") || strings.HasPrefix(in, "PK\x03\x04") {
			return
		}
		var want map[string]any
		dec := json.NewDecoder(strings.NewReader(in))
		dec.UseNumber()
		wantErr := dec.Decode(&want)
		if wantErr == nil {
			if _, err := dec.Token(); err != io.EOF { //nolint:errorlint // EOF is returned bare
				wantErr = fmt.Errorf("more: %w", err)
			}
		}
		if !json.Valid([]byte(in)) || in[0] != '{' {
			wantErr = fmt.Errorf("not an object")
		}
		var out bytes.Buffer
		_, err := table.Transform(&out, strings.NewReader(in+"\n"), table.Options{From: table.JSONLines, To: table.JSONLines})
		if wantErr != nil {
			require.Error(t, err, in)
			return
		}
		if err != nil && strings.Contains(err.Error(), "nested more than") {
			return
		}
		require.NoError(t, err, in)
		if !utf8.ValidString(in) {
			return // keys that differ only in what is invalid stay apart here
		}
		var got map[string]any
		dec = json.NewDecoder(&out)
		dec.UseNumber()
		require.NoError(t, dec.Decode(&got))
		require.Equal(t, want, got)
	})
}

// Whatever the settings say, they are understood or refused.
func FuzzExpressions(f *testing.F) {
	f.Add("a > 1 and not (b contains 'x')", "c = round(a, 1) & 'x'; d = if(a > 1, b, 'n')", "sum(a) as s, count", "a", "-b", "a=z")
	f.Add("a in (1, 'b') or `b` matches '^x+$'", "c = substr(b, 1, 2)", "min(b), max(c)", "", "*", "")
	f.Add("((a", "c =", "count(", ",", "\"", "=")
	f.Fuzz(func(t *testing.T, filter, derive, aggregate, group, choice, rename string) {
		for _, source := range []string{"a,b\n1,x\n,yy\n-2.5,\n", "{\"a\":1,\"b\":\"x\"}\n{\"b\":null}\n"} {
			var out bytes.Buffer
			stats, err := table.Transform(&out, strings.NewReader(source), table.Options{
				Filter: filter, Derive: derive, Aggregate: aggregate, GroupBy: group, Select: choice, Rename: rename, SkipBad: true,
			})
			if err == nil {
				require.Equal(t, int64(out.Len()), stats.BytesWritten)
			}
		}
	})
}

// Numbers are read and written as strconv does it.
func TestNumbers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // test data
	texts := []string{"0", "-0", "0.1", "1e21", "1e-7", "123456789012345678", "0.000001", "5e-324", "1.7976931348623157e308", "99999999", "-1234567", "1234567.8", ".5", "5.", "+3", "12345678", "-.5", "100000000000", "0.0005"}
	for range 20_000 {
		switch random.IntN(3) {
		case 0:
			texts = append(texts, strconv.FormatFloat(math.Float64frombits(random.Uint64()), 'g', -1, 64))
		case 1:
			texts = append(texts, strconv.FormatFloat(float64(random.IntN(2_000_000)-1_000_000)/1000, 'f', random.IntN(6), 64))
		default:
			texts = append(texts, strconv.FormatFloat(random.NormFloat64()*math.Pow(10, float64(random.IntN(30)-12)), 'f', -1, 64))
		}
	}
	var in strings.Builder
	var want []string
	in.WriteString("a\n")
	for _, text := range texts {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			continue
		}
		in.WriteString(text + "\n")
		format := byte('f')
		if size := math.Abs(f); size < 1e-6 && size > 0 || size >= 1e21 {
			format = 'e'
		}
		out := strconv.FormatFloat(f, format, -1, 64)
		if f == 0 {
			out = "0"
		}
		want = append(want, out)
	}
	got, _, err := transform(t, in.String(), table.Options{Derive: "b = number(a)", Select: "b", NoOutputHeader: true})
	require.NoError(t, err)
	require.Equal(t, want, strings.Split(strings.TrimSuffix(got, "\n"), "\n"))
}

// Values that JSON has no quotes around are exactly those that JSON knows.
func TestBareValues(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // test data
	const alphabet = "0011239-+.eEtx"
	for range 20_000 {
		b := make([]byte, 1+random.IntN(11))
		for i := range b {
			b[i] = alphabet[random.IntN(len(alphabet))]
		}
		want := string(b)
		if !json.Valid(b) {
			want = `"` + want + `"`
		}
		var out bytes.Buffer
		_, err := table.Transform(&out, strings.NewReader(string(b)+"\n"), table.Options{NoHeader: true, Delimiter: ',', To: table.JSONLines})
		require.NoError(t, err)
		require.Equal(t, `{"c1":`+want+"}\n", out.String())
	}
}
