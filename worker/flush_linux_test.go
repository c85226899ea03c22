package worker_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// BenchmarkFlush writes as many bytes as a small result has into a file that does not
// grow by it, and waits for the disk, one after the other. A worker whose server
// gives out the next item only after the result of the one before cannot be faster,
// as long as no result is sent before it is on the disk.
func BenchmarkFlush(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	require.NoError(b, err)
	defer func() { require.NoError(b, f.Close()) }()
	const size, record = 16 << 20, 300
	_, err = f.Write(make([]byte, size))
	require.NoError(b, err)
	require.NoError(b, f.Sync())
	content := make([]byte, record)
	before := processor(b)
	for i := 0; b.Loop(); i++ {
		_, err := f.WriteAt(content, int64(i)%(size/record)*record)
		require.NoError(b, err)
		require.NoError(b, unix.Fdatasync(int(f.Fd())))
	}
	b.ReportMetric((processor(b)-before)/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "flushes/s")
}

// processor returns the processor time of this process, in µs.
func processor(b *testing.B) float64 {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e3
}
