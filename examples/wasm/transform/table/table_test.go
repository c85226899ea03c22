package table_test

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/examples/wasm/transform/table"
)

func transform(t *testing.T, in string, o table.Options) (string, table.Stats, error) {
	t.Helper()
	var out bytes.Buffer
	stats, err := table.Transform(&out, strings.NewReader(in), o)
	require.Equal(t, int64(out.Len()), stats.BytesWritten)
	// However the source is cut into reads, the result is the same.
	var again bytes.Buffer
	_, err2 := table.Transform(&again, iotest.OneByteReader(strings.NewReader(in)), o)
	require.Equal(t, out.String(), again.String())
	require.Equal(t, err, err2)
	return out.String(), stats, err
}

const weather = "station,temperature,wind,note\n" +
	"ST-1,20.5,3,\n" +
	"ST-2,-1.5,12,\"ice, \"\"thin\"\"\"\n" +
	"ST-1,,7,\"two\nlines\"\n" +
	"ST-3,007,0.5,Nebel über Ω\n"

func TestTransform(t *testing.T) {
	tests := map[string]struct {
		in   string
		o    table.Options
		want string
	}{
		"copy":                {weather, table.Options{}, weather},
		"to JSON lines":       {"a,b,c,d,e\n1,007,true,,x\n-2.50,1e5,false,-,1.\n", table.Options{To: table.JSONLines}, `{"a":1,"b":"007","c":true,"d":null,"e":"x"}` + "\n" + `{"a":-2.50,"b":1e5,"c":false,"d":"-","e":"1."}` + "\n"},
		"to JSON, text kept":  {"a,b\n1,\n", table.Options{To: table.JSONLines, KeepText: true}, `{"a":"1","b":""}` + "\n"},
		"from JSON lines":     {`{"a":1.50,"b":"x, \"y\"","c":null,"d":[1, {"e":2}],"f":true}` + "\n", table.Options{To: table.CSV}, "a,b,c,d,f\n1.50,\"x, \"\"y\"\"\",,\"[1, {\"\"e\"\":2}]\",true\n"},
		"JSON lines as is":    {`{"b":12345678901234567890,"a":"\u00e9\ud83d\ude00\/"}` + "\n\n" + `{"a":null}`, table.Options{}, `{"b":12345678901234567890,"a":"é😀/"}` + "\n" + `{"b":null,"a":null}` + "\n"},
		"keys in any order":   {"{\"a\":1,\"b\":2}\n{\"b\":3,\"a\":4}\n", table.Options{To: table.CSV}, "a,b\n1,2\n4,3\n"},
		"repeated key":        {"{\"a\":1,\"a\":2}\n", table.Options{}, "{\"a\":2}\n"},
		"text stays text":     {"{\"a\":\"1\"}\n", table.Options{}, "{\"a\":\"1\"}\n"},
		"key wanted":          {"{\"a\":1}\n{\"b\":2}\n", table.Options{Select: "a, b"}, "{\"a\":1,\"b\":null}\n{\"a\":null,\"b\":2}\n"},
		"byte order mark":     {"\ufeffa,b\n1,2\n", table.Options{}, "a,b\n1,2\n"},
		"CRLF":                {"a,b\r\n1,2\r\n\r\n\"x\",\"y\"\r\n", table.Options{}, "a,b\n1,2\nx,y\n"},
		"CR at the end":       {"a\n1\r", table.Options{}, "a\n1\n"},
		"no line end":         {"a,b\n1,", table.Options{}, "a,b\n1,\n"},
		"quote inside":        {"a,b\n5\" pipe,2\n", table.Options{}, "a,b\n\"5\"\" pipe\",2\n"},
		"space at the front":  {"a,b\n\" x\",2\n", table.Options{}, "a,b\n\" x\",2\n"},
		"one empty column":    {"a\n\"\"\nx\n", table.Options{}, "a\n\"\"\nx\n"},
		"semicolons":          {"a;b\n1,5;2\n", table.Options{}, "a,b\n\"1,5\",2\n"},
		"tabs by name":        {"a\tb\n1\t2\n", table.Options{SourceName: "x.tsv"}, "a\tb\n1\t2\n"},
		"to tabs":             {"a,b\n1,2\n", table.Options{OutputName: "x.tsv"}, "a\tb\n1\t2\n"},
		"other delimiters":    {"a:b\n1:2;\n", table.Options{Delimiter: ':', OutputDelimiter: ';'}, "a;b\n1;\"2;\"\n"},
		"no header":           {"1,2\n3,4\n", table.Options{NoHeader: true, Select: "c2"}, "c2\n2\n4\n"},
		"no header, quotes":   {"\n\"a\"\"b\",2\n", table.Options{NoHeader: true, NoOutputHeader: true}, "\"a\"\"b\",2\n"},
		"select":              {weather, table.Options{Select: "wind, station"}, "wind,station\n3,ST-1\n12,ST-2\n7,ST-1\n0.5,ST-3\n"},
		"leave out":           {weather, table.Options{Select: "-note,-temperature"}, "station,wind\nST-1,3\nST-2,12\nST-1,7\nST-3,0.5\n"},
		"rename":              {"a,b\n1,2\n", table.Options{Rename: "b=x y"}, "a,x y\n1,2\n"},
		"swap":                {"a,b\n1,2\n", table.Options{Rename: "a=b,b=a"}, "b,a\n1,2\n"},
		"derive":              {"a,b\n2,3\n,4\n", table.Options{Derive: "c = a * b + 0.5, d = c > 6, e = a & '-' & b; `f g` = if(a is empty, 'none', a)"}, "a,b,c,d,e,f g\n2,3,6.5,true,2-3,2\n,4,,false,-4,none\n"},
		"derive over":         {"a,b\n2,3\n", table.Options{Derive: "a = a + 1, c = a"}, "a,b,c\n3,3,3\n"},
		"derive to JSON":      {"a\n2\n", table.Options{To: table.JSONLines, Derive: "b = a / 4, c = text(a), d = a = 2, e = a"}, `{"a":2,"b":0.5,"c":"2","d":true,"e":2}` + "\n"},
		"derive then filter":  {"a\n2\n3\n", table.Options{Derive: "b = a * a", Filter: "b > 5"}, "a,b\n3,9\n"},
		"filter before":       {"a\nx\n3\n", table.Options{Derive: "b = a * a", Filter: "a != 'x'"}, "a,b\n3,9\n"},
		"group":               {weather, table.Options{GroupBy: "station", Aggregate: "count, count(temperature) as temps, mean(temperature), max(wind), min(note)"}, "station,count,temps,mean_temperature,max_wind,min_note\nST-1,2,1,20.5,7,\"two\nlines\"\nST-2,1,1,-1.5,12,\"ice, \"\"thin\"\"\"\nST-3,1,1,7,0.5,Nebel über Ω\n"},
		"one group":           {weather, table.Options{Aggregate: "sum(wind), sum(wind * 2) as twice"}, "sum_wind,twice\n22.5,45\n"},
		"group selects":       {weather, table.Options{GroupBy: "station", Select: "count, station", Rename: "count=n"}, "n,station\n2,ST-1\n1,ST-2\n1,ST-3\n"},
		"group to JSON":       {"k,v\n1,2\n1,3\n,4\n", table.Options{To: table.JSONLines, GroupBy: "k", Aggregate: "mean(v) as m"}, `{"k":1,"m":2.5}` + "\n" + `{"k":null,"m":4}` + "\n"},
		"groups keep types":   {`{"k":"1"}` + "\n" + `{"k":1}` + "\n", table.Options{GroupBy: "k"}, `{"k":"1","count":1}` + "\n" + `{"k":1,"count":1}` + "\n"},
		"group by derived":    {"d\n2024-01-02\n2024-02-03\n2024-01-04\n", table.Options{Derive: "m = substr(d, 1, 7)", GroupBy: "m"}, "m,count\n2024-01,2\n2024-02,1\n"},
		"sum is exact":        {"v\n1e16\n1\n-1e16\n", table.Options{Aggregate: "sum(v)"}, "sum_v\n1\n"},
		"header only":         {"a,b\n", table.Options{To: table.CSV}, "a,b\n"},
		"no rows, JSON lines": {"", table.Options{From: table.JSONLines}, ""},
		"empty object":        {"{}\n", table.Options{}, "{}\n"},
		"invalid UTF-8":       {"a\n\xff\n", table.Options{To: table.JSONLines}, "{\"a\":\"\ufffd\"}\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, _, err := transform(t, tt.in, tt.o)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

func TestFilter(t *testing.T) {
	const row = "n,s,e,flag,x.y,größe\n5,Hello World,,true,1,3\n"
	tests := map[string]bool{
		"n = 5": true, "n == 5.0": true, "n != 5": false, "n <> 4": true, "n < 5": false, "n <= 5": true, "n > 4.9": true, "n >= 6": false,
		"5 = n": true, "-n = -5": true, "n + 1 * 2 = 7": true, "(n + 1) * 2 = 12": true, "n % 2 = 1": true, "n - -1 = 6": true,
		"e = 0": false, "e < 1": false, "e != 0": true, "e = ''": true, "e is empty": true, "n is not empty": true, "e + 1 is empty": true,
		"s = 'Hello World'": true, `s = "hello"`: false, "s < 'I'": true, "s contains 'lo W'": true, "s not contains 'x'": true,
		"s startswith 'Hell'": true, "s endswith 'ld'": true, "s matches '^H.*d$'": true, "s matches 'h'": false,
		"n in (1, 5)": true, "s in ('a', 'b')": false, "n not in (1, 2)": true,
		"n = 5 and e = 1": false, "n = 5 or e = 1": true, "not n = 5": false, "n = 4 or n = 5 and flag": true, "!(n = 4) && flag || e": true,
		"flag": true, "flag = true": true, "not flag": false, "n = `x.y` + 4": true, "x.y = 1": true, "größe = 3": true, "n > größe": true,
		"length(s) = 11": true, "lower(s) = 'hello world'": true, "upper('äb') = 'ÄB'": true, "trim('  x ') = 'x'": true,
		"substr(s, 7) = 'World'": true, "substr(s, 1, 2) = 'He'": true, "substr('äöü', 2, 1) = 'ö'": true, "replace(s, 'o', '0') = 'Hell0 W0rld'": true,
		"round(2.45, 1) = 2.5": true, "round(n / 2) = 3": true, "abs(-n) = 5": true, "floor(1.9) = 1": true, "ceil(1.1) = 2": true,
		"coalesce(e, s) = 'Hello World'": true, "coalesce(e + 1, 7) = 7": true, "if(n > 3, 'big', 'small') = 'big'": true,
		"concat(s, '!', n) = 'Hello World!5'": true, "s & n & e = 'Hello World5'": true, "'it''s' = \"it's\"": true, "number('12') = 12": true,
		"n = 5 AND NOT e": true, "1e3 = 1000": true, ".5 = 0.5": true,
	}
	for filter, want := range tests {
		t.Run(filter, func(t *testing.T) {
			got, stats, err := transform(t, row, table.Options{Filter: filter, NoOutputHeader: true})
			require.NoError(t, err)
			require.Equal(t, want, got != "")
			require.Equal(t, int64(1), stats.RowsWritten+stats.RowsFiltered)
		})
	}
}

// Errors say where: row, line, column, or the place in a setting.
func TestErrors(t *testing.T) {
	long := strings.Repeat("x", 3000)
	doubling := "c0 = a"
	for i := range 20 {
		doubling += ", c" + strconv.Itoa(i+1) + " = c" + strconv.Itoa(i) + " & c" + strconv.Itoa(i)
	}
	deep := strings.Repeat("(", 200) + "1" + strings.Repeat(")", 200)
	tests := map[string]struct {
		in   string
		o    table.Options
		want string
	}{
		"field missing":      {"a,b\n1,2\n\"x\ny\",2\n3\n", table.Options{}, "row 3 (line 5): 1 fields, want 2"},
		"field too many":     {"a,b\n1,2,3\n", table.Options{}, "row 1 (line 2): 3 fields, want 2"},
		"quote open":         {"a,b\n1,\"2\n", table.Options{}, "row 1 (line 2), column b: the quote that opens the field is never closed"},
		"after quote":        {"a,b\n\"1\"x,2\n", table.Options{}, "row 1 (line 2), column a: text after the closing quote"},
		"header quote":       {"a,\"b\n1,2\n", table.Options{}, "header (line 1), column 2: the quote"},
		"long":               {"a\n" + long + "\n", table.Options{MaxLine: 2000}, "row 1 (line 2): the row is longer than 2000 bytes: raise MaxLine"},
		"long JSON":          {"{\"a\":1}\n{\"a\":\"" + long + "\"}\n", table.Options{MaxLine: 2000}, "row 2 (line 2): the row is longer"},
		"empty":              {"", table.Options{}, "the source is empty"},
		"two names":          {"a,b,a\n", table.Options{}, `two columns are called "a"`},
		"no number":          {"t\n1\nwarm\n", table.Options{Filter: "t > 0"}, `row 2 (line 3), column t: "warm" is not a number`},
		"no truth":           {"t\nmaybe\n", table.Options{Filter: "t"}, `row 1 (line 2), column t: "maybe" is neither true nor false`},
		"division by zero":   {"t\n0\n", table.Options{Derive: "u = t / 0"}, "row 1 (line 2), column t: the result of / is not a finite number"},
		"sum of text":        {"t\nx\n", table.Options{Aggregate: "sum(t)"}, `row 1 (line 2), column t: "x" is not a number`},
		"too many groups":    {"t\n1\n2\n3\n", table.Options{GroupBy: "t", MaxGroups: 2}, "row 3 (line 4) begins group 3, and MaxGroups is 2"},
		"unknown column":     {"a,b\n", table.Options{Filter: "a = 1 and tmep > 2"}, `Filter, at character 11: there is no column "tmep": there are a, b`},
		"unknown select":     {"a,b\n", table.Options{Select: "a,c"}, `Select: there is no column "c": there are a, b`},
		"unknown rename":     {"a,b\n", table.Options{Rename: "c=d"}, `Rename: there is no column "c"`},
		"rename form":        {"a,b\n", table.Options{Rename: "c"}, "want old=new"},
		"renamed twice":      {"a,b\n", table.Options{Rename: "a=b"}, `two columns of the output are called "b"`},
		"unknown group":      {"a,b\n", table.Options{GroupBy: "c"}, `GroupBy: there is no column "c"`},
		"unknown function":   {"a\n", table.Options{Derive: "b = sqrt(a)"}, `Derive, at character 5: there is no function "sqrt"`},
		"arguments":          {"a\n", table.Options{Derive: "b = round()"}, "Derive, at character 11: unexpected"},
		"too few arguments":  {"a\n", table.Options{Derive: "b = if(a)"}, "if has 1 arguments, want 3"},
		"derive form":        {"a\n", table.Options{Derive: "b"}, "it ends too early: want ="},
		"derived twice":      {"a\n", table.Options{Derive: "b = 1, b = 2"}, `column "b" is computed twice`},
		"trailing":           {"a\n", table.Options{Filter: "a = 1 2"}, "Filter, at character 7: unexpected \"2\""},
		"half":               {"a\n", table.Options{Filter: "a ="}, "it ends too early"},
		"open text":          {"a\n", table.Options{Filter: "a = 'x"}, "Filter, at character 5: a quote is not closed"},
		"strange sign":       {"a\n", table.Options{Filter: "a # 1"}, `unexpected "#"`},
		"bad expression":     {"a\n", table.Options{Filter: "a matches '('"}, "missing closing )"},
		"nesting":            {"a\n", table.Options{Filter: deep}, "nested more than 100 deep"},
		"aggregate":          {"a\n", table.Options{Aggregate: "median(a)"}, "want count, count(x), sum(x)"},
		"aggregate column":   {"a\n", table.Options{Aggregate: "sum"}, "sum wants a column"},
		"same aggregate":     {"a\n", table.Options{Aggregate: "sum(a), sum(a)"}, `are called "sum_a"`},
		"JSON array":         {"[{\"a\":1}]", table.Options{From: table.JSONLines}, "JSON array"},
		"not JSON":           {"{\"a\":1}\n{\"a\":01}\n", table.Options{}, "row 2 (line 2): not JSON"},
		"new key":            {"{\"a\":1}\n{\"b\":2}\n", table.Options{}, "row 2 (line 2), column b: the first row has no such key"},
		"UTF-16":             {"\xff\xfea\x00", table.Options{}, "UTF-16"},
		"gzip":               {"\x1f\x8b\x08", table.Options{}, "gzip"},
		"spreadsheet":        {"PK\x03\x04", table.Options{}, "save it as CSV"},
		"MaxLine":            {"a\n", table.Options{MaxLine: 1 << 30}, "MaxLine is 1073741824"},
		"infinite":           {"t\n1e308\n1e308\n", table.Options{Aggregate: "sum(t)"}, "too large for a number"},
		"select both":        {"a,b\n", table.Options{Select: "a,-b"}, "either names columns to keep"},
		"list":               {"a,b\n", table.Options{Select: "a,,b"}, "Select: a name is empty"},
		"too many words":     {"a\n", table.Options{Filter: "a" + strings.Repeat(" & a", 5000)}, "Filter has more than 4000 words"},
		"text that doubles":  {"a\n" + long + "\n", table.Options{Derive: doubling}, "more than 64 MiB of text"},
		"group in one field": {"k,v\n1,x\n", table.Options{GroupBy: "k", Aggregate: "mean(v) as m"}, "column v"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := transform(t, tt.in, tt.o)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestSkip(t *testing.T) {
	in := "a,b\n1,2\n3\n4,5,6\n\"7\"x,8\n9,10\n" + strings.Repeat("z", 5000) + "\nx,12\n13,14\n\"15,16\n17,18\n"
	var skipped []string
	got, stats, err := transform(t, in, table.Options{SkipBad: true, MaxLine: 4000, Derive: "c = a + b", OnSkip: func(bad *table.RowError) { skipped = append(skipped, bad.Error()) }})
	require.NoError(t, err)
	require.Equal(t, "a,b,c\n1,2,3\n9,10,19\n13,14,27\n17,18,35\n", got)
	require.Equal(t, int64(6), stats.RowsSkipped)
	require.Equal(t, int64(10), stats.RowsRead)
	require.Equal(t, int64(4), stats.RowsWritten)
	require.Len(t, skipped, 12) // read twice
	require.Equal(t, `row 7 (line 8), column a: "x" is not a number`, skipped[4])

	got, stats, err = transform(t, "nonsense\n{\"a\":1}\n{\"a\":}\n{\"a\":2}\n", table.Options{From: table.JSONLines, To: table.CSV, SkipBad: true})
	require.NoError(t, err)
	require.Equal(t, "a\n1\n2\n", got)
	require.Equal(t, int64(2), stats.RowsSkipped)
	require.Equal(t, int64(4), stats.RowsRead)
}

// A wrong row must not count in part.
func TestSkipInGroups(t *testing.T) {
	got, _, err := transform(t, "k,v\na,1\na,x\nb,y\n", table.Options{SkipBad: true, GroupBy: "k", Aggregate: "count, sum(v)"})
	require.NoError(t, err)
	require.Equal(t, "k,count,sum_v\na,1,1\n", got)
}

func TestProgressAndCancel(t *testing.T) {
	in := "a\n" + strings.Repeat("0123456789012345678901234567890\n", 1<<20) // 32 MiB
	var seen []table.Stats
	o := table.Options{OnProgress: func(s table.Stats) error { seen = append(seen, s); return nil }}
	stats, err := table.Transform(io.Discard, strings.NewReader(in), o)
	require.NoError(t, err)
	require.Equal(t, int64(1<<20), stats.RowsWritten)
	require.Equal(t, int64(len(in)), stats.BytesRead)
	require.GreaterOrEqual(t, len(seen), 7)
	for i := 1; i < len(seen); i++ {
		require.Greater(t, seen[i].RowsRead, seen[i-1].RowsRead)
		require.Greater(t, seen[i].BytesRead, seen[i-1].BytesRead)
	}
	stop := errors.New("stop")
	o.OnProgress = func(table.Stats) error { return stop }
	stats, err = table.Transform(io.Discard, strings.NewReader(in), o)
	require.ErrorIs(t, err, stop)
	require.Less(t, stats.BytesRead, int64(6<<20))
}

func TestSourceAndOutputFail(t *testing.T) {
	broken := errors.New("disk on fire")
	_, err := table.Transform(io.Discard, io.MultiReader(strings.NewReader("a\n1\n"), iotest.ErrReader(broken)), table.Options{})
	require.ErrorContains(t, err, "read the source after 4 bytes: disk on fire")
	_, err = table.Transform(failing{broken}, strings.NewReader("a\n1\n"), table.Options{})
	require.ErrorContains(t, err, "write the output: disk on fire")
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// Fields and rows longer than the buffers.
func TestLarge(t *testing.T) {
	field := strings.Repeat("Zeile, mit \"Zitat\"\nund Ü ", 40_000) // 1 MB
	in := "a,b\n\"" + strings.ReplaceAll(field, `"`, `""`) + "\",1\n"
	var json, back bytes.Buffer
	_, err := table.Transform(&json, strings.NewReader(in), table.Options{To: table.JSONLines, MaxLine: 8 << 20})
	require.NoError(t, err)
	_, err = table.Transform(&back, &json, table.Options{To: table.CSV, MaxLine: 8 << 20})
	require.NoError(t, err)
	require.Equal(t, in, back.String())
}

// The inner loop allocates nothing: a hundred times the rows, no more memory.
func TestAllocations(t *testing.T) {
	options := map[string]table.Options{
		"csv":   {Filter: "b > 1 and a contains 'x'", Derive: "c = round(b * 1.5, 1), d = upper(a)", Select: "d, c, b"},
		"json":  {To: table.JSONLines},
		"group": {GroupBy: "a", Aggregate: "count, mean(b), max(a)"},
	}
	for name, o := range options {
		t.Run(name, func(t *testing.T) {
			allocations := func(rows int) float64 {
				in := "a,b\n" + strings.Repeat("xyz,12.5\n\"q\"\"x\",3\n", rows)
				return testing.AllocsPerRun(3, func() {
					_, err := table.Transform(io.Discard, strings.NewReader(in), o)
					require.NoError(t, err)
				})
			}
			require.InDelta(t, allocations(100), allocations(10_000), 20)
		})
	}
}

func BenchmarkTransform(b *testing.B) {
	var in bytes.Buffer
	in.WriteString("time,station,temperature,humidity,wind\n")
	for i := range 100_000 {
		in.WriteString("2024-01-01T00:00:00Z,ST-" + strconv.Itoa(i%240) + ",12.5,80,3.4\n")
	}
	for name, o := range map[string]table.Options{
		"Copy": {}, "Convert": {To: table.JSONLines}, "Filter": {Filter: "wind > 12"},
		"Derive": {Derive: "f = round(temperature * 1.8 + 32, 1)"}, "Aggregate": {GroupBy: "station", Aggregate: "count, mean(temperature)"},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(in.Len()))
			for b.Loop() {
				if _, err := table.Transform(io.Discard, bytes.NewReader(in.Bytes()), o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
