package hub_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/hub/pace"
)

// pipes is a listener whose connections are in memory and keep nothing: what one
// side writes waits until the other reads. So the time of a bubble counts.
type pipes struct {
	next   chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.next:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return loopback{}.RemoteAddr() }

func (p *pipes) dial() net.Conn {
	near, far := net.Pipe()
	p.next <- loopback{far}
	return near
}

type loopback struct{ net.Conn }

func (loopback) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// said is a log.
type said struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// A street is a hub in a bubble, with connections to it.
type street struct {
	direct

	*pipes

	log *said
	dir string
}

func onStreet(t *testing.T, cfg hub.Config, test func(t *testing.T, s street)) {
	log := &said{}
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cfg.Log, cfg.DataDir = slog.New(slog.NewTextHandler(log, nil)), dir
		h := hub.New(cfg)
		s := street{direct{t, h}, &pipes{make(chan net.Conn), make(chan struct{})}, log, dir}
		server := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(s.pipes) })
		test(t, s)
		require.NoError(t, h.Close(context.Background()), "nobody is waited for")
		require.NoError(t, server.Close())
		serving.Wait()
	})
}

// worker connects one, by a connection.
func (s street) worker() (*worker, net.Conn) {
	s.t.Helper()
	var conn net.Conn
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		conn = s.dial()
		return conn, nil
	}}}
	socket, response, err := websocket.Dial(s.t.Context(), "ws://localhost/", &websocket.DialOptions{HTTPClient: client})
	require.NoError(s.t, err)
	require.Nil(s.t, response.Body)
	return &worker{t: s.t, conn: socket}, conn
}

// trickle writes a little every second until the connection is closed, and says
// how long that took.
func trickle(conn net.Conn, little string) time.Duration {
	began := time.Now()
	for {
		time.Sleep(time.Second)
		if _, err := io.WriteString(conn, little); err != nil {
			return time.Since(began)
		}
	}
}

// begin sends the head of a request.
func begin(t *testing.T, conn net.Conn, request string, length int) {
	t.Helper()
	_, err := fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", request, length)
	require.NoError(t, err)
}

// Whoever sends a body byte by byte is told so and cut off, whatever it is for,
// and what it was for goes on without it.
func TestSlowBodies(t *testing.T) {
	onStreet(t, hub.Config{}, func(t *testing.T, s street) {
		id := s.register("p", "1")
		item := s.enqueue(`{"Capability":"A"}`)
		require.Equal(t, item, s.poll(id))
		for name, tt := range map[string]struct {
			request string
			status  int
		}{
			"a work item":          {"POST /Beacon/Work/Enqueue", http.StatusRequestTimeout},
			"one that is awaited":  {"POST /Beacon/Work/Dispatch", http.StatusRequestTimeout},
			"a file":               {"POST /Beacon/File?name=a", http.StatusRequestTimeout},
			"a result":             {"POST /Beacon/Work/" + item + "/Complete", http.StatusRequestTimeout},
			"a worker's heartbeat": {"POST /Beacon/" + id + "/Heartbeat", http.StatusRequestTimeout},
			"a result's file":      {"POST /Beacon/Work/" + item + "/Upload", http.StatusRequestTimeout},
			"what nobody reads":    {"POST /nothing", http.StatusNotFound},
			"a foreign one":        {"POST http://evil.example/Beacon/Work/Enqueue", http.StatusForbidden},
			"a view":               {"GET /Beacon", http.StatusOK},
		} {
			for _, length := range []int{900, 900_000} { // what a server would read by itself, and more
				conn := s.dial()
				begin(t, conn, tt.request, length)
				answered := make(chan int)
				go func() {
					in := bufio.NewReader(conn)
					r, err := http.ReadResponse(in, nil)
					if err != nil {
						answered <- 0
						return
					}
					_, _ = io.Copy(io.Discard, in)
					answered <- r.StatusCode
				}()
				require.LessOrEqual(t, trickle(conn, " "), pace.Grace+10*time.Second, name)
				require.Equal(t, tt.status, <-answered, "%s, %d bytes", name, length)
				require.NoError(t, conn.Close())
			}
		}
		require.Contains(t, s.log.String(), `msg="a client sends its request too slowly and is cut off" address=127.0.0.1 path=/Beacon/Work/Enqueue`)
		require.NotContains(t, s.log.String(), "level=ERROR")
		entries, err := os.ReadDir(filepath.Join(s.dir, "files"))
		require.NoError(t, err)
		require.Len(t, entries, 1, "nothing stays of a file but the name of the folder")
		require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+item+"/Complete", `{}`).status)
	})
}

