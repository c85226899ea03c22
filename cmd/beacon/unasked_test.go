package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/egress"
)

// told hands lines on.
type told chan string

func (c told) Write(line []byte) (int, error) {
	c <- string(line)
	return len(line), nil
}

// S26: what a server sends without being asked is not in the log.
func TestS26Unasked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close() //nolint:errcheck // nobody connects any more
	const key = "sk-0123456789abcdef"
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close() //nolint:errcheck // the client is done with it
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 %s\r\nX: %s\r\n\r\n", key, key)
			_, _ = conn.Read(make([]byte, 1)) // until the client has had enough
		}
	}()
	lines := make(told, 8)
	was := log.Writer()
	flags := log.Flags()
	defer func() {
		log.SetOutput(was)
		log.SetFlags(flags)
	}()
	_, err = newLog(lines, slog.LevelDebug, "text")
	require.NoError(t, err)
	c := egress.New(egress.Config{Policy: egress.Policy{Private: true}})
	defer c.CloseIdle()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String(), nil)
	require.NoError(t, err)
	res, err := c.Do(req)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, "ok", string(body))
	timeout := time.After(time.Minute)
	for line := ""; !strings.Contains(line, "Unsolicited response received"); {
		select {
		case line = <-lines:
			require.NotContains(t, line, key)
		case <-timeout:
			require.Fail(t, "nothing was said of it")
		}
	}
}
