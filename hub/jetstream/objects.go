package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ultravisor/beacon/hub/object"
)

// Objects is a bucket of an object store. It implements object.Store.
type Objects struct {
	store  *Store
	bucket jetstream.ObjectStore
	name   string
}

// Objects opens the bucket for files.
func (s *Store) Objects(ctx context.Context) (*Objects, error) {
	bucket, err := s.bucket(ctx, "FILES", "files on their way through beacon hubs", s.journal.stream.CachedInfo().Config.Replicas)
	if err != nil {
		return nil, err
	}
	return &Objects{s, bucket, s.name("FILES")}, nil
}

// Names of an object's metadata.
const (
	metaName    = "beacon.name"
	metaSHA256  = "beacon.sha256"
	metaCreated = "beacon.created"
)

// Put implements object.Store.
func (o *Objects) Put(ctx context.Context, info object.Info, r io.Reader) error {
	if e := o.store.embedded; e != nil {
		if err := e.room(info.Size); err != nil {
			return err
		}
	}
	sized := &sized{r: r}
	_, err := o.bucket.Put(ctx, jetstream.ObjectMeta{
		Name: info.ID,
		Metadata: map[string]string{
			metaName: info.Name, metaSHA256: info.SHA256, metaCreated: strconv.FormatInt(info.Created.UnixMilli(), 10),
		},
		Opts: &jetstream.ObjectMetaOptions{ChunkSize: uint32(min(chunk, o.store.journal.most))},
	}, sized)
	if err == nil && sized.n != info.Size {
		err = errors.Join(fmt.Errorf("%d bytes came instead of %d", sized.n, info.Size), o.bucket.Delete(ctx, info.ID))
	}
	if err != nil {
		return fmt.Errorf("keep object %s: %w", info.ID, err)
	}
	return nil
}

func infoOf(o *jetstream.ObjectInfo) object.Info {
	info := object.Info{ID: o.Name, Name: o.Metadata[metaName], Size: int64(o.Size), SHA256: o.Metadata[metaSHA256], Created: o.ModTime}
	if ms, err := strconv.ParseInt(o.Metadata[metaCreated], 10, 64); err == nil {
		info.Created = time.UnixMilli(ms)
	}
	return info
}

func missing(err error) error {
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return fs.ErrNotExist
	}
	return err
}

// Open implements object.Store.
func (o *Objects) Open(ctx context.Context, id string) (io.ReadSeekCloser, object.Info, error) {
	info, err := o.bucket.GetInfo(ctx, id)
	if err != nil {
		return nil, object.Info{}, missing(err)
	}
	return &reader{ctx: ctx, o: o, id: id, size: int64(info.Size)}, infoOf(info), nil
}

// Delete implements object.Store.
func (o *Objects) Delete(ctx context.Context, id string) error {
	return missing(o.bucket.Delete(ctx, id))
}

// List implements object.Store.
func (o *Objects) List(ctx context.Context) ([]object.Info, error) {
	all, err := o.bucket.List(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil, fmt.Errorf("list objects: %w", err)
	}
	out := make([]object.Info, 0, len(all))
	for _, info := range all {
		out = append(out, infoOf(info))
	}
	return out, nil
}

// Sweep implements object.Store. An upload that broke off leaves messages that
// belong to no object.
func (o *Objects) Sweep(ctx context.Context) error {
	stream, err := o.store.js.Stream(ctx, "OBJ_"+o.name)
	if err != nil {
		return fmt.Errorf("sweep objects: %w", err)
	}
	chunks := "$O." + o.name + ".C."
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(chunks+">"))
	if err != nil {
		return fmt.Errorf("sweep objects: %w", err)
	}
	known := map[string]bool{}
	all, err := o.bucket.List(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return fmt.Errorf("sweep objects: %w", err)
	}
	for _, info := range all {
		known[info.NUID] = true
	}
	for subject := range info.State.Subjects {
		if known[strings.TrimPrefix(subject, chunks)] {
			continue
		}
		last, err := stream.GetLastMsgForSubject(ctx, subject)
		if err != nil || time.Since(last.Time) < cmp.Or(o.store.cfg.OrphanAge, time.Hour) {
			continue // it may be on its way
		}
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return fmt.Errorf("sweep objects: %w", err)
		}
		o.store.log.Info("parts of an object that was never complete are removed", "subject", subject)
	}
	return nil
}

// A reader reads an object; to go back, it begins anew.
type reader struct {
	ctx  context.Context //nolint:containedctx // lives as long as one download
	o    *Objects
	id   string
	size int64
	at   int64 // where the next Read is to begin
	from jetstream.ObjectResult
	pos  int64 // of from
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	r.at = offset
	return offset, nil
}

func (r *reader) Read(p []byte) (int, error) {
	if r.at >= r.size {
		return 0, io.EOF
	}
	if r.from != nil && r.at < r.pos {
		if err := r.Close(); err != nil {
			return 0, err
		}
	}
	if r.from == nil {
		from, err := r.o.bucket.Get(r.ctx, r.id)
		if err != nil {
			return 0, missing(err)
		}
		r.from, r.pos = from, 0
	}
	if r.at > r.pos {
		n, err := io.CopyN(io.Discard, r.from, r.at-r.pos)
		r.pos += n
		if err != nil {
			return 0, err
		}
	}
	n, err := r.from.Read(p)
	r.pos += int64(n)
	r.at = r.pos
	return n, err
}

func (r *reader) Close() error {
	if r.from == nil {
		return nil
	}
	err := r.from.Close()
	r.from = nil
	return err
}
