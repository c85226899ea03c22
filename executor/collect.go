package executor

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/staging"
)

// Outputs that the executor adds.
const (
	outputData  = "OutputData"
	outputName  = "OutputFilename"
	outputSize  = "OutputSize"
	outputFiles = "OutputFiles" // only for several
)

// Collected describes one of several output files, in the output OutputFiles.
// Data is the name of the output that holds the content: OutputData,
// OutputData2 and so on; "" if the content is not in the result.
type Collected struct {
	Filename string
	Size     int64
	Data     string `json:",omitempty"`
}

// tidied leaves out of a result what names a file that none of the item's can be:
// whoever gets it may keep the file under that name.
func tidied(result beacon.Result) beacon.Result {
	for _, key := range []string{outputName, outputFiles} {
		value, given := result.Outputs[key]
		if !given || names(key, value) {
			continue
		}
		result.Outputs = maps.Clone(result.Outputs) // the provider may have kept them
		delete(result.Outputs, key)
		result.Log = append(result.Log, fmt.Sprintf("Output %s is left out: it does not name a file of the item", key))
	}
	return result
}

// names reports whether a provider's output names files as the item could have them.
func names(key string, value any) bool {
	raw, err := json.Marshal(value)
	files := make([]Collected, 1)
	if key == outputName {
		err = errors.Join(err, json.Unmarshal(raw, &files[0].Filename))
	} else {
		err = errors.Join(err, json.Unmarshal(raw, &files))
	}
	for _, f := range files {
		err = errors.Join(err, staging.CheckPath("a file", f.Filename))
	}
	return err == nil
}

// inline is the largest output file that is held in memory as part of a result;
// what is larger stays a file until it is sent.
const inline = 256 << 10

// The most that patterns of one item may find, and look at.
const (
	maxFound = 1000
	maxSeen  = 1 << 20
)

// A lineError is a line of an item's log, worded as the Node worker does.
type lineError string

func (e lineError) Error() string { return string(e) }

func notCollected(name string, err error) error {
	return lineError(fmt.Sprintf("Output file %s cannot be collected: %v", beacon.Excerpt(name, 255), err))
}

// A file is an output that is there.
type file struct {
	name string // with slashes
	open *os.File
	info fs.FileInfo
}

func closeAll(files []file) {
	for _, f := range files {
		_ = f.open.Close() // it was only read
	}
}

// find opens the outputs of an item, those of patterns sorted by name. They are
// to be closed, whatever the error.
func find(ctx context.Context, dir *staging.Dir, r request) (found []file, err error) {
	take := func(name string) error {
		if slices.ContainsFunc(found, func(f file) bool { return f.name == name }) {
			return nil
		}
		open, info, err := dir.Output(name)
		if err != nil {
			return err
		}
		found = append(found, file{name, open, info})
		return nil
	}
	for _, o := range r.outputs {
		names := []string{o.name}
		if o.pattern {
			if names, err = matches(ctx, dir, o.name, r.sourceNames()); err != nil {
				return found, notCollected(o.name, err)
			}
			if len(names) == 0 {
				names = []string{o.name}
			}
		}
		for _, name := range names {
			switch err := take(name); {
			case err == nil:
			case errors.Is(err, fs.ErrNotExist) && o.optional:
			case errors.Is(err, fs.ErrNotExist):
				return found, lineError("Output file not found: " + beacon.Excerpt(name, 255))
			default:
				return found, notCollected(name, err)
			}
		}
	}
	return found, nil
}

// matches lists the regular files that a pattern means; links are not followed,
// and sources are not outputs.
func matches(ctx context.Context, dir *staging.Dir, pattern string, sources []string) (names []string, err error) {
	seen := 0
	err = fs.WalkDir(dir.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if seen++; seen > maxSeen {
			return beacon.Errorf(beacon.FileLimit, "the item's directory has more than %d entries", maxSeen)
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if !entry.Type().IsRegular() || !doublestar.MatchUnvalidated(pattern, name) || slices.Contains(sources, name) {
			return nil
		}
		if err := staging.CheckPath("an output", name); err != nil {
			return err
		}
		if len(names) == maxFound {
			return beacon.Errorf(beacon.FileLimit, "more than %d files match", maxFound)
		}
		names = append(names, name)
		return nil
	})
	slices.Sort(names)
	return names, err
}

// wants is always: what a command that failed has written, may say why.
func (remote) wants(beacon.Result) bool { return true }

