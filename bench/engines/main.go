// Engines compares what one work item costs with Beacon and with other ways to
// run WebAssembly from Go: everything in one run, on the same three guests,
// which do the same work. `bash bench/run engines` builds the guests and runs it.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// input is the item: some 200 bytes of JSON.
var input = []byte(`{"id":"b3b0f7c2-6c1f-4c55-9d2f-0d5e8f5a9a10","tags":["alpha","beta","gamma"],"n":42,"text":"the quick brown fox jumps over the lazy dog and then does it again because two hundred bytes is a lot"}`)

// answer is in what every guest returns.
var answer = []byte("JUMPS OVER THE LAZY DOG")

// A contender does n items, one after the other. It may be called by as many
// goroutines at the same time as it was made for.
type contender func(n int) error

// A row is one way to run a guest.
type row struct {
	name string
	// isolation is what an item finds of the one before.
	isolation string
	// make prepares it for so many goroutines; close is called at the end.
	make  func(guest string, goroutines int) (contender, func(), error)
	pairs bool // also measured with two goroutines
	slow  bool // costs milliseconds
	once  bool // is the same for all guests
}

var (
	guests = flag.String("guests", "", "folder with the built guests")
	rounds = flag.Int("rounds", 5, "rounds, of which the median is shown")
	only   = flag.String("only", "", "rows to measure, a regular expression")
	names  = flag.String("guest", "tiny c go", "guests to measure")
	part   = flag.String("part", "all", "all, items, memory or start")
	child  = flag.String("child", "", "a measurement in a process of its own")
	counts = flag.String("counts", "100 1000 10000", "instances to have at a time")
	spend  = flag.Duration("time", 200*time.Millisecond, "of a measurement")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	if *guests == "" {
		log.Fatal("-guests: which folder are they in?")
	}
	if *child != "" {
		inChild(*child)
		return
	}
	if *part == "all" || *part == "items" {
		items()
	}
	if *part == "all" || *part == "memory" {
		memory()
	}
	if *part == "all" || *part == "start" {
		start()
	}
}

// wasm reads a guest for one of the interfaces.
func wasm(guest, abi string) ([]byte, error) {
	return os.ReadFile(filepath.Join(*guests, guest+"-"+abi+".wasm"))
}

// checked is an error if the answer is not what it should be.
func checked(out []byte, err error) error {
	if err == nil && !bytes.Contains(out, answer) {
		err = fmt.Errorf("the answer is %q", out)
	}
	return err
}

// elsewhere is the time on the processor of a process that still runs, as far as
// it has told.
var elsewhere atomic.Int64

// processor is the time that this process and those it has waited for have
// spent on the processor.
func processor() time.Duration {
	total := time.Duration(elsewhere.Load())
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err == nil {
			total += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return total
}

// A sample is what one item takes.
type sample struct{ cpu, wall time.Duration }

// run does n items in so many goroutines.
func (c contender) run(n, goroutines int) (sample, error) {
	goruntime.GC()
	failed := make([]error, goroutines)
	begin, cpu := time.Now(), processor()
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() { failed[g] = c(n / goroutines) })
	}
	all.Wait()
	s := sample{processor() - cpu, time.Since(begin)}
	n = n / goroutines * goroutines
	s.cpu /= time.Duration(n)
	s.wall /= time.Duration(n)
	for _, err := range failed {
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// A series is a row's samples on one guest.
type series struct {
	row        row
	goroutines int
	do         contender
	close      func()
	n          int
	samples    []sample
	err        error
}

func (s *series) prepare(guest string) {
	if s.do, s.close, s.err = s.row.make(guest, s.goroutines); s.err != nil {
		return
	}
	// Warm, and find out how many items there is time for.
	for range 3 {
		if _, s.err = s.do.run(s.goroutines, s.goroutines); s.err != nil {
			return
		}
	}
	for s.n = s.goroutines; ; s.n *= 2 {
		var x sample
		if x, s.err = s.do.run(s.n, s.goroutines); s.err != nil {
			return
		}
		if took := x.wall * time.Duration(s.n); took > *spend/4 {
			s.n = max(s.goroutines, int(float64(s.n)*float64(*spend)/float64(took)))
			return
		}
	}
}

// best is the least time on the processor: others on the machine only add to it.
func (s *series) best() time.Duration {
	return slices.MinFunc(s.samples, func(a, b sample) int { return int(a.cpu - b.cpu) }).cpu
}

func (s *series) median(of func(sample) time.Duration) time.Duration {
	all := make([]time.Duration, len(s.samples))
	for i, x := range s.samples {
		all[i] = of(x)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func items() {
	wanted := regexp.MustCompile(*only)
	for _, guest := range strings.Fields(*names) {
		fmt.Printf("\n### %s\n\n| | processor us | best | wall us | two at once: processor, best | wall us | the next item finds |\n|---|---|---|---|---|---|---|\n", guest)
		var all []*series
		for _, r := range rows() {
			if !wanted.MatchString(r.name) || r.once && guest != "tiny" {
				continue
			}
			for _, goroutines := range []int{1, 2} {
				if goroutines == 1 || r.pairs {
					all = append(all, &series{row: r, goroutines: goroutines})
				}
			}
		}
		for _, s := range all {
			if s.prepare(guest); s.err != nil {
				log.Printf("%s, %s: %v", guest, s.row.name, s.err)
			}
		}
		// In turn, so that what else the machine does meets all of them.
		for range *rounds {
			for _, s := range all {
				if s.err != nil {
					continue
				}
				var x sample
				if x, s.err = s.do.run(s.n, s.goroutines); s.err != nil {
					log.Printf("%s, %s: %v", guest, s.row.name, s.err)
				}
				s.samples = append(s.samples, x)
			}
		}
		for i, s := range all {
			if s.close != nil {
				s.close()
			}
			if s.err != nil || s.goroutines > 1 {
				continue
			}
			pair := " | "
			if i+1 < len(all) && all[i+1].goroutines == 2 && all[i+1].err == nil {
				two := all[i+1]
				pair = show(two.median(sample.ofCPU)) + ", " + show(two.best()) + " | " + show(two.median(sample.ofWall))
			}
			fmt.Printf("| %s | %s | %s | %s | %s | %s |\n", s.row.name,
				show(s.median(sample.ofCPU)), show(s.best()), show(s.median(sample.ofWall)), pair, s.row.isolation)
		}
		debug.FreeOSMemory()
	}
}

func (s sample) ofCPU() time.Duration  { return s.cpu }
func (s sample) ofWall() time.Duration { return s.wall }

// show gives microseconds with three digits.
func show(d time.Duration) string {
	us := float64(d.Nanoseconds()) / 1000
	switch {
	case us < 10:
		return fmt.Sprintf("%.2f", us)
	case us < 100:
		return fmt.Sprintf("%.1f", us)
	}
	return fmt.Sprintf("%.0f", us)
}

// rows are all of them.
func rows() []row {
	return slices.Concat(beaconRows(), wazeroRows(), extismRows(), wasmtimeRows(), processRows())
}
