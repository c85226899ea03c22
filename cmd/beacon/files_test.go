//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/beacontest/coordinator"
)

// The tests in this file run the command itself, as it is built, against a
// server in the test, and look at what its process uses and leaves.

// proof reads how large a proof is to be; without the variable it is skipped.
func proof(t *testing.T, variable, unit, all string) int64 {
	n, _ := strconv.ParseInt(os.Getenv(variable), 10, 64)
	if n == 0 {
		t.Skipf("takes a minute or more; set %s to %s, %s for all of it", variable, unit, all)
	}
	return n
}

var built struct {
	once sync.Once
	path string
	err  error
}

// command builds the command once, the way it is released: a test's own binary
// would be larger.
func command(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		dir, err := os.MkdirTemp("", "beacon-built-")
		if err != nil {
			built.err = err
			return
		}
		built.path = filepath.Join(dir, "beacon")
		cmd := exec.Command("go", "build", "-o", built.path, ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	require.NoError(t, built.err)
	return built.path
}

// A plant is a server, its worker, and the folders of both.
type plant struct {
	t *testing.T
	*coordinator.Coordinator
	dir    string
	config map[string]any
	real   bool // run the command as it is released, whose memory counts
	worker *exec.Cmd
	said   *lockedBuffer
}

func newPlant(t *testing.T, slots int) *plant {
	t.Helper()
	p := &plant{t: t, Coordinator: coordinator.Start(t, coordinator.Config{}), dir: t.TempDir()}
	p.config = map[string]any{
		"ServerURL": p.URL(), "Name": "files", "MaxConcurrent": slots, "StagingPath": p.folder("staging"),
		"Providers": []any{map[string]any{"Source": "Shell"}}, "MaxOutputBytes": 1 << 40, "PollIntervalMs": 200,
	}
	t.Cleanup(p.kill)
	return p
}

func (p *plant) folder(name string) string { return filepath.Join(p.dir, name) }

func (p *plant) start() {
	p.t.Helper()
	raw, err := json.Marshal(p.config)
	require.NoError(p.t, err)
	require.NoError(p.t, os.WriteFile(p.folder("config.json"), raw, 0o600))
	p.worker = beaconCommand(p.t, p.folder("cache"), "run", "--config", p.folder("config.json"), "--wait")
	if p.real {
		p.worker.Path = command(p.t) // as users run it
	} else {
		p.worker.Args = append(p.worker.Args, "--verbose")
	}
	p.said = &lockedBuffer{}
	p.worker.Stdout, p.worker.Stderr = p.said, p.said
	require.NoError(p.t, p.worker.Start())
	p.eventually(func() bool { return strings.Contains(p.said.String(), "ready for work") })
}

// eventually waits for what no event tells of.
func (p *plant) eventually(condition func() bool) {
	p.t.Helper()
	for ctx := p.within(); !condition(); time.Sleep(5 * time.Millisecond) {
		require.NoError(p.t, ctx.Err(), "the worker said: %s", p.said.tail())
	}
}

func (p *plant) within() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	p.t.Cleanup(cancel)
	return ctx
}

func (p *plant) kill() {
	if p.worker != nil {
		_ = p.worker.Process.Kill()
		_ = p.worker.Wait()
		p.worker = nil
	}
}

// stop ends the worker in order, and looks at what it leaves.
func (p *plant) stop() {
	p.t.Helper()
	require.NoError(p.t, p.worker.Process.Signal(syscall.SIGTERM))
	require.NoError(p.t, p.worker.Wait(), "the worker said: %s", p.said)
	p.worker = nil
	p.nothingLeft()
}

// nothingLeft requires that the folders are as if no worker had been there.
func (p *plant) nothingLeft() {
	p.t.Helper()
	for _, name := range p.below(p.folder("staging")) {
		require.True(p.t, strings.HasPrefix(name, "affinity"), "left in the staging folder: %s", name)
	}
	for _, name := range p.below(p.folder("cache/outbox")) {
		require.True(p.t, !strings.Contains(name, "file-"), "left in the outbox: %s", name)
	}
}

