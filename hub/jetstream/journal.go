package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ultravisor/beacon/hub/journal"
)

var errDamaged = journal.ErrDamaged

// A Journal is a stream. It implements journal.Journal.
//
// Nothing is acknowledged by readers, nothing expires, and the stream refuses
// new records rather than drop old ones: most of what goes wrong with work
// queues on JetStream cannot happen here.
type Journal struct {
	store     *Store
	stream    jetstream.Stream
	subject   string
	snapshots jetstream.ObjectStore
	most      int
}

func (s *Store) openJournal(ctx context.Context) (*Journal, error) {
	j := &Journal{store: s, subject: s.cfg.Prefix + ".journal", most: min(int(s.nc.MaxPayload())-1024, 8<<20)}
	most := s.cfg.MostBytes
	if most == 0 {
		most = -1
	}
	var err error
	j.stream, err = s.stream(ctx, jetstream.StreamConfig{
		Name: s.name("JOURNAL"), Description: "what beacon hubs have written down, in order",
		Subjects: []string{j.subject}, Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy,
		Discard: jetstream.DiscardNew, MaxBytes: most, Duplicates: duplicates, DenyDelete: true, Metadata: metadata(),
	})
	if err != nil {
		return nil, err
	}
	if j.snapshots, err = s.bucket(ctx, "SNAPSHOTS", "what the journal of beacon hubs came to", j.stream.CachedInfo().Config.Replicas); err != nil {
		return nil, err
	}
	if err := j.verify(ctx); err != nil {
		return nil, err
	}
	return j, nil
}

// bucket opens an object store, or creates it.
func (s *Store) bucket(ctx context.Context, what, description string, replicas int) (jetstream.ObjectStore, error) {
	name := s.name(what)
	var bucket jetstream.ObjectStore
	var status jetstream.ObjectStoreStatus
	// In a cluster a bucket that another hub has just created may not be
	// everywhere yet, so that its status belongs to what is tried again.
	err := s.patiently(ctx, func(ctx context.Context) error {
		var err error
		bucket, err = s.js.ObjectStore(ctx, name)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			if s.embedded != nil && s.embedded.known {
				return permanent{fmt.Errorf("%w: bucket %s is gone", errDamaged, name)}
			}
			bucket, err = s.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{
				Bucket: name, Description: description, Storage: jetstream.FileStorage,
				Replicas: replicas, Metadata: metadata(),
			})
			if errors.Is(err, jetstream.ErrBucketExists) {
				bucket, err = s.js.ObjectStore(ctx, name)
			}
		}
		if err == nil {
			status, err = bucket.Status(ctx)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	if err := checkFormat("bucket "+name, status.Metadata()); err != nil {
		return nil, err
	}
	return bucket, nil
}

// verify looks whether all is there that once was.
func (j *Journal) verify(ctx context.Context) error {
	e := j.store.embedded
	if e == nil {
		return nil
	}
	info, err := j.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("open the journal: %w", err)
	}
	state := info.State
	if want := e.mark(); state.LastSeq < want {
		return fmt.Errorf("%w: it ends with record %d, and %d were written", errDamaged, state.LastSeq, want)
	}
	if n := state.LastSeq + 1 - state.FirstSeq; state.Msgs > 0 && state.Msgs != n {
		return fmt.Errorf("%w: %d of the %d records from %d on are there", errDamaged, state.Msgs, n, state.FirstSeq)
	}
	return nil
}

// Most implements journal.Journal.
func (j *Journal) Most() int { return j.most }

// Shared implements journal.Journal.
func (j *Journal) Shared() bool { return j.store.embedded == nil }

// Close implements journal.Journal. It closes the store.
func (j *Journal) Close(context.Context) error { return j.store.close() }

// Append implements journal.Journal.
func (j *Journal) Append(ctx context.Context, id string, data []byte) error {
	if e := j.store.embedded; e != nil {
		if err := e.room(int64(len(data))); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ack, err := j.store.js.PublishMsg(ctx, &nats.Msg{Subject: j.subject, Data: data}, jetstream.WithMsgID(id), jetstream.WithExpectStream(j.stream.CachedInfo().Config.Name))
	switch {
	case err == nil:
		if e := j.store.embedded; e != nil {
			e.wrote(ack.Sequence)
		}
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %d bytes", journal.ErrTooLarge, len(data))
	}
	switch apiCode(err) {
	case codeStoreFailed, codeStorage, codeInsufficient:
		return fmt.Errorf("%w: %w", journal.ErrFull, err)
	case int(jetstream.JSErrCodeStreamMessageExceedsMaximum):
		return fmt.Errorf("%w: %w", journal.ErrTooLarge, err)
	}
	if e := j.store.embedded; e != nil {
		if failed := e.failed(); failed != nil {
			return failed
		}
	}
	return fmt.Errorf("append to the journal: %w", err)
}

// Last implements journal.Journal.
func (j *Journal) Last(ctx context.Context) (uint64, error) {
	var last uint64
	err := j.store.patiently(ctx, func(ctx context.Context) error {
		info, err := j.stream.Info(ctx)
		if err == nil {
			last = info.State.LastSeq
		}
		return err
	})
	return last, err
}

// Readers notice within heartbeat times two that the server they read from is
// gone.
const (
	readExpiry    = 5 * time.Second
	readHeartbeat = time.Second
	readBatch     = 512
)

// Follow implements journal.Journal.
func (j *Journal) Follow(ctx context.Context, after uint64, each func(journal.Record) error) error {
	for {
		err := j.read(ctx, &after, each)
		var final permanent
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &final):
			return final.error
		}
		j.store.log.Debug("reading the journal was interrupted", "after", after, "error", err)
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// read follows the journal as long as nothing happens to the connection.
func (j *Journal) read(ctx context.Context, after *uint64, each func(journal.Record) error) error {
	asking, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := j.stream.Info(asking)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return permanent{fmt.Errorf("%w: its stream is gone", errDamaged)}
	case err != nil:
		return err
	case info.State.FirstSeq > *after+1:
		return permanent{fmt.Errorf("%w: after record %d comes %d", journal.ErrTrimmed, *after, info.State.FirstSeq)}
	}
	reader, err := j.store.js.OrderedConsumer(asking, info.Config.Name, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: *after + 1,
	})
	if err != nil {
		return err
	}
	messages, err := reader.Messages(jetstream.PullMaxMessages(readBatch), jetstream.PullExpiry(readExpiry), jetstream.PullHeartbeat(readHeartbeat))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		at, err := m.Metadata()
		if err != nil {
			return err
		}
		switch seq := at.Sequence.Stream; {
		case seq <= *after: // it came again
			continue
		case seq > *after+1:
			return j.gap(ctx, *after, seq)
		}
		if err := each(journal.Record{Seq: at.Sequence.Stream, Time: at.Timestamp, Data: m.Data()}); err != nil {
			return permanent{err}
		}
		*after = at.Sequence.Stream
	}
}

