package wasi_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
	"github.com/ultravisor/beacon/hostfuncs/wasi"
	"github.com/ultravisor/beacon/runtime/engine"
)

// Error numbers of WASI preview 1.
const (
	ok        = 0
	tooBig    = 1
	badFD     = 8
	exists    = 20
	fault     = 21
	fbig      = 22
	invalid   = 28
	ioError   = 29
	isDir     = 31
	loop      = 32
	manyOpen  = 33
	longName  = 37
	notFound  = 44
	noSpace   = 51
	noSystem  = 52
	notDir    = 54
	notSocket = 57
	notSup    = 58
	notPerm   = 63
	readOnly  = 69
	noSeek    = 70
)

// raw is a guest that makes whatever calls the test wants.
type raw struct {
	t   testing.TB
	ctx context.Context
	mod api.Module
	p   *wasi.Process
}

func rawCode(t testing.TB, r wazero.Runtime) wazero.CompiledModule {
	t.Helper()
	code, err := os.ReadFile("testdata/raw.wasm")
	require.NoError(t, err)
	return compile(t, r, code)
}

func newRaw(t testing.TB, cfg wasi.Config) *raw {
	t.Helper()
	r := newRuntime(t)
	return startRaw(t.Context(), t, r, rawCode(t, r), cfg)
}

func startRaw(ctx context.Context, t testing.TB, r wazero.Runtime, code wazero.CompiledModule, cfg wasi.Config) *raw {
	t.Helper()
	p := wasi.NewProcess(cfg)
	mod, err := r.InstantiateModule(abi.WithState(ctx, p), code, wazero.NewModuleConfig().WithName(""))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, mod.Close(context.Background()))
		require.NoError(t, p.Close())
	})
	return &raw{t, abi.WithState(ctx, p), mod, p}
}

// try calls a function.
func (g *raw) try(name string, args ...uint64) (uint32, error) {
	results, err := g.mod.ExportedFunction(name).Call(g.ctx, args...)
	if err != nil || len(results) == 0 {
		return math.MaxUint32, err
	}
	return uint32(results[0]), nil
}

// call calls a function that does not stop the guest.
func (g *raw) call(name string, args ...uint64) uint32 {
	g.t.Helper()
	errno, err := g.try(name, args...)
	require.NoError(g.t, err, name)
	return errno
}

func (g *raw) put(at uint32, data string) (ptr, size uint64) {
	g.t.Helper()
	require.True(g.t, g.mod.Memory().WriteString(at, data))
	return uint64(at), uint64(len(data))
}

func (g *raw) bytes(at, size uint32) []byte {
	g.t.Helper()
	b, ok := g.mod.Memory().Read(at, size)
	require.True(g.t, ok)
	return b
}

func (g *raw) u32(at uint32) uint32 { return binary.LittleEndian.Uint32(g.bytes(at, 4)) }
func (g *raw) u64(at uint32) uint64 { return binary.LittleEndian.Uint64(g.bytes(at, 8)) }

// vector puts one buffer's address and size at 64.
func (g *raw) vector(at, size uint32) (ptr, count uint64) {
	b := g.bytes(64, 8)
	binary.LittleEndian.PutUint32(b, at)
	binary.LittleEndian.PutUint32(b[4:], size)
	return 64, 1
}

const (
	allRights = 1<<28 - 1
	here      = 3    // the first preopen
	result    = 32   // where results go
	pathAt    = 1024 // where paths are
	bufferAt  = 1 << 16
)

// open opens a path below a directory.
func (g *raw) open(dir uint64, path string, flags, rights uint64) (fd uint64, errno uint32) {
	g.t.Helper()
	ptr, size := g.put(pathAt, path)
	errno = g.call("path_open", dir, 0, ptr, size, flags, rights, rights, 0, result)
	return uint64(g.u32(result)), errno
}

// All functions of preview 1, with their types, as wazero's own.
func TestInterfaceIsComplete(t *testing.T) {
	ctx := t.Context()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	theirs, err := wasi_snapshot_preview1.NewBuilder(r).Compile(ctx)
	require.NoError(t, err)
	mine := newRuntime(t).Module(wasi.Name)
	require.Len(t, mine.ExportedFunctionDefinitions(), len(theirs.ExportedFunctions()))
	require.Len(t, wasi.Interface().Functions, 46)
	for name, their := range theirs.ExportedFunctions() {
		my := mine.ExportedFunctionDefinitions()[name]
		require.NotNil(t, my, name)
		require.Equal(t, their.ParamTypes(), my.ParamTypes(), name)
		require.Equal(t, their.ResultTypes(), my.ResultTypes(), name)
	}
}

func TestArgumentsAndEnvironment(t *testing.T) {
	g := newRaw(t, wasi.Config{Args: []string{"p", "", "x y"}, Env: []string{"A=1"}})
	require.EqualValues(t, ok, g.call("args_sizes_get", 0, 4))
	require.EqualValues(t, 3, g.u32(0))
	require.EqualValues(t, 7, g.u32(4))
	require.EqualValues(t, ok, g.call("args_get", 100, 200))
	require.Equal(t, "p\x00\x00x y\x00", string(g.bytes(200, 7)))
	require.Equal(t, []uint32{200, 202, 203}, []uint32{g.u32(100), g.u32(104), g.u32(108)})
	require.EqualValues(t, ok, g.call("environ_sizes_get", 0, 4))
	require.EqualValues(t, 1, g.u32(0))
	require.EqualValues(t, ok, g.call("environ_get", 100, 300))
	require.Equal(t, "A=1\x00", string(g.bytes(300, 4)))

	end := uint64(4 << 16)
	require.EqualValues(t, fault, g.call("args_get", end-8, 0))
	require.EqualValues(t, fault, g.call("args_get", 0, end-6))
	g = newRaw(t, wasi.Config{Args: []string{strings.Repeat("x", 1<<20)}})
	require.EqualValues(t, tooBig, g.call("args_sizes_get", 0, 4))
	require.EqualValues(t, tooBig, g.call("args_get", 0, 4))
}

