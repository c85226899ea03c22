package dashboard

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

const (
	mostRunning = 20  // items in the overview
	pageItems   = 50  // items on a page of them
	pageBeacons = 100 // beacons on a page of them
	mostLog     = 500 // lines of an item's log, the last ones
)

// A summary counts everything.
type summary struct {
	Waiting, Running, Later             int
	Completed, Failed, Canceled         uint64
	Dead                                int
	Online, Busy, Offline, Slots, Taken int
}

func (d *Dashboard) overview(c *client, _ url.Values) (page, error) {
	var tenants struct{ Tenants []protocol.TenantRecord }
	var backlog struct{ Backlog []protocol.BacklogRecord }
	var beacons []protocol.BeaconRecord
	var running, dead protocol.ItemPage
	var hour protocol.Series
	for _, read := range []struct {
		path  string
		query url.Values
		into  any
	}{
		{"/Beacon/Tenants", nil, &tenants},
		{"/Beacon/Backlog", nil, &backlog},
		{"/Beacon", nil, &beacons},
		{"/Beacon/Series", nil, &hour},
		{"/Beacon/Items", url.Values{"list": {protocol.ListRunning}, "limit": {strconv.Itoa(mostRunning)}}, &running},
		{"/Beacon/Items", url.Values{"list": {protocol.ListDead}, "limit": {"1"}}, &dead},
	} {
		if err := c.get(read.path, read.query, read.into); err != nil {
			return page{}, err
		}
	}
	s := summary{Dead: dead.Total}
	for _, t := range tenants.Tenants {
		s.Waiting += t.Queued
		s.Running += t.Running
		s.Later += max(0, t.Live-t.Queued-t.Running)
		s.Completed += t.Completed
		s.Failed += t.Failed
		s.Canceled += t.Canceled
	}
	for _, b := range beacons {
		switch b.Status {
		case protocol.BeaconOnline:
			s.Online++
		case protocol.BeaconBusy:
			s.Busy++
		default:
			s.Offline++
			continue
		}
		s.Slots += b.MaxConcurrent
		s.Taken += len(b.CurrentWorkItems)
	}
	return page{"Overview", []part{
		{"summary", true, s},
		{"running", true, struct {
			protocol.ItemPage
			Names map[string]string
		}{running, names(beacons)}},
		{"charts", true, figures(hour)},
		{"tenants", true, usages(tenants.Tenants)},
		{"backlog", true, backlog.Backlog},
	}}, nil
}

// A table of tenants has columns for language models once one was used.
type tenantTable struct {
	Tenants []protocol.TenantRecord
	Models  bool
}

func usages(tenants []protocol.TenantRecord) tenantTable {
	return tenantTable{tenants, slices.ContainsFunc(tenants, func(t protocol.TenantRecord) bool { return t.Usage.Tokens > 0 })}
}

// names tells what beacons are called, by their BeaconID.
func names(beacons []protocol.BeaconRecord) map[string]string {
	out := make(map[string]string, len(beacons))
	for _, b := range beacons {
		out[b.BeaconID] = b.Name
	}
	return out
}

// listing is a page of items, and what was chosen.
type listing struct {
	protocol.ItemPage
	List, Status, Tenant, Capability, Search, After string
	Write                                           bool
	Query                                           url.Values
	Statuses                                        []string
}

// Other is the address of the same page with another value of the query.
func (l listing) Other(pairs ...string) string {
	query := url.Values{}
	for name, values := range l.Query {
		query[name] = values
	}
	query.Del("after")
	for i := 0; i+1 < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
		if pairs[i+1] == "" {
			query.Del(pairs[i])
		}
	}
	return "/items?" + query.Encode()
}

var statuses = map[string][]string{
	protocol.ListLive:     {protocol.StatusPending, protocol.StatusRunning, protocol.StatusScheduled, protocol.StatusRetryScheduled},
	protocol.ListRunning:  nil,
	protocol.ListFinished: {protocol.StatusComplete, protocol.StatusCanceled, protocol.StatusError, protocol.StatusTimeout},
	protocol.ListDead:     {protocol.StatusError, protocol.StatusTimeout},
}

