package filesystem_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/filesystem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var everything = []string{"Read", "Write", "List", "Copy", "Stat", "Hash", "Move", "MakeDirectory", "Delete"}

type bench struct {
	t *testing.T
	*filesystem.Provider
}

func prepare(t *testing.T, cfg filesystem.Config) bench {
	t.Helper()
	p, err := filesystem.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Shutdown(context.Background())) })
	return bench{t, p}
}

func job(t *testing.T, action string, settings map[string]any) *beacon.Job {
	t.Helper()
	item := beacon.WorkItem{Hash: "h", Capability: "FileSystem", Action: action, Settings: beacon.Settings{}}
	for name, value := range settings {
		raw, err := json.Marshal(value)
		require.NoError(t, err)
		item.Settings[name] = raw
	}
	return &beacon.Job{Item: item}
}

// does carries out an action; settings are names and values in turn.
func (b bench) does(action string, settings ...string) beacon.Result {
	b.t.Helper()
	all := map[string]any{}
	for i := 0; i < len(settings); i += 2 {
		all[settings[i]] = settings[i+1]
	}
	result, err := b.Run(b.t.Context(), job(b.t, action, all))
	require.NoError(b.t, err)
	return result
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}

func content(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(raw)
}

func ok(text, result, log string) beacon.Result {
	return beacon.Result{Outputs: beacon.Outputs{"StdOut": text, "ExitCode": 0, "Result": result}, Log: []string{log}}
}

func failed(code int, text, log string) beacon.Result {
	return beacon.Result{Outputs: beacon.Outputs{"StdOut": text, "ExitCode": code, "Result": ""}, Log: []string{log}}
}

// The examples in the documentation of the Node worker.
func TestExamples(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	b := prepare(t, filesystem.Config{AllowedPaths: []string{dir}})

	write(t, in("config.json"), `{"key": "value"}`)
	require.Equal(t, ok("Read 16 bytes from "+in("config.json"), `{"key": "value"}`, "FileSystem Read: read 16 bytes from "+in("config.json")),
		b.does("Read", "FilePath", in("config.json"), "Encoding", "utf8"))

	require.Equal(t, ok("Wrote 13 bytes to "+in("made/output.txt"), in("made/output.txt"), "FileSystem Write: wrote 13 bytes to "+in("made/output.txt")),
		b.does("Write", "FilePath", in("made/output.txt"), "Content", "Hello, world!"))
	require.Equal(t, "Hello, world!", content(t, in("made/output.txt")))

	for _, name := range []string{"q2.csv", "q1.csv", "q3.csv", "other.txt"} {
		write(t, in("reports/"+name), "")
	}
	require.Equal(t, ok("Found 3 files in "+in("reports"), `["q1.csv","q2.csv","q3.csv"]`, "FileSystem List: found 3 files in "+in("reports")),
		b.does("List", "Folder", in("reports"), "Pattern", "*.csv"))
	require.Equal(t, `["other.txt","q1.csv","q2.csv","q3.csv"]`, b.does("List", "Folder", in("reports")).Outputs["Result"])

	write(t, in("original.pdf"), "pdf")
	require.Equal(t, ok("Copied "+in("original.pdf")+" → "+in("backup/original.pdf"), in("backup/original.pdf"),
		"FileSystem Copy: copied "+in("original.pdf")+" → "+in("backup/original.pdf")),
		b.does("Copy", "Source", in("original.pdf"), "TargetFile", in("backup/original.pdf")))
	require.Equal(t, "pdf", content(t, in("backup/original.pdf")))
}