// S26: the environment is what was given, and empty otherwise.
func TestS26NothingOfTheHost(t *testing.T) {
	t.Setenv("BEACON_TEST_SECRET", secret)
	g := newRaw(t, wasi.Config{})
	require.EqualValues(t, ok, g.call("environ_sizes_get", 0, 4))
	require.Zero(t, g.u32(0))
	require.EqualValues(t, ok, g.call("args_sizes_get", 0, 4))
	require.Zero(t, g.u32(0))
	require.EqualValues(t, badFD, g.call("fd_prestat_get", here, 0))
	ptr, n := g.vector(bufferAt, 100)
	require.EqualValues(t, ok, g.call("fd_read", 0, ptr, n, result))
	require.Zero(t, g.u32(result))
	g.put(bufferAt, "dropped")
	require.EqualValues(t, ok, g.call("fd_write", 1, ptr, n, result))
	require.EqualValues(t, 100, g.u32(result))
}

// S25: clocks show milliseconds, or what was granted; bytes are random.
func TestS25ClocksAndRandomness(t *testing.T) {
	g := newRaw(t, wasi.Config{})
	for id := range uint64(2) {
		require.EqualValues(t, ok, g.call("clock_res_get", id, 0))
		require.EqualValues(t, 1_000_000, g.u64(0))
		last := uint64(0)
		for range 100 {
			require.EqualValues(t, ok, g.call("clock_time_get", id, 1, 0))
			require.Zero(t, g.u64(0)%1_000_000)
			require.GreaterOrEqual(t, g.u64(0), last)
			last = g.u64(0)
		}
		require.InDelta(t, time.Now().UnixNano(), last, float64(time.Hour))
	}
	for _, id := range []uint64{2, 3, math.MaxUint32} {
		require.EqualValues(t, invalid, g.call("clock_time_get", id, 1, 0))
		require.EqualValues(t, invalid, g.call("clock_res_get", id, 0))
	}
	fine := newRaw(t, wasi.Config{Resolution: time.Nanosecond})
	require.EqualValues(t, ok, fine.call("clock_res_get", 1, 0))
	require.EqualValues(t, 1, fine.u64(0))

	require.EqualValues(t, ok, g.call("random_get", bufferAt, 32))
	first := string(g.bytes(bufferAt, 32))
	other := newRaw(t, wasi.Config{})
	require.EqualValues(t, ok, other.call("random_get", bufferAt, 32))
	require.NotEqual(t, first, string(other.bytes(bufferAt, 32)))
	fixed := newRaw(t, wasi.Config{Random: strings.NewReader("0123456789")})
	require.EqualValues(t, ok, fixed.call("random_get", 0, 10))
	require.Equal(t, "0123456789", string(fixed.bytes(0, 10)))
	require.EqualValues(t, ioError, fixed.call("random_get", 0, 1))
}

