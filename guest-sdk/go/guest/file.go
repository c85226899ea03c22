package guest

import (
	"errors"
	"io"
	"os"
	"strings"
)

// A Reader is a file of the item, open for reading from its beginning.
type Reader struct {
	file  *os.File
	size  int64
	count int64
}

// Read reads on.
func (r *Reader) Read(b []byte) (int, error) {
	n, err := r.file.Read(b)
	r.count += int64(n)
	return n, err
}

// Close closes the file. The SDK closes what Run leaves open.
func (r *Reader) Close() error { return r.file.Close() }

// Size is the file's size in bytes when it was opened.
func (r *Reader) Size() int64 { return r.size }

// Count is how many bytes were read.
func (r *Reader) Count() int64 { return r.count }

// Percent is how much of the file was read, for [Item.Progress].
func (r *Reader) Percent() float64 {
	if r.size <= 0 {
		return Unknown
	}
	return min(100, float64(r.count)/float64(r.size)*100)
}

func (r *Reader) path() string  { return r.file.Name() }
func (r *Reader) finish() error { return ended(r.file.Close()) }

// A Writer is a file of the item, open for writing.
type Writer struct {
	file  *os.File
	count int64
}

// Write writes on.
func (w *Writer) Write(b []byte) (int, error) {
	n, err := w.file.Write(b)
	w.count += int64(n)
	return n, err
}

// Close closes the file; only then is it certain to be written.
func (w *Writer) Close() error { return w.file.Close() }

// Count is how many bytes were written.
func (w *Writer) Count() int64 { return w.count }

func (w *Writer) path() string  { return w.file.Name() }
func (w *Writer) finish() error { return ended(w.file.Close()) }

// ended takes "closed already" for success.
func ended(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// OpenSource opens the source that was staged for the item. An item without one
// is an error that says so.
func (it *Item) OpenSource() (*Reader, error) {
	if it.SourcePath == "" {
		return nil, errors.New("the item has no source file: give it one (setting SourceURL, or --source)")
	}
	return it.open(it.SourcePath)
}

// CreateOutput creates the file that the item is expected to leave behind.
func (it *Item) CreateOutput() (*Writer, error) {
	if it.OutputPath == "" {
		return nil, errors.New("the item names no output file: give it one (setting OutputFilename, or --output)")
	}
	return it.create(it.OutputPath)
}

// ReadSource reads the whole staged source into memory.
func (it *Item) ReadSource() ([]byte, error) {
	r, err := it.OpenSource()
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, r.size+1)
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, r.Close()
		}
		if err != nil {
			return nil, err
		}
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
}

// WriteOutput writes the whole output file.
func (it *Item) WriteOutput(data []byte) error {
	w, err := it.CreateOutput()
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Close()
}

// Open opens a file in the item's directory. Names are relative to it, with
// slashes; they cannot lead out of it.
func (it *Item) Open(name string) (*Reader, error) {
	path, err := it.resolve(name)
	if err != nil {
		return nil, err
	}
	return it.open(path)
}

// Create creates a file in the item's directory, or empties the one there is.
func (it *Item) Create(name string) (*Writer, error) {
	path, err := it.resolve(name)
	if err != nil {
		return nil, err
	}
	return it.create(path)
}

func (it *Item) open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if info.IsDir() {
		return nil, errors.Join(errors.New("open "+path+": it is a directory"), f.Close())
	}
	r := &Reader{file: f, size: info.Size()}
	it.files = append(it.files, r)
	return r, nil
}

func (it *Item) create(path string) (*Writer, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	w := &Writer{file: f}
	it.files = append(it.files, w)
	return w, nil
}

// resolve makes a name a path. The host confines a module anyway; this gives
// the same answer where there is no sandbox.
func (it *Item) resolve(name string) (string, error) {
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "\\:\x00") {
			return "", errors.New("file name " + excerpt(name) + ": want a name relative to the item's directory, such as pages/1.txt")
		}
	}
	return it.host.Dir() + "/" + name, nil
}