func TestWhatIsMissingOrNotAllowed(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(filepath.Dir(dir), "other")
	absent := filepath.Join(dir, "absent")
	b := prepare(t, filesystem.Config{AllowedPaths: []string{dir}})
	enoent := "ENOENT: no such file or directory, "
	tests := map[string]struct {
		action   string
		settings []string
		want     beacon.Result
	}{
		"read nothing":     {"Read", nil, failed(-1, "No FilePath specified.", "FileSystem Read: no FilePath specified.")},
		"write nowhere":    {"Write", []string{"Content", "x"}, failed(-1, "No FilePath specified.", "FileSystem Write: no FilePath specified.")},
		"list nothing":     {"List", nil, failed(-1, "No Folder specified.", "FileSystem List: no Folder specified.")},
		"copy nothing":     {"Copy", []string{"Source", "x"}, failed(-1, "Source and TargetFile are required.", "FileSystem Copy: Source and TargetFile are required.")},
		"read elsewhere":   {"Read", []string{"FilePath", other}, failed(-1, "Path not allowed: "+other, "FileSystem Read: path not in AllowedPaths: "+other)},
		"write elsewhere":  {"Write", []string{"FilePath", other}, failed(-1, "Path not allowed: "+other, "FileSystem Write: path not in AllowedPaths: "+other)},
		"list elsewhere":   {"List", []string{"Folder", other}, failed(-1, "Path not allowed: "+other, "FileSystem List: path not in AllowedPaths: "+other)},
		"copy from there":  {"Copy", []string{"Source", other, "TargetFile", absent}, failed(-1, "Source path not allowed: "+other, "FileSystem Copy: source not in AllowedPaths: "+other)},
		"copy to there":    {"Copy", []string{"Source", absent, "TargetFile", other}, failed(-1, "Target path not allowed: "+other, "FileSystem Copy: target not in AllowedPaths: "+other)},
		"read absent":      {"Read", []string{"FilePath", absent}, failed(1, "Read failed: "+enoent+"open '"+absent+"'", "FileSystem Read: failed to read "+absent+": "+enoent+"open '"+absent+"'")},
		"list absent":      {"List", []string{"Folder", absent}, failed(1, "List failed: "+enoent+"scandir '"+absent+"'", "FileSystem List: failed: "+enoent+"scandir '"+absent+"'")},
		"copy absent":      {"Copy", []string{"Source", absent, "TargetFile", absent + "2"}, failed(1, "Copy failed: "+enoent+"open '"+absent+"'", "FileSystem Copy: failed: "+enoent+"open '"+absent+"'")},
		"read a folder":    {"Read", []string{"FilePath", dir}, failed(1, "Read failed: EISDIR: illegal operation on a directory, read '"+dir+"'", "FileSystem Read: failed to read "+dir+": EISDIR: illegal operation on a directory, read '"+dir+"'")},
		"unknown encoding": {"Read", []string{"FilePath", absent, "Encoding", "klingon"}, failed(1, "Read failed: Unknown encoding: klingon", "FileSystem Read: failed to read "+absent+": Unknown encoding: klingon")},
		"unknown action":   {"Shred", nil, failed(-1, "Unknown FileSystem action: Shred", "FileSystem Provider: unsupported action [Shred].")},
		"not on offer":     {"Delete", []string{"FilePath", absent}, failed(-1, "Unknown FileSystem action: Delete", "FileSystem Provider: unsupported action [Delete].")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { require.Equal(t, tt.want, bench{t, b.Provider}.does(tt.action, tt.settings...)) })
	}
	require.NoDirExists(t, other)
	require.Empty(t, list(t, dir))
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// protocol.md §10: AllowedPaths is a bare string prefix: /data admits
// /data-secret; .. not normalised; symlinks followed. features.md §0, 8.
func TestBoundaries(t *testing.T) {
	base := t.TempDir()
	in := func(name string) string { return filepath.Join(base, filepath.FromSlash(name)) }
	write(t, in("data/file"), "allowed")
	write(t, in("data/sub/file"), "allowed")
	write(t, in("data-secret/file"), "secret")
	write(t, in("secret"), "secret")
	for link, target := range map[string]string{
		"data/absolute": in("secret"), "data/relative": "../secret", "data/folder": "../data-secret", "data/sub/up": "../..",
		"data/inside": "sub/file", "data/loop": "loop",
	} {
		require.NoError(t, os.Symlink(target, in(link)))
	}
	b := prepare(t, filesystem.Config{AllowedPaths: []string{in("data")}, Actions: everything})
	for _, path := range []string{
		"data-secret/file", "secret", "data/../secret", "data/sub/../../secret", "data/absolute", "data/relative", "data/folder/file",
		"data/sub/up/secret", "data/sub/up/data-secret/file", "data//../secret", "", ".", "data/..",
	} {
		full := in("") + "/" + path // as it is, not cleaned
		for _, action := range []string{"Read", "Hash", "List", "Copy", "Write", "Move", "Delete", "MakeDirectory"} {
			var result beacon.Result
			switch action {
			case "List", "MakeDirectory":
				result = b.does(action, "Folder", full)
			case "Copy":
				result = b.does(action, "Source", full, "TargetFile", in("data/copied"))
			case "Move":
				result = b.does(action, "Source", in("data/file"), "TargetFile", full+"/moved")
			case "Write":
				result = b.does(action, "FilePath", full, "Content", "overwritten")
			case "Delete":
				if strings.HasPrefix(path, "data/absolute") || strings.HasPrefix(path, "data/relative") {
					continue // the link itself is inside
				}
				result = b.does(action, "FilePath", full, "Recursive", "true")
			default:
				result = b.does(action, "FilePath", full)
			}
			require.NotEqual(t, 0, result.ExitCode(), "%s %s: %v", action, path, result.Outputs)
			require.Contains(t, result.Outputs["StdOut"], "ath not allowed: ", "%s %s", action, path)
			require.NotContains(t, result.Outputs["Result"], "secret", "%s %s", action, path)
		}
	}
	require.Equal(t, "secret", content(t, in("secret")))
	require.Equal(t, "secret", content(t, in("data-secret/file")))
	require.Equal(t, "allowed", content(t, in("data/file")))
	require.NoFileExists(t, in("data/copied"))
	require.NoFileExists(t, in("moved"))

	require.Equal(t, "allowed", b.does("Read", "FilePath", in("data/inside")).Outputs["Result"], "a link that stays inside is fine")
	require.Equal(t, "allowed", b.does("Read", "FilePath", in("x")+"/../data/./sub//file").Outputs["Result"])
	require.Contains(t, b.does("Read", "FilePath", in("data/loop")).Outputs["StdOut"], "Read failed: ")

	// A folder by its other name, and a single file.
	require.NoError(t, os.Symlink(in("data"), in("alias")))
	real, err := filepath.EvalSymlinks(in("data/file"))
	require.NoError(t, err)
	alias := prepare(t, filesystem.Config{AllowedPaths: []string{in("alias"), in("secret")}})
	for _, path := range []string{in("alias/file"), real, in("secret")} {
		require.Equal(t, 0, alias.does("Read", "FilePath", path).ExitCode(), path)
	}
	require.Equal(t, -1, alias.does("Read", "FilePath", in("data-secret/file")).ExitCode())
	require.Equal(t, -1, alias.does("List", "Folder", in("")).ExitCode())
	require.Equal(t, 0, alias.does("Write", "FilePath", in("secret"), "Content", "new").ExitCode())
	require.Equal(t, "new", content(t, in("secret")))

	for _, wrong := range [][]string{{""}, {in("absent")}} {
		_, err := filesystem.New(filesystem.Config{AllowedPaths: wrong})
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	}
}

// Nobody who swaps a folder for a link at the right moment gets out.
func TestRace(t *testing.T) {
	base := t.TempDir()
	in := func(name string) string { return filepath.Join(base, filepath.FromSlash(name)) }
	write(t, in("secret/f"), "secret")
	write(t, in("data/real/f"), "allowed")
	b := prepare(t, filesystem.Config{AllowedPaths: []string{in("data")}})
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Symlink(in("secret"), in("data/link"))
			_ = os.Rename(in("data/link"), in("data/x"))
			_ = os.Remove(in("data/x"))
			_ = os.Rename(in("data/real"), in("data/x"))
			_ = os.Rename(in("data/x"), in("data/real"))
		}
	})
	for range 100 {
		require.NotEqual(t, "secret", b.does("Read", "FilePath", in("data/x/f")).Outputs["Result"])
		b.does("Write", "FilePath", in("data/x/g"), "Content", "written")
	}
	close(stop)
	swapping.Wait()
	require.Equal(t, []string{"f"}, list(t, in("secret")))
	require.Equal(t, "secret", content(t, in("secret/f")))
}

