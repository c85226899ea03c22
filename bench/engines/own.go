package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

// What is measured in a process of its own: memory, of which nobody else should
// have any, and the first item after the start.

// A report is what a child tells.
type report struct {
	Hot, Cooled, Tables float64 // KiB an instance
	Wall, CPU           time.Duration
}

func inChild(what string) {
	words := strings.Fields(what)
	var r report
	var err error
	switch words[0] {
	case "memory":
		n, _ := strconv.Atoi(words[3])
		r, err = instances(words[1], words[2], n)
	case "start":
		r, err = first(words[1], words[2], words[3])
	}
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		log.Fatal(err)
	}
}

func ask(what string) (report, error) {
	var r report
	cmd := exec.Command(os.Args[0], "-guests", *guests, "-child", what)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

// memory shows what instances take that have done an item and wait for the next.
func memory() {
	fmt.Printf("\n### Memory of an idle instance, private KiB\n\n| | instances | after its item | when it has been idle for some seconds | page tables of it |\n|---|---|---|---|---|\n")
	for _, guest := range strings.Fields(*names) {
		for _, engine := range []string{"Beacon", "wazero"} {
			for _, n := range strings.Fields(*counts) {
				if engine == "wazero" && guest == "go" && len(n) > 4 {
					continue // 45 GB
				}
				r, err := ask(strings.Join([]string{"memory", engine, guest, n}, " "))
				if err != nil {
					log.Printf("%s, %s instances of %s: %v", engine, n, guest, err)
					continue
				}
				cooled := ""
				if r.Cooled > 0 {
					cooled = fmt.Sprintf("%.1f", r.Cooled)
				}
				fmt.Printf("| %s, %s | %s | %.1f | %s | %.1f |\n", guest, engine, n, r.Hot, cooled, r.Tables)
			}
		}
	}
}

// A usage is what the process has, in KiB.
type usage struct{ private, tables float64 }

func now() (usage, error) {
	goruntime.GC()
	debug.FreeOSMemory()
	var u usage
	for file, fields := range map[string]map[string]*float64{
		"/proc/self/smaps_rollup": {"Private_Clean:": &u.private, "Private_Dirty:": &u.private},
		"/proc/self/status":       {"VmPTE:": &u.tables},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			return u, err
		}
		for line := range strings.Lines(string(text)) {
			if words := strings.Fields(line); len(words) > 1 && fields[words[0]] != nil {
				kib, err := strconv.ParseFloat(words[1], 64)
				if err != nil {
					return u, err
				}
				*fields[words[0]] += kib
			}
		}
	}
	return u, nil
}

func (u usage) each(n int, before usage) (private, tables float64) {
	return (u.private - before.private) / float64(n), (u.tables - before.tables) / float64(n)
}

func instances(engine, guest string, n int) (report, error) {
	if engine == "wazero" {
		return wazeroInstances(guest, n)
	}
	g, err := newBeacon(guest, "", wasmrt.Pool{Idle: time.Hour})
	if err != nil {
		return report{}, err
	}
	item := func(tenant int) error {
		job := g.job()
		// Each tenant has an instance of its own.
		job.Tenant = strconv.Itoa(tenant)
		_, err := g.module.Run(background, job)
		return err
	}
	if err := item(-1); err != nil {
		return report{}, err
	}
	time.Sleep(4 * time.Second) // for what is made in the background, and cools
	before, err := now()
	if err != nil {
		return report{}, err
	}
	for tenant := range n {
		if err := item(tenant); err != nil {
			return report{}, err
		}
	}
	hot, err := now()
	if err != nil {
		return report{}, err
	}
	var r report
	r.Hot, _ = hot.each(n, before)
	time.Sleep(5 * time.Second)
	cooled, err := now()
	if idle := g.module.Pool().Idle; err == nil && idle < n {
		err = fmt.Errorf("%d instances are there instead of %d", idle, n)
	}
	r.Cooled, r.Tables = cooled.each(n, before)
	return r, err
}