// gap says why records are missing.
func (j *Journal) gap(ctx context.Context, after, next uint64) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := j.stream.Info(ctx)
	if err != nil {
		return err
	}
	if info.State.FirstSeq > after+1 {
		return permanent{fmt.Errorf("%w: after record %d comes %d", journal.ErrTrimmed, after, next)}
	}
	return permanent{fmt.Errorf("%w: after record %d comes %d", errDamaged, after, next)}
}

const snapshotPrefix = "snapshot-"

// covers is up to which record a snapshot of a name goes.
func covers(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, snapshotPrefix)
	seq, err := strconv.ParseUint(digits, 10, 64)
	return seq, ok && err == nil
}

// images lists the snapshots, the newest first.
func (j *Journal) images(ctx context.Context) ([]uint64, error) {
	var all []*jetstream.ObjectInfo
	err := j.store.patiently(ctx, func(ctx context.Context) (err error) {
		all, err = j.snapshots.List(ctx)
		if errors.Is(err, jetstream.ErrNoObjectsFound) {
			err = nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []uint64
	for _, info := range all {
		if seq, ok := covers(info.Name); ok {
			out = append(out, seq)
		}
	}
	slices.SortFunc(out, func(a, b uint64) int { return cmp.Compare(b, a) })
	return out, nil
}

// Snapshot implements journal.Journal.
func (j *Journal) Snapshot(ctx context.Context) (io.ReadCloser, uint64, error) {
	images, err := j.images(ctx)
	if err != nil || len(images) == 0 {
		return nil, 0, err
	}
	image, err := j.snapshots.Get(ctx, snapshotPrefix+strconv.FormatUint(images[0], 10))
	if err != nil {
		return nil, 0, err
	}
	dec, err := zstd.NewReader(image, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(4<<30))
	if err != nil {
		return nil, 0, errors.Join(err, image.Close())
	}
	return &imageReader{dec, image}, images[0], nil
}

type imageReader struct {
	*zstd.Decoder
	image io.Closer
}

func (r *imageReader) Close() error {
	r.Decoder.Close()
	return r.image.Close()
}

// chunk is how large the messages of an object are: each is synced by itself.
const chunk = 512 << 10

// Save implements journal.Journal.
func (j *Journal) Save(ctx context.Context, seq uint64, write func(io.Writer) error) error {
	images, err := j.images(ctx)
	if err != nil {
		return err
	}
	if len(images) > 0 && images[0] >= seq {
		return nil // another hub was faster
	}
	if e := j.store.embedded; e != nil {
		if err := e.room(e.lastImage.Load()); err != nil {
			return err
		}
	}
	r, w := io.Pipe()
	sized := &sized{r: r}
	written := make(chan error, 1)
	go func() {
		enc, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err == nil {
			err = write(enc)
			if cerr := enc.Close(); err == nil {
				err = cerr
			}
		}
		w.CloseWithError(err)
		written <- err
	}()
	_, err = j.snapshots.Put(ctx, jetstream.ObjectMeta{
		Name: snapshotPrefix + strconv.FormatUint(seq, 10), Opts: &jetstream.ObjectMetaOptions{ChunkSize: uint32(min(chunk, j.most))},
	}, sized)
	r.CloseWithError(err)
	if werr := <-written; err == nil {
		err = werr
	}
	if err != nil {
		return err
	}
	if e := j.store.embedded; e != nil {
		e.lastImage.Store(sized.n)
	}
	if len(images) == 0 {
		return nil // those who follow may need what is before
	}
	// What the snapshot before the new one covers is of use to nobody any more:
	// who has not read it begins with a snapshot.
	if err := j.stream.Purge(ctx, jetstream.WithPurgeSequence(images[0]+1)); err != nil {
		return fmt.Errorf("trim the journal: %w", err)
	}
	for _, old := range images[1:] {
		err := j.snapshots.Delete(ctx, snapshotPrefix+strconv.FormatUint(old, 10))
		if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
			return fmt.Errorf("drop an old snapshot: %w", err)
		}
	}
	return nil
}

type sized struct {
	r io.Reader
	n int64
}

func (s *sized) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	return n, err
}