// protocol.md §10: MaxFileSizeBytes never used.
func TestMaxFileSize(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	b := prepare(t, filesystem.Config{MaxFileSizeBytes: 10})
	write(t, path, "0123456789")
	require.Equal(t, "0123456789", b.does("Read", "FilePath", path).Outputs["Result"])
	write(t, path, "0123456789a")
	require.Equal(t, "Read failed: 11 bytes, the limit is 10 (MaxFileSizeBytes)", b.does("Read", "FilePath", path).Outputs["StdOut"])
	require.Equal(t, 1, b.does("Read", "FilePath", path).ExitCode())
	require.Equal(t, "Write failed: 12 bytes, the limit is 10 (MaxFileSizeBytes)", b.does("Write", "FilePath", path, "Content", "0123456789ab").Outputs["StdOut"])
	require.Equal(t, "0123456789a", content(t, path))
	require.Equal(t, 0, b.does("Write", "FilePath", path, "Content", "MDEyMzQ1Njc4OQ==", "Encoding", "base64").ExitCode(), "bytes count, not characters")
	if runtime.GOOS == "linux" {
		// A file of the system has no size, and this one has no end.
		require.Contains(t, b.does("Read", "FilePath", "/proc/self/status").Outputs["StdOut"], "the limit is 10")
		require.Contains(t, b.does("Read", "FilePath", "/dev/zero").Outputs["StdOut"], "not a regular file")
	}
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	require.NoError(t, err)
	require.NoError(t, sparse.Truncate(1<<40))
	require.NoError(t, sparse.Close())
	require.Contains(t, b.does("Read", "FilePath", sparse.Name()).Outputs["StdOut"], "1099511627776 bytes", "looked at before it is read")
	_, err = filesystem.New(filesystem.Config{MaxFileSizeBytes: -1})
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
}

