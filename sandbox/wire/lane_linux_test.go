package wire_test

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon/sandbox/wire"
)

// lanes makes some, and the descriptors of their other ends.
func lanes(t *testing.T, n int) (*wire.Lanes, []int) {
	t.Helper()
	ours, theirs, err := wire.NewLanes(n)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ours.Close()) })
	fds := make([]int, n)
	for i, f := range theirs {
		fds[i], err = unix.Dup(int(f.Fd())) //nolint:gosec // a descriptor
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	return ours, fds
}

func TestLanes(t *testing.T) {
	ours, fds := lanes(t, 2)
	var served sync.WaitGroup
	for _, fd := range fds {
		lane, err := wire.OpenLane(fd)
		require.NoError(t, err)
		served.Go(func() {
			err := lane.Serve(func(_ uint64, payload, b []byte) ([]byte, error) {
				if len(payload) == 0 {
					return nil, nil // it comes another way
				}
				return append(b, payload...), nil
			})
			if !errors.Is(err, wire.ErrClosed) {
				t.Error(err)
			}
			_ = unix.Close(fd)
		})
	}
	first, second := ours.Take(), ours.Take()
	require.NotNil(t, second)
	require.Nil(t, ours.Take(), "there are two")
	for id, payload := range []string{"a", strings.Repeat("b", wire.MaxLane), "c"} {
		for _, lane := range []*wire.Lane{first, second} {
			var got string
			here, err := lane.Ask(uint64(id), []byte(payload), func(reply []byte) error { got = string(reply); return nil }) //nolint:gosec // not negative
			require.NoError(t, err)
			require.True(t, here)
			require.Equal(t, payload, got)
		}
	}
	here, err := first.Ask(7, nil, nil)
	require.NoError(t, err)
	require.False(t, here)
	ours.Put(first)
	require.Same(t, first, ours.Take())
	ours.Put(first)
	require.NoError(t, ours.Close())
	require.Nil(t, ours.Take())
	_, err = second.Ask(8, nil, nil)
	require.ErrorIs(t, err, wire.ErrClosed)
	ours.Put(second)
	served.Wait()
}

// Closing ends the waiting of those who ask.
func TestLanesAreClosed(t *testing.T) {
	ours, fds := lanes(t, 1)
	defer unix.Close(fds[0]) //nolint:errcheck // it is there
	lane := ours.Take()
	ended := make(chan error, 1)
	go func() {
		_, err := lane.Ask(1, nil, nil)
		ours.Put(lane)
		ended <- err
	}()
	_, err := unix.Read(fds[0], make([]byte, 100)) // it has asked
	require.NoError(t, err)
	require.NoError(t, ours.Close())
	require.ErrorIs(t, <-ended, wire.ErrClosed)
}

// Whatever comes in a lane is a stranger's word.
func TestLaneProtocol(t *testing.T) {
	packet := func(id uint64, rest ...byte) []byte {
		return append(binary.LittleEndian.AppendUint64(nil, id), rest...)
	}
	for name, reply := range map[string][]byte{
		"short":             {1},
		"another request's": packet(2, 0, 'a'),
		"of no kind":        packet(1, 2),
		"both":              packet(1, 1, 'a'),
	} {
		t.Run(name, func(t *testing.T) {
			ours, fds := lanes(t, 1)
			defer unix.Close(fds[0]) //nolint:errcheck // it is there
			_, err := unix.Write(fds[0], reply)
			require.NoError(t, err)
			lane := ours.Take()
			defer ours.Put(lane)
			_, err = lane.Ask(1, []byte("request"), func([]byte) error { t.Error("it is no reply"); return nil })
			require.ErrorIs(t, err, wire.ErrProtocol)
		})
	}
	for name, request := range map[string][]byte{"short": {1}, "of another kind": packet(1, 1)} {
		t.Run("request "+name, func(t *testing.T) {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
			require.NoError(t, err)
			defer unix.Close(pair[0]) //nolint:errcheck // it is there
			defer unix.Close(pair[1]) //nolint:errcheck // it is there
			lane, err := wire.OpenLane(pair[1])
			require.NoError(t, err)
			_, err = unix.Write(pair[0], request)
			require.NoError(t, err)
			require.ErrorIs(t, lane.Serve(nil), wire.ErrProtocol)
		})
	}
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer f.Close()                     //nolint:errcheck // only opened
	_, err = wire.OpenLane(int(f.Fd())) //nolint:gosec // a descriptor
	require.ErrorContains(t, err, "no lane")
}

// Whoever asks can tell whether the other end has got the request before it went.
func TestLaneUnread(t *testing.T) {
	tests := map[string]struct {
		end    func(t *testing.T, fd int)
		before bool // the end comes before the request
		unread bool
	}{
		"gone before": {func(t *testing.T, fd int) { require.NoError(t, unix.Close(fd)) }, true, true},
		"gone before it was read": {func(t *testing.T, fd int) {
			arrived(t, fd)
			require.NoError(t, unix.Close(fd))
		}, false, true},
		"gone after it was read": {func(t *testing.T, fd int) {
			_, err := unix.Read(fd, make([]byte, 100))
			require.NoError(t, err)
			require.NoError(t, unix.Close(fd))
		}, false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ours, fds := lanes(t, 1)
			lane := ours.Take()
			defer ours.Put(lane)
			if tt.before {
				tt.end(t, fds[0])
			}
			asked := make(chan error, 1)
			go func() {
				_, err := lane.Ask(1, []byte("x"), func([]byte) error { return nil })
				asked <- err
			}()
			if !tt.before {
				tt.end(t, fds[0])
			}
			err := <-asked
			require.ErrorIs(t, err, wire.ErrClosed)
			require.Equal(t, tt.unread, errors.Is(err, wire.ErrUnread), err)
		})
	}
}

// arrived waits until there is something to be read.
func arrived(t *testing.T, fd int) {
	t.Helper()
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1) //nolint:gosec // a descriptor
	require.NoError(t, err)
}
