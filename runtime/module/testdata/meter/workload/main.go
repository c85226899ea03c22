// Command workload is what the overhead of metering is measured with. Its
// argument names the work, and it prints a sum of the results.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"sort"
	"strings"
	"text/template"
)

type record struct {
	Name   string
	Number int
	Values []float64
	Inner  map[string]string
}

var random = rand.New(rand.NewPCG(1, 2))

func records(n int) []record {
	list := make([]record, n)
	for i := range list {
		list[i] = record{fmt.Sprint("name ", random.IntN(1000)), random.Int(), []float64{random.Float64(), random.Float64()}, map[string]string{"a": "b", "c": "d"}}
	}
	return list
}

func text(n int) []byte {
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "user%d@example.com visited /path/%d at %d:%d\n", random.IntN(100), random.IntN(1000), random.IntN(24), random.IntN(60))
	}
	return b.Bytes()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

var work = map[string]func() int{
	"json": func() (sum int) {
		list := records(500)
		for range 10 {
			raw, err := json.Marshal(list)
			must(err)
			var again []record
			must(json.Unmarshal(raw, &again))
			sum += len(raw) + len(again)
		}
		return sum
	},
	"sort": func() (sum int) {
		for range 10 {
			list := records(5000)
			sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
			sum += list[0].Number & 15
		}
		return sum
	},
	"sha256": func() int {
		sum := sha256.Sum256(bytes.Repeat([]byte("0123456789abcdef"), 1<<18))
		return int(sum[0])
	},
	"regexp": func() int {
		return len(regexp.MustCompile(`[a-z]+(\d+)@\w+\.com.*/(\d+)`).FindAllSubmatch(text(200_000), -1))
	},
	"gzip": func() int {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, err := w.Write(text(500_000))
		must(err)
		must(w.Close())
		r, err := gzip.NewReader(&b)
		must(err)
		n, err := io.Copy(io.Discard, r)
		must(err)
		return int(n)
	},
	"csv": func() (sum int) {
		lines := strings.Repeat("a,\"b, c\",12345,some more text,\n", 20_000)
		list, err := csv.NewReader(strings.NewReader(lines)).ReadAll()
		must(err)
		return len(list)
	},
	"template": func() int {
		var b bytes.Buffer
		t := template.Must(template.New("").Parse(`{{range .}}{{.Name}}: {{.Number}}{{range .Values}} {{printf "%.2f" .}}{{end}}{{"\n"}}{{end}}`))
		list := records(2000)
		for range 3 {
			must(t.Execute(&b, list))
		}
		return b.Len()
	},
	// As deep as the standard library lets anybody go.
	"nested": func() int {
		const depth = 10_000
		var v any
		must(json.Unmarshal([]byte(strings.Repeat("[", depth)+strings.Repeat("]", depth)), &v))
		raw, err := json.Marshal(v)
		must(err)
		return len(raw)
	},
	"image": func() (sum int) {
		const size = 600
		pixels := make([]byte, size*size*4)
		for i := range pixels {
			pixels[i] = byte(i * i)
		}
		for range 10 {
			for y := range size / 2 {
				for x := range size / 2 {
					for c := range 4 {
						at := (2*y*size+2*x)*4 + c
						sum += (int(pixels[at]) + int(pixels[at+4]) + int(pixels[at+size*4]) + int(pixels[at+size*4+4])) / 4
					}
				}
			}
		}
		return sum
	},
}

func main() {
	f, ok := work[os.Args[1]]
	if !ok {
		os.Exit(2)
	}
	fmt.Println(f())
}
