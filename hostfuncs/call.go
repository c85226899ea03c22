package hostfuncs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"sync/atomic"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
)

// maxKept is how many messages of a callee's progress wait for the guest.
const maxKept = 64

// A call is an action of another capability that is under way, or has ended.
type call struct {
	cancel context.CancelFunc
	ctx    context.Context
	task   sync.WaitGroup
	ended  chan struct{}
	result beacon.Result // valid once ended
	err    error         // the same
	waited bool          // call_wait has returned
	kept   *messages     // nil unless progress is kept
	held   *atomic.Int64 // the item's
	size   int64         // of the result, as far as it is held
}

// The results of calls are in memory as long as their handles are open. heldOutputs
// times its own limit on output is what an item's calls may have there together.
const heldOutputs = 4

// maxCallSettings is how many settings a call may have: each takes much more memory
// than its text, here and wherever it comes.
const maxCallSettings = 4096

// fewSettings are settings, not more than that.
type fewSettings beacon.Settings

// UnmarshalJSON decodes no more than there may be.
func (s *fewSettings) UnmarshalJSON(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	begin, err := dec.Token()
	switch {
	case err != nil || begin == nil: // null
		return err
	case begin != json.Delim('{'):
		return errors.New("the Settings are not an object")
	}
	*s = fewSettings{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return err
		}
		if (*s)[fmt.Sprint(name)] = value; len(*s) > maxCallSettings {
			return fmt.Errorf("more than %d settings", maxCallSettings)
		}
	}
	return nil
}

// maxAsking is what the requests of calls that have not ended may take together,
// in bytes: each is in memory until its callee has begun, and after.
const maxAsking = 32 << 20

// hold keeps the result, if there is room for it.
func (k *call) hold(limit int64) {
	k.size = sizeOf(k.result)
	if k.held.Add(k.size) > limit {
		k.held.Add(-k.size)
		k.size, k.result = 0, beacon.Result{}
		k.err = beacon.Errorf(beacon.CallLimit, "the results of calls that are open take more than %d bytes: close those that are done with, or raise the provider's Output limit", limit)
	}
}

// sizeOf is what a result takes in memory, roughly.
func sizeOf(r beacon.Result) (size int64) {
	const each = 64
	for name, value := range r.Outputs {
		size += each + int64(len(name))
		switch v := value.(type) {
		case string:
			size += int64(len(v))
		case []byte:
			size += int64(len(v))
		case json.RawMessage:
			size += int64(len(v))
		}
	}
	for _, line := range r.Log {
		size += each + int64(len(line))
	}
	return size
}

// messages are those of a callee that its caller has not fetched.
type messages struct {
	mu    sync.Mutex
	list  []beacon.Progress
	ended bool
	some  chan struct{} // closed while list holds something, and after the end
}

func (m *messages) put(p beacon.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	if len(m.list) == 0 {
		close(m.some)
	}
	if len(m.list) == maxKept {
		m.list = m.list[1:]
	}
	m.list = append(m.list, p)
}

func (m *messages) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	if len(m.list) == 0 {
		close(m.some)
	}
}

// next hands the oldest message to use, and drops it if that returns ok: a
// message stays until it has fitted into the guest's buffer.
func (m *messages) next(use func(beacon.Progress) abi.Errno) abi.Errno {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.list) == 0 {
		return notFound
	}
	errno := use(m.list[0])
	if errno == ok {
		m.list = m.list[1:]
		if len(m.list) == 0 && !m.ended {
			m.some = make(chan struct{})
		}
	}
	return errno
}

func (m *messages) waiting() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.some
}

