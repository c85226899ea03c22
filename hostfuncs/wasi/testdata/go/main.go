// Command guest does with files, time and its environment what programs do.
package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "sleep" {
		time.Sleep(time.Hour)
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(3)
	}
	fmt.Println("all well")
}

func check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

func run() error {
	return errors.Join(environment(), files(), appending(), tree(), links(), inputs(), clocks(), randomness())
}

func environment() error {
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	text, err := io.ReadAll(bufio.NewReader(os.Stdin))
	return errors.Join(err,
		check(strings.Join(os.Args, " ") == "guest one two", "arguments %q", os.Args),
		check(strings.Join(os.Environ(), " ") == "GREETING=hello PWD=/work", "environment %q", os.Environ()),
		check(cwd == "/work", "directory %q", cwd),
		check(string(text) == "from stdin\n", "standard input %q", text),
	)
}

func files() error {
	content := bytes.Repeat([]byte("0123456789abcdef"), 10_000)
	if err := os.WriteFile("out.bin", content, 0o644); err != nil {
		return err
	}
	got, err := os.ReadFile("/work/out.bin")
	if err != nil || !bytes.Equal(got, content) {
		return fmt.Errorf("read %d bytes: %w", len(got), err)
	}
	f, err := os.OpenFile("/out.bin", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	at, err := f.Seek(-6, io.SeekEnd)
	if err != nil || at != 159_994 {
		return fmt.Errorf("seek to %d: %w", at, err)
	}
	six := make([]byte, 10)
	n, err := f.Read(six)
	if string(six[:n]) != "abcdef" {
		return fmt.Errorf("read %q: %w", six[:n], err)
	}
	if n, err = f.Read(six); n != 0 || err != io.EOF {
		return fmt.Errorf("read %d at the end: %v", n, err)
	}
	if _, err := f.WriteAt([]byte("XY"), 1); err != nil {
		return err
	}
	if err := f.Truncate(4); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil || info.Size() != 4 || !info.Mode().IsRegular() {
		return fmt.Errorf("stat %v: %w", info, err)
	}
	got, err = os.ReadFile("out.bin")
	if err != nil || string(got) != "0XY3" {
		return fmt.Errorf("read %q: %w", got, err)
	}
	_, missing := os.ReadFile("missing")
	_, outside := os.ReadFile("../../../../etc/hostname")
	_, above := os.OpenRoot("..")
	_, twice := os.OpenFile("out.bin", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	_ = above // "/.." is "/" for a Go program
	return errors.Join(
		check(errors.Is(missing, fs.ErrNotExist), "missing: %v", missing),
		check(errors.Is(outside, fs.ErrNotExist), "outside: %v", outside),
		check(errors.Is(twice, fs.ErrExist), "exclusive: %v", twice),
	)
}

func appending() error {
	for range 3 {
		f, err := os.OpenFile("log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(f, "line"); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	got, err := os.ReadFile("log")
	return errors.Join(err, check(string(got) == "line\nline\nline\n", "log %q", got))
}

func tree() error {
	for i := range 300 {
		dir := fmt.Sprintf("tree/d%d", i%7)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		name := fmt.Sprintf("%s/a-rather-long-name-so-that-a-listing-needs-many-calls-%03d", dir, i)
		if err := os.WriteFile(name, []byte(name), 0o644); err != nil {
			return err
		}
	}
	if err := os.Rename("tree/d0", "tree/moved"); err != nil {
		return err
	}
	stamp := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	if err := os.Chtimes("tree/moved", stamp, stamp); err != nil {
		return err
	}
	info, err := os.Stat("tree/moved/")
	if err != nil || !info.ModTime().Equal(stamp) {
		return fmt.Errorf("time %v: %w", info, err)
	}
	files, dirs := 0, 0
	err = filepath.WalkDir("/work/tree", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			dirs++
			return nil
		}
		files++
		text, err := os.ReadFile(path)
		return errors.Join(err, check(len(text) > 50, "%s has %q", path, text))
	})
	if err != nil || files != 300 || dirs != 8 {
		return fmt.Errorf("walked %d files, %d directories: %w", files, dirs, err)
	}
	notEmpty := os.Remove("tree/moved")
	if err := os.RemoveAll("tree"); err != nil {
		return err
	}
	_, err = os.Stat("tree")
	return errors.Join(
		check(notEmpty != nil, "a full directory was removed"),
		check(errors.Is(err, fs.ErrNotExist), "after removal: %v", err),
	)
}

func links() error {
	symlink := os.Symlink("out.bin", "link")
	link := os.Link("out.bin", "link")
	_, read := os.Readlink("out.bin")
	real, err := filepath.EvalSymlinks("/work/out.bin")
	return errors.Join(err,
		check(errors.Is(symlink, fs.ErrPermission), "symlink: %v", symlink),
		check(errors.Is(link, fs.ErrPermission), "link: %v", link),
		check(read != nil, "readlink worked"),
		check(real == "/work/out.bin", "path %q", real),
	)
}

func inputs() error {
	text, err := os.ReadFile("input.txt")
	write := os.WriteFile("input.txt", nil, 0o644)
	remove := os.Remove("input.txt")
	rename := os.Rename("input.txt", "elsewhere")
	replace := os.Rename("out.bin", "input.txt")
	return errors.Join(err,
		check(string(text) == "the input", "input %q", text),
		check(write != nil, "the input was written"), check(remove != nil, "the input was removed"),
		check(rename != nil, "the input was renamed"), check(replace != nil, "the input was replaced"),
	)
}

func clocks() error {
	before := time.Now()
	timer := time.NewTimer(5 * time.Millisecond)
	done := make(chan time.Time)
	go func() { done <- <-timer.C }()
	<-done
	time.Sleep(3 * time.Millisecond)
	took := time.Since(before)
	return errors.Join(
		check(took >= 7*time.Millisecond, "slept %v", took),
		check(before.Year() > 2024, "year %d", before.Year()),
		check(before.Nanosecond()%1e6 == 0, "the clock shows %d ns", before.Nanosecond()),
	)
}

func randomness() error {
	a, b := make([]byte, 3<<20), make([]byte, 16)
	if _, err := io.ReadFull(rand.Reader, a); err != nil {
		return err
	}
	_, err := io.ReadFull(rand.Reader, b)
	return errors.Join(err,
		check(bytes.Count(a, []byte{0}) < len(a)/100, "random bytes are zero"),
		check(!bytes.Equal(a[:16], b), "random bytes repeat"),
	)
}