// S16: whatever the arguments, the answer is an error number.
func TestS16HostileArguments(t *testing.T) {
	const end, max32 = 4 << 16, math.MaxUint32
	s := stage(t, guestfs.Config{})
	g := newRaw(t, wasi.Config{FS: s.fs, Preopens: []string{"/work"}, Stdin: strings.NewReader("text")})
	file, errno := g.open(here, "file", 1, allRights)
	require.EqualValues(t, ok, errno)
	g.put(pathAt, "file")
	tests := map[string]struct {
		function string
		args     []uint64
		want     uint32
	}{
		"path of 200 MiB":          {"path_open", []uint64{here, 0, 0, 200 << 20, 0, 0, 0, 0, 0}, longName},
		"path longer than allowed": {"path_open", []uint64{here, 0, 0, 4097, 0, 0, 0, 0, 0}, longName},
		"path beyond the end":      {"path_open", []uint64{here, 0, end - 1, 2, 0, 0, 0, 0, 0}, fault},
		"path that wraps":          {"path_open", []uint64{here, 0, max32, max32, 0, 0, 0, 0, 0}, fault},
		"path of nothing":          {"path_open", []uint64{here, 0, pathAt, 0, 0, 0, 0, 0, 0}, notFound},
		"result beyond the end":    {"path_open", []uint64{here, 0, pathAt, 4, 0, 0, 0, 0, end - 3}, fault},
		"unknown open flags":       {"path_open", []uint64{here, 0, pathAt, 4, 16, 0, 0, 0, 0}, invalid},
		"unknown flags":            {"path_open", []uint64{here, 0, pathAt, 4, 0, 0, 0, 1 << 31, 0}, invalid},
		"rename with long target":  {"path_rename", []uint64{here, pathAt, 4, here, 0, 5000}, longName},
		"symlink with long target": {"path_symlink", []uint64{0, 200 << 20, here, pathAt, 4}, notPerm},
		"vectors that wrap":        {"fd_write", []uint64{1, 0, 0x20000000, 0}, invalid},
		"too many vectors":         {"fd_write", []uint64{1, 0, 1025, 0}, invalid},
		"vectors beyond the end":   {"fd_write", []uint64{1, end - 4, 1, 0}, fault},
		"read with many vectors":   {"fd_read", []uint64{0, 0, max32, 0}, invalid},
		"pread at negative":        {"fd_pread", []uint64{file, 64, 0, 1 << 63, 0}, ok},
		"no descriptor":            {"fd_read", []uint64{max32, 0, 0, 0}, badFD},
		"renumber to huge":         {"fd_renumber", []uint64{file, 1<<31 - 1}, badFD},
		"renumber to closed":       {"fd_renumber", []uint64{file, 1000}, badFD},
		"renumber from closed":     {"fd_renumber", []uint64{1000, file}, badFD},
		"renumber to itself":       {"fd_renumber", []uint64{file, file}, ok},
		"no subscriptions":         {"poll_oneoff", []uint64{0, 0, 0, 0}, invalid},
		"subscriptions that wrap":  {"poll_oneoff", []uint64{0, 0, 0x10000000, 0}, invalid},
		"too many subscriptions":   {"poll_oneoff", []uint64{0, 0, 65, 0}, invalid},
		"subscriptions outside":    {"poll_oneoff", []uint64{end - 47, 0, 1, 0}, fault},
		"events outside":           {"poll_oneoff", []uint64{0, end - 31, 1, 0}, fault},
		"unknown subscription":     {"poll_oneoff", []uint64{subscribe(g, 0, subscription{kind: 7}), 512, 1, result}, invalid},
		"random beyond the end":    {"random_get", []uint64{0, end + 1}, fault},
		"random that wraps":        {"random_get", []uint64{end - 1, max32}, fault},
		"huge listing":             {"fd_readdir", []uint64{here, 0, 1<<20 + 1, 0, 0}, invalid},
		"small listing":            {"fd_readdir", []uint64{here, 0, 23, 0, 0}, invalid},
		"listing outside":          {"fd_readdir", []uint64{here, end - 23, 24, 0, 0}, fault},
		"listing a file":           {"fd_readdir", []uint64{file, 0, 100, 0, result}, badFD},
		"cookie beyond":            {"fd_readdir", []uint64{here, bufferAt, 100, math.MaxUint64, result}, ok},
		"seek whence":              {"fd_seek", []uint64{file, 0, max32, 0}, invalid},
		"seek far":                 {"fd_seek", []uint64{file, 1 << 63, 0, 0}, invalid},
		"seek standard input":      {"fd_seek", []uint64{0, 0, 0, 0}, noSeek},
		"tell a directory":         {"fd_tell", []uint64{here, 0}, badFD},
		"allocate negative":        {"fd_allocate", []uint64{file, 1 << 63, 1}, invalid},
		"allocate too much":        {"fd_allocate", []uint64{file, 0, 1 << 40}, fbig},
		"allocate output":          {"fd_allocate", []uint64{1, 0, 1}, noSeek},
		"size too large":           {"fd_filestat_set_size", []uint64{file, 1 << 40}, fbig},
		"size negative":            {"fd_filestat_set_size", []uint64{file, math.MaxUint64}, invalid},
		"size of a directory":      {"fd_filestat_set_size", []uint64{here, 0}, isDir},
		"write far":                {"fd_pwrite", []uint64{file, 64, 1, 1 << 62, 0}, fbig},
		"advice":                   {"fd_advise", []uint64{file, 0, 0, 6}, invalid},
		"both times":               {"fd_filestat_set_times", []uint64{file, 0, 0, 3}, invalid},
		"time out of range":        {"fd_filestat_set_times", []uint64{file, math.MaxUint64, 0, 1}, invalid},
		"set flags":                {"fd_fdstat_set_flags", []uint64{1, 32}, invalid},
		"set rights":               {"fd_fdstat_set_rights", []uint64{file, 0, 0}, notSup},
		"raise":                    {"proc_raise", []uint64{9}, noSystem},
		"accept":                   {"sock_accept", []uint64{file, 0, 0}, notSocket},
		"receive":                  {"sock_recv", []uint64{99, 0, 0, 0, 0, 0}, badFD},
		"send":                     {"sock_send", []uint64{file, max32, max32, 0, 0}, notSocket},
		"shut down":                {"sock_shutdown", []uint64{file, 0}, notSocket},
		"prestat of a file":        {"fd_prestat_get", []uint64{file, 0}, badFD},
		"name too short":           {"fd_prestat_dir_name", []uint64{here, 0, 4}, longName},
		"path below a file":        {"path_filestat_get", []uint64{file, 0, pathAt, 4, 0}, notDir},
		"path below output":        {"path_filestat_get", []uint64{1, 0, pathAt, 4, 0}, notDir},
		"stat outside":             {"path_filestat_get", []uint64{here, 0, pathAt, 4, end - 63}, fault},
		"fdstat outside":           {"fd_fdstat_get", []uint64{0, end - 23}, fault},
	}
	g.vector(bufferAt, 10)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g.t = t
			require.Equal(t, tt.want, g.call(tt.function, tt.args...))
		})
	}
	require.Equal(t, 1, s.fs.Usage().OpenFiles-1, "the file and the directory that was listed")
}

// S16: one call does not move more than its limit, whatever the vectors say.
func TestS16OneCallIsBounded(t *testing.T) {
	var written countWriter
	g := newRaw(t, wasi.Config{Stdout: &written})
	table := g.bytes(bufferAt, 1024*8)
	for i := range 1024 { // all of the memory, again and again
		binary.LittleEndian.PutUint32(table[i*8:], 0)
		binary.LittleEndian.PutUint32(table[i*8+4:], 4<<16)
	}
	require.EqualValues(t, ok, g.call("fd_write", 1, bufferAt, 1024, result))
	require.EqualValues(t, abi.MaxVectorBytes, g.u32(result))
	require.EqualValues(t, abi.MaxVectorBytes, written)
}

