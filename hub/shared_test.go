package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/hub/jetstream"
	"github.com/ultravisor/beacon/hub/journal"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

var silent = slog.New(slog.DiscardHandler)

// natsServer is one that hubs can share.
func natsServer(t *testing.T) string {
	t.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true})
	require.NoError(t, err)
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	require.True(t, srv.ReadyForConnections(patience))
	return srv.ClientURL()
}

// share starts a hub that uses a NATS server together with others.
func share(t *testing.T, nats string, cfg hub.Config) *sharing {
	t.Helper()
	store, err := jetstream.Connect(t.Context(), []string{nats}, "", jetstream.Config{Log: silent})
	require.NoError(t, err)
	cfg.Journal = store.Journal()
	cfg.Objects, err = store.Objects(t.Context())
	require.NoError(t, err)
	cfg.DataDir = t.TempDir()
	// Where it is reached has to be known before it is there.
	web := httptest.NewUnstartedServer(nil)
	cfg.URL = "http://" + web.Listener.Addr().String()
	return &sharing{startOn(t, web, cfg), cfg}
}

type sharing struct {
	*testServer
	cfg hub.Config
}

func TestHubsShareEverything(t *testing.T) {
	nats := natsServer(t)
	one, two := share(t, nats, hub.Config{}), share(t, nats, hub.Config{})
	w := one.join("a", 1, "A")
	require.Equal(t, one.get("/Beacon/" + w.id).json(t)["Name"], "a")
	two.eventually("the other hub knows it, too", func() bool { return two.get("/Beacon/"+w.id).status == http.StatusOK })

	// Submitted here, carried out there, waited for here.
	answered := two.later("/Beacon/Work/DispatchStream", `{"Capability":"A","Settings":{"x":"1"}}`)
	hash := w.item().WorkItemHash
	w.send(`{"Action":"WorkProgress","WorkItemHash":"` + hash + `","ProgressData":{"Percent":50,"BinaryData":"AAEC","Log":["half"]}}`)
	w.complete(hash)
	frames := bytes.NewReader(two.await(answered).raw)
	var kinds []protocol.FrameType
	for {
		kind, _, err := protocol.ReadFrame(frames, 1<<20)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		kinds = append(kinds, kind)
	}
	require.Equal(t, []protocol.FrameType{protocol.FrameProgress, protocol.FrameIntermediate, protocol.FrameResult}, kinds)
	one.eventually("the hub that was not asked knows it, too", func() bool { return one.record(hash).Status == protocol.StatusComplete })
	require.Equal(t, []string{"half", "Command executed: echo hello world"}, one.record(hash).Log)

	// An idempotency key is one for all hubs.
	first := one.enqueue(`{"Capability":"B"}`, "X-Idempotency-Key", "k")
	require.Equal(t, first, two.enqueue(`{"Capability":"B"}`, "X-Idempotency-Key", "k"))
	// So is a name: the connection to the other hub ends.
	again := two.join("a", 1, "A")
	require.Equal(t, w.id, again.id)
	_, err := w.raw()
	require.Error(t, err)
	// Cancel finds the worker wherever it is.
	hash = one.enqueue(`{"Capability":"A"}`)
	require.Equal(t, hash, again.item().WorkItemHash)
	require.Equal(t, http.StatusOK, one.post("/Beacon/Work/"+hash+"/Cancel", `{"Reason":"enough"}`).status)
	require.Equal(t, map[string]any{"EventType": "WorkCancel", "WorkItemHash": hash, "AttemptNumber": 1.0, "Reason": "enough"}, again.receive())

	// What is too large for the journal is with all hubs nevertheless.
	large := strings.Repeat("x", 300_000)
	hash = one.enqueue(`{"Capability":"C","Settings":{"Text":"` + large + `"}}`)
	c := two.join("c", 1, "C")
	item := c.item()
	require.Equal(t, hash, item.WorkItemHash)
	require.Equal(t, large, item.Settings.Text("Text"))
	waiting := one.later("/Beacon/Work/Dispatch", `{"Capability":"D"}`)
	d := two.join("d", 1, "D")
	d.send(`{"Action":"WorkComplete","WorkItemHash":"` + d.item().WorkItemHash + `","Outputs":{"Text":"` + large + `"},"Log":["` + large + `"]}`)
	outputs, _ := one.await(waiting).json(t)["Outputs"].(map[string]any)
	require.Equal(t, large, outputs["Text"])
	require.Equal(t, large, one.record(hash).Settings.Text("Text"))

	// A hub that ends gives its beacons up, and another has its queue.
	require.NoError(t, two.hub.Close(t.Context()))
	one.eventually("its beacons are gone", func() bool { return one.get("/Beacon/"+again.id).status == http.StatusNotFound })
}

