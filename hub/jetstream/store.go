// Package jetstream keeps what hubs have in NATS JetStream: the journal in a
// stream, snapshots and files in object stores. The server is one inside of the
// process, with a folder of its own, or a cluster that exists, where any number
// of hubs share the same; everything after the connection is the same code.
package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ultravisor/beacon"
)

// format is the version of what is kept: names, subjects and meaning of streams
// and buckets. It is part of their metadata; a hub does not touch what is of a
// later one.
const format = 1

const (
	formatKey      = "beacon.format"
	duplicates     = 2 * time.Minute // in which a record's id is remembered; our own count is what counts
	requestTimeout = 5 * time.Second
)

const defaultPrefix = "beacon"

// Config says how the server is used. Its zero value is usable.
type Config struct {
	// Prefix is what names of streams, buckets and subjects begin with; empty
	// means "beacon". Hubs with different prefixes have nothing in common.
	Prefix string
	// Replicas is on how many servers of a cluster everything is kept; 0 means
	// three, or one where there is only one server.
	Replicas int
	// MostBytes bounds the journal; 0 means no bound.
	MostBytes int64
	// OrphanAge is how old parts of an object have to be that was never complete
	// before Objects.Sweep removes them; 0 means an hour.
	OrphanAge time.Duration
	Log       *slog.Logger // nil means slog.Default()
}

// A Store is an open connection.
type Store struct {
	cfg      Config
	log      *slog.Logger
	nc       *nats.Conn
	js       jetstream.JetStream
	embedded *embedded // nil for a server elsewhere
	journal  *Journal
}

// ErrTwoNodes refuses a cluster that cannot lose any server.
var ErrTwoNodes = errors.New("the NATS cluster has fewer than three servers with JetStream: with two, the loss of either stops everything; use one, three or five")

// Connect uses a server or cluster that exists. Creds is a file with the
// credentials; it may be empty.
func Connect(ctx context.Context, urls []string, creds string, cfg Config) (*Store, error) {
	cfg.Prefix = cmp.Or(cfg.Prefix, defaultPrefix)
	if err := checkPrefix(cfg.Prefix); err != nil {
		return nil, err
	}
	options := []nats.Option{
		// Answers come to subjects below the prefix, like everything, so that the
		// permission to read there is all that is needed, and nobody else's answers
		// can be read with it.
		nats.CustomInboxPrefix(cfg.Prefix + ".inbox"),
		nats.Name("beacon hub"), nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond), nats.ReconnectBufSize(-1),
		nats.Timeout(requestTimeout), nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2), nats.RetryOnFailedConnect(false),
	}
	if creds != "" {
		options = append(options, nats.UserCredentials(creds))
	}
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	opening, forbid := context.WithCancelCause(ctx)
	defer forbid(nil)
	options = append(options, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		cfg.Log.Warn("NATS reports an error", "error", err)
		if errors.Is(err, nats.ErrPermissionViolation) { // which otherwise is only not answered
			forbid(err)
		}
	}))
	nc, err := nats.Connect(strings.Join(urls, ","), options...)
	if err != nil {
		return nil, beacon.Errorf(beacon.Unreachable, "connect to NATS: %w", err)
	}
	s, err := newStore(opening, nc, nil, cfg)
	if err != nil {
		nc.Close()
		if why := context.Cause(opening); errors.Is(why, nats.ErrPermissionViolation) {
			err = beacon.Errorf(beacon.Rejected, "NATS refuses what a hub needs: %w: give this user the permissions for the prefix %s", why, cfg.Prefix)
		}
		return nil, err
	}
	return s, nil
}