func callOpen(i *Item, c *abi.Call) abi.Errno {
	if i.job == nil {
		return notNow
	}
	var asked struct {
		Capability string
		Action     string
		Settings   fewSettings
		Source     string
		Output     string
		TimeoutMs  int64
		Progress   string
	}
	if err := strictly(c.Bytes(0), &asked); err != nil {
		return i.refuse(err)
	}
	k := &call{ended: make(chan struct{}), held: &i.held}
	r := beacon.Call{Capability: asked.Capability, Action: asked.Action, Settings: beacon.Settings(asked.Settings)}
	switch asked.Progress {
	case "", "drop":
	case "forward":
		r.OnProgress = i.job.Progress
	case "keep":
		k.kept = &messages{some: make(chan struct{})}
		r.OnProgress = k.kept.put
	default:
		return i.refuse(beacon.Errorf(beacon.Invalid, "Progress is %q: want drop, forward or keep", beacon.Excerpt(asked.Progress, 40)))
	}
	n, err := i.freeHandle()
	if err != nil {
		return i.deny(err)
	}
	size := int64(len(c.Bytes(0)))
	if i.asking.Load()+size > maxAsking {
		return i.refuse(beacon.Errorf(beacon.CallLimit, "the settings of calls under way take more than %d MiB: wait for one of them first", maxAsking>>20))
	}
	k.ctx, k.cancel, err = bounded(c.Ctx, asked.TimeoutMs, "the call")
	if err != nil {
		return i.refuse(err)
	}
	if asked.Output != "" {
		name := inWorkDir(asked.Output)
		r.OutputName = path.Base(name)
		r.Output = func() (io.WriteCloser, error) {
			return i.files.Open(name, guestfs.Write|guestfs.Create|guestfs.Truncate)
		}
	}
	var source *guestfs.File
	if asked.Source != "" {
		name := inWorkDir(asked.Source)
		if source, err = i.files.Open(name, guestfs.Read); err != nil {
			k.cancel()
			return i.refuse(err)
		}
		r.SourceName, r.Source = path.Base(name), source
	}
	broker, limit := i.broker, i.limits.Output
	i.asking.Add(size)
	k.task.Go(func() {
		defer close(k.ended)
		k.result, k.err = broker.Call(k.ctx, r)
		i.asking.Add(-size)
		k.err = why(k.ctx, k.err)
		k.hold(heldOutputs * limit)
		if source != nil {
			_ = source.Close() // it was only read
		}
		if k.kept != nil {
			k.kept.end()
		}
	})
	i.handles[n] = k
	c.PutU32(1, n)
	return ok
}

func (k *call) ready() <-chan struct{} {
	if k.kept != nil {
		return k.kept.waiting()
	}
	return k.ended
}

func (k *call) close() {
	k.cancel()
	k.task.Wait()
	k.held.Add(-k.size)
}

func callProgress(i *Item, c *abi.Call) abi.Errno {
	k, found := handleOf[*call](i, c, 0)
	if !found {
		return badDescriptor
	}
	if k.kept == nil {
		return i.refuse(beacon.Errorf(beacon.Invalid, "the call keeps no progress: ask for it with Progress keep"))
	}
	await(c.Ctx, k.kept.waiting())
	return k.kept.next(func(p beacon.Progress) abi.Errno {
		shown := struct {
			Percent    *float64 `json:",omitempty"`
			Message    string   `json:",omitempty"`
			Step       int      `json:",omitempty"`
			TotalSteps int      `json:",omitempty"`
			Log        []string `json:",omitempty"`
		}{nil, p.Message, p.Step, p.TotalSteps, p.Log}
		if p.HasPercent {
			shown.Percent = &p.Percent
		}
		raw, err := json.Marshal(shown)
		if err != nil { // a percentage that is no number
			raw = []byte("{}")
		}
		return fill(c, 1, raw)
	})
}

func callWait(i *Item, c *abi.Call) abi.Errno {
	k, found := handleOf[*call](i, c, 0)
	if !found {
		return badDescriptor
	}
	await(c.Ctx, k.ended)
	k.waited = true
	return i.deny(k.err)
}

// endedCall finds a call that the guest has waited for.
func endedCall(i *Item, c *abi.Call) (*call, abi.Errno) {
	k, found := handleOf[*call](i, c, 0)
	if !found {
		return nil, badDescriptor
	}
	if !k.waited {
		return nil, notNow
	}
	return k, ok
}

func callResult(i *Item, c *abi.Call) abi.Errno {
	k, errno := endedCall(i, c)
	if errno != ok {
		return errno
	}
	if i.shown.of != k { // of large ones one is kept at a time
		type failure struct {
			Code    beacon.Code
			Message string
		}
		shown := struct {
			Outputs beacon.Outputs
			Log     []string
			Error   *failure `json:",omitempty"`
		}{k.result.Outputs, k.result.Log, nil}
		if shown.Outputs == nil {
			shown.Outputs = beacon.Outputs{}
		}
		if shown.Log == nil {
			shown.Log = []string{}
		}
		if k.err != nil {
			shown.Error = &failure{beacon.CodeOf(k.err), excerpt(k.err.Error(), maxMessage)}
		}
		raw, err := json.Marshal(shown)
		if err != nil {
			return i.refuse(beacon.Errorf(beacon.Internal, "the outputs of the call are not JSON"))
		}
		i.shown.of, i.shown.raw = k, raw
	}
	return fill(c, 1, i.shown.raw)
}

func callOutput(i *Item, c *abi.Call) abi.Errno {
	k, errno := endedCall(i, c)
	if errno != ok {
		return errno
	}
	name := text(c, 1)
	value, present := k.result.Outputs[name]
	if !present || value == nil {
		return notFound
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return i.refuse(beacon.Errorf(beacon.Internal, "the output is not JSON"))
	}
	if string(raw) == "null" {
		return notFound
	}
	return fill(c, 2, []byte(beacon.Settings{name: raw}.Text(name)))
}