// A hub that is a guest goes by the settings of the others.
func TestGuestsKeepSettings(t *testing.T) {
	nats := natsServer(t)
	one := share(t, nats, hub.Config{Settings: ledger.Settings{QueueItems: 1}})
	one.enqueue(`{"Capability":"A"}`)
	guest := share(t, nats, hub.Config{Guest: true})
	for _, s := range []*sharing{guest, one} {
		a := s.post("/Beacon/Work/Enqueue", `{"Capability":"A"}`)
		require.Equal(t, http.StatusTooManyRequests, a.status, "%s", a.raw)
		require.NotEmpty(t, a.header.Get("Retry-After"))
	}
}

func TestFilesOfOtherHubs(t *testing.T) {
	nats := natsServer(t)
	one, two := share(t, nats, hub.Config{ShareSize: 1000}), share(t, nats, hub.Config{ShareSize: 1000})
	small, large := strings.Repeat("s", 1000), strings.Repeat("l", 1001)
	for _, content := range []string{small, large} {
		file := one.store("a%20b.txt", content)
		for _, s := range []*sharing{one, two} {
			a := s.call(http.MethodGet, file.URL, "", "Range", "bytes=990-")
			require.Equal(t, http.StatusPartialContent, a.status, "%s", a.raw)
			require.Equal(t, content[990:], string(a.raw))
			require.Equal(t, `"`+file.SHA256+`"`, a.header.Get("ETag"))
		}
		require.Equal(t, http.StatusNotFound, two.get(strings.Replace(file.URL, "a%20b", "c", 1)).status)

		// A worker gets an address that is its own hub's, and good without a login.
		w := two.join("w", 1, "A")
		hash := one.enqueue(`{"Capability":"A","Settings":{"SourceURL":"http://elsewhere:1` + file.URL + `","Sources":[{"URL":"` + file.URL + `"}]}}`)
		item := w.item()
		require.Equal(t, hash, item.WorkItemHash)
		source := item.Settings.Text("SourceURL")
		require.True(t, strings.HasPrefix(source, two.url+"/Beacon/File/"), source)
		require.Contains(t, source, "&s=")
		require.Contains(t, string(item.Settings["Sources"]), two.url+"/Beacon/File/")
		require.Equal(t, content, string(two.get(strings.TrimPrefix(source, two.url)).raw))
		require.Equal(t, http.StatusForbidden, two.get(strings.TrimPrefix(source, two.url)+"0").status)
		require.Equal(t, http.StatusForbidden, two.get(strings.TrimPrefix(strings.Replace(source, "?e=", "?e=9", 1), two.url)).status)
		w.complete(hash)
		w.nothing()
	}
	disk, err := filepath.Glob(filepath.Join(one.cfg.DataDir, "files", "d*"))
	require.NoError(t, err)
	require.Len(t, disk, 2, "only the large one is on the disk")
}

// A client that is cut off goes on where it was.
func TestUploadInPieces(t *testing.T) {
	nats := natsServer(t)
	one, two := share(t, nats, hub.Config{FileSize: 5000}), share(t, nats, hub.Config{})
	content := strings.Repeat("0123456789", 100)
	begin := func(length int) answer {
		return one.post("/Beacon/File?name=a.bin", "", "Upload-Length", fmt.Sprint(length))
	}
	a := begin(len(content))
	require.Equal(t, http.StatusCreated, a.status, "%s", a.raw)
	at := a.header.Get("Location")
	piece := func(s *sharing, offset int, content string) answer {
		return s.call(http.MethodPatch, at, content, "Upload-Offset", fmt.Sprint(offset))
	}
	require.Equal(t, http.StatusOK, piece(one, 0, content[:300]).status)
	require.Equal(t, http.StatusConflict, piece(one, 0, content[:300]).status)
	require.Equal(t, "300", two.call(http.MethodHead, at, "").header.Get("Upload-Offset"), "the other hub passes it on")
	require.Equal(t, http.StatusOK, piece(two, 300, content[300:600]).status)

	// A hub that is started again goes on.
	cfg := one.cfg
	require.NoError(t, one.hub.Close(t.Context()))
	store, err := jetstream.Connect(t.Context(), []string{nats}, "", jetstream.Config{Log: silent})
	require.NoError(t, err)
	cfg.Journal = store.Journal()
	cfg.Objects, err = store.Objects(t.Context())
	require.NoError(t, err)
	web := httptest.NewUnstartedServer(nil)
	cfg.URL = "http://" + web.Listener.Addr().String()
	one = &sharing{startOn(t, web, cfg), cfg}
	require.Equal(t, "600", one.call(http.MethodHead, at, "").header.Get("Upload-Offset"))
	a = piece(one, 600, content[600:])
	require.Equal(t, http.StatusOK, a.status, "%s", a.raw)
	var file protocol.StoredFile
	require.NoError(t, json.Unmarshal(a.raw, &file))
	require.Equal(t, content, string(two.get(file.URL).raw))
	require.Equal(t, string(a.raw), string(piece(one, len(content), "").raw), "asked again, it says so again")

	require.Equal(t, http.StatusRequestEntityTooLarge, begin(5001).status)
	require.Equal(t, http.StatusBadRequest, one.post("/Beacon/File?name=a", "", "Upload-Length", "-1").status)
	require.Equal(t, http.StatusBadRequest, one.post("/Beacon/File?name=..", "", "Upload-Length", "1").status)
	at = begin(3).header.Get("Location")
	require.Equal(t, http.StatusBadRequest, piece(one, 0, "four").status)
	require.Equal(t, http.StatusNotFound, one.call(http.MethodHead, at, "").status, "what is wrong is forgotten")
	at = begin(3).header.Get("Location")
	require.Equal(t, http.StatusOK, one.call(http.MethodDelete, at, "").status)
	require.Equal(t, http.StatusNotFound, one.get(at).status)
	require.Equal(t, http.StatusNotFound, one.get("/Beacon/Upload/x").status)
	parts, err := filepath.Glob(filepath.Join(cfg.DataDir, "files", "*.part"))
	require.NoError(t, err)
	require.Empty(t, parts)
}

