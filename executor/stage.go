package executor

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/staging"
)

// remote items name URLs, and get their outputs back with the result.
type remote struct{ e *Executor }

func (remote) request(item beacon.WorkItem) (request, error) { return newRequest(item.Settings) }

func (r remote) stage(ctx context.Context, job *staged, req request) (notes []string, err error) {
	for _, src := range req.sources {
		note, err := r.fetch(ctx, job, src, req.affinity)
		notes = append(notes, note...)
		if err != nil {
			return notes, err
		}
	}
	return notes, nil
}

func (r remote) fetch(ctx context.Context, job *staged, src source, affinity string) (notes []string, err error) {
	from := src.url
	if strings.HasPrefix(from, ">") {
		shown := beacon.Excerpt(from, 500)
		if r.e.cfg.Resolve == nil {
			return nil, beacon.Errorf(beacon.Invalid, "%s is a universal address: this beacon resolves none", shown)
		}
		resolved, file, err := r.e.cfg.Resolve(ctx, job.tenant, from)
		if err != nil {
			return nil, fmt.Errorf("resolve %s: %w", shown, err)
		}
		if file != nil {
			defer file.Close()
			notes := []string{"Copying source: " + shown}
			got, err := r.e.download.Take(ctx, job.dir, src.name, file, src.sha256)
			if err != nil {
				return notes, err
			}
			return append(notes, fmt.Sprintf("Copied: %s (%s)", src.name, Size(got.Size))), nil
		}
		from = resolved
	}
	begun := "Downloading source: " + staging.Redact(from)
	got, err := r.e.download.Fetch(ctx, job.dir, src.name, staging.Source{
		URL: from, SHA256: src.sha256, AffinityKey: affinity, Tenant: job.tenant,
	}, func(done, total int64) {
		if job.onProgress == nil {
			return
		}
		text := "Downloading source: " + Size(done)
		if total > 0 {
			text += " of " + Size(total)
		}
		job.onProgress(beacon.Progress{Message: text})
	})
	if err == nil && !got.Cached {
		job.contacted(from)
		err = job.account.Spend(ctx, beacon.Usage{Received: got.Size})
	}
	switch {
	case err != nil:
		return []string{begun}, err
	case got.Stale:
		return []string{"Source file cached (affinity): " + src.name + "; its server cannot be asked whether it has changed"}, nil
	case got.Cached:
		return []string{"Source file cached (affinity): " + src.name}, nil
	}
	return []string{begun, fmt.Sprintf("Downloaded: %s (%s)", src.name, Size(got.Size))}, nil
}

// contacted notes which server a source came from.
func (s *staged) contacted(from string) {
	u, err := url.Parse(from)
	if err != nil || u.Host == "" {
		return // a file of this machine
	}
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	s.account.Contacted(net.JoinHostPort(beacon.Excerpt(u.Hostname(), 253), port))
}

// makeFolders makes the folders that outputs are expected in.
func makeFolders(dir *staging.Dir, r request) error {
	for _, name := range r.outputNames() {
		if folder := path.Dir(name); folder != "." {
			if err := dir.MkdirAll(filepath.FromSlash(folder), 0o700); err != nil {
				return beacon.Errorf(beacon.Invalid, "there is no place for the output %s: a source has the name of its folder", name)
			}
		}
	}
	return nil
}

// local items move files of this machine.
type local struct{ source, output string }

func (l local) request(beacon.WorkItem) (request, error) {
	var r request
	if l.source != "" {
		name := filepath.Base(l.source)
		if staging.CheckName("source", name) != nil {
			name = defaultName
		}
		r.sources = []source{{name: name}}
	}
	if l.output == "" {
		return r, nil
	}
	for _, name := range []string{filepath.Base(l.output), "output_file", "output_file_2"} {
		if staging.CheckName("output", name) == nil && name != first(r.sourceNames()) {
			r.outputs = []output{{name: name}}
			return r, nil
		}
	}
	return request{}, beacon.Errorf(beacon.Internal, "no name for the output is left")
}

func (l local) stage(ctx context.Context, job *staged, r request) ([]string, error) {
	if len(r.sources) == 0 {
		return nil, nil
	}
	f, err := os.Open(l.source)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return nil, job.dir.Import(ctx, r.sources[0].name, f)
}