type countWriter int

func (w *countWriter) Write(b []byte) (int, error) {
	*w += countWriter(len(b))
	return len(b), nil
}

// S16: the number of descriptors is limited, of files and of the table.
func TestS16Descriptors(t *testing.T) {
	s := stage(t, guestfs.Config{Limits: guestfs.Limits{OpenFiles: 2000}})
	g := newRaw(t, wasi.Config{FS: s.fs, Preopens: []string{"/"}})
	var errno uint32
	var last, count uint64
	for {
		var fd uint64
		if fd, errno = g.open(here, "input.txt", 0, 2); errno != ok {
			break
		}
		last = fd
		count++
	}
	require.EqualValues(t, manyOpen, errno)
	require.EqualValues(t, 1023, last)
	require.EqualValues(t, 1020, count)
	require.EqualValues(t, ok, g.call("fd_close", 7))
	fd, errno := g.open(here, "input.txt", 0, 2)
	require.EqualValues(t, ok, errno)
	require.EqualValues(t, 7, fd)
	require.NoError(t, s.fs.Limit())

	s = stage(t, guestfs.Config{Limits: guestfs.Limits{OpenFiles: 2}})
	g = newRaw(t, wasi.Config{FS: s.fs, Preopens: []string{"/"}})
	for range 2 {
		_, errno = g.open(here, "input.txt", 0, 2)
		require.EqualValues(t, ok, errno)
	}
	_, errno = g.open(here, "input.txt", 0, 2)
	require.EqualValues(t, manyOpen, errno)
	require.EqualError(t, s.fs.Limit(), "more than 2 files open at once")
}

func TestRenumber(t *testing.T) {
	s := stage(t, guestfs.Config{})
	var stdout bytes.Buffer
	g := newRaw(t, wasi.Config{FS: s.fs, Preopens: []string{"/"}, Stdout: &stdout})
	fd, errno := g.open(here, "out", 1, allRights)
	require.EqualValues(t, ok, errno)
	require.EqualValues(t, ok, g.call("fd_renumber", fd, 1))
	g.put(bufferAt, "into the file")
	ptr, n := g.vector(bufferAt, 13)
	require.EqualValues(t, badFD, g.call("fd_write", fd, ptr, n, result))
	require.EqualValues(t, ok, g.call("fd_write", 1, ptr, n, result))
	require.EqualValues(t, ok, g.call("fd_close", 1))
	require.EqualValues(t, badFD, g.call("fd_close", 1))
	require.Empty(t, stdout.String())
	got, err := os.ReadFile(filepath.Join(s.dir, "out"))
	require.NoError(t, err)
	require.Equal(t, "into the file", string(got))
}

// S19: errors of files reach the guest as the right numbers.
func TestErrorNumbers(t *testing.T) {
	s := stage(t, guestfs.Config{Limits: guestfs.Limits{Bytes: 100, FileSize: 50, Entries: 5, Depth: 3}})
	g := newRaw(t, wasi.Config{FS: s.fs, Preopens: []string{"/work", "/"}})
	path := func(function, path string) uint32 {
		ptr, size := g.put(pathAt, path)
		return g.call(function, here+1, ptr, size)
	}
	require.EqualValues(t, ok, path("path_create_directory", "dir"))
	require.EqualValues(t, exists, path("path_create_directory", "dir"))
	require.EqualValues(t, notFound, path("path_create_directory", "none/dir"))
	require.EqualValues(t, longName, path("path_create_directory", "a/b/c/d"))
	require.EqualValues(t, longName, path("path_create_directory", strings.Repeat("n", 256)))
	require.EqualValues(t, invalid, path("path_create_directory", "a\x00b"))
	require.EqualValues(t, notPerm, path("path_create_directory", "../dir"))
	require.EqualValues(t, notPerm, path("path_create_directory", "/dir"))
	require.EqualValues(t, isDir, path("path_unlink_file", "dir"))
	require.EqualValues(t, notDir, path("path_remove_directory", "input.txt"))
	require.EqualValues(t, readOnly, path("path_unlink_file", "input.txt"))

	fd, errno := g.open(here, "file", 1, allRights)
	require.EqualValues(t, ok, errno)
	ptr, n := g.vector(0, 51)
	require.EqualValues(t, fbig, g.call("fd_write", fd, ptr, n, result))
	ptr, n = g.vector(0, 50)
	require.EqualValues(t, ok, g.call("fd_write", fd, ptr, n, result))
	second, errno := g.open(here, "file2", 1, allRights)
	require.EqualValues(t, ok, errno)
	require.EqualValues(t, ok, g.call("fd_write", second, ptr, n, result))
	third, errno := g.open(here, "dir/file3", 1, allRights)
	require.EqualValues(t, ok, errno)
	require.EqualValues(t, noSpace, g.call("fd_write", third, ptr, n, result))
	for _, tt := range []struct {
		dir           uint64
		path          string
		flags, rights uint64
		want          uint32
	}{
		{here, "one", 1, allRights, ok},
		{here, "too many", 1, allRights, noSpace},
		{here, "file", 1 | 4, allRights, exists},
		{here, "dir", 0, allRights, isDir},
		{here, "dir", 0, allRights &^ 64, ok},
		{here, "dir", 2, allRights, ok},
		{here, "dir", 1 | 2, allRights, invalid},
		{here, "file", 2, 2, notDir},
		{here, "file/", 0, 2, notDir},
		{here, "file/x", 0, 2, notDir},
		{here, "input.txt", 0, 2, ok},
		{here, "input.txt", 0, 64, readOnly},
		{here, "input.txt", 8, 2, readOnly},
		{here, "../canary", 0, 2, notPerm},
		{fd, "x", 0, 2, notDir},
		{99, "x", 0, 2, badFD},
	} {
		_, errno := g.open(tt.dir, tt.path, tt.flags, tt.rights)
		require.EqualValues(t, tt.want, errno, "%+v", tt)
	}
	// Reading what is only written, and the other way round.
	only, errno := g.open(here, "file", 0, 64)
	require.EqualValues(t, ok, errno)
	require.EqualValues(t, badFD, g.call("fd_read", only, ptr, n, result))
	only, errno = g.open(here, "file", 0, 2)
	require.EqualValues(t, ok, errno)
	require.EqualValues(t, badFD, g.call("fd_write", only, ptr, n, result))
	require.EqualValues(t, isDir, g.call("fd_read", here, ptr, n, result))
}