// A hub takes up where an earlier one on the same journal was cut off, from a
// snapshot and what came after it.
func TestRestart(t *testing.T) {
	memory := journal.NewMemory()
	cord := &cord{Journal: memory, cut: make(chan struct{})}
	cfg := hub.Config{Journal: cord, SnapshotBytes: 2000, Settings: ledger.Settings{HistoryItems: 7}}
	s := start(t, cfg)
	w := s.join("w", 3, "A")
	var hashes []string
	for i := range 40 {
		hashes = append(hashes, s.enqueue(fmt.Sprintf(`{"Capability":"A","Priority":%d}`, -i)))
	}
	for range 5 {
		w.complete(w.item().WorkItemHash)
	}
	s.eventually("five are done", func() bool { return s.record(hashes[4]).Status == protocol.StatusComplete })
	key := s.enqueue(`{"Capability":"B"}`, "X-Idempotency-Key", "k")
	r, _, err := memory.Snapshot(t.Context())
	require.NoError(t, err)
	require.NotNil(t, r)

	close(cord.cut) // the first hub is dead from here on, without a chance to say so
	cfg.Journal = memory
	next := start(t, cfg)
	require.Equal(t, protocol.StatusComplete, next.record(hashes[0]).Status)
	require.Equal(t, key, next.enqueue(`{"Capability":"B"}`, "X-Idempotency-Key", "k"))
	again := next.join("w", 3, "A")
	for _, want := range hashes[5:] {
		require.Equal(t, want, again.item().WorkItemHash)
		again.complete(want)
	}
	again.nothing()
}

// A cord is a journal that can be cut off from its hub.
type cord struct {
	journal.Journal
	cut chan struct{}
}

func (c *cord) Append(ctx context.Context, id string, data []byte) error {
	select {
	case <-c.cut:
		<-ctx.Done()
		return ctx.Err()
	default:
		return c.Journal.Append(ctx, id, data)
	}
}

func (c *cord) Follow(ctx context.Context, after uint64, each func(journal.Record) error) error {
	return c.Journal.Follow(ctx, after, func(r journal.Record) error {
		select {
		case <-c.cut:
			<-ctx.Done()
			return ctx.Err()
		default:
			return each(r)
		}
	})
}

// A journal that is for one hub is not used by two.
func TestTwoHubsOnAJournalForOne(t *testing.T) {
	memory := journal.NewMemory()
	first := start(t, hub.Config{Journal: memory})
	require.NoError(t, first.hub.Ready(t.Context())) // or the other would be the first
	second := start(t, hub.Config{Journal: memory})
	require.Equal(t, http.StatusOK, second.get("/status").status)
	<-first.hub.Failed()
	require.ErrorContains(t, first.hub.Ready(t.Context()), "another hub has begun")
	require.Equal(t, http.StatusServiceUnavailable, first.get("/status").status)
	second.enqueue(`{"Capability":"A"}`)
}

func TestBrokenJournal(t *testing.T) {
	memory := journal.NewMemory()
	require.NoError(t, memory.Append(t.Context(), "x", []byte("{")))
	h := hub.New(hub.Config{Journal: memory, Log: silent})
	require.ErrorIs(t, h.Ready(t.Context()), journal.ErrDamaged)
	<-h.Failed()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/status", nil))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.NoError(t, h.Close(t.Context()))
}