// protocol.md §10: glob is a raw regex.
func TestPatterns(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.txt", "axtxt", "a+b.txt", "(c).txt", ".hidden.txt", "é.txt", "sub/d.txt", "sub/deep/e.txt", "sub/deep/f.csv", "[g].txt"} {
		write(t, filepath.Join(dir, filepath.FromSlash(name)), "")
	}
	b := prepare(t, filesystem.Config{})
	for pattern, want := range map[string]string{
		"":               `["(c).txt",".hidden.txt","[g].txt","a+b.txt","a.txt","axtxt","sub","é.txt"]`,
		"*":              `["(c).txt",".hidden.txt","[g].txt","a+b.txt","a.txt","axtxt","sub","é.txt"]`,
		"a.txt":          `["a.txt"]`,
		"a?txt":          `["a.txt","axtxt"]`,
		"a+b.txt":        `["a+b.txt"]`,
		"(c).*":          `["(c).txt"]`,
		"?.txt":          `["a.txt","é.txt"]`,
		`\[g\].txt`:      `["[g].txt"]`,
		"[a-b]*.txt":     `["a+b.txt","a.txt"]`,
		"*.{csv,txt}":    `["(c).txt",".hidden.txt","[g].txt","a+b.txt","a.txt","é.txt"]`,
		"**/*.csv":       `["sub/deep/f.csv"]`,
		"sub/**":         `["sub","sub/d.txt","sub/deep","sub/deep/e.txt","sub/deep/f.csv"]`,
		"sub/*/e.txt":    `["sub/deep/e.txt"]`,
		"**/d*":          `["sub/d.txt","sub/deep"]`,
		"none":           `[]`,
		".*":             `[".hidden.txt"]`,
		"(a|b)+":         `[]`,
		"^a":             `[]`,
		"../*":           `[]`,
		"a.txt\x00":      `[]`,
		"**/**/**/*.csv": `["sub/deep/f.csv"]`,
	} {
		if runtime.GOOS == "windows" && strings.Contains(pattern, `\`) {
			continue
		}
		result := b.does("List", "Folder", dir, "Pattern", pattern)
		require.Equal(t, want, result.Outputs["Result"], pattern)
	}
	for _, wrong := range []string{"[a", "{a", strings.Repeat("*", 2000)} {
		require.Equal(t, 1, b.does("List", "Folder", dir, "Pattern", wrong).ExitCode(), wrong)
	}
	require.Contains(t, b.does("List", "Folder", filepath.Join(dir, "a.txt")).Outputs["StdOut"], "List failed: ENOTDIR: not a directory, scandir")
}

// protocol.md §10: binary read as utf8 mangled.
func TestEncodings(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	b := prepare(t, filesystem.Config{})
	for name, tt := range map[string]struct {
		encoding, bytes, text string
		lossy                 bool
	}{
		"utf8":              {"utf8", "h\xc3\xa9llo ✓", "héllo ✓", false},
		"utf-8":             {"UTF-8", "a", "a", false},
		"nothing said":      {"", "\xef\xbb\xbfa", "\ufeffa", false},
		"binary as utf8":    {"utf8", "a\xff\xfeb", "a\ufffdb", true},
		"base64":            {"base64", "\x00\xff\xfe", "AP/+", false},
		"base64url":         {"base64url", "\x00\xff\xfe\x01", "AP_-AQ", false},
		"hex":               {"hex", "\x00\xff", "00ff", false},
		"latin1":            {"latin1", "\xe9\xff\x80", "éÿ\u0080", false},
		"binary":            {"binary", "\xe9", "é", false},
		"ascii":             {"ascii", "abc", "abc", false},
		"ascii, with more":  {"ascii", "\xe9", "i", true},
		"utf16le":           {"utf16le", "a\x00\xac\x20\x3d\xd8\x00\xde", "a€😀", false},
		"ucs2":              {"ucs2", "a\x00", "a", false},
		"half a pair":       {"utf16le", "a\x00\x3d\xd8", "a\ufffd", true},
		"odd":               {"utf-16le", "a\x00b", "a", true},
		"empty":             {"utf8", "", "", false},
		"NUL in the middle": {"utf8", "a\x00b", "a\x00b", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := bench{t, b.Provider}
			write(t, path, tt.bytes)
			result := b.does("Read", "FilePath", path, "Encoding", tt.encoding)
			require.Equal(t, tt.text, result.Outputs["Result"])
			if tt.lossy {
				require.Equal(t, base64.StdEncoding.EncodeToString([]byte(tt.bytes)), result.Outputs["ResultBase64"])
				return
			}
			require.NotContains(t, result.Outputs, "ResultBase64")
			write(t, path, "before")
			require.Equal(t, 0, b.does("Write", "FilePath", path, "Encoding", tt.encoding, "Content", tt.text).ExitCode())
			require.Equal(t, tt.bytes, content(t, path))
		})
	}
	write(t, path, "before")
	for _, wrong := range [][2]string{{"hex", "0"}, {"hex", "xy"}, {"base64", "?"}, {"latin1", "€"}, {"ascii", "é"}, {"klingon", "x"}} {
		result := b.does("Write", "FilePath", path, "Encoding", wrong[0], "Content", wrong[1])
		require.Equal(t, 1, result.ExitCode(), wrong)
		require.Contains(t, result.Outputs["StdOut"], "Write failed: ")
	}
	for _, loose := range []string{"YWI=", "YWI", "YW\nI=", " Y W I "} {
		require.Equal(t, 0, b.does("Write", "FilePath", path, "Encoding", "base64", "Content", loose).ExitCode(), loose)
		require.Equal(t, "ab", content(t, path))
	}
}

func TestContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	b := prepare(t, filesystem.Config{})
	for name, tt := range map[string]struct {
		content any
		want    string
	}{
		"text": {"a\n", "a\n"}, "nothing": {nil, ""}, "number": {json.Number("12345678901234567890"), "12345678901234567890"}, "truth": {true, "true"},
		"object": {json.RawMessage(`{"b": 1, "a": [1, {}], "c": {"d": null}}`), "{\n\t\"b\": 1,\n\t\"a\": [\n\t\t1,\n\t\t{}\n\t],\n\t\"c\": {\n\t\t\"d\": null\n\t}\n}"},
		"list":   {[]string{}, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := b.Run(t.Context(), job(t, "Write", map[string]any{"FilePath": path, "Content": tt.content}))
			require.NoError(t, err)
			require.Equal(t, 0, result.ExitCode())
			require.Equal(t, tt.want, content(t, path))
		})
	}
	result, err := b.Run(t.Context(), job(t, "Write", map[string]any{"FilePath": path}))
	require.NoError(t, err)
	require.Equal(t, 0, result.ExitCode())
	require.Empty(t, content(t, path))
}

// A reader sees the content before or the one after, and nothing is left of a
// write that fails.
func TestAtomicWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	b := prepare(t, filesystem.Config{AllowedPaths: []string{dir}})
	short, long := strings.Repeat("s", 1<<10), strings.Repeat("l", 1<<20)
	write(t, path, short)
	require.NoError(t, os.Chmod(path, 0o640))
	var reading sync.WaitGroup
	stop := make(chan struct{})
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if raw, err := os.ReadFile(path); err != nil || string(raw) != short && string(raw) != long {
				t.Error("half a file", len(raw), err)
				return
			}
		}
	})
	for i := range 10 {
		text := short
		if i%2 == 0 {
			text = long
		}
		require.Equal(t, 0, b.does("Write", "FilePath", path, "Content", text).ExitCode())
	}
	close(stop)
	reading.Wait()
	if runtime.GOOS != "windows" {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o640), info.Mode().Perm(), "the mode stays")
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	require.Contains(t, b.does("Write", "FilePath", filepath.Join(dir, "folder"), "Content", "x").Outputs["StdOut"], "EISDIR")
	require.Contains(t, b.does("Write", "FilePath", filepath.Join(path, "below"), "Content", "x").Outputs["StdOut"], "EEXIST")
	require.Equal(t, []string{"f", "folder"}, list(t, dir))
}

func TestLinksAndPipes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links are another matter there")
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	b := prepare(t, filesystem.Config{Actions: everything})
	write(t, in("target"), "before")
	require.NoError(t, os.Symlink("target", in("link")))
	require.Equal(t, 0, b.does("Write", "FilePath", in("link"), "Content", "after").ExitCode())
	require.Equal(t, "after", content(t, in("target")), "a link keeps leading where it does")
	info, err := os.Lstat(in("link"))
	require.NoError(t, err)
	require.Equal(t, os.ModeSymlink, info.Mode().Type())
	require.Equal(t, 0, b.does("Write", "FilePath", "/dev/null", "Content", "x").ExitCode())

	mkfifo(t, in("pipe"))
	for _, action := range []string{"Read", "Hash", "Write"} {
		require.NotEqual(t, 0, b.does(action, "FilePath", in("pipe"), "Content", "x").ExitCode(), "nobody is at the other end, and nobody waits")
	}
	require.NotEqual(t, 0, b.does("Copy", "Source", in("pipe"), "TargetFile", in("copy")).ExitCode())
	require.NotEqual(t, 0, b.does("List", "Folder", in("pipe")).ExitCode())
}

func TestCopy(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	b := prepare(t, filesystem.Config{AllowedPaths: []string{first, second}})
	from, to := filepath.Join(first, "f"), filepath.Join(second, "a", "b", "f")
	large := bytes.Repeat([]byte("0123456789abcdef"), 5<<16) // 5 MiB
	write(t, from, string(large))
	require.NoError(t, os.Chmod(from, 0o750))
	var told []beacon.Progress
	j := job(t, "Copy", map[string]any{"Source": from, "TargetFile": to})
	j.OnProgress = func(p beacon.Progress) { told = append(told, p) }
	result, err := b.Run(t.Context(), j)
	require.NoError(t, err)
	require.Equal(t, 0, result.ExitCode(), result.Outputs)
	require.Equal(t, string(large), content(t, to))
	if runtime.GOOS != "windows" {
		info, err := os.Stat(to)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o750), info.Mode().Perm())
	}
	require.Equal(t, 0, b.does("Copy", "Source", from, "TargetFile", from).ExitCode())
	require.Equal(t, string(large), content(t, from), "onto itself")
	require.Contains(t, b.does("Copy", "Source", first, "TargetFile", to).Outputs["StdOut"], "EISDIR")

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(beacon.Errorf(beacon.Canceled, "not wanted any more"))
	_, err = b.Run(ctx, job(t, "Copy", map[string]any{"Source": from, "TargetFile": to + "2"}))
	require.Equal(t, beacon.Canceled, beacon.CodeOf(err))
	require.Equal(t, []string{"f"}, list(t, filepath.Dir(to)))
}

func TestFurtherActions(t *testing.T) {
	dir, second := t.TempDir(), t.TempDir()
	in := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	b := prepare(t, filesystem.Config{AllowedPaths: []string{dir, second}, Actions: everything})
	write(t, in("f"), "abc")

	var d struct {
		Path, Type, Mode string
		Size             int64
		Modified         time.Time
	}
	require.NoError(t, json.Unmarshal([]byte(b.does("Stat", "FilePath", in("f")).Outputs["Result"].(string)), &d))
	require.Equal(t, []any{in("f"), "file", int64(3)}, []any{d.Path, d.Type, d.Size})
	require.WithinDuration(t, time.Now(), d.Modified, time.Hour)
	require.NoError(t, json.Unmarshal([]byte(b.does("Stat", "FilePath", dir).Outputs["Result"].(string)), &d))
	require.Equal(t, "directory", d.Type)
	require.Contains(t, b.does("Stat", "FilePath", in("absent")).Outputs["StdOut"], "Stat failed: ENOENT")

	for algorithm, want := range map[string]string{
		"":       "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"SHA1":   "a9993e364706816aba3e25717850c26c9cd0d89d",
		"md5":    "900150983cd24fb0d6963f7d28e17f72",
		"sha512": "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
	} {
		require.Equal(t, want, b.does("Hash", "FilePath", in("f"), "Algorithm", algorithm).Outputs["Result"], algorithm)
	}
	require.Equal(t, 1, b.does("Hash", "FilePath", in("f"), "Algorithm", "rot13").ExitCode())

	require.Equal(t, in("a/b/c"), b.does("MakeDirectory", "Folder", in("a/b/c")).Outputs["Result"])
	require.DirExists(t, in("a/b/c"))
	require.Equal(t, 0, b.does("MakeDirectory", "Folder", dir).ExitCode(), "it is there")
	require.Contains(t, b.does("MakeDirectory", "Folder", in("f/x")).Outputs["StdOut"], "ENOTDIR")

	require.Equal(t, "Moved "+in("f")+" → "+in("new/g"), b.does("Move", "Source", in("f"), "TargetFile", in("new/g")).Outputs["StdOut"])
	require.NoFileExists(t, in("f"))
	require.Equal(t, 0, b.does("Move", "Source", in("new/g"), "TargetFile", filepath.Join(second, "g")).ExitCode(), "to another folder that is allowed")
	require.NoFileExists(t, in("new/g"))
	require.Equal(t, "abc", content(t, filepath.Join(second, "g")))
	require.Equal(t, -1, b.does("Move", "Source", dir, "TargetFile", filepath.Join(second, "dir")).ExitCode())
	require.Equal(t, 0, b.does("Move", "Source", in("a"), "TargetFile", in("moved")).ExitCode())
	require.DirExists(t, in("moved/b/c"))

	require.Contains(t, b.does("Delete", "FilePath", in("moved")).Outputs["StdOut"], "Delete failed: ENOTEMPTY")
	require.Equal(t, 0, b.does("Delete", "FilePath", in("moved"), "Recursive", "true").ExitCode())
	require.NoDirExists(t, in("moved"))
	require.Contains(t, b.does("Delete", "FilePath", in("moved"), "Recursive", "true").Outputs["StdOut"], "Delete failed: ENOENT")
	require.Equal(t, 1, b.does("Delete", "FilePath", in("new"), "Recursive", "perhaps").ExitCode())
	for _, top := range []string{dir, dir + "/new/..", second} {
		require.Equal(t, -1, b.does("Delete", "FilePath", top, "Recursive", "true").ExitCode(), top)
	}
	require.DirExists(t, dir)
}

func TestActionsOnOffer(t *testing.T) {
	names := func(cfg filesystem.Config) (all []string) {
		for _, a := range prepare(t, cfg).Capability().Actions {
			all = append(all, a.Name)
		}
		return all
	}
	require.Equal(t, []string{"Read", "Write", "List", "Copy"}, names(filesystem.Config{}))
	require.Equal(t, []string{"Stat", "Read"}, names(filesystem.Config{Actions: []string{"Stat", "Read"}}), "those that are named, and no others")
	_, err := filesystem.New(filesystem.Config{Actions: []string{"Shred"}})
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
}

func TestRelativePaths(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "sub", "f"), "x")
	b := prepare(t, filesystem.Config{Folder: dir, AllowedPaths: []string{"sub"}})
	require.Equal(t, ok("Read 1 bytes from "+filepath.Join(dir, "sub", "f"), "x", "FileSystem Read: read 1 bytes from "+filepath.Join(dir, "sub", "f")),
		b.does("Read", "FilePath", "sub/f"))
	require.Equal(t, -1, b.does("Read", "FilePath", "sub/../../x").ExitCode())
	t.Chdir(dir)
	require.Equal(t, "x", prepare(t, filesystem.Config{}).does("Read", "FilePath", "sub/f").Outputs["Result"])
}

// The files of an item are its own.
func TestFilesOfTheItem(t *testing.T) {
	dir, allowed := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "in"), "staged")
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	b := prepare(t, filesystem.Config{AllowedPaths: []string{allowed}})
	j := job(t, "Copy", map[string]any{"Source": "{SourcePath}", "TargetFile": filepath.Join(allowed, "out")})
	j.Dir, j.Source, j.Output = root, "in", "made/out"
	result, err := b.Run(t.Context(), j)
	require.NoError(t, err)
	require.Equal(t, "Copied {SourcePath} → "+filepath.Join(allowed, "out"), result.Outputs["StdOut"])
	require.Equal(t, "staged", content(t, filepath.Join(allowed, "out")))
	j.Item = job(t, "Write", map[string]any{"FilePath": "{OutputPath}", "Content": "made"}).Item
	result, err = b.Run(t.Context(), j)
	require.NoError(t, err)
	require.Equal(t, 0, result.ExitCode())
	require.Equal(t, "made", content(t, filepath.Join(dir, "made", "out")))
}

func FuzzPaths(f *testing.F) {
	for _, path := range []string{"../secret", "/etc/passwd", "a/../../x", "link/f", "\x00", "~", "a//b", strings.Repeat("../", 50)} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		base := t.TempDir()
		write(t, filepath.Join(base, "secret"), "secret")
		write(t, filepath.Join(base, "data", "f"), "allowed")
		if err := os.Symlink(base, filepath.Join(base, "data", "link")); err != nil {
			t.Skip(err)
		}
		b := prepare(t, filesystem.Config{AllowedPaths: []string{filepath.Join(base, "data")}, Actions: everything, Folder: filepath.Join(base, "data")})
		result := b.does("Read", "FilePath", path)
		require.NotContains(t, result.Outputs["Result"], "secret")
		b.does("Write", "FilePath", path, "Content", "x")
		b.does("List", "Folder", path)
		b.does("Delete", "FilePath", path, "Recursive", "true")
		require.Equal(t, "secret", content(t, filepath.Join(base, "secret")))
		require.DirExists(t, filepath.Join(base, "data"))
	})
}
