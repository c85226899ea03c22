package filesystem

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/ultravisor/beacon"
)

// at finds the one place that an action works on.
func (p *Provider) at(job *beacon.Job, setting string) (*place, error) {
	values, err := required(job, setting)
	if err != nil {
		return nil, err
	}
	return p.find(job, "", values[0])
}

// between finds the two places of a copy.
func (p *Provider) between(job *beacon.Job) (from, to *place, err error) {
	values, err := required(job, "Source", "TargetFile")
	if err != nil {
		return nil, nil, err
	}
	if from, err = p.find(job, "Source", values[0]); err != nil {
		return nil, nil, err
	}
	to, err = p.find(job, "Target", values[1])
	return from, to, err
}

func (p *Provider) tooLarge(size int64) error {
	return fmt.Errorf("%d bytes, the limit is %d (MaxFileSizeBytes)", size, p.cfg.MaxFileSizeBytes)
}

func (p *Provider) read(_ context.Context, job *beacon.Job) (done, error) {
	at, err := p.at(job, "FilePath")
	if err != nil {
		return done{}, err
	}
	fail := func(err error) (done, error) { return done{}, atPath(err, " to read "+at.shown()) }
	enc, err := encodingOf(job.Item.Settings.Text("Encoding"))
	if err != nil {
		return fail(&failure{err: err})
	}
	f, info, err := openFile(at)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	if info.Size() > p.cfg.MaxFileSizeBytes {
		return fail(&failure{err: p.tooLarge(info.Size())})
	}
	// It may grow meanwhile, and some files of the system have no size.
	var content bytes.Buffer
	content.Grow(int(info.Size()) + bytes.MinRead)
	if _, err := content.ReadFrom(io.LimitReader(f, p.cfg.MaxFileSizeBytes+1)); err != nil {
		return fail(at.failed("read", err))
	}
	if int64(content.Len()) > p.cfg.MaxFileSizeBytes {
		return fail(&failure{err: p.tooLarge(int64(content.Len()))})
	}
	text, exact := enc.decode(content.Bytes())
	d := said(text, "Read %d bytes from %s", content.Len(), at.shown())
	if !exact {
		d.more = beacon.Outputs{OutputResultBase64: base64.StdEncoding.EncodeToString(content.Bytes())}
	}
	return d, nil
}

// atPath says in the log what a failure was about.
func atPath(err error, path string) error {
	var f *failure
	if errors.As(err, &f) {
		return &failure{path: path, err: f.err}
	}
	return err
}

func (p *Provider) write(ctx context.Context, job *beacon.Job) (done, error) {
	at, err := p.at(job, "FilePath")
	if err != nil {
		return done{}, err
	}
	fail := func(err error) (done, error) { return done{}, atPath(err, " to write "+at.shown()) }
	enc, err := encodingOf(job.Item.Settings.Text("Encoding"))
	if err != nil {
		return fail(&failure{err: err})
	}
	text, err := contentOf(job.Item.Settings["Content"])
	if err != nil {
		return fail(&failure{err: err})
	}
	content, err := enc.encode(text)
	if err != nil {
		return fail(&failure{err: err})
	}
	if int64(len(content)) > p.cfg.MaxFileSizeBytes {
		return fail(&failure{err: p.tooLarge(int64(len(content)))})
	}
	if err := replace(at, 0, func(f *os.File) error {
		_, err := f.Write(content)
		return errors.Join(err, context.Cause(ctx))
	}); err != nil {
		return fail(err)
	}
	return said(at.path, "Wrote %d bytes to %s", len(content), at.shown()), nil
}

// contentOf is what a setting says to write: text, or JSON with tabs.
func contentOf(raw json.RawMessage) (string, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	if raw[0] == '"' {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return "", errors.New("Content is not text") //nolint:staticcheck // the name of a setting
		}
		return text, nil
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "\t"); err != nil {
		return "", errors.New("Content is not JSON") //nolint:staticcheck // the name of a setting
	}
	return b.String(), nil
}

// replace gives a place a new content, all at once: whoever reads the file sees
// the one before or the one after, also after a crash. What is no regular file
// is written through: a link keeps leading where it does. mode is that of a file
// that is new, 0 the usual one.
func replace(at *place, mode os.FileMode, write func(*os.File) error) error {
	if folder := at.parent(); folder != nil {
		if err := at.tree.MkdirAll(folder.name, 0o777); err != nil {
			return folder.failed("mkdir", err)
		}
	}
	before, err := at.tree.Lstat(at.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		before = nil
	case err != nil:
		return at.failed("open", err)
	case !before.Mode().IsRegular():
		return through(at, write)
	}
	temporary := at.sibling(".beacon-" + rand.Text())
	f, err := temporary.tree.OpenFile(temporary.name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return at.failed("open", err)
	}
	if before != nil {
		mode = before.Mode().Perm()
		keepOwner(f, before)
	}
	if err = write(f); err == nil && mode != 0 {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = at.tree.Rename(temporary.name, at.name)
	}
	if err == nil {
		err = syncFolder(at)
	}
	if err != nil {
		_ = temporary.tree.Remove(temporary.name) // the first error counts
		return at.failed("write", err)
	}
	return nil
}

