// Command go is the conformance provider in Go: see conformance_test.go for
// what it is to do.
package main

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ultravisor/beacon/guest-sdk/go/guest"
)

func init() {
	guest.Serve(guest.Provider{
		Name: "conformance", Version: "1.2.3", Capability: "Conformance", Description: "Uses all that a host offers.",
		Permissions: []guest.Permission{
			{Permission: "http GET,POST https://api.example.com/v1", Reason: "to fetch \"pages\""},
			{Permission: "secret key", Reason: "to be let in", Optional: true},
		},
		Actions: []guest.Action{
			{Name: "Echo", Description: "Hands back its settings.", Settings: []guest.Setting{
				{Name: "Text", Required: true, Description: "what to say"},
				{Name: "Count", Type: guest.Integer, Default: "1", Description: "a whole number"},
				{Name: "Factor", Type: guest.Number, Default: "1.5"},
				{Name: "Flag", Type: guest.Boolean, Default: "true"},
				{Name: "Plain", Type: guest.Boolean},
				{Name: "Choice", Default: "red", Options: []string{"red", "green"}},
			}, Example: &guest.Example{Settings: map[string]string{"Text": "hello"}, Source: "in.txt", Output: "out.txt"}, Run: echo},
			{Name: "Item", Run: showItem},
			{Name: "Report", Run: report},
			{Name: "BadOutput", Run: badOutput},
			{Name: "Flood", Settings: []guest.Setting{{Name: "Times", Type: guest.Integer, Default: "10"}}, Run: flood},
			{Name: "Copy", Run: copyFile},
			{Name: "Text", Run: readText},
			{Name: "Files", Run: files},
			{Name: "Fetch", Settings: []guest.Setting{
				{Name: "URL", Required: true}, {Name: "Method"}, {Name: "Body"}, {Name: "Stream", Type: guest.Boolean}, {Name: "NoRedirects", Type: guest.Boolean},
			}, Run: fetch},
			{Name: "Many", Settings: []guest.Setting{{Name: "URL", Required: true}}, Run: many},
			{Name: "Call", Settings: []guest.Setting{
				{Name: "Capability", Required: true}, {Name: "Watch", Type: guest.Boolean}, {Name: "Source"}, {Name: "Output"},
			}, Run: call},
			{Name: "Fail", Settings: []guest.Setting{{Name: "Message"}}, Run: func(item *guest.Item) error { return errors.New(item.Text("Message")) }},
			{Name: "Exit", Settings: []guest.Setting{{Name: "Code", Type: guest.Integer}, {Name: "Message"}, {Name: "Say"}}, Run: func(item *guest.Item) error {
				if say := item.Text("Say"); say != "" {
					item.StdOut(say)
				}
				return guest.Exit(int(item.Int("Code")), item.Text("Message"))
			}},
			{Name: "Panic", Run: func(*guest.Item) error { panic("boom") }},
			{Name: "Undeclared", Run: func(item *guest.Item) error { item.Text("Nothing"); return nil }},
			{Name: "Trap", Run: func(*guest.Item) error { select {} }},
			{Name: "BadShutdown", Run: func(*guest.Item) error { end = errors.New("no end"); return nil }},
			{Name: "Quit", Run: func(*guest.Item) error { os.Exit(3); return nil }},
			{Name: "Cancel", Run: waitForCancel},
			{Name: "Spin", Run: func(*guest.Item) error {
				for { //nolint:staticcheck // it is to end only from outside
				}
			}},
		},
		Initialize: func() error { initialized = true; return nil },
		Reseed:     func() error { reseeded = true; return nil },
		Shutdown: func() error {
			println("the end") // on standard error, which is the log
			return end
		},
	})
}

func main() {}

var (
	initialized, reseeded bool
	count                 int
	end                   error
)

func echo(item *guest.Item) error {
	item.Result(item.Text("Text"))
	item.Set("Size", len(item.Text("Text")))
	item.Set("Count", item.Int("Count"))
	item.Set("Factor", item.Float("Factor"))
	item.Set("Flag", item.Bool("Flag"))
	item.Set("Plain", item.Bool("Plain"))
	item.Set("Choice", item.Text("Choice"))
	return nil
}

