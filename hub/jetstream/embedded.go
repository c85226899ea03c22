package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub/journal"
)

// Names in a data directory.
const (
	manifestName = "hub.json"
	markName     = "written.json"
	lockName     = "lock"
	// FilesName is the folder for what is too large for JetStream, and TLSName a
	// certificate: they are others', and may be there before us.
	FilesName = "files"
	TLSName   = "tls.pem"
)

// reserve is what is left free on the disk: a server that finds no room in the
// middle of a write does not recover before it is started again.
const reserve = 64 << 20

// mostPayload is the size of the largest message of a server of our own.
const mostPayload = 8 << 20

// An embedded server is one of our own, in this process, with a folder.
type embedded struct {
	dir    string
	known  bool // the folder has been in use
	server *server.Server
	lock   *flock.Flock
	log    *slog.Logger

	last      atomic.Uint64 // record that is known to be on the disk
	lastImage atomic.Int64  // size of the last snapshot
	broken    atomic.Pointer[error]

	stop  chan struct{}
	tasks sync.WaitGroup
}

// A manifest says what a data directory is.
type manifest struct {
	Format int
	// Ready says that everything was created: what is missing then was lost.
	Ready bool
}

// A mark says how far the journal is known to go.
type mark struct{ Record uint64 }

// Embed starts a server in this process, which listens nowhere, and keeps
// everything in a folder. The folder is this process's alone. Every record is
// synced to the disk before it counts.
func Embed(ctx context.Context, dir string, cfg Config) (*Store, error) {
	log := cfg.Log
	if log == nil {
		log = slog.Default()
	}
	e := &embedded{dir: dir, log: log, stop: make(chan struct{})}
	if err := e.open(); err != nil {
		return nil, err
	}
	s, err := e.start(ctx, cfg)
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	e.tasks.Go(e.keepMark)
	return s, nil
}

// open takes the folder, and refuses one that is not a hub's.
func (e *embedded) open() error {
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return beacon.Errorf(beacon.Invalid, "data folder %s: %w", e.dir, unpath(err))
	}
	e.lock = flock.New(filepath.Join(e.dir, lockName), flock.SetPermissions(0o600))
	taken, err := e.lock.TryLock()
	if err != nil {
		return beacon.Errorf(beacon.Invalid, "data folder %s: %w", e.dir, unpath(err))
	}
	if !taken {
		return beacon.Errorf(beacon.Invalid, "data folder %s is in use by another hub: give this one a folder of its own", e.dir)
	}
	if err := e.recognise(); err != nil {
		return errors.Join(err, e.lock.Unlock())
	}
	return nil
}