// through writes to what is there.
func through(at *place, write func(*os.File) error) error {
	f, err := at.tree.OpenFile(at.name, os.O_WRONLY|os.O_TRUNC|nonblock, 0)
	if err != nil {
		return at.failed("open", err)
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return at.failed("write", err)
	}
	return nil
}

// The most that a list may have, and look at.
const (
	maxListed = 100_000
	maxSeen   = 1 << 20
)

func (p *Provider) list(ctx context.Context, job *beacon.Job) (done, error) {
	at, err := p.at(job, "Folder")
	if err != nil {
		return done{}, err
	}
	pattern := job.Item.Settings.Text("Pattern")
	if pattern == "" {
		pattern = "*"
	}
	if len(pattern) > 1024 || !doublestar.ValidatePattern(pattern) {
		return done{}, &failure{err: fmt.Errorf("%q is not a pattern such as *.txt", beacon.Excerpt(pattern, 80))}
	}
	// Without a slash it is about the folder itself.
	deep := strings.Contains(pattern, "/") || strings.Contains(pattern, "**")
	names := []string{}
	seen := 0
	var walk func(at *place, prefix string) error
	walk = func(at *place, prefix string) error {
		f, err := at.tree.OpenFile(at.name, os.O_RDONLY|nonblock, 0)
		if err != nil {
			return at.failed("scandir", err)
		}
		defer f.Close()
		var folders []string
		for {
			entries, err := f.ReadDir(1024)
			for _, e := range entries {
				if seen++; seen > maxSeen {
					return &failure{err: fmt.Errorf("more than %d entries to look at", maxSeen)}
				}
				name := path.Join(prefix, e.Name())
				if deep && e.IsDir() {
					folders = append(folders, e.Name())
				}
				if !doublestar.MatchUnvalidated(pattern, name) {
					continue
				}
				if len(names) == maxListed {
					return &failure{err: fmt.Errorf("more than %d files: give a narrower Pattern", maxListed)}
				}
				names = append(names, name)
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return at.failed("scandir", err)
			}
			if err := context.Cause(ctx); err != nil {
				return err
			}
		}
		_ = f.Close() // before going deeper
		for _, name := range folders {
			below := &place{tree: at.tree, name: filepath.Join(at.name, name), path: filepath.Join(at.path, name)}
			// What is gone meanwhile, or nobody may read, is not listed.
			var failed *failure
			if err := walk(below, path.Join(prefix, name)); err != nil && (!errors.As(err, &failed) || seen > maxSeen || len(names) == maxListed) {
				return err
			}
		}
		return nil
	}
	if err := walk(at, ""); err != nil {
		return done{}, err
	}
	slices.Sort(names)
	raw, err := marshal(names)
	if err != nil {
		return done{}, err
	}
	return said(raw, "Found %d files in %s", len(names), at.shown()), nil
}

// marshal is JSON as JavaScript writes it.
func marshal(value any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(value)
	return strings.TrimSuffix(b.String(), "\n"), err
}

func (p *Provider) copy(ctx context.Context, job *beacon.Job) (done, error) {
	from, to, err := p.between(job)
	if err != nil {
		return done{}, err
	}
	if err := copyFile(ctx, job, from, to); err != nil {
		return done{}, err
	}
	return said(to.path, "Copied %s → %s", from.shown(), to.shown()), nil
}

// copyFile copies a file with its mode. The kernel copies, and shares the blocks
// where the file system can.
func copyFile(ctx context.Context, job *beacon.Job, from, to *place) error {
	f, info, err := openFile(from)
	if err != nil {
		return err
	}
	defer f.Close()
	if there, err := to.tree.Stat(to.name); err == nil && os.SameFile(there, info) {
		return nil // it is there already
	}
	return replace(to, info.Mode().Perm(), func(target *os.File) error {
		if err := target.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
		const piece = 64 << 20 // since the kernel cannot be interrupted
		var copied int64
		for {
			n, err := io.CopyN(target, f, piece)
			copied += n
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err := errors.Join(err, context.Cause(ctx)); err != nil {
				return err
			}
			if size := info.Size(); size > 0 {
				job.Progress(beacon.Progress{Percent: min(100, float64(copied)/float64(size)*100), HasPercent: true, Message: fmt.Sprintf("Copied %d of %d bytes", copied, size)})
			}
		}
	})
}

