// Package runtime runs providers that are WebAssembly modules: it compiles a
// module once and gives every work item an instance of its own, bounded in
// time, memory, files and output. No type of the engine appears in its
// interface.
package runtime

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/runtime/engine"
	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/runtime/profile"
	"github.com/ultravisor/beacon/runtime/source"
)

// DefaultMemory is the linear memory that a guest may have unless told
// otherwise, in bytes.
const DefaultMemory = 256 << 20

// Limits bound a module and each of its runs. Zero fields mean the defaults.
type Limits struct {
	// Memory is the linear memory of one instance in bytes, rounded down to
	// 64 KiB; default DefaultMemory, at most 4 GiB.
	Memory int64
	// Fuel is how many units the guest may use up for one item: instructions, by
	// the table of costs with the version module.CostVersion. The same module and
	// input use the same number on every machine. Counting them exactly makes
	// guests slower than the default, 0, which is no limit: then instructions are
	// counted only well enough to end a guest in time.
	Fuel int64
	// Profile finds out where items spend their fuel, counted exactly: see
	// Module.FuelProfile. It makes guests several times slower.
	Profile bool
	// Describe bounds the time in which a module describes itself when it is
	// loaded; default 10 s.
	Describe time.Duration
	// Initialize bounds the time in which it initialises itself, before there is
	// an item; default 10 s.
	Initialize time.Duration
	// Item bounds what one item hands over, Files what it does with files,
	// Module the binary itself.
	Item   hostfuncs.Limits
	Files  guestfs.Limits
	Module module.Limits
}

// grade is how finely the guest's work must be counted.
func (l Limits) grade() module.Grade {
	if l.Fuel > 0 || l.Profile {
		return module.Exact
	}
	return module.Deadline
}

// Config is what all modules of a Runtime share. The zero value works.
type Config struct {
	// CacheDir keeps compiled modules, so that a module is compiled once per
	// machine and not once per start. What is in it is executed as native code,
	// so it must belong to this user alone. Empty means no cache on disk.
	CacheDir string
	// CacheKey authenticates what is in CacheDir: 32 bytes. By default the key is
	// kept there, too.
	CacheKey []byte
	// Registrar makes modules ready that are not in the cache; nil has Load do it
	// in this process.
	Registrar Registrar
	// Memory is what all guests together may have, in bytes: items wait until
	// there is enough. Default: three quarters of what the machine has, or the
	// group of processes that it is bounded by (Linux); elsewhere 3 GiB.
	Memory int64
	// Engine defaults to engine.Wazero.
	Engine engine.Engine
	// Budget is told what guests use of the processor; nil for none.
	Budget Budget
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// A Runtime loads modules. It is safe for concurrent use.
type Runtime struct {
	cache     *cache
	registrar Registrar
	engine    engine.Engine
	memory    *memoryBudget
	lane      *lane
	budget    Budget
	log       *slog.Logger
}

// New prepares a runtime. A cache directory that others can write to is an
// error.
func New(cfg Config) (*Runtime, error) {
	if cfg.CacheDir != "" {
		if err := private(cfg.CacheDir); err != nil {
			return nil, err
		}
	}
	if cfg.Engine == nil {
		cfg.Engine = engine.Wazero{}
	}
	if cfg.Memory <= 0 {
		cfg.Memory = machineMemory() / 4 * 3
	}
	return &Runtime{
		cache: &cache{dir: cfg.CacheDir, own: cfg.CacheKey}, registrar: cfg.Registrar, engine: cfg.Engine,
		memory: newMemoryBudget(cfg.Memory), lane: newLane(), budget: cfg.Budget, log: cmp.Or(cfg.Log, slog.Default()),
	}, nil
}

// Memory is what all guests together may have, in bytes.
func (r *Runtime) Memory() int64 { return r.memory.total }

// GiveWay says whether guests that take long offer their processor to all other
// threads of the system every 100 us: they still use what nobody else wants. It is
// for a process whose threads are of the lowest class (SCHED_IDLE), on Linux; the
// default is that they do not. It may be called at any time.
func (r *Runtime) GiveWay(on bool) { r.lane.giveWay.Store(on) }

// private makes sure that a directory exists and is ours alone.
func private(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create the compilation cache: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at the compilation cache: %w", err)
	}
	if !info.IsDir() {
		return beacon.Errorf(beacon.Invalid, "compilation cache %s is not a directory", dir)
	}
	if err := checkOwner(dir, info); err != nil {
		return err
	}
	parent, err := os.Stat(filepath.Dir(dir))
	if err != nil {
		return fmt.Errorf("look at the compilation cache: %w", err)
	}
	return checkParent(filepath.Dir(dir), parent)
}

// A Source is where a module comes from and how it is to be run.
type Source struct {
	// Name is the file's name without extension: the capability's name when the
	// module does not say.
	Name   string
	Binary []byte
	// Config is given by the operator and read by the guest.
	Config beacon.Settings
	Limits Limits
	Pool   Pool
	// WarmUp takes the place of the one in the module's manifest; nil leaves that.
	WarmUp *hostfuncs.WarmUp
	// Admit decides about the module once it has said what it wants, and gives
	// what its jobs may reach; an error refuses the module. Without it, and where
	// it gives nil, nothing leads out of a job.
	Admit func(Candidate) (Brokers, error)
}