// A directory's descriptor is a root of its own: nothing leads above it.
func TestS19BelowADirectory(t *testing.T) {
	s := stage(t, guestfs.Config{})
	require.NoError(t, s.fs.Mkdir("a"))
	require.NoError(t, s.fs.Mkdir("a/b"))
	g := newRaw(t, wasi.Config{FS: s.fs, Preopens: []string{"/"}})
	dir, errno := g.open(here, "a", 2, allRights)
	require.EqualValues(t, ok, errno)
	for path, want := range map[string]uint32{
		"b": ok, "b/..": ok, "./b/../b": ok, "..": notPerm, "../input.txt": notPerm, "b/../../input.txt": notPerm, "/": notPerm, "none": notFound,
	} {
		_, errno := g.open(dir, path, 0, 2)
		require.Equal(t, want, errno, path)
	}
	// It follows its name, and knows when it is gone.
	require.NoError(t, s.fs.Rename("a", "c"))
	_, errno = g.open(dir, "b", 0, 2)
	require.EqualValues(t, ok, errno)
	require.NoError(t, s.fs.RemoveDir("c/b"))
	require.NoError(t, s.fs.RemoveDir("c"))
	_, errno = g.open(dir, "new", 1, allRights)
	require.EqualValues(t, notFound, errno)
}

func TestLinksAreRefused(t *testing.T) {
	s := stage(t, guestfs.Config{})
	g := newRaw(t, wasi.Config{FS: s.fs, Preopens: []string{"/"}})
	from, size := g.put(pathAt, "input.txt")
	to, toSize := g.put(pathAt+100, "link")
	require.EqualValues(t, notPerm, g.call("path_link", here, 0, from, size, here, to, toSize))
	require.EqualValues(t, notPerm, g.call("path_symlink", from, size, here, to, toSize))
	require.EqualValues(t, invalid, g.call("path_readlink", here, from, size, bufferAt, 100, result))
	require.EqualValues(t, notFound, g.call("path_readlink", here, to, toSize, bufferAt, 100, result))
	_, err := os.Lstat(filepath.Join(s.dir, "link"))
	require.ErrorIs(t, err, os.ErrNotExist)
	if err := os.Symlink("../canary", filepath.Join(s.dir, "link")); err == nil {
		require.EqualValues(t, loop, g.call("path_readlink", here, to, toSize, bufferAt, 100, result))
		_, errno := g.open(here, "link", 0, 2)
		require.EqualValues(t, loop, errno)
	}
}

func TestDescriptorsDescribeThemselves(t *testing.T) {
	s := stage(t, guestfs.Config{})
	g := newRaw(t, wasi.Config{FS: s.fs, Preopens: []string{"/work", "/"}})
	fd, errno := g.open(here, "file", 1, 64)
	require.EqualValues(t, ok, errno)
	for _, tt := range []struct {
		fd          uint64
		kind        byte
		read, write bool
	}{{0, 0, true, false}, {1, 0, false, true}, {2, 0, false, true}, {here, 3, false, false}, {fd, 4, false, true}} {
		require.EqualValues(t, ok, g.call("fd_fdstat_get", tt.fd, bufferAt))
		rights := g.u64(bufferAt + 8)
		require.Equal(t, tt.kind, g.bytes(bufferAt, 1)[0])
		require.Equal(t, tt.read, rights&2 != 0)
		require.Equal(t, tt.write, rights&64 != 0)
		require.EqualValues(t, ok, g.call("fd_filestat_get", tt.fd, bufferAt))
		require.Equal(t, tt.kind, g.bytes(bufferAt+16, 1)[0])
	}
	require.EqualValues(t, ok, g.call("fd_fdstat_set_flags", fd, 1|4))
	require.EqualValues(t, ok, g.call("fd_fdstat_get", fd, bufferAt))
	require.EqualValues(t, 1|4, binary.LittleEndian.Uint16(g.bytes(bufferAt+2, 2)))
	for i, name := range []string{"/work", "/"} {
		require.EqualValues(t, ok, g.call("fd_prestat_get", uint64(here+i), bufferAt))
		require.EqualValues(t, len(name), g.u32(bufferAt+4))
		require.EqualValues(t, ok, g.call("fd_prestat_dir_name", uint64(here+i), bufferAt, uint64(len(name))))
		require.Equal(t, name, string(g.bytes(bufferAt, uint32(len(name)))))
	}
	require.EqualValues(t, badFD, g.call("fd_prestat_get", here+2, bufferAt))
}

