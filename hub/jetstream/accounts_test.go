package jetstream_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub/jetstream"
	"github.com/ultravisor/beacon/hub/journal"
	"github.com/ultravisor/beacon/hub/object"
)

// alone starts one NATS server.
func alone(t *testing.T, options *server.Options) *url.URL {
	t.Helper()
	options.Host, options.Port, options.JetStream, options.StoreDir, options.NoSigs = "127.0.0.1", -1, true, t.TempDir(), true
	srv, err := server.NewServer(options)
	require.NoError(t, err)
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	require.True(t, srv.ReadyForConnections(5*time.Minute))
	for _, account := range options.Accounts {
		require.NoError(t, account.EnableJetStream(nil, nil))
	}
	address, err := url.Parse(srv.ClientURL())
	require.NoError(t, err)
	return address
}

func as(address *url.URL, user, password string) []string {
	own := *address
	own.User = url.UserPassword(user, password)
	return []string{own.String()}
}

// permissions are all that a hub needs which has the prefix; README.md says so.
func permissions(prefix string) *server.Permissions {
	name := strings.ToUpper(prefix)
	may := []string{"$JS.API.INFO", prefix + ".>"}
	for _, stream := range []string{name + "_JOURNAL", "OBJ_" + name + "_SNAPSHOTS", "OBJ_" + name + "_FILES"} {
		may = append(may, "$JS.API.STREAM.*."+stream, "$JS.API.STREAM.MSG.*."+stream, "$JS.API.DIRECT.GET."+stream, "$JS.API.DIRECT.GET."+stream+".>",
			"$JS.API.CONSUMER.*."+stream, "$JS.API.CONSUMER.*."+stream+".>", "$JS.API.CONSUMER.MSG.NEXT."+stream+".>", "$JS.FC."+stream+".>")
		if bucket, ok := strings.CutPrefix(stream, "OBJ_"); ok {
			may = append(may, "$O."+bucket+".>")
		}
	}
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: may},
		Subscribe: &server.SubjectPermission{Allow: []string{prefix + ".>"}},
	}
}