func newStore(ctx context.Context, nc *nats.Conn, e *embedded, cfg Config) (*Store, error) {
	cfg.Prefix = cmp.Or(cfg.Prefix, defaultPrefix)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if err := checkPrefix(cfg.Prefix); err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	s := &Store{cfg: cfg, log: cfg.Log, nc: nc, js: js, embedded: e}
	if s.journal, err = s.openJournal(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func checkPrefix(prefix string) error {
	for _, r := range prefix {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
			return beacon.Errorf(beacon.Invalid, "the prefix %q holds characters other than letters, digits, - and _", beacon.Excerpt(prefix, 80))
		}
	}
	return nil
}

// Journal is the store's journal. Closing it closes the store.
func (s *Store) Journal() *Journal { return s.journal }

// close ends the connection, and the server if it is our own.
func (s *Store) close() error {
	s.nc.Close()
	if s.embedded != nil {
		return s.embedded.close()
	}
	return nil
}

// name is that of a stream or bucket.
func (s *Store) name(what string) string { return strings.ToUpper(s.cfg.Prefix) + "_" + what }

func metadata() map[string]string { return map[string]string{formatKey: fmt.Sprint(format)} }

// checkFormat refuses what a later hub has made.
func checkFormat(what string, metadata map[string]string) error {
	var known int
	if _, err := fmt.Sscan(metadata[formatKey], &known); err != nil {
		return fmt.Errorf("%s exists in this NATS account and is not a hub's: use another prefix", what)
	}
	if known > format {
		return fmt.Errorf("%s is of format %d and this hub knows %d: use a newer one", what, known, format)
	}
	return nil
}

// startTimeout is how long a cluster may take to get itself together.
const startTimeout = 30 * time.Second

// stream opens a stream, or creates it.
func (s *Store) stream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	var stream jetstream.Stream
	err := s.patiently(ctx, func(ctx context.Context) error {
		existing, err := s.js.Stream(ctx, cfg.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			stream, err = s.create(ctx, cfg)
			return err
		}
		stream = existing
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", cfg.Name, err)
	}
	info := stream.CachedInfo()
	if err := checkFormat("stream "+cfg.Name, info.Config.Metadata); err != nil {
		return nil, err
	}
	if info.Config.Replicas == 2 {
		return nil, fmt.Errorf("stream %s: %w", cfg.Name, ErrTwoNodes)
	}
	if info.Config.MaxBytes == cfg.MaxBytes {
		return stream, nil
	}
	changed := info.Config
	changed.MaxBytes = cfg.MaxBytes
	if stream, err = s.js.UpdateStream(ctx, changed); err != nil {
		return nil, fmt.Errorf("change stream %s: %w", cfg.Name, err)
	}
	return stream, nil
}

func (s *Store) create(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	if s.embedded != nil && s.embedded.known {
		return nil, permanent{fmt.Errorf("%w: stream %s is gone", errDamaged, cfg.Name)}
	}
	cfg.Replicas = cmp.Or(s.cfg.Replicas, 3)
	if s.embedded != nil {
		cfg.Replicas = 1
	}
	stream, err := s.js.CreateStream(ctx, cfg)
	switch apiCode(err) {
	case codeNotClustered:
		if s.cfg.Replicas > 1 {
			return nil, permanent{fmt.Errorf("%d replicas: the NATS server is not part of a cluster", s.cfg.Replicas)}
		}
		s.log.Warn("the NATS server is not part of a cluster: what is kept there is lost with it", "stream", cfg.Name)
		cfg.Replicas = 1
		stream, err = s.js.CreateStream(ctx, cfg)
	case codeNoPeers, codeInsufficient: // the others may be starting
		err = fmt.Errorf("%w (%w)", ErrTwoNodes, err)
	case int(jetstream.JSErrCodeStreamNameInUse): // another hub was faster
		return s.js.Stream(ctx, cfg.Name)
	}
	return stream, err
}

// Codes of JetStream's errors that the client has no name for.
const (
	codeInsufficient = 10023
	codeNotClustered = 10074
	codeNoPeers      = 10005
	codeStorage      = 10047
	codeStoreFailed  = 10077
	codeUnavailable  = 10008
)

func apiCode(err error) int {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return int(api.ErrorCode)
	}
	return 0
}

// A permanent error does not go away by waiting.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// patiently tries until a cluster has got itself together.
func (s *Store) patiently(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		trying, done := context.WithTimeout(ctx, requestTimeout)
		err := try(trying)
		done()
		var final permanent
		if err == nil || s.embedded != nil || errors.As(err, &final) {
			return err
		}
		timer := time.NewTimer(250 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}
