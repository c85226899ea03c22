package runtime

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// compile translates the module, or takes the translation from the cache: one
// folder a module, in which the engine has files for its version and platform.
func (m *Module) compile(ctx context.Context, cacheDir string, binary []byte) error {
	if cacheDir == "" {
		return m.build(ctx, binary, "")
	}
	dir := filepath.Join(cacheDir, m.digest)
	before, err := m.unspoiled(dir)
	if err == nil {
		err = m.build(ctx, binary, dir)
	}
	if err == nil {
		if err := seal(dir, before); err != nil {
			m.log.Warn("the compiled module stays out of the cache", "module", m.name, "err", err)
		}
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	// Whether the module or the cache is at fault shows without the cache.
	failed := m.build(ctx, binary, "")
	if failed == nil {
		m.log.Warn("the compilation cache cannot be used", "module", m.name, "err", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		m.log.Warn("removing a compiled module from the cache", "module", m.name, "err", err)
	}
	return failed
}

// sumFile holds the checksum of a module's folder. The engine has a checksum
// for code only, believes the other numbers of a damaged file, and some of them
// make it ask for more memory than there is, which ends the process.
const sumFile = "checksum"

// unspoiled removes a folder that is not as seal has left it, and returns the
// checksum of what is there: "" when there is nothing.
func (m *Module) unspoiled(dir string) (sum string, err error) {
	want, err := os.ReadFile(filepath.Join(dir, sumFile))
	if errors.Is(err, fs.ErrNotExist) {
		// Not there, or left half-finished.
		return "", os.RemoveAll(dir)
	}
	if err != nil {
		return "", fmt.Errorf("read the checksum of a cached module: %w", err)
	}
	if sum, err = checksum(dir); err != nil {
		return "", err
	}
	if sum != string(want) {
		m.log.Warn("compiling anew: the cached module is damaged", "module", m.name)
		return "", os.RemoveAll(dir)
	}
	return sum, nil
}

// seal stores the checksum of a folder in which before was the last one.
func seal(dir, before string) error {
	sum, err := checksum(dir)
	if err != nil || sum == before {
		return err
	}
	temporary, err := os.CreateTemp(dir, sumFile+".*")
	if err != nil {
		return fmt.Errorf("store the checksum of a compiled module: %w", err)
	}
	_, err = temporary.WriteString(sum)
	err = errors.Join(err, temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), filepath.Join(dir, sumFile))
	}
	if err != nil {
		err = errors.Join(err, os.Remove(temporary.Name()))
		return fmt.Errorf("store the checksum of a compiled module: %w", err)
	}
	return nil
}

// checksum is one of all files in a folder but the checksum itself.
func checksum(dir string) (string, error) {
	root := os.DirFS(dir)
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Dir(name) == "." {
			return err
		}
		file, err := root.Open(name)
		if err != nil {
			return err
		}
		defer file.Close() //nolint:errcheck // only read
		n, err := io.Copy(sum, file)
		fmt.Fprintf(sum, "%s %d\n", name, n)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the cached module: %w", err)
	}
	return fmt.Sprintf("%08x", sum.Sum32()), nil
}
