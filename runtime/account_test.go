package runtime_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

// A payer pays for so many bytes on disk.
type payer struct{ room, held int64 }

func (*payer) Used(beacon.Usage)              {}
func (*payer) Pace(ctx context.Context) error { return ctx.Err() }
func (p *payer) Hold(n int64) error {
	if p.held+n > p.room {
		return beacon.Errorf(beacon.FileLimit, "no room")
	}
	p.held += n
	return nil
}

// fuelToAccount is how a worker charges fuel.
type fuelToAccount struct{}

func (fuelToAccount) Spend(ctx context.Context, job *beacon.Job, instructions int64) error {
	return job.Account.Spend(ctx, beacon.Usage{Fuel: uint64(instructions)})
}

// S18: what a guest uses is charged to its item: files as they grow, memory, fuel,
// and the module that ran.
func TestAccount(t *testing.T) {
	binary, err := os.ReadFile("../cmd/beacon/testdata/modules/copy.wasm") // copies in.txt to out.txt
	require.NoError(t, err)
	m := loadWith(t, wasmrt.Config{Budget: fuelToAccount{}}, wasmrt.Source{Name: "copy", Binary: binary})
	job, dir := newJob(t, "{}")
	dir.write(t, "in.txt", strings.Repeat("x", 200_000))
	job.Source = "in.txt"
	paying := &payer{room: 1 << 20}
	job.Account = beacon.NewAccount(paying)
	_, err = m.Run(t.Context(), job)
	require.NoError(t, err)
	s := job.Account.Statement()
	require.EqualValues(t, 200_000, s.Usage.Staged)
	require.EqualValues(t, 200_000, paying.held, "until the item's turn ends")
	require.EqualValues(t, 4<<16, s.Usage.Memory)
	require.Positive(t, s.Usage.Fuel)
	require.Equal(t, []string{m.Digest()}, s.Modules)

	// A tenant without room is told which limit it was.
	job, dir = newJob(t, "{}")
	dir.write(t, "in.txt", strings.Repeat("x", 200_000))
	job.Source = "in.txt"
	job.Account = beacon.NewAccount(&payer{room: 100_000})
	_, err = m.Run(t.Context(), job)
	requireFailure(t, err, beacon.FileLimit, "more than the tenant's items may have in files")
}

// A module is admitted by what it says about itself, and refused by an error.
func TestAdmit(t *testing.T) {
	binary := guest(t, "describe")
	refusal := beacon.Errorf(beacon.Refused, "not this one")
	r, err := wasmrt.New(wasmrt.Config{})
	require.NoError(t, err)
	var seen wasmrt.Candidate
	_, err = r.Load(t.Context(), wasmrt.Source{Name: "describe", Binary: binary, Admit: func(c wasmrt.Candidate) (wasmrt.Brokers, error) {
		seen = c
		return nil, refusal
	}})
	require.ErrorIs(t, err, refusal)
	require.Equal(t, "describe", seen.Name)
	require.Len(t, seen.Digest, 64)
	require.NotEmpty(t, seen.Manifest.Capability.Name)

	m := loadWith(t, wasmrt.Config{}, wasmrt.Source{Name: "describe", Binary: binary, Admit: func(wasmrt.Candidate) (wasmrt.Brokers, error) {
		return func(*beacon.Job) hostfuncs.Broker { return nil }, nil
	}})
	job, _ := newJob(t, "{}")
	_, err = m.Run(t.Context(), job)
	require.NoError(t, err, "a broker that is nil grants nothing")
}
