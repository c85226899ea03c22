package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/egress"
	"github.com/ultravisor/beacon/staging"
)

// A sourcePolicy is the part of a configuration that says where sources may
// come from, how large they may be, and how many are kept.
type sourcePolicy struct {
	// AllowPrivate opens private and loopback addresses, AllowNetworks some of
	// them, such as "10.1.0.0/16". Unless it is said, they are open where there
	// are no tenants, and closed for tenants.
	AllowPrivate  *bool
	AllowNetworks []string
	// AllowHosts are rules such as "files.example.com" or
	// "https://*.example.com:8443/public"; without any, every host is allowed.
	AllowHosts []string
	// AllowFiles are folders whose files may be named by file: URLs.
	AllowFiles []string
	// MaxBytes bounds a source; default 16 GiB.
	MaxBytes int64
	// CacheBytes is what the files of a tenant that are kept for an AffinityKey
	// may take; default 10 GiB, less than 0 keeps none.
	CacheBytes int64
}

// download checks the policy and makes a downloader's configuration of it.
func (p *sourcePolicy) download(log *slog.Logger) (staging.DownloadConfig, error) {
	cfg := staging.DownloadConfig{Log: log}
	if p == nil {
		return cfg, nil
	}
	if p.MaxBytes < 0 {
		return cfg, fmt.Errorf("MaxBytes is %d: want a number of bytes", p.MaxBytes)
	}
	cfg.MaxBytes = p.MaxBytes
	for _, folder := range p.AllowFiles {
		if !filepath.IsAbs(folder) {
			return cfg, fmt.Errorf("in AllowFiles, %q is not an absolute path", beacon.Excerpt(folder, 200))
		}
		cfg.AllowFiles = append(cfg.AllowFiles, filepath.Clean(folder))
	}
	var networks []netip.Prefix
	for _, text := range p.AllowNetworks {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return cfg, fmt.Errorf("in AllowNetworks, %q is not a network such as 10.1.0.0/16", beacon.Excerpt(text, 100))
		}
		networks = append(networks, network.Masked())
	}
	var rules []egress.Rule
	for _, text := range p.AllowHosts {
		rule, err := egress.ParseRule(text)
		if err != nil {
			return cfg, fmt.Errorf("in AllowHosts, %w", err)
		}
		rules = append(rules, rule)
	}
	private := p.AllowPrivate
	cfg.Policy = func(tenant string) egress.Policy {
		policy := staging.DefaultPolicy(tenant)
		if private != nil {
			policy.Private = *private
		}
		policy.Networks, policy.Allow = networks, rules
		return policy
	}
	return cfg, nil
}

// cache opens the affinity cache, which is nil if there is to be none.
func (p *sourcePolicy) cache(store *staging.Store, log *slog.Logger) *staging.Cache {
	cfg := staging.CacheConfig{Log: log}
	switch {
	case p == nil:
	case p.CacheBytes < 0:
		return nil
	case p.CacheBytes > 0:
		cfg.Quota = func(string) int64 { return p.CacheBytes }
	}
	return store.OpenCache(cfg)
}