// A description is what Stat says; the field names are those of its JSON.
type description struct {
	Path     string
	Type     string // file, directory, link, or other
	Size     int64
	Mode     string // octal, the permissions only
	Modified time.Time
}

func (p *Provider) stat(_ context.Context, job *beacon.Job) (done, error) {
	at, err := p.at(job, "FilePath")
	if err != nil {
		return done{}, err
	}
	info, err := at.tree.Lstat(at.name)
	if err != nil {
		return done{}, at.failed("stat", err)
	}
	kind := "other"
	switch mode := info.Mode(); {
	case mode.IsRegular():
		kind = "file"
	case mode.IsDir():
		kind = "directory"
	case mode&os.ModeSymlink != 0:
		kind = "link"
	}
	raw, err := marshal(description{at.path, kind, info.Size(), fmt.Sprintf("%04o", info.Mode().Perm()), info.ModTime().UTC()})
	if err != nil {
		return done{}, err
	}
	return said(raw, "Described %s", at.shown()), nil
}

func (p *Provider) hash(ctx context.Context, job *beacon.Job) (done, error) {
	at, err := p.at(job, "FilePath")
	if err != nil {
		return done{}, err
	}
	var sum hash.Hash
	switch name := strings.ToLower(job.Item.Settings.Text("Algorithm")); name {
	case "", "sha256":
		sum = sha256.New()
	case "sha512":
		sum = sha512.New()
	case "sha1":
		sum = sha1.New() //nolint:gosec // for those who have such digests already
	case "md5":
		sum = md5.New() //nolint:gosec // the same
	default:
		return done{}, &failure{err: fmt.Errorf("Unknown algorithm: %s", beacon.Excerpt(name, 80))} //nolint:staticcheck // like the encodings
	}
	f, info, err := openFile(at)
	if err != nil {
		return done{}, err
	}
	defer f.Close()
	var size int64
	for {
		n, err := io.CopyN(sum, f, 16<<20)
		size += n
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return done{}, at.failed("read", err)
		}
		if err := context.Cause(ctx); err != nil {
			return done{}, err
		}
		if total := info.Size(); total > 0 {
			job.Progress(beacon.Progress{Percent: min(100, float64(size)/float64(total)*100), HasPercent: true})
		}
	}
	return said(hex.EncodeToString(sum.Sum(nil)), "Hashed %d bytes of %s", size, at.shown()), nil
}

func (p *Provider) move(ctx context.Context, job *beacon.Job) (done, error) {
	from, to, err := p.between(job)
	if err != nil {
		return done{}, err
	}
	if from.top {
		return done{}, boundary(from)
	}
	if folder := to.parent(); folder != nil {
		if err := to.tree.MkdirAll(folder.name, 0o777); err != nil {
			return done{}, folder.failed("mkdir", err)
		}
	}
	err = errElsewhere
	if from.tree == to.tree {
		err = from.tree.Rename(from.name, to.name)
	}
	if errors.Is(err, errElsewhere) || isOtherDevice(err) {
		if err := copyFile(ctx, job, from, to); err != nil {
			return done{}, err
		}
		err = from.tree.Remove(from.name)
	}
	if err != nil {
		return done{}, from.failed("rename", err)
	}
	return said(to.path, "Moved %s → %s", from.shown(), to.shown()), nil
}

// errElsewhere says that a rename cannot do it.
var errElsewhere = errors.New("the target is in another folder of AllowedPaths")

func (p *Provider) makeDirectory(_ context.Context, job *beacon.Job) (done, error) {
	at, err := p.at(job, "Folder")
	if err != nil {
		return done{}, err
	}
	if !at.top {
		if err := at.tree.MkdirAll(at.name, 0o777); err != nil {
			return done{}, at.failed("mkdir", err)
		}
	}
	return said(at.path, "Created %s", at.shown()), nil
}

func (p *Provider) delete(_ context.Context, job *beacon.Job) (done, error) {
	at, err := p.at(job, "FilePath")
	if err != nil {
		return done{}, err
	}
	recursive, err := job.Item.Settings.Bool("Recursive")
	if err != nil {
		return done{}, &failure{err: err}
	}
	if at.top {
		return done{}, boundary(at)
	}
	if _, err := at.tree.Lstat(at.name); err != nil {
		return done{}, at.failed("unlink", err)
	}
	if recursive {
		err = at.tree.RemoveAll(at.name)
	} else {
		err = at.tree.Remove(at.name)
	}
	if err != nil {
		return done{}, at.failed("unlink", err)
	}
	return said(at.path, "Deleted %s", at.shown()), nil
}

// boundary refuses to take away a folder of AllowedPaths itself.
func boundary(at *place) error {
	return &refusal{"Path not allowed: " + at.shown(), "a folder of AllowedPaths stays where it is: " + at.shown()}
}
