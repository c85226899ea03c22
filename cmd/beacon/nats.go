package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/submit"
)

// natsFlags say how to take part in the work of a NATS cluster without a hub
// elsewhere: a hub of our own, for ourselves only, is one of those that share it.
type natsFlags struct{ creds, prefix string }

func (n *natsFlags) register(f *pflag.FlagSet) {
	f.StringVar(&n.creds, "creds", os.Getenv("BEACON_NATS_CREDS"), "with --server nats://...: file with the credentials, also BEACON_NATS_CREDS")
	f.StringVar(&n.prefix, "nats-prefix", defaultHubConfig().NATSPrefix, "with --server nats://...: what the names of streams and subjects begin with")
}

// natsURLs are the servers of a cluster that was named as the server, one or more
// with commas between; nil for any other server.
func natsURLs(server string) []string {
	for _, scheme := range []string{"nats://", "tls://"} {
		if strings.HasPrefix(server, scheme) {
			return strings.Split(server, ",")
		}
	}
	return nil
}

// withoutPasswords is what may be shown of them.
func withoutPasswords(urls []string) string {
	shown := make([]string, len(urls))
	for i, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			shown[i] = "(not a URL)"
			continue
		}
		u.User = nil
		shown[i] = u.String()
	}
	return strings.Join(shown, ",")
}

// A localHub is one that serves nobody but the process that it is in.
type localHub struct {
	*runningHub

	user, password string
}

// mostLocalFile is the size of the largest file that all hubs find, whichever of
// them is there.
const mostLocalFile = 64 << 20

// join starts one.
func (n *natsFlags) join(ctx context.Context, urls []string, role hub.Role, log *slog.Logger) (*localHub, error) {
	l := &localHub{user: "local", password: rand.Text()}
	hash, err := hub.HashPassword(l.password)
	if err != nil {
		return nil, fmt.Errorf("make a password: %w", err)
	}
	cfg := defaultHubConfig()
	cfg.Listen, cfg.NATS, cfg.NATSCreds, cfg.NATSPrefix = "127.0.0.1:0", urls, n.creds, n.prefix
	cfg.Users = []hub.User{{Name: l.user, PasswordHash: hash, Role: role}}
	cfg.FileSize, cfg.guest = mostLocalFile, true
	if l.runningHub, err = startHub(ctx, cfg, log); err != nil {
		return nil, err
	}
	return l, nil
}

// reach changes options for a NATS cluster that was named as the server, so that
// they lead to it, and returns what to show of its address. Close ends what was
// started.
func (n *natsFlags) reach(ctx context.Context, server string, options *submit.Config, said io.Writer) (shown string, closeHub func() error, err error) {
	urls := natsURLs(server)
	if urls == nil {
		return server, func() error { return nil }, nil
	}
	l, err := n.join(ctx, urls, hub.Admin, slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		return "", nil, err
	}
	options.ServerURL, options.UserName, options.Password, options.Transport = l.url(), l.user, l.password, nil
	return withoutPasswords(urls), l.close, nil
}