func unpath(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func (e *embedded) recognise() error {
	raw, err := os.ReadFile(filepath.Join(e.dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		entries, err := os.ReadDir(e.dir)
		if err != nil {
			return beacon.Errorf(beacon.Invalid, "data folder %s: %w", e.dir, unpath(err))
		}
		for _, entry := range entries {
			if !slices.Contains([]string{lockName, FilesName, TLSName, manifestName + partSuffix, markName + partSuffix}, entry.Name()) {
				return beacon.Errorf(beacon.Invalid, "data folder %s holds %s and is not a hub's: choose an empty one, or put back its %s",
					e.dir, beacon.Excerpt(entry.Name(), 80), manifestName)
			}
		}
		return e.write(manifestName, manifest{Format: format})
	}
	if err != nil {
		return beacon.Errorf(beacon.Invalid, "data folder %s: %w", e.dir, unpath(err))
	}
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil || m.Format < 1 {
		return e.damaged(fmt.Errorf("%s is not readable", manifestName))
	}
	if m.Format > format {
		return beacon.Errorf(beacon.Invalid, "data folder %s is of format %d and this hub knows %d: use a newer one", e.dir, m.Format, format)
	}
	e.known = m.Ready
	if !e.known {
		return nil
	}
	var k mark
	raw, err = os.ReadFile(filepath.Join(e.dir, markName))
	if err == nil {
		err = json.Unmarshal(raw, &k)
	}
	if err != nil {
		return e.damaged(fmt.Errorf("%s is not readable", markName))
	}
	e.last.Store(k.Record)
	return nil
}

// damaged says what an operator can do.
func (e *embedded) damaged(err error) error {
	return beacon.Errorf(beacon.Refused, "data folder %s is damaged (%w): nothing was changed; restore it from a backup, or move it away to begin with an empty one", e.dir, err)
}

const partSuffix = ".part"

// write replaces a small file, durably.
func (e *embedded) write(name string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	path := filepath.Join(e.dir, name)
	f, err := os.OpenFile(path+partSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(append(raw, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(path+partSuffix, path)
	}
	if err == nil {
		err = syncFolder(e.dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// start brings the server up and looks whether all is there.
func (e *embedded) start(ctx context.Context, cfg Config) (*Store, error) {
	if err := e.room(0); err != nil {
		return nil, err
	}
	options := &server.Options{
		ServerName: "beacon-hub", DontListen: true, NoSigs: true, DisableJetStreamBanner: true,
		JetStream: true, StoreDir: e.dir, SyncAlways: true, MaxPayload: mostPayload + 64<<10,
		// What there is on the disk is ours to watch.
		JetStreamMaxStore: 1 << 50, JetStreamMaxMemory: 256 << 20,
	}
	srv, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("start a NATS server: %w", err)
	}
	e.server = srv
	srv.SetLoggerV2(natsLog{e}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) {
		return nil, e.damaged(errors.New("the NATS server inside does not start"))
	}
	if !srv.JetStreamEnabled() {
		return nil, e.damaged(errors.New("JetStream does not start in it"))
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv), nats.Name("beacon hub"), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1))
	if err != nil {
		return nil, fmt.Errorf("connect to the NATS server inside: %w", err)
	}
	s, err := newStore(ctx, nc, e, cfg)
	if errors.Is(err, errDamaged) {
		err = e.damaged(err)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	if !e.known {
		err := e.write(markName, mark{})
		if err == nil {
			err = e.write(manifestName, manifest{Format: format, Ready: true})
		}
		if err != nil {
			nc.Close()
			return nil, err
		}
	}
	return s, nil
}

// close ends the server and gives the folder back.
func (e *embedded) close() error {
	close(e.stop)
	e.tasks.Wait()
	if e.server != nil {
		e.server.Shutdown()
		e.server.WaitForShutdown()
	}
	return e.lock.Unlock()
}

func (e *embedded) mark() uint64 { return e.last.Load() }

// wrote notes that a record is on the disk.
func (e *embedded) wrote(seq uint64) {
	for last := e.last.Load(); seq > last && !e.last.CompareAndSwap(last, seq); last = e.last.Load() {
		continue
	}
}

// markInterval bounds by how much the mark is behind.
const markInterval = 2 * time.Second

// keepMark writes down how far the journal goes, so that a journal that has lost
// its end is noticed at the next start.
func (e *embedded) keepMark() {
	tick := time.NewTicker(markInterval)
	defer tick.Stop()
	written := e.last.Load()
	for ended := false; !ended; {
		select {
		case <-tick.C:
		case <-e.stop:
			ended = true
		}
		last := e.last.Load()
		if last == written {
			continue
		}
		if err := e.write(markName, mark{last}); err != nil {
			e.log.Warn("cannot note how far the journal goes", "error", err)
			continue
		}
		written = last
	}
}

// room reports ErrFull unless the disk has room for so many bytes and more.
func (e *embedded) room(bytes int64) error {
	free, err := freeSpace(e.dir)
	if err != nil {
		return fmt.Errorf("find out how much room is on the disk of %s: %w", e.dir, err)
	}
	if want := reserve + 2*bytes; free < want {
		return fmt.Errorf("%w: %d MiB are free where %s is, and %d MiB are kept free", journal.ErrFull, free>>20, e.dir, want>>20)
	}
	return nil
}

// failed is what the server has said about its disk; nil while it writes.
func (e *embedded) failed() error {
	if err := e.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// A natsLog passes the server's log on.
type natsLog struct{ e *embedded }

func (n natsLog) Noticef(format string, v ...any) { n.e.log.Debug(fmt.Sprintf(format, v...)) }

func (n natsLog) Warnf(format string, v ...any) { n.e.log.Debug(fmt.Sprintf(format, v...)) }

func (n natsLog) Fatalf(format string, v ...any) { n.Errorf(format, v...) }

func (n natsLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	n.e.log.Error("NATS server inside: " + text)
	if strings.Contains(text, "failed to store") {
		err := fmt.Errorf("%w: the server inside cannot write (%s); start the hub again when its disk is well", journal.ErrBroken, text)
		n.e.broken.CompareAndSwap(nil, &err)
	}
}

func (n natsLog) Debugf(string, ...any) {}

func (n natsLog) Tracef(string, ...any) {}
