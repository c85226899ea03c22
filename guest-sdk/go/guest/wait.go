package guest

import "time"

// A Waiter is what [WaitAny] can wait for: a [Pending], whose response is there, a
// [Response], of whose body there is more, or its end, or a [Running] that has ended or
// has progress to tell.
type Waiter interface{ handle() Handle }

func (p *Pending) handle() Handle  { return p.exchange }
func (r *Response) handle() Handle { return r.pending.exchange }
func (r *Running) handle() Handle  { return r.invocation }

// WaitAny waits until one of several can go on without waiting, and returns its
// place; -1 once the timeout is over. When several can, it is the first of them. A
// negative timeout has no end but the item's; 0 only looks. What was closed is an error.
//
//	for len(pending) > 0 { // a []*guest.Pending
//		i, err := guest.WaitAny(item, -1, pending...)
//		if err != nil {
//			return err
//		}
//		response, err := pending[i].Response()
//		…
//		pending = slices.Delete(pending, i, i+1)
//	}
//
// Of different kinds, make it a []guest.Waiter.
func WaitAny[W Waiter](item *Item, timeout time.Duration, of ...W) (int, error) {
	handles := make([]Handle, len(of))
	for i, w := range of {
		handles[i] = w.handle()
	}
	index, err := item.host.WaitAny(timeout, handles)
	if err != nil {
		return -1, &reachError{"wait", err}
	}
	if index >= len(of) {
		return -1, nil
	}
	return index, nil
}