// A listing is complete and without repetition for buffers of any size.
func TestReaddir(t *testing.T) {
	s := stage(t, guestfs.Config{})
	want := []string{".", "..", "input.txt"}
	for i := range 40 {
		name := strings.Repeat("n", i) + fmt.Sprint(i)
		want = append(want, name)
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), nil, 0o600))
	}
	slices.Sort(want[2:])
	for _, size := range []uint64{66, 67, 90, 100, 127, 500, 4096, 1 << 16} {
		g := newRaw(t, wasi.Config{FS: s.fs, Preopens: []string{"/"}})
		var got []string
		inodes := map[uint64]bool{}
		for cookie := uint64(0); ; {
			require.EqualValues(t, ok, g.call("fd_readdir", here, bufferAt, size, cookie, result))
			used := g.u32(result)
			require.LessOrEqual(t, uint64(used), size)
			b := g.bytes(bufferAt, used)
			whole := 0
			for len(b) >= 24 && len(b) >= 24+int(binary.LittleEndian.Uint32(b[16:])) {
				n := int(binary.LittleEndian.Uint32(b[16:]))
				cookie = binary.LittleEndian.Uint64(b)
				got = append(got, string(b[24:24+n]))
				if n > 2 {
					inodes[binary.LittleEndian.Uint64(b[8:])] = true
					require.EqualValues(t, 4, b[20])
				} else if got[len(got)-1][0] == '.' {
					require.EqualValues(t, 3, b[20])
				}
				b = b[24+n:]
				whole++
			}
			if uint64(used) < size {
				break
			}
			require.Positive(t, whole, "no progress with a buffer of %d", size)
		}
		require.Equal(t, want, got, "buffer of %d", size)
		require.NotContains(t, inodes, uint64(0))
	}
}

// subscription is one of poll_oneoff.
type subscription struct {
	name     uint64
	kind     byte
	id       uint32 // of a clock, or the descriptor
	timeout  uint64
	absolute bool
}

func subscribe(g *raw, at uint32, subscriptions ...subscription) uint64 {
	for i, s := range subscriptions {
		b := g.bytes(at+uint32(i)*48, 48)
		clear(b)
		binary.LittleEndian.PutUint64(b, s.name)
		b[8] = s.kind
		binary.LittleEndian.PutUint32(b[16:], s.id)
		binary.LittleEndian.PutUint64(b[24:], s.timeout)
		if s.absolute {
			b[40] = 1
		}
	}
	return uint64(at)
}

type event struct {
	name  uint64
	errno uint16
	kind  byte
	bytes uint64
}

func TestPoll(t *testing.T) {
	s := stage(t, guestfs.Config{})
	g := newRaw(t, wasi.Config{FS: s.fs, Preopens: []string{"/"}})
	file, errno := g.open(here, "input.txt", 0, 2)
	require.EqualValues(t, ok, errno)
	require.EqualValues(t, ok, g.call("fd_seek", file, 4, 0, 0))
	const hour = uint64(time.Hour)
	soon := func(id uint64) uint64 {
		require.EqualValues(t, ok, g.call("clock_time_get", id, 0, 0))
		return g.u64(0) + uint64(3*time.Millisecond)
	}
	tests := map[string]struct {
		in   []subscription
		want []event
	}{
		"relative":          {[]subscription{{1, 0, 1, 1000, false}}, []event{{1, 0, 0, 0}}},
		"absolute":          {[]subscription{{2, 0, 1, soon(1), true}}, []event{{2, 0, 0, 0}}},
		"absolute real":     {[]subscription{{3, 0, 0, soon(0), true}}, []event{{3, 0, 0, 0}}},
		"absolute past":     {[]subscription{{4, 0, 0, 1, true}}, []event{{4, 0, 0, 0}}},
		"the nearest":       {[]subscription{{5, 0, 1, hour, false}, {6, 0, 0, 1000, false}, {7, 0, 1, math.MaxUint64, false}}, []event{{6, 0, 0, 0}}},
		"no such clock":     {[]subscription{{8, 0, 3, hour, false}, {9, 0, 1, hour, false}}, []event{{8, invalid, 0, 0}}},
		"descriptors":       {[]subscription{{1, 0, 1, hour, false}, {2, 1, 0, 0, false}, {3, 2, 1, 0, false}}, []event{{2, 0, 1, 1}, {3, 0, 2, 1}}},
		"closed descriptor": {[]subscription{{1, 1, 99, 0, false}, {2, 0, 1, hour, false}}, []event{{1, badFD, 1, 0}}},
		"file":              {[]subscription{{1, 1, uint32(file), 0, false}}, []event{{1, 0, 1, 5}}},
		"both expired":      {[]subscription{{1, 0, 1, 0, false}, {2, 0, 1, 0, false}, {3, 0, 1, hour, false}}, []event{{1, 0, 0, 0}, {2, 0, 0, 0}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, out := range []uint32{bufferAt + 4096, bufferAt} { // the latter over the subscriptions
				in := subscribe(g, bufferAt, tt.in...)
				require.EqualValues(t, ok, g.call("poll_oneoff", in, uint64(out), uint64(len(tt.in)), result))
				require.EqualValues(t, len(tt.want), g.u32(result))
				for i, want := range tt.want {
					b := g.bytes(out+uint32(i)*32, 32)
					require.Equal(t, want, event{
						binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint16(b[8:]), b[10], binary.LittleEndian.Uint64(b[16:]),
					})
				}
			}
		})
	}
}