// Whoever has a slow link and uses it is served, however long that takes.
func TestSlowLinks(t *testing.T) {
	onStreet(t, hub.Config{}, func(t *testing.T, s street) {
		const size = 3 << 20
		conn := s.dial()
		begin(t, conn, "POST /Beacon/File?name=a", size)
		began := time.Now()
		for range size / pace.Slowest {
			_, err := conn.Write(make([]byte, pace.Slowest))
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		require.Greater(t, time.Since(began), 2*pace.Grace)
		in := bufio.NewReader(conn)
		r, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, r.StatusCode)
		var stored bytes.Buffer
		_, err = stored.ReadFrom(r.Body)
		require.NoError(t, err)
		path, _ := answer{raw: stored.Bytes()}.json(t)["URL"].(string)

		began = time.Now()
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
		require.NoError(t, err)
		r, err = http.ReadResponse(in, nil)
		require.NoError(t, err)
		for range size / pace.Slowest {
			_, err := io.CopyN(io.Discard, r.Body, pace.Slowest)
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		require.Greater(t, time.Since(began), 2*pace.Grace)
		require.NoError(t, conn.Close())
		require.NotContains(t, s.log.String(), "level=WARN")
	})
}

// Whoever reads an answer byte by byte is cut off.
func TestSlowReaders(t *testing.T) {
	onStreet(t, hub.Config{}, func(t *testing.T, s street) {
		item := s.enqueue(`{"Capability":"A"}`)
		require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+item+"/Complete", `{"Outputs":{"Text":"`+strings.Repeat("x", 1<<20)+`"}}`).status)
		file, _ := s.post("/Beacon/File?name=a", strings.Repeat("x", 1<<20)).json(t)["URL"].(string)
		s.register("w", "1")
		for name, request := range map[string]string{
			"a result":         "GET /Beacon/Work/" + item,
			"a file":           "GET " + file,
			"a part of a file": "GET " + file + "?",
		} {
			conn := s.dial()
			begin(t, conn, request, 0)
			began := time.Now()
			for one := make([]byte, 1); ; time.Sleep(time.Second) {
				if _, err := conn.Read(one); err != nil {
					require.ErrorIs(t, err, io.EOF)
					break
				}
			}
			require.LessOrEqual(t, time.Since(began), pace.Time(2<<20), name)
			require.NoError(t, conn.Close())
		}
		require.Contains(t, s.log.String(), "a client reads its answer too slowly and is cut off")
		require.Contains(t, s.log.String(), "a client reads a file too slowly and is cut off")
	})
}

// A connection on which nobody says who it is ends, that of a worker which does
// stays.
func TestConnectionsOfNobody(t *testing.T) {
	onStreet(t, hub.Config{JoinSecret: "open sesame"}, func(t *testing.T, s street) {
		w, _ := s.worker()
		w.send(`{"Action":"BeaconRegister","Name":"w","Capabilities":["A"],"MaxConcurrent":1,"JoinSecret":"open sesame"}`)
		require.Equal(t, "BeaconRegistered", w.receive()["EventType"])
		var reading sync.WaitGroup
		reading.Go(func() { _, _, _ = w.conn.Read(context.Background()) }) // answers pings
		nobody, _ := s.worker()
		began := time.Now()
		_, err := nobody.raw()
		require.Equal(t, websocket.StatusPolicyViolation, websocket.CloseStatus(err), "%v", err)
		require.LessOrEqual(t, time.Since(began), 2*pace.Grace)
		require.Contains(t, s.log.String(), "a connection that nobody has logged in on")
		time.Sleep(10 * pace.Grace)
		require.NotContains(t, s.log.String(), "taken for gone")
		_ = w.conn.CloseNow()
		reading.Wait()
	})
}

// A worker that sends a message byte by byte, or does not read what it is sent, is
// cut off, and what it was given goes to another.
func TestSlowWorkers(t *testing.T) {
	for name, tt := range map[string]struct {
		slow func(t *testing.T, conn net.Conn)
		says string
	}{
		"sends a message slowly": {func(_ *testing.T, conn net.Conn) {
			var reading sync.WaitGroup
			reading.Go(func() { _, _ = io.Copy(io.Discard, conn) })
			head := []byte{0x81, 0x80 | 126, 0, 0, 0, 0, 0, 0} // a text of 60,000 bytes, with a mask of nothing
			binary.BigEndian.PutUint16(head[2:], 60_000)
			_, _ = conn.Write(head)
			trickle(conn, strings.Repeat(" ", 100))
			_ = conn.Close()
			reading.Wait()
		}, "a worker sends a message too slowly and is cut off"},
		"reads byte by byte": {func(t *testing.T, conn net.Conn) {
			one := make([]byte, 1)
			for {
				time.Sleep(5 * time.Second)
				if _, err := conn.Write([]byte{0x81, 0x82, 0, 0, 0, 0, '{', '}'}); err != nil { // it is there and says so
					break
				}
				if _, err := conn.Read(one); err != nil {
					break
				}
			}
			require.NoError(t, conn.Close())
		}, "a worker reads too slowly and is cut off"},
		"does nothing": {func(t *testing.T, conn net.Conn) {
			time.Sleep(2 * pace.Grace)
			_, err := io.Copy(io.Discard, conn)
			require.NoError(t, err)
			require.NoError(t, conn.Close())
		}, "worker does not answer and is taken for gone"},
	} {
		t.Run(name, func(t *testing.T) {
			onStreet(t, hub.Config{}, func(t *testing.T, s street) {
				w, conn := s.worker()
				w.register("slow", 1, "A")
				item := s.enqueue(`{"Capability":"A","Settings":{"Text":"` + strings.Repeat("x", 900<<10) + `"}}`)
				began := time.Now()
				tt.slow(t, conn)
				require.LessOrEqual(t, time.Since(began), pace.Time(1<<20)+time.Minute)
				synctest.Wait()
				require.Contains(t, s.log.String(), tt.says)
				require.Equal(t, item, s.poll(s.register("other", "1")), "its item is another's")
				_ = w.conn.CloseNow()
			})
		})
	}
}