func showItem(item *guest.Item) error {
	count++
	item.Set("Hash", item.Hash)
	item.Set("Capability", item.Capability)
	item.Set("Action", item.Action)
	item.Set("OperationHash", item.OperationHash)
	item.Set("RunID", item.RunID)
	item.Set("Attempt", item.Attempt)
	item.Set("SourcePath", item.SourcePath)
	item.Set("OutputPath", item.OutputPath)
	settings, err := item.Settings()
	if err != nil {
		return err
	}
	item.Set("Settings", settings)
	undeclared, has, err := item.Lookup("Undeclared")
	if err != nil {
		return err
	}
	item.Set("Undeclared", undeclared)
	item.Set("HasUndeclared", has)
	_, has, err = item.Lookup("Nothing")
	if err != nil {
		return err
	}
	item.Set("HasNothing", has)
	host, _, err := item.Config("Host")
	if err != nil {
		return err
	}
	item.Set("Host", host)
	_, has, err = item.Config("Nothing")
	if err != nil {
		return err
	}
	item.Set("HasNoConfig", has)
	all, _, err := item.Config("")
	if err != nil {
		return err
	}
	item.Set("Config", guest.JSON(all))
	left, has := item.Remaining()
	item.Set("Deadline", has && left > 0)
	item.Set("Cancelled", item.Cancelled())
	now := time.Now()
	item.Set("Clock", now.Year() > 2020)
	item.Set("Monotonic", time.Since(now) >= 0)
	var a, b [16]byte
	_, _ = rand.Read(a[:])
	_, _ = rand.Read(b[:])
	item.Set("Random", a != b)
	item.Set("Initialized", initialized)
	item.Set("Reseeded", reseeded)
	item.Set("Items", count)
	return nil
}

func report(item *guest.Item) error {
	item.Progress(25, "a quarter")
	item.Progress(guest.Unknown, "wondering")
	item.Step(2, 4, "the second")
	item.Debug("fine")
	item.Log("first\nsecond")
	item.Warn("careful: \"é\" 😀")
	item.Log(strings.Repeat("0123456789\n", 10_000))
	item.Set("Text", "quote \" backslash \\ line\n tab\t é € 😀 \x01")
	item.Set("Replaced", "one")
	item.Set("Replaced", 2)
	item.Set("Int", -42)
	item.Set("Big", int64(4503599627370497))
	item.Set("Float", 0.1)
	item.Set("Tiny", 1.5e-7)
	item.Set("Huge", 1e300)
	item.Set("Yes", true)
	item.Set("No", false)
	item.Set("Null", nil)
	item.Set("Bytes", []byte{0, 255, 16, 32})
	item.Set("Texts", []string{"a", "b\"c", ""})
	item.Set("JSON", guest.JSON(`{"a":[1,2,{"b":null}]}`))
	item.StdOut("for people")
	item.Result(7)
	return nil
}

func badOutput(item *guest.Item) error {
	item.Set("Bad", math.NaN())
	item.Set("Good", 1)
	return nil
}

func flood(item *guest.Item) error {
	times := item.Int("Times")
	for i := range times {
		item.Progress(float64(i)/float64(times)*100, "item "+strconv.FormatInt(i, 10))
	}
	item.Result(times)
	return nil
}

func copyFile(item *guest.Item) error {
	in, err := item.OpenSource()
	if err != nil {
		return err
	}
	out, err := item.CreateOutput()
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	hash, total := uint32(2166136261), int64(0)
	for {
		n, err := in.Read(buf)
		for i := (1024 - total%1024) % 1024; i < int64(n); i += 1024 {
			hash = (hash ^ uint32(buf[i])) * 16777619
		}
		if _, err := out.Write(buf[:n]); err != nil {
			return err
		}
		total += int64(n)
		item.Progress(in.Percent(), "copying")
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	item.Set("Bytes", total)
	item.Set("Size", in.Size())
	item.Set("Hash", hash)
	return out.Close()
}

func readText(item *guest.Item) error {
	b, err := item.ReadSource()
	if err != nil {
		return err
	}
	item.Result(string(b))
	return item.WriteOutput(b)
}

// code is the name of an error's number.
func code(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, fs.ErrNotExist):
		return "not_found"
	case errors.Is(err, fs.ErrExist):
		return "exists"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return "denied"
	}
	return err.Error()
}