// S12: every wait ends with the context, and the cause tells why.
func TestS12PollEndsWithContext(t *testing.T) {
	// Without the engine's own way to end a guest, which may be faster than ours.
	r := wazero.NewRuntime(t.Context())
	t.Cleanup(func() { require.NoError(t, r.Close(context.Background())) })
	require.NoError(t, engine.Offer(t.Context(), r, wasi.Interface().Library()))
	code := rawCode(t, r)
	for name, s := range map[string]subscription{
		"an hour":       {kind: 0, id: 1, timeout: uint64(time.Hour)},
		"for ever":      {kind: 0, id: 1, timeout: math.MaxUint64},
		"until the end": {kind: 0, id: 0, timeout: math.MaxUint64, absolute: true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			g := startRaw(ctx, t, r, code, wasi.Config{})
			in := subscribe(g, bufferAt, s)
			time.AfterFunc(time.Millisecond, func() { cancel(errSomeReason) })
			_, err := g.try("poll_oneoff", in, bufferAt+100, 1, result)
			require.ErrorIs(t, err, errSomeReason)
			_, ok := g.p.Exited()
			require.False(t, ok)
		})
	}
}

// S13: an exit is told from an end of the context, whatever the code.
func TestS13Exit(t *testing.T) {
	r := newRuntime(t)
	code := rawCode(t, r)
	for _, exit := range []uint32{0, 1, 137, 0xefffffff, 0xffffffff} {
		g := startRaw(t.Context(), t, r, code, wasi.Config{})
		_, ok := g.p.Exited()
		require.False(t, ok)
		_, err := g.try("proc_exit", uint64(exit))
		requireExit(t, err, g.p, exit)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, context.Canceled)
	}
}

// S17: an error of the writer stops the guest and is the cause.
func TestS17OutputThatIsFull(t *testing.T) {
	for fd := range uint64(2) {
		full := writerFunc(func([]byte) (int, error) { return 0, errSomeReason })
		g := newRaw(t, wasi.Config{Stdout: full, Stderr: full})
		ptr, n := g.vector(bufferAt, 10)
		_, err := g.try("fd_write", fd+1, ptr, n, result)
		require.ErrorIs(t, err, errSomeReason)
	}
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(b []byte) (int, error) { return w(b) }

type readerFunc func([]byte) (int, error)

func (r readerFunc) Read(b []byte) (int, error) { return r(b) }

func TestStandardInput(t *testing.T) {
	tests := map[string]struct {
		in    io.Reader
		want  string
		errno uint32
	}{
		"text":         {strings.NewReader("some text"), "some text", ok},
		"end":          {strings.NewReader(""), "", ok},
		"data and end": {readerFunc(func(b []byte) (int, error) { return copy(b, "last"), io.EOF }), "last", ok},
		"failure":      {readerFunc(func([]byte) (int, error) { return 0, errors.New("of the host: " + secret) }), "", ioError},
		"nothing":      {readerFunc(func([]byte) (int, error) { return 0, nil }), "", ioError},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newRaw(t, wasi.Config{Stdin: tt.in})
			ptr, n := g.vector(bufferAt, 100)
			require.Equal(t, tt.errno, g.call("fd_read", 0, ptr, n, result))
			if tt.errno == ok {
				require.Equal(t, tt.want, string(g.bytes(bufferAt, g.u32(result))))
			}
			requireNoSecret(t, g, "")
		})
	}
}

// requireNoSecret looks through all of a guest's memory.
func requireNoSecret(t testing.TB, g *raw, dir string) {
	t.Helper()
	all := g.bytes(0, g.mod.Memory().Size())
	require.NotContains(t, string(all), secret)
	if dir != "" {
		require.NotContains(t, string(all), filepath.Dir(dir))
	}
}

// S4: what an item left open is not there for the next one, in the same instance.
func TestS4ProcessesAreSeparate(t *testing.T) {
	first, second := stage(t, guestfs.Config{}), stage(t, guestfs.Config{})
	g := newRaw(t, wasi.Config{FS: first.fs, Preopens: []string{"/"}, Args: []string{secret}})
	fd, errno := g.open(here, "mine", 1, allRights)
	require.EqualValues(t, ok, errno)
	require.EqualValues(t, ok, g.call("fd_close", 0))

	p := wasi.NewProcess(wasi.Config{FS: second.fs, Preopens: []string{"/"}})
	g.ctx = abi.WithState(t.Context(), p)
	ptr, n := g.vector(bufferAt, 10)
	require.EqualValues(t, badFD, g.call("fd_write", fd, ptr, n, result))
	require.EqualValues(t, ok, g.call("fd_read", 0, ptr, n, result))
	require.EqualValues(t, ok, g.call("args_sizes_get", 0, 4))
	require.Zero(t, g.u32(0))
	_, errno = g.open(here, "mine", 0, 2)
	require.EqualValues(t, notFound, errno)
	require.NoError(t, p.Close())
}

func TestWithoutMemory(t *testing.T) {
	r := newRuntime(t)
	code, err := os.ReadFile("testdata/nomemory.wasm")
	require.NoError(t, err)
	ctx := abi.WithState(t.Context(), wasi.NewProcess(wasi.Config{}))
	mod, err := r.InstantiateModule(ctx, compile(t, r, code), wazero.NewModuleConfig().WithName(""))
	require.NoError(t, err)
	for _, name := range []string{"random_get", "fd_write", "args_sizes_get"} {
		got, err := mod.ExportedFunction(name).Call(ctx)
		require.NoError(t, err)
		require.Equal(t, []uint64{fault}, got, name)
	}
}

