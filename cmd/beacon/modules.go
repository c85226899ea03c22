package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/origin"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox"
)

// folders are the places that a beacon keeps files in.
type folders struct {
	compiled string // native code of modules
	modules  string // modules from elsewhere
	built    string // modules built from source
	staging  string // directories of work items
	outbox   string // results that no server has yet
}

// locate finds the folders, all below the user's cache directory unless
// BEACON_CACHE_DIR names another; staging may be elsewhere.
func locate(staging string) (folders, error) {
	staging = cmp.Or(staging, os.Getenv("BEACON_STAGING_PATH"))
	base := os.Getenv("BEACON_CACHE_DIR")
	if base == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return folders{}, usagef("there is no place for caches: %w; set BEACON_CACHE_DIR", err)
		}
		base = filepath.Join(cache, "beacon")
	}
	if staging == "" {
		staging = filepath.Join(base, "staging")
	}
	return folders{
		compiled: filepath.Join(base, "compiled"),
		modules:  filepath.Join(base, "modules"),
		built:    filepath.Join(base, "built"),
		staging:  staging,
		outbox:   filepath.Join(base, "outbox"),
	}, nil
}

// A loaded module, and the folder that its example files are relative to.
type loaded struct {
	*wasmrt.Module
	folder string
	from   origin.Module
}

// load brings a module to life from wherever it is.
func load(ctx context.Context, rt *wasmrt.Runtime, dirs folders, p providerConfig, g *guard) (loaded, error) {
	from, err := g.bring(ctx, dirs, p)
	if err != nil {
		return loaded{}, err
	}
	return enliven(ctx, rt, p, g, from)
}

// enliven loads a module that was brought.
func enliven(ctx context.Context, rt *wasmrt.Runtime, p providerConfig, g *guard, from brought) (loaded, error) {
	src, err := p.source(g, from)
	if err != nil {
		return loaded{}, err
	}
	m, err := rt.Load(ctx, src)
	if err != nil {
		return loaded{}, err
	}
	return loaded{m, from.folder, from.Module}, nil
}

// source is a module that was brought, as the provider wants it.
func (p providerConfig) source(g *guard, from brought) (wasmrt.Source, error) {
	pool, err := p.Instances.pool()
	if err != nil {
		return wasmrt.Source{}, usagef("provider %s: %w", p.Source, err)
	}
	return wasmrt.Source{
		Name: from.Name, Binary: from.Binary, Config: p.Config, Limits: p.limits(), Admit: g.admit(p, from.Module),
		Pool: pool, WarmUp: p.WarmUp,
	}, nil
}

// A runnable module has a name, and is closed after its last item.
type runnable interface {
	Name() string
	Close(ctx context.Context) error
}

// loadIsolated brings a module to life whose items run in this process, or, if the
// guard says so, in those of their tenants.
func loadIsolated(ctx context.Context, box *sandbox.Sandbox, dirs folders, p providerConfig, g *guard) (m runnable, provider beacon.Provider, folder string, err error) {
	if !g.isolated {
		l, err := load(ctx, box.Runtime(), dirs, p, g)
		if err != nil {
			return nil, nil, "", err
		}
		if p.profiled != nil {
			p.profiled(l.Module)
		}
		return l, p.recorded(l), l.folder, nil
	}
	from, err := g.bring(ctx, dirs, p)
	if err != nil {
		return nil, nil, "", err
	}
	src, err := p.source(g, from)
	if err != nil {
		return nil, nil, "", err
	}
	isolated, err := box.Load(ctx, src)
	if err != nil {
		return nil, nil, "", err
	}
	return isolated, isolated, from.folder, nil
}

// maxModule is more than any module that the runtime takes; what is larger is
// not read.
const maxModule = 1 << 30