func (p *plant) below(folder string) (names []string) {
	_ = filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		if name, rerr := filepath.Rel(folder, path); err == nil && rerr == nil && name != "." {
			names = append(names, name)
		}
		return nil
	})
	return names
}

func (p *plant) push(hash string, settings map[string]any) {
	p.t.Helper()
	item := beacon.WorkItem{Hash: hash, Capability: "Shell", Action: "Execute", Settings: beacon.Settings{}, Timeout: 20 * time.Minute, Attempt: 1}
	for name, value := range settings {
		raw, err := json.Marshal(value)
		require.NoError(p.t, err)
		item.Settings[name] = raw
	}
	if strings.HasPrefix(hash, "run") {
		item.RunID = "rn-1"
	}
	p.Push(item)
}

func (p *plant) report() beacontest.Report {
	p.t.Helper()
	r, err := p.Report(p.within())
	require.NoError(p.t, err, "the worker said: %s", p.said.tail())
	return r
}

// peak is the most memory that the worker has had, in bytes.
func (p *plant) peak() int64 { return status(p.t, p.worker.Process.Pid, "VmHWM") }

// program is how much of its program's file the kernel has mapped for the worker,
// in bytes. That depends on how the file came into the kernel's cache: where it
// lies there in pieces of 2 MiB, nearly all of it is.
func (p *plant) program() int64 { return status(p.t, p.worker.Process.Pid, "RssFile") }

// random makes a file of a size, always the same, and its digest.
func random(t *testing.T, path string, size int64) string {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	sum := sha256.New()
	from := rand.NewChaCha8([32]byte{1})
	_, err = io.CopyN(io.MultiWriter(f, sum), from, size)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return hex.EncodeToString(sum.Sum(nil))
}

// outputData reads the JSON of a result as it comes and gives the digest of the
// output in it, and the rest.
func outputData(body io.Reader) (digest string, rest string, err error) {
	r := bufio.NewReaderSize(body, 1<<20)
	const key = `"OutputData":"`
	var before bytes.Buffer
	for !strings.HasSuffix(before.String(), key) {
		c, err := r.ReadByte()
		if err != nil {
			return "", before.String(), err
		}
		before.WriteByte(c)
	}
	sum := sha256.New()
	text := &untilQuote{from: r}
	if _, err := io.Copy(sum, base64.NewDecoder(base64.StdEncoding, text)); err != nil {
		return "", "", err
	}
	after, err := io.ReadAll(r)
	return hex.EncodeToString(sum.Sum(nil)), before.String() + string(after), err
}

type untilQuote struct {
	from *bufio.Reader
	done bool
}

func (u *untilQuote) Read(p []byte) (int, error) {
	if u.done {
		return 0, io.EOF
	}
	if _, err := u.from.Peek(1); err != nil {
		return 0, err
	}
	chunk, _ := u.from.Peek(min(len(p), u.from.Buffered()))
	n := len(chunk)
	if end := bytes.IndexByte(chunk, '"'); end >= 0 {
		n, u.done = end, true
	}
	copy(p, chunk[:n])
	_, err := u.from.Discard(n)
	if u.done {
		_, err = u.from.Discard(1)
	}
	return n, err
}