// A Candidate is a module that asks to be admitted.
type Candidate struct {
	Name   string
	Digest string // SHA-256 in hexadecimal
	// Manifest is what the module says about itself.
	Manifest hostfuncs.Manifest
}

// Brokers give each job of a module its own. One that is a hostfuncs.Tape, too,
// records what is different in each run, or plays it: that is whole where
// instances are Fresh.
type Brokers func(*beacon.Job) hostfuncs.Broker

// entries are the functions of a guest that a host calls.
var entries = []string{
	"_initialize", "beacon_initialize", "beacon_describe", "beacon_execute", "beacon_shutdown", "beacon_reseed", "_start",
}

// Load checks, compiles and describes a module, or takes it from the cache.
// Errors with code beacon.Refused say why the module cannot be run. With a
// Registrar, what is not in the cache is left there by another process first.
func (r *Runtime) Load(ctx context.Context, src Source) (*Module, error) {
	m, err := r.load(ctx, src)
	if err != nil || !src.Limits.Profile {
		return m, err
	}
	if m.profile, err = profile.New(m.name, src.Binary, m.limits.Module); err != nil {
		return nil, errors.Join(m.refusal(err), m.Close(context.WithoutCancel(ctx)))
	}
	return m, nil
}

func (r *Runtime) load(ctx context.Context, src Source) (*Module, error) {
	if r.registrar != nil {
		return r.registerAndOpen(ctx, src)
	}
	m := r.module(src)
	if err := m.makeReady(ctx, src.Binary); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, m.refusal(err)
	}
	return m.finish(ctx, src, r.memory)
}

// module makes a module that has nothing yet.
func (r *Runtime) module(src Source) *Module {
	limits := src.Limits
	limits.Memory = cmp.Or(limits.Memory, DefaultMemory)
	limits.Describe = cmp.Or(limits.Describe, 10*time.Second)
	limits.Initialize = cmp.Or(limits.Initialize, 10*time.Second)
	limits.Memory = min(limits.Memory, 4<<30) / module.PageSize * module.PageSize
	m := &Module{
		name:       beacon.Excerpt(src.Name, 128),
		limits:     limits,
		config:     src.Config,
		poolConfig: src.Pool,
		cache:      r.cache,
		nothing:    guestfs.None(),
		budget:     r.budget,
		log:        r.log,
		engine:     r.engine,
		lane:       r.lane,
	}
	m.args = []string{m.name}
	if src.Binary != nil {
		digest := sha256.Sum256(src.Binary)
		m.digest = hex.EncodeToString(digest[:])
		m.madeOf = m.origin(src)
	}
	return m
}

// refusal words why the module cannot be run.
func (m *Module) refusal(err error) error {
	return beacon.Errorf(beacon.Refused, "module %s: %w", m.name, err)
}

// finish makes a module of what is ready to be instantiated. Without memory it
// gets no instances.
func (m *Module) finish(ctx context.Context, src Source, memory *memoryBudget) (*Module, error) {
	if err := m.describe(ctx); err != nil {
		return nil, errors.Join(err, m.Close(ctx))
	}
	if src.WarmUp != nil {
		m.manifest.WarmUp = src.WarmUp
	}
	if !m.recalled {
		m.base.initialized = !m.initializes()
	}
	if src.Admit != nil {
		var err error
		if m.brokers, err = src.Admit(Candidate{m.name, m.digest, m.manifest}); err != nil {
			return nil, errors.Join(err, m.Close(ctx))
		}
	}
	if memory != nil {
		m.pool = newPool(m, src.Pool, memory)
		m.pool.warm()
	}
	return m, nil
}

// makeReady makes the module ready to be instantiated: as it was kept, or from
// its binary.
func (m *Module) makeReady(ctx context.Context, binary []byte) error {
	if m.recall() {
		err := m.translate(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		m.log.Warn("a kept snapshot cannot be used", "module", m.name, "err", err)
		m.recalled = false
		m.note(m.base.release())
	}
	var err error
	if m.prepared, err = module.Prepare(binary, module.Options{Limits: m.limits.Module, Grade: m.limits.grade(), Profile: m.limits.Profile}, entries...); err != nil {
		return err
	}
	m.facts = m.prepared.Facts
	if m.hasLines = m.prepared.Places != nil; m.hasLines {
		m.lineTable = lineTable{m.prepared.Places, source.Of(binary)}
	}
	if err := m.translate(ctx); err != nil {
		return err
	}
	m.base, err = m.start()
	if m.keepsAll {
		m.data = m.prepared.Data
	}
	// Otherwise nothing of the original binary is to be kept.
	m.prepared.Data, m.facts.Manifest = nil, bytes.Clone(m.facts.Manifest)
	if err != nil {
		return errors.Join(err, m.code.Close(ctx))
	}
	return nil
}

func (m *Module) translate(ctx context.Context) (err error) {
	if m.entry, err = check(m.facts, m.limits.Memory); err != nil {
		return err
	}
	return m.compile(ctx, m.prepared.Binary)
}