// unwrapPath takes the path out of an error whose message names it already.
func unwrapPath(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// A byteSize is a flag with a number of bytes: 512K, 64MiB, 1GB, 1073741824.
type byteSize int64

func (b *byteSize) Type() string { return "size" }

func (b *byteSize) String() string {
	switch n := int64(*b); {
	case n == 0:
		return ""
	case n%(1<<30) == 0:
		return fmt.Sprintf("%dG", n>>30)
	case n%(1<<20) == 0:
		return fmt.Sprintf("%dM", n>>20)
	default:
		return strconv.FormatInt(n, 10)
	}
}

// Set reads units as powers of 1024, whichever way they are written.
func (b *byteSize) Set(text string) error {
	digits := strings.TrimRight(strings.ToUpper(text), "KMGTIB")
	unit := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(text[len(digits):]), "B"), "I")
	shift, ok := map[string]int{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n <= 0 || n > 1<<62>>shift {
		return fmt.Errorf("%q is not a size: want a number and K, M or G, such as 64M", text)
	}
	*b = byteSize(n << shift)
	return nil
}

// moduleFlags are those of all commands that load modules.
type moduleFlags struct {
	memory  byteSize
	all     byteSize // memory of all guests
	fuel    int64
	config  string
	noCache bool
	// What a module may take to be compiled and initialised.
	registerTime   time.Duration
	registerMemory byteSize
	grants         []string
	policy         string
}

func (f *moduleFlags) register(flags *pflag.FlagSet) {
	flags.Var(&f.memory, "memory", "memory that a module may use (default 256M)")
	flags.Var(&f.all, "guest-memory", "memory that all modules together may use (default three quarters of the machine's)")
	flags.Int64Var(&f.fuel, "fuel", 0, "instructions that a module may execute for an item, counted exactly, which is slower (default no limit)")
	flags.StringVar(&f.config, "config-json", "", "configuration that the module can read, a JSON object")
	flags.StringArrayVar(&f.grants, "grant", nil, `a permission for the module, such as "http GET https://api.example.com/v1", "call LLM/ChatCompletion" or "secret NAME"; "wanted" is all that it asks for; may be repeated`)
	flags.StringVar(&f.policy, "policy", "", "file with the operator's policy: tenants, secrets, signatures")
	flags.DurationVar(&f.registerTime, "register-time", 30*time.Second, "what a module may take of the processor to be compiled and initialised; ten times that on the clock")
	flags.Var(&f.registerMemory, "register-memory", "memory that a module may take to be compiled, besides its own (default 1G)")
	flags.BoolVar(&f.noCache, "no-cache", false, "compile the module anew, and do not keep it")
}

// sandbox is what modules are made ready in. It is to be closed after the last
// of them.
func (f *moduleFlags) sandbox(dirs folders, log *slog.Logger) (*sandbox.Sandbox, error) {
	return f.sandboxOf(dirs, log, 1, nil)
}

// sandboxOf is one whose processes for items share the memory, and find the items'
// directories in folders of their tenants.
func (f *moduleFlags) sandboxOf(dirs folders, log *slog.Logger, shares int, folder func(string) (string, func() error, error)) (*sandbox.Sandbox, error) {
	if f.registerTime < 0 {
		return nil, usagef("--register-time %s: want a time above zero, such as 30s", f.registerTime)
	}
	cfg := sandbox.Config{
		Runtime:      wasmrt.Config{CacheDir: dirs.compiled, Memory: int64(f.all), Budget: account{}, Log: log},
		RegisterTime: 10 * f.registerTime, RegisterCPU: f.registerTime, RegisterMemory: int64(f.registerMemory),
		Shares: shares, Folder: folder,
	}
	if f.noCache {
		cfg.Runtime.CacheDir = ""
	}
	s, err := sandbox.New(cfg)
	if err != nil {
		return nil, usage(err)
	}
	return s, nil
}

// account charges what guests execute to their item.
type account struct{}

func (account) Spend(ctx context.Context, job *beacon.Job, instructions int64) error {
	return job.Account.Spend(ctx, beacon.Usage{Fuel: uint64(max(0, instructions))}) //nolint:gosec // not negative
}

func (f *moduleFlags) settings() (beacon.Settings, error) {
	if f.memory > 4<<30 {
		return nil, usagef("--memory %s: a module can have 4G at most", f.memory.String())
	}
	if f.fuel < 0 {
		return nil, usagef("--fuel %d: want a number of instructions", f.fuel)
	}
	if f.config == "" {
		return nil, nil
	}
	s, err := parseObject([]byte(f.config))
	if err != nil {
		return nil, usagef("--config-json: %w", err)
	}
	return s, nil
}
