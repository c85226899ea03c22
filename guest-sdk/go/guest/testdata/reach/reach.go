// Package reach makes requests and calls as its settings say.
package reach

import (
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ultravisor/beacon/guest-sdk/go/guest"
)

// Provider is a capability of requests and calls.
var Provider = guest.Provider{
	Name: "reach", Capability: "Reach",
	Permissions: []guest.Permission{{Permission: "http * https://api.example.com", Reason: "a test"}},
	Actions: []guest.Action{
		{Name: "Fetch", Settings: []guest.Setting{
			{Name: "URL", Required: true}, {Name: "Method"}, {Name: "Body"}, {Name: "Stream", Type: guest.Boolean}, {Name: "NoRedirects", Type: guest.Boolean},
		}, Run: fetch},
		{Name: "Many", Settings: []guest.Setting{{Name: "URL", Required: true}}, Run: many},
		{Name: "Call", Settings: []guest.Setting{
			{Name: "Capability", Required: true}, {Name: "Watch", Type: guest.Boolean}, {Name: "Source"}, {Name: "Output"},
		}, Run: call},
	},
}

// Serve makes it this module's provider.
func Serve() { guest.Serve(Provider) }

func fetch(item *guest.Item) error {
	r := guest.Request{
		URL: item.Text("URL"), Method: item.Text("Method"), NoRedirects: item.Bool("NoRedirects"), Timeout: time.Minute,
		Header: map[string]string{"X-One": "1"},
	}
	if item.HasSecret("key") {
		r.Header["Authorization"] = "Bearer " + guest.Secret("key")
	}
	if body := item.Text("Body"); body != "" {
		r.Body = strings.NewReader(body)
		if item.Bool("Stream") {
			r.Body = io.MultiReader(r.Body)
		}
	}
	res, err := item.Fetch(r)
	if errors.Is(err, guest.ErrDenied) {
		return guest.Exit(3, err.Error())
	}
	if err != nil {
		return err
	}
	item.Set("Status", res.Status)
	item.Set("Type", res.Header("content-type"))
	item.Set("None", res.Header("X-None"))
	head, err := res.Description()
	item.Set("Head", head)
	if err != nil {
		return err
	}
	text, err := res.Text()
	item.Result(text)
	return errors.Join(err, res.Close())
}

func many(item *guest.Item) error {
	var pending []*guest.Pending
	for _, name := range []string{"/a", "/b", "/c"} {
		p, err := item.Send(guest.Request{URL: item.Text("URL") + name})
		if err != nil {
			return err
		}
		pending = append(pending, p)
	}
	var all []string
	for len(pending) > 0 {
		next, err := guest.WaitAny(item, time.Hour, pending...) // whichever comes first
		if err != nil {
			return err
		}
		response, err := pending[next].Response()
		if err != nil {
			return err
		}
		if next, err := guest.WaitAny(item, -1, response); next != 0 || err != nil {
			return errors.Join(errors.New("a response that is there has no body"), err)
		}
		text, err := response.Text()
		if err != nil {
			return err
		}
		if _, err := guest.WaitAny(item, 0, response); err == nil {
			return errors.New("it waited for what was closed")
		}
		all = append(all, text)
		pending = slices.Delete(pending, next, next+1)
	}
	if next, err := guest.WaitAny[guest.Waiter](item, time.Millisecond); next != -1 || err != nil {
		return errors.Join(errors.New("it waited for something, which there was not"), err)
	}
	slices.Sort(all)
	item.Result(strings.Join(all, ""))
	return nil
}

func call(item *guest.Item) error {
	var seen []string
	c := guest.Call{
		Capability: item.Text("Capability"), Action: "Do", Settings: map[string]any{"B": 2, "A": "1"},
		Source: item.Text("Source"), Output: item.Text("Output"), Timeout: time.Minute, Forward: !item.Bool("Watch"),
	}
	if item.Bool("Watch") {
		c.OnProgress = func(p guest.Progress) { seen = append(seen, p.Message) }
	}
	result, err := item.Call(c)
	if err != nil {
		if errors.Is(err, guest.ErrDenied) {
			return guest.Exit(3, err.Error())
		}
		return err
	}
	item.Result(result.Text("Result"))
	item.Set("CalleeExitCode", result.ExitCode())
	item.Set("Outputs", result.Outputs)
	item.Set("Seen", seen)
	return nil
}
