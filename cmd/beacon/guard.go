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
	"slices"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/audit"
	"github.com/ultravisor/beacon/broker"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/origin"
	"github.com/ultravisor/beacon/policy"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/toolchain"
)

// A guard decides which modules are let in, and what each may reach.
type guard struct {
	policy *policy.Policy
	origin *origin.Fetcher
	log    *slog.Logger
	// lock pins modules; nil when there is none. With strict every module must be
	// in it.
	lock   *origin.Lock
	strict bool
	// looking is true where modules are only looked at: nothing is granted then,
	// and nothing refused for want of a permission.
	looking bool
	// serving is true for a worker, which goes on without a module that takes too
	// much to be made ready.
	serving bool
	// isolated is true if items run in processes of their tenants.
	isolated bool
	audit    *audit.Log
	// call carries out calls of providers; it is set once there is an executor.
	call    func(ctx context.Context, job *beacon.Job, c beacon.Call, permit func(capability, action string) error) (beacon.Result, error)
	brokers []*broker.Provider
}

// newGuard makes a guard by the operator's policy.
func newGuard(p *policy.Policy, dirs folders, log *slog.Logger) (*guard, error) {
	fetcher, err := origin.New(origin.Config{CacheDir: dirs.modules, Signatures: p.Signatures, Keys: p.Keys, MaxSize: maxModule, Log: log})
	if err != nil {
		return nil, usagef("policy: %w", err)
	}
	return &guard{policy: p, origin: fetcher, log: log}, nil
}

// close frees what modules' brokers keep.
func (g *guard) close() {
	for _, b := range g.brokers {
		b.Close()
	}
}

// A brought module has been verified; folder is what its example files are
// relative to, "" for one from elsewhere.
type brought struct {
	origin.Module
	folder string
}

// bring fetches a module from where it is, or builds it from the folder of its
// source, and verifies it.
func (g *guard) bring(ctx context.Context, dirs folders, p providerConfig) (brought, error) {
	if origin.IsRemote(p.Source) {
		// What was accepted goes on working while something newer waits to be.
		if m, ok := g.origin.Cached(p.Source, g.lock.Pin(p.Source)); ok && !g.looking && (p.SHA256 == "" || strings.EqualFold(p.SHA256, m.Digest)) {
			return brought{m, ""}, nil
		}
		m, err := g.origin.Fetch(ctx, p.Source, p.SHA256)
		return brought{m, ""}, err
	}
	info, err := os.Stat(p.Source)
	if errors.Is(err, fs.ErrNotExist) {
		return brought{}, usagef("module %s: there is no such file or folder%s", p.Source, packageHint(p.Source))
	}
	if err != nil {
		return brought{}, usagef("module %s: %w", p.Source, unwrapPath(err))
	}
	if info.IsDir() || toolchain.IsSource(p.Source) {
		file, err := toolchain.Build(ctx, p.Source, dirs.built)
		if err != nil {
			return brought{}, err
		}
		binary, err := os.ReadFile(file)
		if err != nil {
			return brought{}, fmt.Errorf("module %s: %w", p.Source, unwrapPath(err))
		}
		m, err := g.origin.Verify(p.Source, strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)), binary, p.SHA256)
		folder := p.Source
		if !info.IsDir() {
			folder = filepath.Dir(folder)
		}
		return brought{m, folder}, err
	}
	if !info.Mode().IsRegular() {
		return brought{}, usagef("module %s: not a file and not a folder", p.Source)
	}
	m, err := g.origin.Fetch(ctx, p.Source, p.SHA256)
	return brought{m, filepath.Dir(p.Source)}, err
}

// packageHint says how to name a package of npm, which the Node worker looks up by its
// name.
func packageHint(name string) string {
	if strings.HasPrefix(name, ".") || filepath.IsAbs(name) || filepath.Ext(name) == ".wasm" {
		return ""
	}
	folder := "node_modules/" + name
	if _, err := os.Stat(folder); err == nil {
		return ": the package is called ./" + folder + " here"
	}
	return ": a package of npm is named by its folder, ./" + folder + ", after npm install"
}

// A want is a permission that a module asks for, read.
type want struct {
	hostfuncs.Permission
	parsed policy.Permission
	err    error // when it cannot be read
}

func wants(m hostfuncs.Manifest) []want {
	all := make([]want, len(m.Permissions))
	for i, p := range m.Permissions {
		all[i].Permission = p
		all[i].parsed, all[i].err = policy.ParsePermission(p.Permission)
	}
	return all
}

// parsed are those that can be read.
func parsed(all []want) []policy.Permission {
	var list []policy.Permission
	for _, w := range all {
		if w.err == nil {
			list = append(list, w.parsed)
		}
	}
	return list
}

// locked describes a module for the lock.
func locked(digest string, m hostfuncs.Manifest) origin.Locked {
	texts := make([]string, len(m.Permissions))
	for i, p := range m.Permissions {
		texts[i] = p.Permission
	}
	return origin.NewLocked(digest, m.Name, m.Version, texts)
}