func (d *Dashboard) items(c *client, query url.Values) (page, error) {
	l := listing{
		List: cmp.Or(query.Get("list"), protocol.ListLive), Status: query.Get("status"), Tenant: query.Get("tenant"),
		Capability: query.Get("capability"), Search: query.Get("search"), After: query.Get("after"),
		Write: c.writes(), Query: url.Values{},
	}
	l.Statuses = statuses[l.List]
	for _, name := range []string{"list", "status", "tenant", "capability", "search", "after"} {
		if value := query.Get(name); value != "" {
			l.Query.Set(name, value)
		}
	}
	asked := url.Values{"limit": {strconv.Itoa(pageItems)}}
	for name, values := range l.Query {
		asked[name] = values
	}
	if err := c.get("/Beacon/Items", asked, &l.ItemPage); err != nil {
		return page{}, err
	}
	return page{"Items", []part{{"choice", false, l}, {"items", true, l}}}, nil
}

// detail is everything of one item.
type detail struct {
	protocol.WorkRecord
	Step     protocol.Progress
	Events   []protocol.WorkEvent
	Settings []named
	Lines    []string
	Cut      int // lines of the log that are not shown
	Outputs  []output
	Write    bool
	Ended    bool
}

type named struct{ Name, Text string }

func itemPath(hash string) string { return "/Beacon/Work/" + url.PathEscape(hash) }

func (d *Dashboard) item(c *client, query url.Values) (page, error) {
	hash := query.Get("hash")
	if hash == "" {
		return page{}, &refusal{http.StatusNotFound, "The address names no work item."}
	}
	it := detail{Write: c.writes()}
	var events json.RawMessage
	if err := c.get(itemPath(hash)+"/Events", nil, &events); err != nil {
		return page{}, err
	}
	if c.ended.hash == hash && c.ended.events == string(events) {
		return c.ended.page, nil
	}
	if err := c.get(itemPath(hash), nil, &it.WorkRecord); err != nil {
		return page{}, err
	}
	var history struct{ Events []protocol.WorkEvent }
	if err := json.Unmarshal(events, &history); err != nil {
		return page{}, fmt.Errorf("read the hub's answer: %w", err)
	}
	it.Step = protocol.ProgressOf(it.Progress)
	it.Events = history.Events
	it.Ended = protocol.Final(it.Status)
	it.Settings = settingsOf(it.WorkRecord.Settings)
	it.Lines = it.Log
	if it.Lines == nil {
		it.Lines = it.AccumulatedLog
	}
	if it.Cut = max(0, len(it.Lines)-mostLog); it.Cut > 0 {
		it.Lines = it.Lines[it.Cut:]
	}
	it.Outputs = outputsOf(&it.WorkRecord)
	p := page{"Work item", []part{
		{"heading", true, it}, {"outputs", true, it}, {"log", true, it}, {"facts", true, it}, {"events", true, it},
	}}
	// The events are older than the record: only if they tell of the end, too, is
	// nothing to come.
	if n := len(it.Events); it.Ended && n > 0 && protocol.Final(it.Events[n-1].ToStatus) {
		c.ended.hash, c.ended.events, c.ended.page = hash, string(events), p
	}
	return p, nil
}

func settingsOf(all beacon.Settings) []named {
	var out []named
	for name := range all {
		out = append(out, named{name, cut(text(all[name]), mostText)})
	}
	slices.SortFunc(out, func(a, b named) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// text is the content of a JSON string, and the JSON of any other value.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// fleet is a page of beacons.
type fleet struct {
	Beacons        []protocol.BeaconRecord
	Total, From    int
	Before, Behind string // addresses of the neighbours
}

func (d *Dashboard) beacons(c *client, query url.Values) (page, error) {
	var all []protocol.BeaconRecord
	if err := c.get("/Beacon", nil, &all); err != nil {
		return page{}, err
	}
	slices.SortFunc(all, func(a, b protocol.BeaconRecord) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.BeaconID, b.BeaconID))
	})
	from, err := strconv.Atoi(query.Get("from"))
	if err != nil || from < 0 || from >= len(all) {
		from = 0
	}
	f := fleet{Beacons: all[from:min(from+pageBeacons, len(all))], Total: len(all), From: from}
	if from > 0 {
		f.Before = "/beacons?from=" + strconv.Itoa(max(0, from-pageBeacons))
	}
	if from+pageBeacons < len(all) {
		f.Behind = "/beacons?from=" + strconv.Itoa(from+pageBeacons)
	}
	return page{"Beacons", []part{{"beacons", true, f}}}, nil
}