// TestLargeFiles has a file of BEACON_FILES bytes go through Shell items, as
// source and as output, inside of the result and beside of it, and has curl and
// base64 do the same.
func TestLargeFiles(t *testing.T) {
	size := proof(t, "BEACON_FILES", "a number of bytes", "1073741824")
	const limit = 64 << 20
	for _, tool := range []string{"curl", "base64"} {
		if _, err := exec.LookPath(tool); err != nil {
			require.Empty(t, os.Getenv("BEACON_REQUIRE_TOOLS"), "%s is missing", tool)
			t.Skipf("%s is missing", tool)
		}
	}
	p := newPlant(t, 4) // the coordinator never hears of what the test takes for itself
	p.config["ForceHTTPTransport"], p.config["PollIntervalMs"] = true, 50
	digest := random(t, p.folder("source"), size)
	type arrival struct {
		digest, rest string
		err          error
	}
	arrived := make(chan arrival, 1)
	await := func() {
		t.Helper()
		select {
		case a := <-arrived:
			require.NoError(t, a.err)
			require.Equal(t, digest, a.digest)
			if a.rest != "" {
				require.Contains(t, a.rest, fmt.Sprintf(`"OutputSize":%d`, size))
			}
		case <-p.within().Done():
			t.Fatal("nothing arrives; the worker said: ", p.said.tail())
		}
	}
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut { // of curl
			sum := sha256.New()
			_, err := io.Copy(sum, base64.NewDecoder(base64.StdEncoding, r.Body))
			arrived <- arrival{digest: hex.EncodeToString(sum.Sum(nil)), err: err}
			return
		}
		http.ServeFile(w, r, p.folder("source"))
	}))
	defer source.Close()
	p.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		var a arrival
		switch {
		case strings.HasSuffix(r.URL.Path, "/Upload"):
			sum := sha256.New()
			_, a.err = io.Copy(sum, r.Body)
			a.digest = hex.EncodeToString(sum.Sum(nil))
			_, _ = io.WriteString(w, `{"Success":true,"FilePath":"x"}`)
		case strings.HasSuffix(r.URL.Path, "base64/Complete"):
			a.digest, a.rest, a.err = outputData(r.Body)
			_, _ = io.WriteString(w, `{"Status":"Completed"}`)
		default:
			return false
		}
		arrived <- a
		return true
	})
	p.real = true
	p.start()
	idle := p.peak()
	megabytes := func(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
	rate := func(took time.Duration) float64 { return float64(size) / 1e6 / took.Seconds() }
	figure := func(what string, took time.Duration) {
		t.Logf("%-44s %6.2f s %7.0f MB/s, peak RSS so far %s (before any item %s), of it the program's file %s", what, took.Seconds(), rate(took), megabytes(p.peak()), megabytes(idle), megabytes(p.program()))
		require.Less(t, p.peak()-p.program(), int64(limit), "the worker takes more memory than it may")
	}

	began := time.Now()
	p.push("source", map[string]any{"SourceURL": source.URL + "/in", "Command": "sha256sum < {SourcePath}", "SourceSHA256": digest})
	r := p.report()
	require.Equal(t, digest+"  -\n", r.Result.Outputs["Result"], r)
	figure("source, verified, through a Shell item", time.Since(began))

	began = time.Now()
	p.push("wi-base64", map[string]any{
		"SourceURL": source.URL + "/in", "Command": "cp {SourcePath} {OutputPath}", "OutputFilename": "out.bin", "ReturnOutputAsBase64": true,
	})
	await()
	ours := time.Since(began)
	figure("source and output as base64", ours)

	began = time.Now()
	p.push("run-upload", map[string]any{"SourceURL": source.URL + "/in", "Command": "cp {SourcePath} {OutputPath}", "OutputFilename": "out.bin"})
	await()
	r = p.report()
	require.NotContains(t, r.Result.Outputs, "OutputData")
	figure("source and output as an upload", time.Since(began))
	p.stop()

	began = time.Now()
	line := fmt.Sprintf("curl -sS -o in %s/in && cp in out && base64 -w0 out | curl -sS -H Expect: -T - %s/out", source.URL, source.URL)
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	await()
	theirs := time.Since(began)
	t.Logf("%-44s %6.2f s %7.0f MB/s; the worker has %.2f times its throughput", "the same with curl and base64", theirs.Seconds(), rate(theirs), theirs.Seconds()/ours.Seconds())
}

