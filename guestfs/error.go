package guestfs

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What operations answer, besides fs.ErrNotExist, fs.ErrExist and
// fs.ErrPermission. Test with errors.Is.
var (
	ErrClosed       = fs.ErrClosed
	ErrLimit        = errors.New("limit of the file system reached")
	ErrReadOnly     = errors.New("read-only")
	ErrIsDirectory  = errors.New("is a directory")
	ErrNotDirectory = errors.New("not a directory")
	ErrNotEmpty     = errors.New("directory not empty")
	ErrNameTooLong  = errors.New("name too long")
	ErrInvalid      = fs.ErrInvalid
	ErrLoop         = errors.New("symbolic links are not followed")
	ErrAccess       = errors.New("not opened for this")
	ErrBusy         = errors.New("in use")
	ErrNoSpace      = errors.New("no space left on the host")
)

// A Limit is one of the quotas.
type Limit uint8

// The quotas.
const (
	LimitBytes     Limit = iota + 1 // live bytes
	LimitWritten                    // bytes written in total
	LimitFileSize                   // size of one file
	LimitEntries                    // files and directories
	LimitOpenFiles                  // files and directories open at once
	LimitDepth                      // directories below each other
	LimitListings                   // memory for listings of open directories
	LimitShared                     // what several guests may have together
)

// A LimitError is a quota that was hit. errors.Is(err, ErrLimit) holds.
type LimitError struct {
	Limit Limit
	Value int64 // in bytes or entries
}

// Error names the limit and its value.
func (e *LimitError) Error() string {
	switch e.Limit {
	case LimitBytes:
		return fmt.Sprintf("more than %s in files", size(e.Value))
	case LimitWritten:
		return fmt.Sprintf("more than %s written", size(e.Value))
	case LimitFileSize:
		return fmt.Sprintf("a file larger than %s", size(e.Value))
	case LimitEntries:
		return fmt.Sprintf("more than %s files and directories", number(e.Value))
	case LimitOpenFiles:
		return fmt.Sprintf("more than %s files open at once", number(e.Value))
	case LimitDepth:
		return fmt.Sprintf("a path deeper than %s directories", number(e.Value))
	case LimitListings:
		return fmt.Sprintf("more than %s of names in open directories", size(e.Value))
	case LimitShared:
		return "more than the tenant's items may have in files together"
	}
	return ErrLimit.Error()
}

// Is makes ErrLimit match.
func (e *LimitError) Is(target error) bool { return target == ErrLimit }

// size writes bytes in the largest unit that divides them.
func size(n int64) string {
	for _, unit := range []struct {
		name string
		size int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.size && n%unit.size == 0 {
			return number(n/unit.size) + " " + unit.name
		}
	}
	return number(n) + " bytes"
}

// number groups the digits of n, which is not negative, by threes.
func number(n int64) string {
	digits := strconv.FormatInt(n, 10)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// fail wraps err with what was attempted. The name is the guest's, never the
// host's path, and is fit for a line of a log.
func fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	const longest = 256
	if len(name) > longest {
		name = name[:longest] + "…"
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) }) {
		name = strconv.Quote(name)
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// classify turns an error of the operating system into one of ours, without
// any path that the system put into it.
func classify(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	if own := classifyOS(err); own != nil {
		return own
	}
	for _, own := range []error{fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, fs.ErrInvalid, fs.ErrClosed} {
		if errors.Is(err, own) {
			return own
		}
	}
	// os.Root does not export its error for a path that leads out of it.
	if err != nil && err.Error() == "path escapes from parent" {
		return fs.ErrPermission
	}
	return err
}
