package session_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func client(t *testing.T, cfg session.Config) *session.Client {
	t.Helper()
	cfg.Registration.Name, cfg.Logger = "Test", quiet
	c, err := session.NewClient(cfg)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

func TestAuthenticate(t *testing.T) {
	tests := map[string]struct {
		status  int
		cookies []string
		body    string
		want    string // the Cookie header of the next request
		err     string
	}{
		"by name":        {200, []string{"Other=1; Path=/", "SessionID=abc; Path=/; HttpOnly"}, `{"LoggedIn":true,"SessionID":"abc"}`, "Other=1; SessionID=abc", ""},
		"stripped":       {200, nil, `{"LoggedIn":true,"SessionID":"abc"}`, "SessionID=abc", ""},
		"declined":       {200, nil, `{"LoggedIn":false,"Error":"Authentication failed."}`, "", ""},
		"expired cookie": {200, []string{"SessionID=abc; Max-Age=0"}, `{"LoggedIn":false}`, "", ""},
		"secure cookie":  {200, []string{"SessionID=abc; Secure"}, `{"LoggedIn":false}`, "", ""},
		"other path":     {200, []string{"SessionID=abc; Path=/elsewhere"}, `{"LoggedIn":false}`, "", ""},
		"no logins":      {404, nil, `<html>`, "", ""},
		"nonsense":       {200, nil, `7`, "", ""},
		"bad request":    {400, nil, `{"code":"InvalidContent","message":"bad JSON"}`, "", "400 Bad Request: bad JSON"},
		"redirect":       {301, nil, ``, "", "redirects are not followed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var login, cookie string
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				raw, _ := io.ReadAll(r.Body)
				if r.URL.Path == "/p/1.0/Authenticate" {
					login = string(raw)
					for _, c := range tt.cookies {
						w.Header().Add("Set-Cookie", c)
					}
					w.Header().Set("Location", "/")
					w.WriteHeader(tt.status)
					_, _ = io.WriteString(w, tt.body)
					return
				}
				cookie = r.Header.Get("Cookie")
				_, _ = io.WriteString(w, `{"BeaconID":"bcn-1"}`)
			})
			c := client(t, session.Config{ServerURL: s.URL + "/p", Password: "pw"})
			err := c.Authenticate(t.Context())
			require.JSONEq(t, `{"UserName":"Test","Password":"pw"}`, login)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.NoError(t, c.Register(t.Context()))
			require.Equal(t, "bcn-1", c.BeaconID())
			require.Equal(t, tt.want, cookie)
		})
	}
}

