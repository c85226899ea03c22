package beacon

import (
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

// An Account adds up what one item uses, with all that is done on its behalf,
// and whom it meets. All methods may be called concurrently, and on a nil
// Account, where they do nothing.
type Account struct {
	mu          sync.Mutex
	usage       Usage
	hosts       []string
	permissions []string
	modules     []string
	watch       func(Usage)
}

// maxNames bounds each of an account's lists: a guest chooses what is in them.
const maxNames = 64

// Add charges the account.
func (a *Account) Add(u Usage) {
	if a == nil {
		return
	}
	a.mu.Lock()
	a.usage = a.usage.plus(u)
	watch := a.watch
	a.mu.Unlock()
	if watch != nil {
		watch(u)
	}
}

// Watch has f told of everything that is added from now on. It is called by
// whoever adds, and must not block.
func (a *Account) Watch(f func(Usage)) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watch = f
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