// S30: any function with any numbers leaves the host as it was.
func FuzzCalls(f *testing.F) {
	ctx := context.Background()
	r := newRuntime(f)
	code := rawCode(f, r)
	var names []string
	for _, function := range wasi.Interface().Functions {
		names = append(names, function.Name)
	}
	params := code.ExportedFunctions()

	seed := func(calls ...any) []byte {
		var b []byte
		for _, c := range calls {
			switch c := c.(type) {
			case string:
				b = append(b, byte(slices.Index(names, c)))
			case int:
				b = append(b, byte(c))
			}
		}
		return b
	}
	// A function is followed by its arguments, each an index of values.
	f.Add(seed("path_open", 3, 0, 11, 1, 1, 9, 9, 0, 10, "fd_write", 4, 10, 1, 11, "fd_close", 4), []byte("a"))
	f.Add(seed("fd_readdir", 3, 11, 12, 0, 10, "fd_renumber", 3, 1, "fd_readdir", 1, 11, 12, 2, 10), []byte("x"))
	f.Add(seed("path_rename", 3, 11, 1, 3, 12, 1, "path_create_directory", 3, 11, 1), []byte("d/e"))
	f.Add(seed("poll_oneoff", 11, 12, 1, 10, "random_get", 13, 14, "proc_exit", 15), []byte{1, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add(seed("fd_pread", 4, 16, 17, 18, 19, "fd_filestat_get", 3, 15, "args_get", 14, 15), []byte("../canary"))
	values := []uint64{
		0, 1, 2, 3, 4, 5, 6, 7, 8, allRights, 32, pathAt, bufferAt, 24, 64, 4<<16 - 1, 4<<16 - 8, 4 << 16, 1 << 20, 1 << 31,
		math.MaxInt32, math.MaxUint32, math.MaxUint32 - 7, 1 << 62, math.MaxInt64, 1 << 63, math.MaxUint64, 4096, 4097, 1024, 1025, 48,
	}
	f.Fuzz(func(t *testing.T, calls, memory []byte) {
		s := stage(t, guestfs.Config{Limits: guestfs.Limits{Bytes: 1 << 20, Written: 4 << 20, Entries: 20, OpenFiles: 20}})
		require.NoError(t, s.fs.Mkdir("d"))
		limited, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		var stdout countWriter
		g := startRaw(limited, t, r, code, wasi.Config{
			Args: []string{"a"}, Env: []string{"B=c"}, Stdin: strings.NewReader("input"), Stdout: &stdout, FS: s.fs, Preopens: []string{"/", "/work"},
		})
		all := g.bytes(0, g.mod.Memory().Size())
		for i := 0; i < 1<<17 && len(memory) > 0; i += 1024 {
			copy(all[i:], memory)
		}
		for n := 0; len(calls) > 0 && n < 40; n++ {
			name := names[int(calls[0])%len(names)]
			calls = calls[1:]
			types := params[name].ParamTypes()
			args := make([]uint64, len(types))
			for i := range args {
				if len(calls) > 0 {
					args[i] = values[int(calls[0])%len(values)]
					calls = calls[1:]
				}
				if types[i] == api.ValueTypeI32 {
					args[i] = uint64(uint32(args[i]))
				}
			}
			errno, err := g.try(name, args...)
			var exit *wasi.Exit
			switch {
			case limited.Err() != nil || errors.As(err, &exit):
				calls = nil
			case err != nil:
				t.Fatalf("%s%v: %v", name, args, err)
			case errno > 76:
				t.Fatalf("%s%v answers %d", name, args, errno)
			case errno == ioError:
				t.Fatalf("%s%v: the host failed", name, args)
			}
		}
		requireNoSecret(t, g, s.dir)
		usage, limits := s.fs.Usage(), s.fs.Limits()
		require.LessOrEqual(t, usage.Bytes, limits.Bytes)
		require.LessOrEqual(t, usage.Entries, limits.Entries)
	})
}

func BenchmarkCall(b *testing.B) {
	s := stage(b, guestfs.Config{Limits: guestfs.Limits{Written: math.MaxInt64}})
	g := newRaw(b, wasi.Config{FS: s.fs, Preopens: []string{"/"}})
	require.NoError(b, os.WriteFile(filepath.Join(s.dir, "big"), make([]byte, 1<<20), 0o600))
	fd, errno := g.open(here, "big", 0, allRights)
	require.EqualValues(b, ok, errno)
	ptr, n := g.vector(bufferAt, 64<<10)
	path, size := g.put(pathAt, "input.txt")
	bench := func(name string, bytes int64, calls ...func(stack []uint64) (api.Function, []uint64)) {
		b.Run(name, func(b *testing.B) {
			if bytes > 0 {
				b.SetBytes(bytes)
			}
			stack := make([]uint64, 16)
			for b.Loop() {
				for _, call := range calls {
					f, args := call(stack)
					copy(stack, args)
					if err := f.CallWithStack(g.ctx, stack); err != nil || stack[0] != ok {
						b.Fatal(err, stack[0])
					}
				}
			}
		})
	}
	fn := func(name string, args ...uint64) func([]uint64) (api.Function, []uint64) {
		f := g.mod.ExportedFunction(name)
		return func([]uint64) (api.Function, []uint64) { return f, args }
	}
	bench("clock_time_get", 0, fn("clock_time_get", 1, 0, result))
	bench("open+read+close", 0,
		fn("path_open", here, 0, path, size, 0, 2, 2, 0, result), fn("fd_read", 5, ptr, n, result), fn("fd_close", 5))
	bench("pread 64 KiB", 64<<10, fn("fd_pread", fd, ptr, n, 0, result))
	bench("pwrite 64 KiB", 64<<10, fn("fd_pwrite", fd, ptr, n, 0, result))
}