func TestCookiesAreBounded(t *testing.T) {
	n := 0
	var cookies []*http.Cookie
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		cookies = r.Cookies()
		for range 20 {
			n++
			w.Header().Add("Set-Cookie", fmt.Sprintf("c%d=%d", n, n))
		}
		w.Header().Add("Set-Cookie", "large="+strings.Repeat("x", 5000))
		_, _ = io.WriteString(w, `{}`)
	})
	c := client(t, session.Config{ServerURL: s.URL})
	for range 10 {
		require.NoError(t, c.Authenticate(t.Context()))
	}
	require.Len(t, cookies, 32)
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"BeaconID":"bcn-1"}`)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), slog.LevelError)
	s.StartTLS()
	defer s.Close()
	err := client(t, session.Config{ServerURL: s.URL}).Register(t.Context())
	var unknown x509.UnknownAuthorityError
	require.ErrorAs(t, err, &unknown, "an unknown authority was trusted")

	authorities := x509.NewCertPool()
	authorities.AddCert(s.Certificate())
	cfg := session.Config{ServerURL: strings.Replace(s.URL, "https", "wss", 1), TLS: &tls.Config{RootCAs: authorities}}
	require.NoError(t, client(t, cfg).Register(t.Context()))
}

func TestSecretsAreNotShown(t *testing.T) {
	cfg := session.Config{
		ServerURL: "https://u:hunter2@h", UserName: "u", Password: "hunter2",
		Registration: protocol.Registration{Name: "n", JoinSecret: "hunter2"},
	}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "cfg", cfg)
	for _, text := range []string{cfg.String(), fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, cfg), b.String()} {
		require.NotContains(t, text, "hunter2")
		require.Contains(t, text, "beacon n at")
	}
}

func TestDotsInHashes(t *testing.T) {
	var path string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		path = r.RequestURI
		_, _ = io.WriteString(w, `{}`)
	})
	c := client(t, session.Config{ServerURL: s.URL})
	require.NoError(t, c.Report(t.Context(), transport.Report{Hash: ".."}))
	require.Equal(t, "/Beacon/Work/%2E%2E/Complete", path)
}

// An intake asks only while somebody waits, at once after an item, and
// otherwise once per interval or after a report.
func TestIntakePolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := session.NewIntake(session.Config{PollInterval: 5 * time.Second, Queue: 10, Logger: quiet}, 25*time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var polls []time.Duration
		items := []string{"a", "b"}
		done := make(chan error)
		go func() {
			done <- in.Run(ctx, func(context.Context) ([]byte, error) {
				polls = append(polls, time.Since(start))
				if len(items) == 0 {
					return nil, nil
				}
				hash := items[0]
				items = items[1:]
				return []byte(`{"WorkItemHash":"` + hash + `"}`), nil
			})
		}()
		synctest.Wait()
		require.Empty(t, polls, "asked although nobody waits")
		for range 2 {
			_, err := in.Next(ctx, nil)
			require.NoError(t, err)
		}
		synctest.Wait()
		require.Equal(t, []time.Duration{0, 0}, polls)

		waited := make(chan error)
		go func() {
			_, err := in.Next(ctx, nil)
			waited <- err
		}()
		time.Sleep(12 * time.Second) // null at 0, 5 and 10
		in.Reported()                // at 12, and the server pushes nothing
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []time.Duration{0, 0, 0, 5 * time.Second, 10 * time.Second, 12025 * time.Millisecond}, polls)
		require.NoError(t, in.Push(ctx, []byte(`{"WorkItemHash":"pushed"}`)))
		require.NoError(t, <-waited)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Len(t, polls, 6, "asked although nobody waits")
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// A report during a poll makes that poll's answer outdated.
func TestIntakeReportDuringPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := session.NewIntake(session.Config{PollInterval: time.Hour, Queue: 10, Logger: quiet}, 0)
		ctx, cancel := context.WithCancel(t.Context())
		polls := 0
		done := make(chan error)
		go func() {
			done <- in.Run(ctx, func(context.Context) ([]byte, error) {
				polls++
				time.Sleep(time.Second)
				return nil, nil
			})
		}()
		lost := make(chan struct{})
		ended := make(chan error)
		go func() {
			_, err := in.Next(ctx, lost)
			ended <- err
		}()
		time.Sleep(500 * time.Millisecond)
		in.Reported()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 2, polls)
		close(lost)
		require.ErrorIs(t, <-ended, transport.ErrDisconnected)
		cancel()
		<-done
	})
}

func TestIntakeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := session.NewIntake(session.Config{Queue: 2, Logger: quiet}, 0)
		pushed := 0
		done := make(chan error)
		go func() {
			for pushed < 5 {
				if err := in.Push(t.Context(), fmt.Appendf(nil, `{"WorkItemHash":"%d"}`, pushed)); err != nil {
					done <- err
					return
				}
				pushed++
			}
			done <- nil
		}()
		synctest.Wait()
		require.Equal(t, 2, pushed)
		require.True(t, in.Stalled())
		for i := range 5 {
			item, err := in.Next(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), item.Hash)
			synctest.Wait()
		}
		require.NoError(t, <-done)
		require.False(t, in.Stalled())
	})
}