// admit decides about a module that has said what it wants.
func (g *guard) admit(p providerConfig, from origin.Module) func(wasmrt.Candidate) (wasmrt.Brokers, error) {
	return func(c wasmrt.Candidate) (wasmrt.Brokers, error) {
		if g.looking {
			return nil, nil
		}
		pinned := p.SHA256 != ""
		if g.lock != nil && (g.strict || g.lock.Pin(p.Source) != "") {
			if err := g.lock.Compare(p.Source, locked(c.Digest, c.Manifest)).Refusal(); err != nil {
				return nil, err
			}
			pinned = true
		}
		grants, err := g.grants(p, c.Manifest, pinned)
		if err != nil {
			return nil, err
		}
		texts := []string{}
		for _, granted := range grants.Permissions() {
			texts = append(texts, granted.String())
		}
		g.audit.Module(audit.Module{
			Source: origin.Redact(p.Source), Name: c.Manifest.Name, Release: c.Manifest.Version, SHA256: c.Digest,
			SignedBy: from.SignedBy, Tenant: p.Tenant, Granted: texts,
		})
		b := broker.New(broker.Config{
			Name: c.Name, Grants: grants, Limits: p.Network.limits(), Tenant: g.policy.Tenant, Call: g.calls, Log: g.log,
		})
		g.brokers = append(g.brokers, b)
		if p.recorder != nil {
			return p.recorder.Brokers(b.Job), nil
		}
		return b.Job, nil
	}
}

// calls waits for nothing: modules are loaded before there is an executor, and
// run after.
func (g *guard) calls(ctx context.Context, job *beacon.Job, c beacon.Call, permit func(capability, action string) error) (beacon.Result, error) {
	if g.call == nil {
		return beacon.Result{}, beacon.Errorf(beacon.Denied, "there is nobody to call")
	}
	return g.call(ctx, job, c, permit)
}

// grants are what the configuration grants to a module, which is enough for it.
func (g *guard) grants(p providerConfig, m hostfuncs.Manifest, pinned bool) (policy.Grants, error) {
	shown := beacon.Excerpt(origin.Redact(p.Source), 200)
	grants, err := policy.ParseGrants(p.Permissions)
	if err != nil {
		return grants, usagef("provider %s: %w", shown, err)
	}
	if grants.GrantsWanted() && !pinned && !p.direct {
		return grants, usagef("provider %s: Permissions %q grants whatever a module wants, so the module must be pinned: run \"beacon lock\", or give its SHA256", shown, policy.Wanted)
	}
	all := wants(m)
	grants = grants.Resolve(parsed(all))
	var missing []string
	for _, w := range all {
		if w.Optional || w.err == nil && grants.Covers(w.parsed) {
			continue
		}
		line := "  " + w.Permission.Permission
		if w.err != nil {
			line += "   (which this version of Beacon does not know)"
		} else if w.Reason != "" {
			line += "   " + w.Reason
		}
		missing = append(missing, line)
	}
	if len(missing) > 0 {
		return grants, beacon.Errorf(beacon.Refused, "module %s wants what it was not granted:\n%s\ngrant it in the provider's Permissions, or with --grant; --grant %s grants all of it",
			shown, strings.Join(missing, "\n"), policy.Wanted)
	}
	g.tellOfSecrets(shown, p, grants)
	return grants, nil
}

// tellOfSecrets says of secrets that are granted and that nobody has given a value:
// otherwise the first item that needs one would.
func (g *guard) tellOfSecrets(shown string, p providerConfig, grants policy.Grants) {
	if p.TenantFrom != "" {
		return // each item's tenant has others
	}
	tenant, err := g.policy.Tenant(cmp.Or(p.Tenant, beacon.DefaultTenant))
	if err != nil {
		return // which is said elsewhere
	}
	for _, name := range grants.Secrets() {
		if !slices.Contains(tenant.Secrets(), name) {
			g.log.Warn("a secret is granted that the policy does not have: name it in Secrets, of the tenant or of the policy", "provider", shown, "secret", name, "tenant", tenant.Name)
		}
	}
}

// readLock finds the lock file beside the configuration.
func (g *guard) readLock(config string) (err error) {
	g.lock, err = origin.ReadLock(lockFile(config))
	return err
}

// lockFile is where the lock lies: beside the configuration.
func lockFile(config string) string {
	return filepath.Join(filepath.Dir(cmp.Or(config, configName)), origin.LockName)
}

// readPolicy reads the operator's policy: what the flag names, or else what the
// configuration has: the policy itself or the name of a file.
func readPolicy(flag string, file config) (*policy.Policy, error) {
	raw, where := []byte(file.Policy), "configuration: Policy"
	name := flag
	if name == "" && len(raw) > 0 && raw[0] == '"' {
		text, err := plainText(raw)
		if err != nil {
			return nil, usagef("%s: %w", where, err)
		}
		if name = text; !filepath.IsAbs(name) {
			name = filepath.Join(file.folder, name)
		}
	}
	if name != "" {
		var err error
		where = "policy " + name
		if raw, err = os.ReadFile(name); err != nil {
			return nil, usagef("%s: %w", where, unwrapPath(err))
		}
	}
	if len(raw) == 0 {
		return &policy.Policy{}, nil
	}
	p, err := policy.Parse(raw, secret)
	if err != nil {
		return nil, usagef("%s: %w", where, err)
	}
	return p, nil
}