// TestOneDownload has 200 items want one file at the same time.
func TestOneDownload(t *testing.T) {
	size := proof(t, "BEACON_FILES", "a number of bytes", "1073741824") / 5
	const items = 200
	p := newPlant(t, 8)
	random(t, p.folder("source"), size)
	var sent, asked atomic.Int64
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Etag", `"1"`)
		if r.Header.Get("If-None-Match") == "" {
			sent.Add(1)
		}
		http.ServeFile(w, r, p.folder("source"))
	}))
	defer source.Close()
	p.real = true
	p.start()
	began := time.Now()
	for i := range items {
		p.push(fmt.Sprint("wi-", i), map[string]any{"SourceURL": source.URL, "AffinityKey": "k", "Command": "wc -c < {SourcePath}"})
	}
	for range items {
		r := p.report()
		require.Equal(t, strconv.FormatInt(size, 10), strings.TrimSpace(fmt.Sprint(r.Result.Outputs["Result"])), r)
	}
	require.EqualValues(t, 1, sent.Load())
	t.Logf("%d items wanted one file of %d bytes: %d download, %d times the server was asked whether it is still right; %.1f s, peak RSS %.1f MB",
		items, size, sent.Load(), asked.Load()-sent.Load(), time.Since(began).Seconds(), float64(p.peak())/1e6)
	p.stop()
}

// processorTime is what a process has used of the processors, without its children, and
// they.
func processorTime(t *testing.T, pid int) (own, children time.Duration) {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	ticks := func(i int) time.Duration {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		require.NoError(t, err)
		return time.Duration(n) * time.Second / 100
	}
	return ticks(11) + ticks(12), ticks(13) + ticks(14)
}

// TestTrueItems carries out BEACON_FILES_ITEMS items whose command does nothing,
// and counts what is left.
func TestTrueItems(t *testing.T) {
	items := int(proof(t, "BEACON_FILES_ITEMS", "a number of items", "10000"))
	p := newPlant(t, 2)
	p.real = true
	p.start()
	run := func(prefix string, n int) {
		go func() {
			for i := range n {
				p.push(fmt.Sprint(prefix, i), map[string]any{"Command": "true"})
			}
		}()
		for range n {
			r := p.report()
			require.EqualValues(t, 0, r.Result.Outputs["ExitCode"], r)
		}
	}
	pid := p.worker.Process.Pid
	count := func() (descriptors, threads, directories, children int) {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		require.NoError(t, err)
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		require.NoError(t, err)
		dirs, err := filepath.Glob(p.folder("staging/worker-*/[0-9a-f]*"))
		require.NoError(t, err)
		// Empty ones that are kept for the next items are no item's.
		dirs = slices.DeleteFunc(dirs, func(path string) bool {
			inside, err := os.ReadDir(path)
			return err == nil && len(inside) == 0
		})
		return len(fds), len(tasks), len(dirs), len(descendants(t, pid))
	}
	run("warm", 100)
	descriptors, _, _, _ := count()
	own, theirs := processorTime(t, pid)
	began := time.Now()
	run("wi-", items)
	took := time.Since(began)
	ownAfter, theirsAfter := processorTime(t, pid)
	per := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(items) }
	var after, threads, directories, children int
	require.Eventually(t, func() bool {
		after, threads, directories, children = count()
		return directories == 0 && children == 0
	}, time.Minute, 10*time.Millisecond)
	t.Logf("%d items: %.3f ms of processor time per item in the worker, %.3f ms in the commands; %.0f items/s; descriptors %d before and %d after, %d threads, %d directories, %d processes; peak RSS %.1f MB",
		items, per(ownAfter-own), per(theirsAfter-theirs), float64(items)/took.Seconds(), descriptors, after, threads, directories, children, float64(p.peak())/1e6)
	require.InDelta(t, descriptors, after, 8, "descriptors")
	p.stop()
}

// descendants lists the processes below one, the dead too.
func descendants(t *testing.T, pid int) (found []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	for _, path := range all {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			found = append(found, n)
			found = append(found, descendants(t, n)...)
		}
	}
	return found
}