func wazeroInstances(guest string, n int) (report, error) {
	g, err := newWazero(guest, false)
	if err != nil {
		return report{}, err
	}
	all := make([]*wazeroInstance, 0, n)
	one := func() error {
		i, err := g.instance()
		if err != nil {
			return err
		}
		all = append(all, i)
		_, err = i.item(background, nil)
		return err
	}
	if err := one(); err != nil {
		return report{}, err
	}
	before, err := now()
	if err != nil {
		return report{}, err
	}
	for range n {
		if err := one(); err != nil {
			return report{}, err
		}
	}
	after, err := now()
	var r report
	r.Hot, r.Tables = after.each(n, before)
	goruntime.KeepAlive(all)
	return r, err
}

// start shows how long the first item takes after a process has begun.
func start() {
	fmt.Printf("\n### The first item of a new process, loading the module included\n\n| | wall ms | processor ms |\n|---|---|---|\n")
	for _, guest := range strings.Fields(*names) {
		for _, how := range []struct{ name, engine string }{
			{"Beacon", "Beacon"}, {"Beacon, snapshot removed, compiled code there", "compiled"}, {"wazero, its cache", "wazero"},
		} {
			wall, cpu, err := starts(how.engine, guest)
			if err != nil {
				log.Printf("%s, %s: %v", how.name, guest, err)
				continue
			}
			fmt.Printf("| %s, %s | %.1f | %.1f |\n", guest, how.name, milliseconds(wall), milliseconds(cpu))
		}
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func starts(engine, guest string) (wall, cpu time.Duration, err error) {
	dir, err := os.MkdirTemp("", "cache")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	var walls, cpus []time.Duration
	for round := range *rounds + 1 {
		if engine == "compiled" {
			kept, err := filepath.Glob(filepath.Join(dir, "*", "snapshot-*"))
			if err != nil {
				return 0, 0, err
			}
			for _, file := range kept {
				if err := os.Remove(file); err != nil {
					return 0, 0, err
				}
			}
		}
		r, err := ask(strings.Join([]string{"start", engine, guest, dir}, " "))
		if err != nil {
			return 0, 0, err
		}
		if round > 0 { // the first one fills the cache
			walls, cpus = append(walls, r.Wall), append(cpus, r.CPU)
		}
	}
	slices.Sort(walls)
	slices.Sort(cpus)
	return walls[len(walls)/2], cpus[len(cpus)/2], nil
}

// first does an item and ends. The time is that since the process began its work.
func first(engine, guest, dir string) (report, error) {
	begin, cpu := time.Now(), processor()
	if engine == "wazero" {
		return firstOfWazero(guest, dir, begin, cpu)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return report{}, err
	}
	g, err := newBeacon(guest, dir, wasmrt.Pool{})
	if err != nil {
		return report{}, err
	}
	result, err := g.module.Run(background, g.job())
	r := report{Wall: time.Since(begin), CPU: processor() - cpu}
	if err == nil {
		raw, _ := result.Outputs[beacon.OutputResult].(json.RawMessage)
		err = checked(raw, nil)
	}
	// What it leaves for the next process is written meanwhile.
	g.close()
	return r, err
}

func firstOfWazero(guest, dir string, begin time.Time, cpu time.Duration) (report, error) {
	binary, err := wasm(guest, "plain")
	if err != nil {
		return report{}, err
	}
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return report{}, err
	}
	r := wazero.NewRuntimeWithConfig(background, wazero.NewRuntimeConfig().WithCompilationCache(cache))
	wasi_snapshot_preview1.MustInstantiate(background, r)
	code, err := r.CompileModule(background, binary)
	if err != nil {
		return report{}, err
	}
	g := &wazeroGuest{r, code, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize")}
	i, err := g.instance()
	if err != nil {
		return report{}, err
	}
	err = checked(i.item(background, nil))
	return report{Wall: time.Since(begin), CPU: processor() - cpu}, err
}