func files(item *guest.Item) error {
	const dir = "/work/pages"
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	w, err := item.Create("pages/1.txt")
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, "hello"); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	f, err := os.OpenFile(dir+"/1.txt", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(" world"); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if f, err = os.Open(dir + "/1.txt"); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	item.Set("Size", info.Size())
	position, err := f.Seek(-5, io.SeekEnd)
	if err != nil {
		return err
	}
	item.Set("Position", position)
	text, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	item.Set("Text", string(text))
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(dir+"/1.txt", dir+"/2.txt"); err != nil {
		return err
	}
	if err := list(item, "List", dir); err != nil {
		return err
	}
	_, err = item.Open("missing.txt")
	item.Set("Missing", code(err))
	_, err = os.OpenFile(dir+"/2.txt", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	item.Set("Exclusive", code(err))
	_, err = os.OpenFile(item.SourcePath, os.O_WRONLY, 0)
	item.Set("Source", code(err))
	_, err = item.Open("../outside")
	item.Set("Outside", err != nil)
	item.Set("NotEmpty", code(os.Remove(dir)))
	item.Set("Removed", code(os.Remove(dir+"/2.txt")))
	item.Set("RemovedDirectory", code(os.Remove(dir)))
	return list(item, "Left", "/work")
}

func list(item *guest.Item, output, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	json := "["
	for i, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		if i > 0 {
			json += ","
		}
		json += `{"Name":"` + e.Name() + `","Size":` + strconv.FormatInt(info.Size(), 10) + `,"Directory":` + strconv.FormatBool(e.IsDir()) + "}"
	}
	item.Set(output, guest.JSON(json+"]"))
	return nil
}

func fetch(item *guest.Item) error {
	r := guest.Request{
		URL: item.Text("URL"), Method: item.Text("Method"), NoRedirects: item.Bool("NoRedirects"), Timeout: time.Hour,
		Header: map[string]string{"X-One": "1"},
	}
	item.Set("HasOther", item.HasSecret("other"))
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
	if err != nil {
		return err
	}
	item.Set("Head", head)
	text, err := res.Text()
	item.Result(text)
	return err
}

func many(item *guest.Item) error {
	var pending []*guest.Pending
	var names []string
	for _, name := range []string{"/a", "/b", "/c"} {
		p, err := item.Send(guest.Request{URL: item.Text("URL") + name})
		if err != nil {
			return err
		}
		pending, names = append(pending, p), append(names, name)
	}
	bodies := map[string]string{}
	for len(pending) > 0 {
		next, err := guest.WaitAny(item, -1, pending...) // whichever comes first
		if err != nil {
			return err
		}
		res, err := pending[next].Response()
		if err != nil {
			return err
		}
		if bodies[names[next]], err = res.Text(); err != nil {
			return err
		}
		pending, names = slices.Delete(pending, next, next+1), slices.Delete(names, next, next+1)
	}
	item.Result(bodies["/a"] + "\n" + bodies["/b"] + "\n" + bodies["/c"] + "\n")
	return nil
}

func call(item *guest.Item) error {
	seen := []string{}
	c := guest.Call{
		Capability: item.Text("Capability"), Action: "Do", Settings: map[string]any{"A": "1", "B": "é\""},
		Source: item.Text("Source"), Output: item.Text("Output"), Timeout: time.Hour, Forward: !item.Bool("Watch"),
	}
	if item.Bool("Watch") {
		c.OnProgress = func(p guest.Progress) { seen = append(seen, p.Message) }
	}
	result, err := item.Call(c)
	if errors.Is(err, guest.ErrDenied) {
		return guest.Exit(3, err.Error())
	}
	if err != nil {
		return err
	}
	item.Result(result.Text("Result"))
	item.Set("CalleeExitCode", result.ExitCode())
	item.Set("Seen", seen)
	return nil
}

func waitForCancel(item *guest.Item) error {
	item.Progress(0, "waiting")
	for !item.Cancelled() {
		time.Sleep(time.Millisecond)
	}
	return errors.New("gave up")
}
