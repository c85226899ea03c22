package outbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/worker"
)

// children are the programs that the test binary is when it runs itself.
var children = map[string]func(path string) error{"writer": writer, "limited": limited}

const childVariable = "BEACON_OUTBOX_TEST_CHILD"

func TestMain(m *testing.M) {
	if name, path, ok := strings.Cut(os.Getenv(childVariable), ":"); ok {
		if err := children[name](path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func child(name, path string) *exec.Cmd {
	cmd := exec.Command(os.Args[0]) //nolint:gosec // ourselves
	cmd.Env = append(os.Environ(), childVariable+"="+name+":"+path)
	return cmd
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// small is a size of segments that has tests write many.
const small = 8 << 10

func mustOpen(t testing.TB, path string) *Dir {
	t.Helper()
	d, err := open(path, quiet, small)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// sample is a report whose content follows from its hash.
func sample(hash string) worker.Report {
	n := 0
	for _, c := range hash {
		n = n*31 + int(c)
	}
	return worker.Report{Hash: hash, Result: beacon.Result{
		Outputs: beacon.Outputs{"Result": json.RawMessage(`"` + strings.Repeat(hash, (n&0xff)/len(hash)+1) + `"`)},
		Log:     []string{hash},
	}}
}

func samples(hashes ...string) []worker.Report {
	reports := []worker.Report{}
	for _, hash := range hashes {
		reports = append(reports, sample(hash))
	}
	return reports
}

// waiting reads what is on the disk after a restart.
func waiting(t testing.TB, path string) []worker.Report {
	t.Helper()
	d, err := open(path, quiet, small)
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	reports, err := d.Pending()
	require.NoError(t, err)
	return reports
}

func files(t testing.TB, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(path)
	require.NoError(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func first(path string) string { return filepath.Join(path, "0000000000000001.log") }

func TestReportsSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "outbox")
	d, err := Open(path, nil)
	require.NoError(t, err)
	want := []worker.Report{
		{Hash: "../../etc/passwd", Result: beacon.Result{Outputs: beacon.Outputs{"Big": json.RawMessage(`12345678901234567890`), "Text": json.RawMessage(`"<\u0000>"`)}, Log: []string{"l"}}},
		{Hash: strings.Repeat("x", 5000), Failed: true, Message: "no", Result: beacon.Result{Outputs: beacon.Outputs{}, Usage: beacon.Usage{Fuel: 1 << 60, Cost: 0.25}}},
		{Hash: "not UTF-8: \xff\xfe", Failed: true, Message: "no", Result: beacon.Result{Outputs: beacon.Outputs{}}},
		{Hash: "", Failed: true, Message: "no hash", Result: beacon.Result{Outputs: beacon.Outputs{}}},
	}
	require.NoError(t, d.Put(worker.Report{Hash: want[0].Hash, Message: "to be replaced"}))
	for _, r := range want {
		require.NoError(t, d.Put(r))
	}
	require.NoError(t, d.Put(worker.Report{Hash: "gone \xff"}))
	require.NoError(t, d.Delivered("gone \xff"))
	require.NoError(t, d.Delivered("never was"))
	got, err := d.Pending()
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoError(t, d.Close())
	require.NoError(t, d.Close(), "a second time")
	require.ErrorIs(t, d.Put(want[0]), fs.ErrClosed)
	require.ErrorIs(t, d.Delivered(want[0].Hash), fs.ErrClosed)
	_, err = d.Pending()
	require.ErrorIs(t, err, fs.ErrClosed)

	require.Equal(t, want, waiting(t, path))
	info, err := os.Stat(path)
	require.NoError(t, err)
	if os.PathSeparator == '/' {
		require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	}
	d = mustOpen(t, path)
	for _, r := range want {
		require.NoError(t, d.Delivered(r.Hash))
	}
	require.NoError(t, d.Close())
	require.Equal(t, []string{"lock"}, files(t, path))
}

func TestLock(t *testing.T) {
	path := t.TempDir()
	d, err := Open(path, quiet)
	require.NoError(t, err)
	require.NoError(t, d.Put(sample("a")))
	_, err = Open(path, quiet)
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "in use by another process")
	require.NoError(t, d.Close())
	require.Equal(t, samples("a"), waiting(t, path))
}

// writer puts and delivers reports until it is killed. Before and after each
// call it says so.
func writer(path string) error {
	d, err := open(path, quiet, small)
	if err != nil {
		return err
	}
	kept, err := d.Pending()
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	failed := make(chan error, 8)
	for i := range 8 {
		all.Go(func() {
			var mine []string
			for j, r := range kept {
				if j%8 == i {
					mine = append(mine, r.Hash)
				}
			}
			for n := 0; ; n++ {
				if len(mine) > 20 || len(mine) > 0 && rand.IntN(2) == 0 {
					k := rand.IntN(len(mine))
					fmt.Println("deliver", mine[k])
					if err := d.Delivered(mine[k]); err != nil {
						failed <- err
						return
					}
					fmt.Println("delivered", mine[k])
					mine = slices.Delete(mine, k, k+1)
					continue
				}
				hash := fmt.Sprintf("%d-%d-%d", os.Getpid(), i, n)
				fmt.Println("put", hash)
				if err := d.Put(sample(hash)); err != nil {
					failed <- err
					return
				}
				fmt.Println("kept", hash)
				mine = append(mine, hash)
			}
		})
	}
	all.Wait()
	return <-failed
}

// After a SIGKILL at any moment those reports wait that were put and not
// delivered; of a call that had not returned, either may be true.
func TestKill(t *testing.T) {
	kills := 50
	if testing.Short() {
		kills = 5
	}
	path := t.TempDir()
	sure, puts := map[string]bool{}, 0
	for range kills {
		cmd := child("writer", path)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		var complaints bytes.Buffer
		cmd.Stderr = &complaints
		require.NoError(t, cmd.Start())
		lines, killed, perhaps := 0, 20+rand.IntN(800), map[string]bool{}
		for in := bufio.NewScanner(out); in.Scan(); lines++ {
			if lines == killed {
				require.NoError(t, cmd.Process.Kill())
			}
			what, hash, ok := strings.Cut(in.Text(), " ")
			require.True(t, ok || lines >= killed, in.Text())
			switch what {
			case "put":
				perhaps[hash] = true
			case "kept":
				delete(perhaps, hash)
				sure[hash] = true
				puts++
			case "deliver":
				delete(sure, hash)
				perhaps[hash] = true
			case "delivered":
				delete(perhaps, hash)
			}
		}
		require.Error(t, cmd.Wait())
		require.Greater(t, lines, killed, complaints.String())

		var got []string
		for _, r := range waiting(t, path) {
			require.Equal(t, sample(r.Hash), r)
			got = append(got, r.Hash)
			if !perhaps[r.Hash] {
				require.True(t, sure[r.Hash], "%s is back", r.Hash)
			}
		}
		require.Subset(t, got, slices.Collect(maps.Keys(sure)), "lost")
		sure = map[string]bool{}
		for _, hash := range got {
			sure[hash] = true
		}
		for _, name := range files(t, path) {
			require.False(t, strings.HasSuffix(name, broken), "a kill damaged %s", name)
		}
	}
	var size int64
	for _, name := range files(t, path) {
		info, err := os.Stat(filepath.Join(path, name))
		require.NoError(t, err)
		size += info.Size()
	}
	t.Logf("%d kills, %d reports put, %d wait at the end in %d bytes", kills, puts, len(sure), size)
}

// segmentOf writes reports on a, b and c, and that b was delivered.
func segmentOf(t testing.TB) []byte {
	path := t.TempDir()
	d, err := Open(path, quiet)
	require.NoError(t, err)
	for _, hash := range []string{"a", "b", "c"} {
		require.NoError(t, d.Put(sample(hash)))
	}
	require.NoError(t, d.Delivered("b"))
	require.NoError(t, d.Close())
	content, err := os.ReadFile(first(path))
	require.NoError(t, err)
	return bytes.TrimRight(content, "\x00") // without the room for more
}

func TestTornTail(t *testing.T) {
	content := segmentOf(t)
	records, gaps, end, err := scan(content)
	require.NoError(t, err)
	require.Empty(t, gaps)
	require.Len(t, records, 4)
	require.EqualValues(t, len(content), end)
	for cut := range len(content) + 1 {
		if !notable(records, cut) && cut%13 != 0 {
			continue
		}
		want := []worker.Report{}
		for i, r := range records {
			if r.offset+r.length <= int64(cut) {
				if i < 3 {
					want = append(want, sample(r.hash))
				} else {
					want = samples("a", "c")
				}
			}
		}
		for _, zeros := range []int{0, 1, 5000} { // what some file systems leave
			path := t.TempDir()
			require.NoError(t, os.WriteFile(first(path), append(slices.Clone(content[:cut]), make([]byte, zeros)...), 0o600))
			// A few zeros in place of the end of a record could as well be damage.
			filled := zeros == 1 && torn(content, records, cut)
			require.Equal(t, want, waiting(t, path), "cut after %d bytes, %d zeros", cut, zeros)
			d := mustOpen(t, path)
			require.NoError(t, d.Put(sample("more")))
			require.NoError(t, d.Close())
			require.Equal(t, append(slices.Clone(want), sample("more")), waiting(t, path))
			for _, name := range files(t, path) {
				require.False(t, !filled && strings.HasSuffix(name, broken), "cut after %d bytes, %d zeros", cut, zeros)
			}
		}
	}
}

// notable reports whether something begins or ends at or beside an offset.
func notable(records []record, at int) bool {
	return at < headSize || slices.ContainsFunc(records, func(r record) bool {
		for _, edge := range []int64{0, frameSize, r.length} {
			if d := int64(at) - r.offset - edge; d >= -9 && d <= 9 {
				return true
			}
		}
		return false
	})
}

// torn reports whether the cut is inside of something.
func torn(content []byte, records []record, cut int) bool {
	if cut == headSize || cut == len(content) || cut == 0 {
		return false
	}
	return !slices.ContainsFunc(records, func(r record) bool { return r.offset == int64(cut) })
}

// A flipped bit costs the record it is in and nothing else; the file stays for
// whoever wants to look at it.
func TestFlippedBits(t *testing.T) {
	content := segmentOf(t)
	records, _, _, err := scan(content)
	require.NoError(t, err)
	for at := range content {
		if !notable(records, at) && at%7 != 0 {
			continue
		}
		damaged := slices.Clone(content)
		damaged[at] ^= 1 << (at % 8)
		path := t.TempDir()
		require.NoError(t, os.WriteFile(first(path), damaged, 0o600))
		want := samples("a", "c")
		switch {
		case at < headSize:
			want = samples()
		case at < int(records[1].offset):
			want = samples("c")
		case at < int(records[2].offset): // b
		case at < int(records[3].offset):
			want = samples("a")
		default:
			want = samples("a", "b", "c") // that b was delivered is not known any more
		}
		for range 2 {
			require.Equal(t, want, waiting(t, path), "byte %d", at)
		}
		aside, err := os.ReadFile(first(path) + broken)
		require.NoError(t, err, "byte %d", at)
		require.Equal(t, damaged, aside)
	}
}

// Damage in a later file does not bring back what it says was delivered.
func TestDamageInALaterFile(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	require.NoError(t, d.Put(sample("a")))
	require.NoError(t, d.Put(sample("b")))
	require.NoError(t, d.Close())
	d = mustOpen(t, path)
	require.NoError(t, d.Put(sample("c")))
	require.NoError(t, d.Delivered("a"))
	require.NoError(t, d.Put(sample("d")))
	require.NoError(t, d.Close())
	second := filepath.Join(path, "0000000000000002.log")
	content, err := os.ReadFile(second)
	require.NoError(t, err)
	content[headSize+frameSize+3] ^= 1
	require.NoError(t, os.WriteFile(second, content, 0o600))
	for range 2 {
		require.Equal(t, samples("b", "d"), waiting(t, path))
	}
	require.Contains(t, files(t, path), "0000000000000002.log.broken")
}

func TestStrangeFiles(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	require.NoError(t, d.Put(sample("a")))
	require.NoError(t, d.Close())
	require.NoError(t, os.WriteFile(filepath.Join(path, "README"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(path, "0000000000000007.log"), []byte(strings.Repeat("no segment", 10)), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(path, "0000000000000009.log"), nil, 0o600))
	require.Equal(t, samples("a"), waiting(t, path))
	require.Equal(t, []string{"0000000000000001.log", "0000000000000007.log.broken", "README", "lock"}, files(t, path))

	require.NoError(t, os.Mkdir(filepath.Join(path, "0000000000000008.log"), 0o700))
	_, err := Open(path, quiet)
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	require.NoError(t, os.Remove(filepath.Join(path, "0000000000000008.log")))
	require.Equal(t, samples("a"), waiting(t, path), "the lock was not given back")
}

// What cannot be put leaves nothing behind.
func TestFailedPut(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	require.NoError(t, d.Put(sample("a")))
	require.Error(t, d.Put(worker.Report{Hash: "b", Result: beacon.Result{Outputs: beacon.Outputs{"f": func() {}}}}))
	require.Error(t, d.Put(worker.Report{Hash: "b", Result: beacon.Result{Outputs: beacon.Outputs{"f": json.RawMessage(`{`)}}}))
	require.Equal(t, 1, len(d.reports))

	// A file that cannot be written any more is given up for a new one.
	require.NoError(t, d.current.file.Close())
	require.ErrorIs(t, d.Put(sample("c")), os.ErrClosed)
	require.NoError(t, d.Put(sample("d")))
	require.NoError(t, d.Put(sample("e")))
	require.NotNil(t, d.current)
	d.old[0].file, _ = os.Open(first(path)) // for Close
	require.NoError(t, d.Close())
	require.Equal(t, samples("a", "d", "e"), waiting(t, path))
}

// When the disk fails to flush, nobody knows what is on it: then the log says
// that the report does not count.
func TestFailedFlush(t *testing.T) {
	for name, before := range map[string]bool{"new": false, "replacing": true} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			d := mustOpen(t, path)
			want := samples("a")
			require.NoError(t, d.Put(sample("a")))
			if before {
				want = samples("a", "b")
				require.NoError(t, d.Put(sample("b")))
			}
			// The place of a report that never reaches the disk.
			content, err := encode(worker.Report{Hash: "b", Message: "does not count"})
			require.NoError(t, err)
			d.mu.Lock()
			places, err := d.append(kindReport, content)
			require.NoError(t, err)
			p := places[0]
			require.NoError(t, p.segment.file.Close())
			p.segment.live++
			err = d.commit(p)
			require.ErrorIs(t, err, os.ErrClosed)
			require.ErrorIs(t, d.commit(p), os.ErrClosed, "a second flush must not hide what the first has said")
			p.segment.live--
			p.segment.file, err = os.OpenFile(first(path), os.O_RDWR, 0)
			require.NoError(t, err)
			d.revoke("b")
			d.mu.Unlock()
			require.NoError(t, d.Put(sample("c")), "in a new file")
			got, err := d.Pending()
			require.NoError(t, err)
			require.Equal(t, append(want, sample("c")), got)
			require.NoError(t, d.Close())
			require.Equal(t, append(want, sample("c")), waiting(t, path))
		})
	}
}

// One report that waits for long does not keep all later ones on the disk.
func TestCompaction(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	require.NoError(t, d.Put(sample("old")))
	for i := range 1500 {
		hash := fmt.Sprint(i)
		require.NoError(t, d.Put(sample(hash)))
		require.NoError(t, d.Delivered(hash))
		require.LessOrEqual(t, len(d.old), 8)
	}
	require.Greater(t, d.number, uint64(20))
	require.NoError(t, d.Close())
	require.Equal(t, samples("old"), waiting(t, path))
}

func TestConcurrent(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for j := range 60 {
				hash := fmt.Sprintf("%d-%d", i, j)
				if err := errors.Join(d.Put(sample(hash)), d.Put(sample("all the same"))); err != nil {
					t.Error(err)
				}
				if j%20 != 0 {
					if err := d.Delivered(hash); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Go(func() {
		if _, err := d.Pending(); err != nil {
			t.Error(err)
		}
	})
	all.Wait()
	require.Len(t, d.reports, 16*3+1)
	require.NoError(t, d.Close())
	got := waiting(t, path)
	require.Len(t, got, 16*3+1)
	for _, r := range got {
		require.Equal(t, sample(r.Hash), r)
	}
}

// Close while others put: each of them is told the truth.
func TestCloseMeanwhile(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	var all sync.WaitGroup
	var mu sync.Mutex
	want := map[string]bool{}
	for i := range 8 {
		all.Go(func() {
			for j := 0; ; j++ {
				hash := fmt.Sprintf("%d-%d", i, j)
				if err := d.Put(sample(hash)); err != nil {
					if !errors.Is(err, fs.ErrClosed) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				want[hash] = true
				if len(want) == 100 {
					all.Go(func() {
						if err := d.Close(); err != nil {
							t.Error(err)
						}
					})
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	got := map[string]bool{}
	for _, r := range waiting(t, path) {
		got[r.Hash] = true
	}
	require.Equal(t, want, got)
}

func FuzzScan(f *testing.F) {
	content := segmentOf(f)
	f.Add(content)
	f.Add(content[:len(content)-3])
	f.Add(append(slices.Clone(content), make([]byte, 100)...))
	flipped := slices.Clone(content)
	flipped[headSize+frameSize+1] ^= 4
	f.Add(flipped)
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		// With a head that is whole the rest is reached more often.
		if len(content) >= headSize {
			content = slices.Clone(content)
			copy(content, magic)
			sealHead(content)
		}
		records, gaps, end, err := scan(content)
		if err != nil {
			return
		}
		if end > int64(len(content)) {
			t.Fatal("beyond the end")
		}
		// Records and gaps cover all of it.
		at := int64(headSize)
		for at < end {
			i := slices.IndexFunc(records, func(r record) bool { return r.offset == at })
			j := slices.IndexFunc(gaps, func(g gap) bool { return g.offset == at })
			switch {
			case i >= 0 && j < 0 && records[i].length >= int64(frameSize):
				at += records[i].length
			case j >= 0 && i < 0 && gaps[j].length > 0 && gaps[j].err != nil:
				at += gaps[j].length
			default:
				t.Fatalf("nothing, or two things, at %d", at)
			}
		}
		if at != end {
			t.Fatal("a record reaches too far")
		}
	})
}