func (r remote) collect(ctx context.Context, job *staged, req request, found []file, out beacon.Outputs) (notes []string, err error) {
	var total int64
	for _, f := range found {
		total += f.info.Size()
	}
	// The file goes beside of the result where that leads anywhere: into the
	// folder of a workflow's run.
	upload := req.wish != asBase64 && (job.item.RunID != "" || job.item.OperationHash != "")
	if req.wish == notAtAll && !upload {
		for _, f := range found {
			notes = append(notes, fmt.Sprintf("Output not returned: %s (%s), because %s is false", f.name, Size(f.info.Size()), settingReturnOutput))
		}
		return notes, nil
	}
	if total > r.e.cfg.MaxOutput {
		return nil, notCollected(found[0].name, beacon.Errorf(beacon.OutputLimit, "%s, the limit for a result is %s; raise MaxOutputBytes in the worker's configuration", Size(total), Size(r.e.cfg.MaxOutput)))
	}
	defer func() {
		if err != nil {
			for name, f := range out.Files() {
				err = errors.Join(err, f.Remove())
				delete(out, name)
			}
		}
	}()
	described := []Collected{}
	for i, f := range found {
		key := outputData
		if i > 0 {
			key = fmt.Sprint(outputData, i+1)
		}
		value, size, err := r.take(ctx, job, f, upload, req.wish == notAtAll)
		if err != nil {
			return nil, notCollected(f.name, err)
		}
		out[key] = value
		if req.wish == notAtAll {
			key = ""
		}
		described = append(described, Collected{f.name, size, key})
		notes = append(notes, fmt.Sprintf("Output collected: %s (%s)", f.name, Size(size)))
	}
	if len(described) > 0 {
		out[outputName], out[outputSize] = described[0].Filename, described[0].Size
	}
	if len(described) > 1 || len(req.outputs) > 1 {
		out[outputFiles] = described
	}
	return notes, nil
}

// take turns a file into the value of an output.
func (r remote) take(ctx context.Context, job *staged, f file, upload, optional bool) (value any, size int64, err error) {
	size = f.info.Size()
	upload = upload && !strings.Contains(f.name, "/") // folders of other machines are not ours to make
	if size > inline || upload {
		path, err := job.dir.Keep(f.name, f.open, f.info)
		if err != nil {
			return nil, 0, err
		}
		return beacon.File{Path: path, Size: size, Name: f.name, Upload: upload, Optional: optional}, size, nil
	}
	content, err := io.ReadAll(io.LimitReader(f.open, size)) // it may still grow
	if err := errors.Join(err, context.Cause(ctx)); err != nil {
		return nil, 0, err
	}
	return base64.StdEncoding.EncodeToString(content), int64(len(content)), nil
}

// wants is for success only: a file of the user's is not replaced by half of one.
func (local) wants(result beacon.Result) bool { return result.ExitCode() == 0 }

func (l local) collect(_ context.Context, _ *staged, _ request, found []file, out beacon.Outputs) ([]string, error) {
	if err := deliver(found[0].open, l.output); err != nil {
		return nil, notCollected(found[0].name, err)
	}
	out[outputName], out[outputSize] = filepath.Base(l.output), found[0].info.Size()
	return nil, nil
}

// deliver moves a file to its place, which it takes all at once.
func deliver(f *os.File, to string) error {
	old, err := os.Lstat(to)
	if err == nil && !old.Mode().IsRegular() {
		// A pipe, a terminal or a link: written through, as a shell would.
		return writeThrough(f, to)
	}
	// The file that holds the place shows which permissions the user's new files
	// have.
	place := filepath.Join(filepath.Dir(to), ".beacon-"+rand.Text())
	temporary, err := os.OpenFile(place, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return fmt.Errorf("write %s: %w", to, hostless(err))
	}
	mode := fs.FileMode(0)
	if old != nil {
		mode = old.Mode().Perm()
	} else if info, err := temporary.Stat(); err == nil {
		mode = info.Mode().Perm()
	}
	moved := mode != 0 && os.Chmod(f.Name(), mode) == nil && os.Rename(f.Name(), place) == nil
	if !moved { // another file system, or a system that moves no open file
		_, err = io.Copy(temporary, f)
		if mode != 0 {
			err = errors.Join(err, temporary.Chmod(mode))
		}
	}
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(place, to)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", to, hostless(err)), os.Remove(place))
	}
	return nil
}

// hostless takes the paths out of an error: those of temporary files tell the
// user nothing.
func hostless(err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case errors.As(err, &pe):
		return pe.Err
	case errors.As(err, &le):
		return le.Err
	}
	return err
}

func writeThrough(f *os.File, to string) error {
	w, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|nonblock, 0o666)
	if err != nil {
		return fmt.Errorf("write %s: %w", to, hostless(err))
	}
	_, err = io.Copy(w, f)
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("write %s: %w", to, hostless(err))
	}
	return nil
}
