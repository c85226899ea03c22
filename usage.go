package beacon

import (
	"context"
	"slices"
	"sync"
)

// Usage is what work has used of what costs something.
type Usage struct {
	// Fuel is what guests executed, in instructions as they are metered.
	Fuel uint64
	// Memory is the most that one guest had at a time, in bytes.
	Memory int64
	// Staged are the bytes of sources brought in and of files written.
	Staged int64
	// Sent and Received are bytes over the network, on the item's behalf.
	Sent, Received int64
	// Tokens are those of language models, in and out, and Cost what they cost,
	// in the currency of the operator's price table.
	Tokens int64
	Cost   float64
}

// plus is the sum of two pieces of work.
func (u Usage) plus(more Usage) Usage {
	return Usage{
		Fuel: u.Fuel + more.Fuel, Memory: max(u.Memory, more.Memory), Staged: u.Staged + more.Staged,
		Sent: u.Sent + more.Sent, Received: u.Received + more.Received,
		Tokens: u.Tokens + more.Tokens, Cost: u.Cost + more.Cost,
	}
}

// A Payer stands for what an account is charged to: the quotas of a tenant. Its
// methods may be called concurrently.
type Payer interface {
	// Used is told of what was used. It does not block.
	Used(u Usage)
	// Pace waits while the payer has used up for the moment what it may have, and
	// returns soon after ctx is done. An error ends the work.
	Pace(ctx context.Context) error
	// Hold asks for bytes on disk, or with a negative number gives them back,
	// which is never an error.
	Hold(bytes int64) error
}

// An Account adds up what one item uses, with all that is done on its behalf,
// and whom it meets. All methods may be called concurrently, and on a nil
// Account, where they do nothing.
type Account struct {
	payer Payer // nil if nobody has quotas

	mu          sync.Mutex
	usage       Usage
	traffic     Traffic
	hosts       []string
	permissions []string
	modules     []string
}

// NewAccount makes an account that is charged to a payer; nil is none.
func NewAccount(payer Payer) *Account { return &Account{payer: payer} }

// maxNames bounds each of an account's lists: a guest chooses what is in them.
const maxNames = 64

// Add charges the account.
func (a *Account) Add(u Usage) {
	if a == nil {
		return
	}
	a.mu.Lock()
	a.usage = a.usage.plus(u)
	a.mu.Unlock()
	if a.payer != nil {
		a.payer.Used(u)
	}
}

// Spend charges the account, and waits while its payer has used up what it may
// have for the moment. An error ends the work; it comes at the latest soon
// after ctx is done.
func (a *Account) Spend(ctx context.Context, u Usage) error {
	if a == nil {
		return nil
	}
	a.Add(u)
	if a.payer == nil {
		return nil
	}
	return a.payer.Pace(ctx)
}

// Hold asks the payer for bytes on disk, and charges them as Staged; a negative
// number gives them back. What is held is given back by whoever asked for it.
func (a *Account) Hold(bytes int64) error {
	if a == nil || bytes == 0 {
		return nil
	}
	if a.payer != nil {
		if err := a.payer.Hold(bytes); err != nil {
			return err
		}
	}
	if bytes > 0 {
		a.Add(Usage{Staged: bytes})
	}
	return nil
}

// Traffic is what guests ask for: requests and calls, and the bytes of bodies.
type Traffic struct{ Requests, Sent, Received int64 }

// Ask adds to what guests ask for on the item's behalf, the one that it is for
// and those who are called, and returns the sum. It charges nobody.
func (a *Account) Ask(more Traffic) Traffic {
	if a == nil {
		return more
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.traffic.Requests += more.Requests
	a.traffic.Sent += more.Sent
	a.traffic.Received += more.Received
	return a.traffic
}

// Contacted notes a host, with its port, that was asked for something.
func (a *Account) Contacted(host string) {
	if a != nil {
		a.note(&a.hosts, host)
	}
}

// Used notes a permission that was made use of, as it was granted.
func (a *Account) Used(permission string) {
	if a != nil {
		a.note(&a.permissions, permission)
	}
}

// Ran notes the digest of a module that carried out the work or a part of it.
func (a *Account) Ran(digest string) {
	if a != nil {
		a.note(&a.modules, digest)
	}
}

func (a *Account) note(names *[]string, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case slices.Contains(*names, name):
	case len(*names) < maxNames:
		*names = append(*names, name)
	case len(*names) == maxNames:
		*names = append(*names, "…")
	}
}

// A Statement is what an account shows.
type Statement struct {
	Usage Usage
	// Hosts, Permissions and Modules are in the order of their first use; of
	// many, the later ones are cut off, and the last is "…".
	Hosts, Permissions, Modules []string
}

// Statement is the account as it stands.
func (a *Account) Statement() Statement {
	if a == nil {
		return Statement{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return Statement{a.usage, slices.Clone(a.hosts), slices.Clone(a.permissions), slices.Clone(a.modules)}
}
