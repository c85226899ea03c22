package protocol

import "encoding/json"

// What is in this file is ours but for the BeaconRecord, to which fields are
// added: what a hub shows to those who look at it.

// A BeaconRecord is what a server shows of a beacon.
type BeaconRecord struct {
	BeaconID          string         `json:"BeaconID"`
	Name              string         `json:"Name"`
	SessionID         *string        `json:"SessionID"`
	Capabilities      []string       `json:"Capabilities"`
	Status            string         `json:"Status"` // BeaconOnline and so on
	LastHeartbeat     Timestamp      `json:"LastHeartbeat"`
	CurrentWorkItems  []string       `json:"CurrentWorkItems"`
	MaxConcurrent     int            `json:"MaxConcurrent"`
	Tags              map[string]any `json:"Tags"`
	Contexts          map[string]any `json:"Contexts"`
	BindAddresses     []any          `json:"BindAddresses"`
	HostID            *string        `json:"HostID"`
	SharedMounts      []SharedMount  `json:"SharedMounts"`
	RegisteredAt      Timestamp      `json:"RegisteredAt"`
	Transport         string         `json:"Transport"` // ours: websocket or http
	Hub               string         `json:"Hub,omitempty"`
	Tenant            string         `json:"Tenant,omitempty"`
	Draining          bool           `json:"Draining,omitempty"`
	CanceledWorkItems []Cancellation `json:"CanceledWorkItems,omitempty"`
}

// States of a beacon: whether it takes work, has all the work that it can have,
// or is away and may come back.
const (
	BeaconOnline  = "Online"
	BeaconBusy    = "Busy"
	BeaconOffline = "Offline"
)

// A TenantRecord is what a hub shows of a tenant. Queued, Running and Live count
// its items now, the rest is counted from the hub's beginning. SlotMs is time in
// slots, WaitMs what its Given items have waited, all together.
type TenantRecord struct {
	Tenant    string `json:"Tenant"`
	Weight    int64  `json:"Weight"`
	Queued    int    `json:"Queued"`
	Running   int    `json:"Running"`
	Live      int    `json:"Live"`
	Completed uint64 `json:"Completed"`
	Failed    uint64 `json:"Failed"`
	Canceled  uint64 `json:"Canceled"`
	SlotMs    int64  `json:"SlotMs"`
	WaitMs    int64  `json:"WaitMs"`
	Given     uint64 `json:"Given"`
	// Usage is what beacons say that they have used; those of other makers do not.
	Usage Usage `json:"Usage,omitzero"`
}

// A BacklogRecord is what an autoscaler wants to know of a capability. OldestMs
// is how long the item has waited that has waited longest.
type BacklogRecord struct {
	Capability string `json:"Capability"`
	Waiting    int    `json:"Waiting"`
	Running    int    `json:"Running"`
	FreeSlots  int    `json:"FreeSlots"`
	Beacons    int    `json:"Beacons"`
	OldestMs   int64  `json:"OldestMs"`
}

// A Census counts what a hub has at one time. Beacons are by Status, Finished and
// Dead are the items that it still knows.
type Census struct {
	Backlog        []BacklogRecord
	Tenants        []TenantRecord
	Beacons        map[string]int
	Finished, Dead int
	Hubs           int
}

// An ItemPage is a part of a list of items, without their settings, logs and
// outputs. Total counts all that the list has. Next, unless it is empty, is
// where the next page begins.
type ItemPage struct {
	Total int          `json:"Total"`
	Items []WorkRecord `json:"Items"`
	Next  string       `json:"Next,omitempty"`
}

// Lists of items: those that wait or run, oldest first; those of them that run;
// those that have ended and those that failed for good, newest first.
const (
	ListLive     = "live"
	ListRunning  = "running"
	ListFinished = "finished"
	ListDead     = "dead"
)

// A Viewer is who looks at a hub. LoggedIn is false for somebody whom the hub
// serves without a login. Writes says whether the viewer may hand in work,
// cancel and requeue. Tenant is whose things are seen; empty means everybody's.
type Viewer struct {
	LoggedIn bool   `json:"LoggedIn"`
	User     string `json:"User,omitempty"`
	Role     string `json:"Role"`
	Tenant   string `json:"Tenant,omitempty"`
	Writes   bool   `json:"Writes"`
	// Logins is how one may log in: LoginUser or LoginToken; empty if nobody can.
	Logins string `json:"Logins"`
}

// Ways to log in: by a user's name and password, or by the token that a hub
// without users has.
const (
	LoginUser  = "user"
	LoginToken = "token"
)

// Changes tells that something has changed since an earlier Version.
type Changes struct {
	Version uint64 `json:"Version"`
}

// ActionRecord is what a server shows of an action that a beacon has told of.
// Available says whether a beacon is there for it now.
type ActionRecord struct {
	ActionSchema
	Available     bool     `json:"Available"`
	SourceBeacons []string `json:"SourceBeacons"`
}

// ProgressOf reads the progress of a WorkRecord. Fields of the wrong type are
// taken for absent.
func ProgressOf(raw json.RawMessage) Progress {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return Progress{}
	}
	var p Progress
	var percent float64
	if json.Unmarshal(fields["Percent"], &percent) == nil && len(fields["Percent"]) > 0 && string(fields["Percent"]) != "null" {
		p.Percent = &percent
	}
	_ = json.Unmarshal(fields["Message"], &p.Message)
	_ = json.Unmarshal(fields["Step"], &p.Step)
	_ = json.Unmarshal(fields["TotalSteps"], &p.TotalSteps)
	return p
}

// A Series is what happened over time, in steps of StepMs, the last of which is
// not over. Steps in which nothing ended are in it, too.
type Series struct {
	StepMs int64  `json:"StepMs"`
	Steps  []Step `json:"Steps"`
}

// A Step counts the items that ended in it. Waits and runs are those of the last
// attempts, in milliseconds: the median, and what 95 of 100 do not exceed.
type Step struct {
	At        Timestamp `json:"At"` // its beginning
	Completed int       `json:"Completed"`
	Failed    int       `json:"Failed"`
	Canceled  int       `json:"Canceled"`
	WaitMs50  int64     `json:"WaitMs50"`
	WaitMs95  int64     `json:"WaitMs95"`
	RunMs50   int64     `json:"RunMs50"`
	RunMs95   int64     `json:"RunMs95"`
	// Usage is that of these items, in all their attempts.
	Usage Usage `json:"Usage,omitzero"`
}
