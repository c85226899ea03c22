package protocol_test

import (
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

// The captured lines are what real workers sent and real servers understood.
func TestWorkerFramesAreThoseOfTheNodeWorker(t *testing.T) {
	registration := protocol.NewRegistration("nodews", 1, []beacon.Capability{{Name: "Shell", Actions: []beacon.Action{{
		Name: "Execute", Description: "Execute a shell command.",
		Settings: []beacon.Setting{{Name: "Command", DataType: "String", Required: true, Description: "The command to run"}},
	}}}})
	registration.HostID = "vm"
	tests := map[string]struct {
		encode   func() ([]byte, error)
		captured string
	}{
		"register, 0.0.2": {
			func() ([]byte, error) {
				return protocol.EncodeRegister(protocol.Registration{Name: "n002", Capabilities: []string{"Shell", "FileSystem", "Bench"}})
			},
			`{"Action":"BeaconRegister","Name":"n002","Capabilities":["Shell","FileSystem","Bench"],"MaxConcurrent":1,"Tags":{},"SharedMounts":[]}`,
		},
		"register, 1.0.5": {
			func() ([]byte, error) { return protocol.EncodeRegister(registration) },
			`{"Action":"BeaconRegister","Name":"nodews","Capabilities":["Shell"],"ActionSchemas":[{"Capability":"Shell","Action":"Execute","Description":"Execute a shell command.","SettingsSchema":[{"Name":"Command","DataType":"String","Required":true,"Description":"The command to run"}]}],"MaxConcurrent":1,"Tags":{},"HostID":"vm","SharedMounts":[]}`,
		},
		"heartbeat": {
			func() ([]byte, error) {
				return protocol.EncodeHeartbeat("bcn-nodews-1795346270823", protocol.Heartbeat{})
			},
			`{"Action":"BeaconHeartbeat","BeaconID":"bcn-nodews-1795346270823"}`,
		},
		"upload": {
			func() ([]byte, error) {
				return protocol.EncodeUpload("wi-run-OPR-0001-1795347234287-brc-dispatch-1795347234298-74", "res.bin", 14)
			},
			`{"Action":"WorkResultUpload","WorkItemHash":"wi-run-OPR-0001-1795347234287-brc-dispatch-1795347234298-74","OutputFilename":"res.bin","OutputSize":14}`,
		},
		"complete": {
			func() ([]byte, error) {
				return protocol.EncodeComplete("wi-unknown-unknown-1795346298900-1", beacon.Result{
					Outputs: beacon.Outputs{"StdOut": "hello world\n", "ExitCode": 0, "Result": "hello world\n"},
					Log:     []string{"Command executed: echo hello world"},
				}, 0)
			},
			// The order of outputs is ours, and means nothing.
			`{"Action":"WorkComplete","WorkItemHash":"wi-unknown-unknown-1795346298900-1","Outputs":{"ExitCode":0,"Result":"hello world\n","StdOut":"hello world\n"},"Log":["Command executed: echo hello world"]}`,
		},
		"complete, empty": {
			func() ([]byte, error) { return protocol.EncodeComplete("wi", beacon.Result{}, 0) },
			`{"Action":"WorkComplete","WorkItemHash":"wi","Outputs":{},"Log":[]}`,
		},
		"progress": {
			func() ([]byte, error) {
				return protocol.EncodeProgress("wi", beacon.Progress{Percent: 33, HasPercent: true, Message: "step 1", Step: 1, TotalSteps: 3, Log: []string{"log 1"}})
			},
			`{"Action":"WorkProgress","WorkItemHash":"wi","ProgressData":{"Percent":33,"Message":"step 1","Step":1,"TotalSteps":3,"Log":["log 1"]}}`,
		},
		"progress, 0 %": {
			func() ([]byte, error) {
				return protocol.EncodeProgress("wi", beacon.Progress{HasPercent: true})
			},
			`{"Action":"WorkProgress","WorkItemHash":"wi","ProgressData":{"Percent":0}}`,
		},
		"error": {
			func() ([]byte, error) { return protocol.EncodeError("wi", "provider says no", beacon.Result{}, 0) },
			`{"Action":"WorkError","WorkItemHash":"wi","ErrorMessage":"provider says no","Log":[]}`,
		},
		"deregister": {
			func() ([]byte, error) { return protocol.EncodeDeregister("bcn-1") },
			`{"Action":"Deregister","BeaconID":"bcn-1"}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			frame, err := tt.encode()
			require.NoError(t, err)
			require.Equal(t, tt.captured, string(frame))
		})
	}
}

// What we add to the protocol is in fields and events that others ignore.
func TestOurMessages(t *testing.T) {
	idle, err := protocol.EncodeHeartbeat("bcn-1", protocol.Heartbeat{ActiveWorkItems: []string{}})
	require.NoError(t, err)
	require.Equal(t, `{"Action":"BeaconHeartbeat","BeaconID":"bcn-1","ActiveWorkItems":[]}`, string(idle))
	busy, err := protocol.EncodeHeartbeat("bcn-1", protocol.Heartbeat{ActiveWorkItems: []string{"a", "b"}, Draining: true})
	require.NoError(t, err)
	require.Equal(t, `{"Action":"BeaconHeartbeat","BeaconID":"bcn-1","ActiveWorkItems":["a","b"],"Draining":true}`, string(busy))
	body, err := protocol.Encode(protocol.Heartbeat{})
	require.NoError(t, err)
	require.Equal(t, `{}`, string(body), "the body of the Node worker")

	cancel, err := protocol.EncodeCancel(protocol.Cancellation{WorkItemHash: "wi", Reason: "enough"})
	require.NoError(t, err)
	require.Equal(t, `{"EventType":"WorkCancel","WorkItemHash":"wi","Reason":"enough"}`, string(cancel))
	e, err := protocol.DecodeEvent(cancel)
	require.NoError(t, err)
	require.Equal(t, protocol.Event{EventType: protocol.EventCancel, WorkItemHash: "wi", Reason: "enough"}, e)

	cancel, err = protocol.EncodeCancel(protocol.Cancellation{WorkItemHash: "wi", AttemptNumber: 2})
	require.NoError(t, err)
	require.Equal(t, `{"EventType":"WorkCancel","WorkItemHash":"wi","AttemptNumber":2}`, string(cancel))
	e, err = protocol.DecodeEvent([]byte(`{"EventType":"WorkCancel","WorkItemHash":"wi","AttemptNumber":"2","Success":"maybe"}`))
	require.NoError(t, err)
	require.Equal(t, 2, e.AttemptNumber)

	for name, encode := range map[string]func() ([]byte, error){
		`{"Action":"WorkComplete","WorkItemHash":"wi","Outputs":{},"Log":[],"AttemptNumber":3}`:     func() ([]byte, error) { return protocol.EncodeComplete("wi", beacon.Result{}, 3) },
		`{"WorkItemHash":"wi","Outputs":{},"Log":[],"AttemptNumber":3}`:                             func() ([]byte, error) { return protocol.EncodeBatchEntry("wi", beacon.Result{}, 3) },
		`{"Action":"WorkError","WorkItemHash":"wi","ErrorMessage":"no","Log":[],"AttemptNumber":3}`: func() ([]byte, error) { return protocol.EncodeError("wi", "no", beacon.Result{}, 3) },
	} {
		frame, err := encode()
		require.NoError(t, err)
		require.Equal(t, name, string(frame))
	}

	for body, want := range map[string][]protocol.Cancellation{
		`{"CanceledWorkItems":[{"WorkItemHash":"a","AttemptNumber":3}]}`:                                      {{WorkItemHash: "a", AttemptNumber: 3}},
		`{"WorkItem":null,"CanceledWorkItems":[{"WorkItemHash":"a","Reason":"enough"},{"WorkItemHash":"b"}]}`: {{WorkItemHash: "a", Reason: "enough"}, {WorkItemHash: "b"}},
		`{"WorkItem":null}`:          nil,
		`{"CanceledWorkItems":null}`: nil,
		`{"CanceledWorkItems":{}}`:   nil,
		`{"CanceledWorkItems":[7,{},{"WorkItemHash":5},{"WorkItemHash":"c","Reason":5}]}`: {{WorkItemHash: "c"}},
		`[{"CanceledWorkItems":[]}`: nil,
	} {
		require.Equal(t, want, protocol.DecodeCanceled([]byte(body)), body)
	}
}

func TestDecodeEvent(t *testing.T) {
	tests := map[string]struct {
		frame string
		want  protocol.Event
	}{
		"registered": {`{"EventType":"BeaconRegistered","BeaconID":"bcn-nodews-1795346270823"}`,
			protocol.Event{EventType: "BeaconRegistered", BeaconID: "bcn-nodews-1795346270823"}},
		"deregistered": {`{"EventType":"Deregistered"}`, protocol.Event{EventType: "Deregistered"}},
		"upload ack": {`{"Action":"WorkResultUploadAck","WorkItemHash":"wi","Success":true}`,
			protocol.Event{Action: "WorkResultUploadAck", WorkItemHash: "wi", Success: true}},
		"rejected": {`{"EventType":"BeaconRejected","Reason":"Bootstrap auth secret mismatch"}`,
			protocol.Event{EventType: "BeaconRejected", Reason: "Bootstrap auth secret mismatch"}},
		"wrong types": {`{"EventType":"BeaconRejected","Reason":{"a":1},"BeaconID":5,"Success":"yes"}`,
			protocol.Event{EventType: "BeaconRejected"}},
		"unknown": {`{"EventType":"Party","Balloons":[1,2]}`, protocol.Event{EventType: "Party"}},
		"item": {`{"EventType":"WorkItem","WorkItem":{"WorkItemHash":"wi"}}`,
			protocol.Event{EventType: "WorkItem", WorkItem: json.RawMessage(`{"WorkItemHash":"wi"}`)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := protocol.DecodeEvent([]byte(tt.frame))
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
	for _, frame := range []string{"", "null", "[]", `"text"`, "7", `{"EventType":`, "\xff", `{"a":1}{`} {
		_, err := protocol.DecodeEvent([]byte(frame))
		require.Error(t, err, frame)
	}
}

func TestDecodeWorkItem(t *testing.T) {
	tests := map[string]struct {
		raw  string
		want beacon.WorkItem
		err  string
	}{
		"captured, ERA": {raw: `{"WorkItemHash":"wi-unknown-unknown-1795346382219","Capability":"Shell","Action":"Execute","Settings":{"Command":"echo hi"},"OperationHash":"","TimeoutMs":300000}`,
			want: beacon.WorkItem{Hash: "wi-unknown-unknown-1795346382219", Capability: "Shell", Action: "Execute", Settings: beacon.Settings{"Command": []byte(`"echo hi"`)}, Timeout: 5 * time.Minute}},
		"captured, HEAD": {raw: `{"WorkItemHash":"wi-1","RunID":"","Capability":"Shell","Action":"Execute","Settings":{"Command":"x","QueueMetadata":{"AttemptNumber":1}},"OperationHash":"","TimeoutMs":300000,"AttemptNumber":1,"QueueMetadata":{"AttemptNumber":1}}`,
			want: beacon.WorkItem{Hash: "wi-1", Capability: "Shell", Action: "Execute", Settings: beacon.Settings{"Command": []byte(`"x"`), "QueueMetadata": []byte(`{"AttemptNumber":1}`)}, Timeout: 5 * time.Minute, Attempt: 1}},
		"null settings":     {raw: `{"WorkItemHash":"wi","Settings":null}`, want: beacon.WorkItem{Hash: "wi", Settings: beacon.Settings{}}},
		"empty settings":    {raw: `{"WorkItemHash":"wi","Settings":""}`, want: beacon.WorkItem{Hash: "wi", Settings: beacon.Settings{}}},
		"settings as array": {raw: `{"WorkItemHash":"wi","Settings":[1]}`, want: beacon.WorkItem{Hash: "wi"}, err: "Settings is an array instead of an object"},
		"settings as text":  {raw: `{"WorkItemHash":"wi","Settings":"x"}`, want: beacon.WorkItem{Hash: "wi"}, err: "Settings is text instead of an object"},
		"capability number": {raw: `{"WorkItemHash":"wi","Capability":5}`, want: beacon.WorkItem{Hash: "wi"}, err: "Capability is a number instead of text"},
		"negative timeout":  {raw: `{"WorkItemHash":"wi","TimeoutMs":-5}`, want: beacon.WorkItem{Hash: "wi", Settings: beacon.Settings{}}},
		"timeout as text":   {raw: `{"WorkItemHash":"wi","TimeoutMs":"1500"}`, want: beacon.WorkItem{Hash: "wi", Settings: beacon.Settings{}, Timeout: 1500 * time.Millisecond}},
		"timeout nonsense":  {raw: `{"WorkItemHash":"wi","TimeoutMs":"soon"}`, want: beacon.WorkItem{Hash: "wi", Settings: beacon.Settings{}}},
		"timeout NaN":       {raw: `{"WorkItemHash":"wi","TimeoutMs":"NaN"}`, want: beacon.WorkItem{Hash: "wi", Settings: beacon.Settings{}}},
		"huge timeout":      {raw: `{"WorkItemHash":"wi","TimeoutMs":1e300}`, want: beacon.WorkItem{Hash: "wi", Settings: beacon.Settings{}, Timeout: 7 * 24 * time.Hour}},
		"run id number":     {raw: `{"WorkItemHash":"wi","RunID":7,"AttemptNumber":"2"}`, want: beacon.WorkItem{Hash: "wi", Settings: beacon.Settings{}, Attempt: 2}},
		"attempt fraction":  {raw: `{"WorkItemHash":"wi","AttemptNumber":1.5}`, want: beacon.WorkItem{Hash: "wi", Settings: beacon.Settings{}, Attempt: 1}},
		"no hash":           {raw: `{"Capability":"Shell"}`, err: "without a WorkItemHash"},
		"hash number":       {raw: `{"WorkItemHash":5}`, err: "without a WorkItemHash"},
		"null":              {raw: `null`, err: "not a JSON object"},
		"text":              {raw: `"wi"`, err: "not a JSON object"},
		"cut off":           {raw: `{"WorkItemHash":"wi"`, err: "not a JSON object"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := protocol.DecodeWorkItem([]byte(tt.raw))
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, tt.want, got)
		})
	}
}

func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte(`{"EventType":"WorkItem","WorkItem":{"WorkItemHash":"wi","Settings":{"a":1},"TimeoutMs":"5"}}`))
	f.Add([]byte(`{"EventType":5,"WorkItem":[]}`))
	f.Add([]byte(`null`))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		e, err := protocol.DecodeEvent(frame)
		pushed, ok := protocol.DecodePush(frame)
		if err != nil {
			require.False(t, ok)
			return
		}
		if ok {
			closely, err := protocol.DecodeWorkItem(e.WorkItem)
			require.NoError(t, err)
			require.Equal(t, protocol.EventWorkItem, e.EventType)
			require.Equal(t, closely, pushed)
		}
		item, err := protocol.DecodeWorkItem(e.WorkItem)
		if err == nil && (item.Hash == "" || item.Settings == nil || item.Timeout < 0) {
			t.Errorf("accepted %+v", item)
		}
		if err == nil {
			if _, err := protocol.EncodeComplete(item.Hash, beacon.Result{Outputs: beacon.Outputs{"x": item.Settings}}, 0); err != nil {
				t.Errorf("settings that were read cannot be written: %v", err)
			}
		}
	})
}

func FuzzEncodeComplete(f *testing.F) {
	f.Add("wi", "Result", `{"a": [1, "<&>"]}`, "line")
	f.Add("wi\"\\\x00\xff\u2028", "", `nonsense`, "\x1b[0m")
	f.Fuzz(func(t *testing.T, hash, name, raw, line string) {
		r := beacon.Result{Outputs: beacon.Outputs{name: raw, name + "2": 7}, Log: []string{line}}
		if json.Valid([]byte(raw)) {
			r.Outputs[name+"3"] = json.RawMessage(raw)
		}
		frame, err := protocol.EncodeComplete(hash, r, 0)
		require.NoError(t, err)
		plain, err := protocol.Encode(struct {
			Action       string
			WorkItemHash string
			protocol.Completion
		}{"WorkComplete", hash, protocol.NewCompletion(r)})
		require.NoError(t, err)
		require.JSONEq(t, string(plain), string(frame))
		require.True(t, utf8.Valid(frame))
		entry, err := protocol.EncodeBatchEntry(hash, r, 0)
		require.NoError(t, err)
		require.True(t, json.Valid(protocol.EncodeBatch([][]byte{entry, entry})))
	})
}

func TestDecodeBatch(t *testing.T) {
	for body, want := range map[string]map[int]string{
		`{"Items":[{},{}],"Errors":[]}`:                                           {},
		`{"Items":[{}],"Errors":[{"Index":1,"Error":"not found"}]}`:               {1: "not found"},
		`{"Items":[],"Errors":[{"Index":0,"Error":"a"},{"Index":1,"Error":"b"}]}`: {0: "a", 1: "b"},
		`{"Items":[{}],"Errors":[]}`:                                              nil, // one is missing
		`{"Items":[],"Errors":[{"Index":1,"Error":"a"},{"Index":1,"Error":"b"}]}`: nil,
		`{"Items":[{}],"Errors":[{"Index":2,"Error":"x"}]}`:                       nil,
		`{"Items":[{}],"Errors":[{"Index":-1,"Error":"x"}]}`:                      nil,
		`{"Items":[{},{}]}`: nil,
		`{}`:                nil,
		`[]`:                nil,
		`<html>`:            nil,
	} {
		got, err := protocol.DecodeBatch([]byte(body), 2)
		if want == nil {
			require.Error(t, err, body)
			continue
		}
		require.NoError(t, err, body)
		require.Equal(t, want, got, body)
	}
}

func TestStarvesPollers(t *testing.T) {
	for status, want := range map[string]bool{
		`{"Status":"Running","ScheduleEntries":0,"ScheduleRunning":false,"AuthEnabled":false,"AuthMode":"promiscuous","SupportsUserManagement":false}`: true,
		`{"Status":"Running","ScheduleEntries":0,"ScheduleRunning":false}`:                                                                             false,
		`{"Status":"Running","AuthMode":"promiscuous","Server":"beacon hub"}`:                                                                          false,
		`<html>`: false,
	} {
		require.Equal(t, want, protocol.StarvesPollers([]byte(status)), status)
	}
}

func TestDecodePeers(t *testing.T) {
	peers, err := protocol.DecodePeers([]byte(`[{"BeaconID":"bcn-a-1","Name":"a","Contexts":{"File":{"BasePath":"/data","BaseURL":"http://a/files/","Writable":true,"Description":"d","More":1},"Odd":7}},
		7, null, {"Name":5}, {"Name":"b","Contexts":[]}, {"BeaconID":"c"}]`))
	require.NoError(t, err)
	require.Equal(t, []protocol.Peer{
		{BeaconID: "bcn-a-1", Name: "a", Contexts: map[string]protocol.Context{"File": {BasePath: "/data", BaseURL: "http://a/files/", Writable: true, Description: "d"}}},
		{Name: "b", Contexts: map[string]protocol.Context{}},
		{BeaconID: "c", Contexts: map[string]protocol.Context{}},
	}, peers)
	for _, body := range []string{`{}`, `<html>`, ``} {
		_, err := protocol.DecodePeers([]byte(body))
		require.Error(t, err, body)
	}
}

func TestDecodeCurrent(t *testing.T) {
	hashes, ok := protocol.DecodeCurrent([]byte(`{"BeaconID":"b","CurrentWorkItems":["a","b"]}`))
	require.True(t, ok)
	require.Equal(t, []string{"a", "b"}, hashes)
	hashes, ok = protocol.DecodeCurrent([]byte(`{"CurrentWorkItems":[]}`))
	require.True(t, ok)
	require.Empty(t, hashes)
	for _, body := range []string{`{}`, `{"CurrentWorkItems":null}`, `{"CurrentWorkItems":[7]}`, `[]`, ``} {
		_, ok = protocol.DecodeCurrent([]byte(body))
		require.False(t, ok, body)
	}
}

func FuzzDecodeAnswers(f *testing.F) {
	f.Add([]byte(`{"WorkItem":null}`))
	f.Add([]byte(`{"BeaconID":"b","Error":"x","LoggedIn":true}`))
	f.Add([]byte(`{"CanceledWorkItems":[{"WorkItemHash":"a"},7]}`))
	f.Add([]byte(`<html>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if id, err := protocol.DecodeRegistered(body); err == nil && id == "" {
			t.Error("an empty id")
		}
		_, _ = protocol.DecodePoll(body)
		_, _ = protocol.DecodeBatch(body, 3)
		_, _ = protocol.DecodeCurrent(body)
		_, _ = protocol.DecodePeers(body)
		_ = protocol.DecodeLogin(body)
		_ = protocol.DecodeError(body)
		for _, c := range protocol.DecodeCanceled(body) {
			if c.WorkItemHash == "" {
				t.Error("a cancellation of nothing")
			}
		}
	})
}