// use does with a store what hubs do with it.
func use(t *testing.T, s *jetstream.Store, says string) {
	t.Helper()
	ctx := within(t)
	j := s.Journal()
	last, err := j.Last(ctx)
	require.NoError(t, err)
	require.NoError(t, j.Append(ctx, says, []byte(says)))
	reading, stop := context.WithCancel(ctx)
	defer stop()
	err = j.Follow(reading, last, func(r journal.Record) error {
		require.Equal(t, says, string(r.Data))
		stop()
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	for range 2 { // of which the second trims the journal
		last++
		require.NoError(t, j.Append(ctx, fmt.Sprint(says, last), []byte(says)))
		require.NoError(t, j.Save(ctx, last, func(w io.Writer) error { _, err := io.WriteString(w, says); return err }))
	}
	r, _, err := j.Snapshot(ctx)
	require.NoError(t, err)
	raw, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.Equal(t, says, string(raw))

	objects, err := s.Objects(ctx)
	require.NoError(t, err)
	require.NoError(t, objects.Put(ctx, object.Info{ID: "file", Size: int64(len(says)), Created: time.Now()}, strings.NewReader(says)))
	all, err := objects.List(ctx)
	require.NoError(t, err)
	require.Len(t, all, 1)
	file, _, err := objects.Open(ctx, "file")
	require.NoError(t, err)
	var got bytes.Buffer
	_, err = got.ReadFrom(file)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	require.Equal(t, says, got.String())
	require.NoError(t, objects.Sweep(ctx))
	require.NoError(t, objects.Delete(ctx, "file"))
}

// Tenants whose hubs have users of their own in one account, with permissions for
// a prefix, neither see nor touch what the others have.
func TestPrefixesOfTenants(t *testing.T) {
	users := []*server.User{}
	for _, tenant := range []string{"acme", "bolt"} {
		users = append(users, &server.User{Username: tenant, Password: "of " + tenant, Permissions: permissions(tenant)})
	}
	address := alone(t, &server.Options{Users: users})
	for _, tenant := range []string{"acme", "bolt"} {
		s, err := jetstream.Connect(within(t), as(address, tenant, "of "+tenant), "", jetstream.Config{Prefix: tenant, Replicas: 1, Log: quiet})
		require.NoError(t, err)
		use(t, s, "what "+tenant+" says")
		require.NoError(t, s.Journal().Close(within(t)))
	}
	_, err := jetstream.Connect(within(t), as(address, "bolt", "of bolt"), "", jetstream.Config{Prefix: "acme", Replicas: 1, Log: quiet})
	require.ErrorContains(t, err, "give this user the permissions for the prefix acme")

	// By hand, too.
	refused := make(chan error, 100)
	nc, err := nats.Connect(as(address, "bolt", "of bolt")[0], nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	require.NoError(t, err)
	defer nc.Close()
	for _, subject := range []string{"acme.journal", "acme.>", ">", "_INBOX.>", "$JS.>"} {
		_, err := nc.SubscribeSync(subject)
		require.NoError(t, err)
		require.ErrorIs(t, <-refused, nats.ErrPermissionViolation, subject)
	}
	for _, subject := range []string{"acme.journal", "$JS.API.STREAM.INFO.ACME_JOURNAL", "$JS.API.STREAM.DELETE.ACME_JOURNAL", "$JS.API.STREAM.NAMES", "$O.ACME_FILES.M.x"} {
		require.NoError(t, nc.Publish(subject, nil))
		require.ErrorIs(t, <-refused, nats.ErrPermissionViolation, subject)
	}
}

// Tenants whose hubs have accounts of their own have nothing in common, not even
// by the same names.
func TestAccountsOfTenants(t *testing.T) {
	operator, err := nkeys.CreateOperator()
	require.NoError(t, err)
	trusted, err := operator.PublicKey()
	require.NoError(t, err)
	resolver := &server.MemAccResolver{}
	creds := map[string]string{}
	ids := map[string]string{}
	for _, tenant := range []string{"system", "acme", "bolt"} {
		account, err := nkeys.CreateAccount()
		require.NoError(t, err)
		id, err := account.PublicKey()
		require.NoError(t, err)
		claims := jwt.NewAccountClaims(id)
		claims.Name = tenant
		if tenant != "system" {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: 64 << 20, MemoryStorage: 64 << 20, Streams: -1, Consumer: -1}
		}
		text, err := claims.Encode(operator)
		require.NoError(t, err)
		require.NoError(t, resolver.Store(id, text))
		ids[tenant] = id

		user, err := nkeys.CreateUser()
		require.NoError(t, err)
		name, err := user.PublicKey()
		require.NoError(t, err)
		text, err = jwt.NewUserClaims(name).Encode(account)
		require.NoError(t, err)
		seed, err := user.Seed()
		require.NoError(t, err)
		file, err := jwt.FormatUserConfig(text, seed)
		require.NoError(t, err)
		creds[tenant] = filepath.Join(t.TempDir(), tenant+".creds")
		require.NoError(t, os.WriteFile(creds[tenant], file, 0o600))
	}
	address := alone(t, &server.Options{TrustedKeys: []string{trusted}, AccountResolver: resolver, SystemAccount: ids["system"]})
	for _, tenant := range []string{"acme", "bolt"} {
		s, err := jetstream.Connect(within(t), []string{address.String()}, creds[tenant], jetstream.Config{Replicas: 1, Log: quiet})
		require.NoError(t, err)
		last, err := s.Journal().Last(within(t))
		require.NoError(t, err)
		require.Zero(t, last)
		use(t, s, "what "+tenant+" says")
		require.NoError(t, s.Journal().Close(within(t)))
	}
	for _, none := range []string{"", filepath.Join(t.TempDir(), "missing.creds")} {
		_, err := jetstream.Connect(within(t), []string{address.String()}, none, jetstream.Config{Replicas: 1, Log: quiet})
		require.Error(t, err)
	}
}
