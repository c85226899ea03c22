package hub

import (
	"cmp"
	"context"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

// What is in this file is for those who look at the hub: the dashboard and
// beacon top.

// viewer tells who is looking, and how to log in.
func (h *Hub) viewer(reply responder, r *http.Request, _ []string) {
	who := callerOf(r)
	v := protocol.Viewer{User: who.user, Role: string(who.role), Tenant: who.tenant, Writes: who.role.may(hand), Logins: h.login()}
	if t, ok := h.verify(sessionOf(r)); ok {
		v.LoggedIn = t.Kind == kindUser || t.Kind == kindOperator
	}
	reply.json(http.StatusOK, v)
}

// login is how people log in here.
func (h *Hub) login() string {
	switch {
	case len(h.users) > 0:
		return protocol.LoginUser
	case !h.cfg.secured():
		return protocol.LoginToken
	}
	return ""
}

// Bounds on waiting for changes. Who sees one tenant only is not told when
// something happens, for it may have happened to another.
const (
	changesTimeout = 10 * time.Second
	changesPause   = time.Second
)

// changes answers when the ledger is no longer what it was, or after a while.
func (h *Hub) changes(reply responder, r *http.Request, _ []string) {
	after, err := strconv.ParseUint(cmp.Or(r.URL.Query().Get("after"), "0"), 10, 64)
	if err != nil {
		reply.error(http.StatusBadRequest, "after must be the Version of an earlier answer.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), changesTimeout)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	if callerOf(r).tenant != "" {
		ctx, cancel := context.WithTimeout(ctx, changesPause)
		defer cancel()
		<-ctx.Done()
		reply.json(http.StatusOK, protocol.Changes{})
		return
	}
	reply.json(http.StatusOK, protocol.Changes{Version: h.core.changedAfter(ctx, after)})
}

// changedAfter is the number of the last record that is applied, once it is
// another one than a number from before, or ctx is done.
func (c *coordinator) changedAfter(ctx context.Context, before uint64) uint64 {
	for {
		c.mu.RLock()
		now, changed := c.applied, c.changed
		c.mu.RUnlock()
		if now != before {
			return now
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now
		}
	}
}

// A selection is which items of a list somebody wants to see.
type selection struct {
	who                                caller
	status, tenant, capability, search string
}

func (s *selection) takes(it *ledger.Item) bool {
	spec := it.Spec
	return s.who.sees(spec.Tenant) &&
		(s.status == "" || strings.EqualFold(s.status, it.Status)) &&
		(s.tenant == "" || s.tenant == spec.Tenant) &&
		(s.capability == "" || s.capability == spec.Capability) &&
		(s.search == "" || strings.Contains(it.Hash, s.search) || strings.Contains(spec.SubmitterTag, s.search) ||
			strings.Contains(spec.RunID, s.search) || strings.Contains(spec.Action, s.search))
}

// everything reports whether there is no item that is not taken.
func (s *selection) everything() bool { return *s == selection{who: s.who} && s.who.tenant == "" }

// items shows a page of a list of items.
func (h *Hub) items(reply responder, r *http.Request, _ []string) {
	query := r.URL.Query()
	limit, ok := reply.limitOf(query)
	if !ok {
		return
	}
	after, err := strconv.ParseUint(cmp.Or(query.Get("after"), "0"), 10, 64)
	if err != nil {
		reply.error(http.StatusBadRequest, "after must be the Next of an earlier page.")
		return
	}
	s := selection{callerOf(r), query.Get("status"), query.Get("tenant"), query.Get("capability"), query.Get("search")}
	c := h.core
	c.mu.RLock()
	_, finished, dead := c.ledger.Sizes()
	whole := func(n int) int { // of a list that is shown as it is
		if s.everything() {
			return n
		}
		return -1
	}
	var page protocol.ItemPage
	switch list := query.Get("list"); list {
	case protocol.ListLive, "":
		all := c.ledger.Live()
		if strings.EqualFold(s.status, protocol.StatusRunning) {
			all = c.running()
		}
		page = pageOf(all, c.liveOf(&s), &s, limit, after, bySeq)
	case protocol.ListRunning:
		page = pageOf(c.running(), -1, &s, limit, after, bySeq)
	case protocol.ListFinished:
		page = pageOf(c.ledger.Finished(), whole(finished), &s, limit, after, byEnd)
	case protocol.ListDead:
		page = pageOf(c.ledger.Dead(), whole(dead), &s, limit, after, byEnd)
	default:
		ok = false
	}
	c.mu.RUnlock()
	if !ok {
		reply.error(http.StatusBadRequest, "list must be live, running, finished or dead.")
		return
	}
	reply.json(http.StatusOK, page)
}

// running yields the items that beacons have, oldest first, without looking at
// all those that wait.
func (c *coordinator) running() iter.Seq[*ledger.Item] {
	return func(yield func(*ledger.Item) bool) {
		var all []*ledger.Item
		for _, b := range c.ledger.Beacons() {
			for hash, attempt := range b.Held {
				it, err := c.ledger.Get(hash)
				if err == nil && it.Status == protocol.StatusRunning && it.Beacon == b.ID && it.Attempt == attempt {
					all = append(all, &it)
				}
			}
		}
		slices.SortFunc(all, func(a, b *ledger.Item) int { return cmp.Compare(a.Seq, b.Seq) })
		for _, it := range all {
			if !yield(it) {
				return
			}
		}
	}
}

// An order is where items stand in a list.
type order struct {
	place func(*ledger.Item) uint64
	// down says that the places get smaller on the way.
	down bool
}

var (
	bySeq = order{func(it *ledger.Item) uint64 { return it.Seq }, false}
	byEnd = order{func(it *ledger.Item) uint64 { return it.EndSeq }, true}
)

// liveOf is how many live items a selection takes; -1 if one would have to look
// at them to know. It is called with mu held.
func (c *coordinator) liveOf(s *selection) int {
	tenant := s.tenant
	switch {
	case s.search != "":
		return -1
	case tenant != "" && !s.who.sees(tenant):
		return 0
	case tenant == "":
		tenant = s.who.tenant
	}
	n := 0
	for _, b := range c.ledger.Backlogs(tenant) {
		switch {
		case s.capability != "" && s.capability != b.Capability:
		case s.status == "":
			n += b.Waiting + b.Running + b.Later
		case strings.EqualFold(s.status, protocol.StatusPending):
			n += b.Waiting
		case strings.EqualFold(s.status, protocol.StatusRunning):
			n += b.Running
		case b.Later > 0:
			return -1 // for either of two reasons
		}
	}
	return n
}

// pageOf is the part of a list that begins behind a place; total is how many of
// the list are taken, or less than 0 if they have to be counted.
func pageOf(all iter.Seq[*ledger.Item], total int, s *selection, limit int, after uint64, by order) protocol.ItemPage {
	page := protocol.ItemPage{Items: []protocol.WorkRecord{}}
	var last uint64
	if total == 0 {
		return page
	}
	for it := range all {
		if !s.takes(it) {
			continue
		}
		page.Total++
		place := by.place(it)
		switch {
		case after != 0 && (!by.down && place <= after || by.down && place >= after):
		case len(page.Items) < limit:
			page.Items = append(page.Items, short(it))
			last = place
		case page.Next == "":
			page.Next = strconv.FormatUint(last, 10)
			if total >= 0 {
				page.Total = total
				return page
			}
		}
		if page.Total == total { // there are no more
			return page
		}
	}
	return page
}