// A worker that is killed in the middle of something leaves nothing that the
// next one does not take away: no file, no process, and nothing in the cache
// that is not whole.
func TestKilledInEachPhase(t *testing.T) {
	const size = 4 << 20
	for phase, settings := range map[string]map[string]any{
		"download":            {"Command": "sha256sum < {SourcePath}", "SourceURL": "/stalls"},
		"download, cached":    {"Command": "sha256sum < {SourcePath}", "SourceURL": "/stalls", "AffinityKey": "k"},
		"run":                 {"Command": "sleep 600 & touch begun; sleep 600", "SourceURL": "/in", "OutputFilename": "out"},
		"send":                {"Command": "cp {SourcePath} {OutputPath}", "SourceURL": "/in", "OutputFilename": "out", "ReturnOutputAsBase64": true},
		"send, after caching": {"Command": "cp {SourcePath} {OutputPath}", "SourceURL": "/in", "AffinityKey": "k", "OutputFilename": "out", "ReturnOutputAsBase64": true},
	} {
		t.Run(phase, func(t *testing.T) {
			p := newPlant(t, 4)
			p.config["DrainTimeoutMs"] = 1 // the server gives the item out again
			word := fmt.Sprintf("killed%d", rand.Uint64())
			digest := random(t, p.folder("source"), size)
			var dead atomic.Bool
			reached, killed := make(chan struct{}, 10), make(chan struct{})
			source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Etag", `"1"`)
				if r.URL.Path == "/stalls" && !dead.Load() {
					w.Header().Set("Content-Length", strconv.Itoa(size))
					_, _ = w.Write(make([]byte, size/2))
					w.(http.Flusher).Flush()
					reached <- struct{}{}
					<-r.Context().Done()
					return
				}
				http.ServeFile(w, r, p.folder("source"))
			}))
			defer source.Close()
			arrived := make(chan string, 10)
			p.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/Complete") {
					return false
				}
				if !dead.Load() {
					_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
					reached <- struct{}{}
					<-killed
					return true
				}
				got, _, err := outputData(r.Body)
				if err != nil {
					got = err.Error()
				}
				_, _ = io.WriteString(w, `{"Status":"Completed"}`)
				arrived <- got
				return true
			})
			p.start()
			settings["SourceURL"] = source.URL + strings.TrimPrefix(settings["SourceURL"].(string), source.URL)
			if phase == "run" {
				settings["Command"] = ": " + word + "; " + strings.ReplaceAll(settings["Command"].(string), "sleep 600", "sh -c 'while :; do sleep 1; done' "+word)
			}
			p.push("wi-1", settings)
			if phase == "run" {
				p.eventually(func() bool {
					found, _ := filepath.Glob(p.folder("staging/worker-*/*/begun"))
					return len(found) == 1
				})
			} else {
				<-reached
			}
			dead.Store(true)
			p.kill()
			close(killed)

			p.start()
			p.eventually(func() bool { return len(with(t, word)) == 0 })
			workers, err := filepath.Glob(p.folder("staging/worker-*"))
			require.NoError(t, err)
			require.Len(t, workers, 2, "the folder of this worker, and its lock")
			if strings.HasPrefix(phase, "send") {
				select { // what was not delivered comes with the next worker
				case got := <-arrived:
					require.Equal(t, digest, got)
				case <-p.within().Done():
					t.Fatal("the result is lost; the worker said: ", p.said.tail())
				}
			}
			// Whatever is in the cache is whole.
			p.push("wi-2", map[string]any{"Command": "sha256sum < {SourcePath}", "SourceURL": source.URL + "/stalls", "AffinityKey": "k"})
			for {
				r := p.report()
				require.Equal(t, digest+"  -\n", r.Result.Outputs["Result"], r)
				if r.Hash == "wi-2" {
					break
				}
			}
			p.stop()
		})
	}
}

// with lists the processes with a word among their arguments.
func with(t *testing.T, word string) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, path := range all {
		if raw, err := os.ReadFile(path); err == nil && strings.Contains(string(raw), word) {
			found = append(found, path+": "+string(raw))
		}
	}
	return found
}
