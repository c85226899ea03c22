package dashboard_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/service"
)

// A tab is a page in a real browser. Every action waits for what it needs.
type tab struct {
	*site
	ctx context.Context
}

// browse opens a tab in a browser of its own, or skips the test.
func (s *site) browse() *tab {
	s.t.Helper()
	if raced {
		s.t.Skip("the race detector sees the same in tests without a browser")
	}
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		const missing = "no chromium in the PATH: install Debian's package chromium to have the pages tested in a browser"
		if os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
			s.t.Fatal(missing)
		}
		s.t.Skip(missing)
	}
	dir := s.t.TempDir()
	ctx, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WSURLReadTimeout(patience),
		chromedp.UserDataDir(dir), chromedp.WindowSize(1280, 900),
	)...)
	ctx, closeTab := chromedp.NewContext(ctx)
	s.t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits for the browser
		closeTab()
		stop()
		// Its children may still write there for a moment.
		require.Eventually(s.t, func() bool { return os.RemoveAll(dir) == nil }, patience, 10*time.Millisecond)
	})
	b := &tab{s, ctx}
	require.NoError(s.t, chromedp.Do(ctx)) // starts it, to live as long as ctx
	return b
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	require.NoError(b.t, chromedp.Do(ctx, actions...))
}

func (b *tab) visit(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.url + path))
}

// sees waits until the text is in an element.
func (b *tab) sees(selector, text string) {
	b.t.Helper()
	b.holds(fmt.Sprintf("(document.querySelector(%q)?.textContent ?? '').includes(%q)", selector, text))
}

// holds waits until an expression is true in the page, or in the one that comes
// after it.
func (b *tab) holds(expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for {
		true, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if err == nil && true {
			return
		}
		if ctx.Err() != nil {
			body, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText"))
			b.t.Fatalf("%s is not true of:\n%s", expression, body)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(b.t, err)
	return out
}

func (b *tab) eval(expression string) { eval[chromedp.Void](b, expression) }

// shoot takes a picture of the whole page, for people, if they want some.
func (b *tab) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("BEACON_SCREENSHOTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	require.NoError(b.t, err)
	require.NoError(b.t, os.MkdirAll(dir, 0o755))
	require.NoError(b.t, os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600))
}

func (b *tab) dark(on bool) {
	b.t.Helper()
	scheme := "light"
	if on {
		scheme = "dark"
	}
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	require.NoError(b.t, err)
}

func (b *tab) phone() {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(360, 740, chromedp.EmulateScale(2), chromedp.EmulateMobile))
}

// steps is a handler that a test leads through its work.
type steps struct {
	progress chan beacon.Progress
	finish   chan beacon.Result
}

func newSteps() *steps { return &steps{make(chan beacon.Progress), make(chan beacon.Result)} }

func (s *steps) run(ctx context.Context, j *beacon.Job) (beacon.Result, error) {
	for {
		select {
		case p := <-s.progress:
			j.Progress(p)
		case r := <-s.finish:
			return r, nil
		case <-ctx.Done():
			return beacon.Result{}, context.Cause(ctx)
		}
	}
}

func TestBrowserIsKeptUpToDate(t *testing.T) {
	s := open(t, hub.Config{})
	b := s.browse()
	b.visit("/")
	b.sees("#tile-beacons", "0")
	b.eval("window.loaded = 'once'")
	lead := newSteps()
	s.work("press-1", 4, service.Capability{Name: "Press", Actions: []service.Action{{Name: "Print", Handler: lead.run}}})
	b.sees("#tile-beacons", "1")
	b.sees("#backlog", "Press")
	hash := s.enqueue(protocol.Submission{Capability: "Press", Action: "Print"})
	b.sees("#tile-running", "1")
	b.sees("#running", "press-1")

	// Whoever is at a link by keyboard stays there while its row moves on.
	b.do(chromedp.Focus("#running td a"))
	lead.progress <- beacon.Progress{Percent: 42, HasPercent: true, Message: "page 42"}
	b.holds("document.querySelector('#running progress')?.value === 42")
	b.sees("#running", "page 42")
	b.holds("document.activeElement.matches('#running td a')")
	b.shoot("overview")
	b.do(chromedp.KeyEvent(kb.Enter))
	b.sees("#hash", hash)
	lead.progress <- beacon.Progress{Percent: 90, HasPercent: true, Message: "page 90", Log: []string{"ink is low"}}
	b.holds("document.querySelector('#heading progress')?.value === 90")
	b.sees("#log", "ink is low")
	b.eval("window.loaded = 'once'")
	b.shoot("item-running")
	lead.finish <- beacon.Result{Outputs: beacon.Outputs{"Result": "100 pages"}}
	b.sees("#heading", "complete")
	b.sees("#outputs", "100 pages")
	require.Equal(t, "once", eval[string](b, "window.loaded"), "the page was not loaded again")
	b.visit("/")
	b.holds("document.querySelectorAll('.chart img').length >= 3 && [...document.querySelectorAll('.chart img')].every(i => i.complete && i.naturalWidth > 0)")
	b.shoot("overview-charts")
	b.dark(true)
	b.holds("[...document.querySelectorAll('.chart img')].every(i => i.currentSrc.includes('dark=1') && i.complete && i.naturalWidth > 0)")
	b.shoot("overview-charts-dark")
	b.visit("/beacons")
	b.sees("#beacons", "press-1")
	b.sees("#beacons", "1.2.3")
	b.shoot("beacons")
}

// A stranger's names and outputs run nothing, in a real browser either.
func TestBrowserRunsNothingOfStrangers(t *testing.T) {
	s := open(t, hub.Config{})
	s.work(hostile, 1, service.Capability{Name: "A" + hostile, Actions: []service.Action{{
		Name: "B", Handler: answers(beacon.Outputs{"Result": hostile, hostile: hostile, "Rows": []map[string]string{{hostile: hostile}}}, hostile),
	}}})
	hash := s.enqueue(protocol.Submission{Capability: "A" + hostile, Action: "B", SubmitterTag: hostile, RunHash: hostile})
	s.until(hash, protocol.StatusComplete)
	b := s.browse()
	for _, path := range []string{"/", "/beacons", "/items?list=finished", "/item?hash=" + url.QueryEscape(hash)} {
		b.visit(path)
		b.holds("document.querySelector('#live:not([data-lost])') !== null")
		b.sees("#main", "<script>document.title")
		require.NotEqual(t, "pwned", eval[string](b, "document.title"), path)
		require.Equal(t, 0, eval[int](b, "document.querySelectorAll('main script, main [onerror], main [onfocus]').length"), path)
	}
	// Nor would it, had it got in.
	b.eval("document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
	b.eval("new Promise(done => { const s = document.createElement('script'); s.text = 'document.title=\"pwned\"'; document.body.append(s); setTimeout(done, 0) })")
	require.NotContains(t, eval[string](b, "document.title"), "pwned")
}

func TestBrowserDarkAndSmall(t *testing.T) {
	s := open(t, hub.Config{})
	lead := newSteps()
	s.work("press-with-a-rather-long-name-"+strings.Repeat("x", 60), 2, service.Capability{Name: "Press", Actions: []service.Action{{Name: "Print", Handler: lead.run}}})
	hash := s.enqueue(protocol.Submission{Capability: "Press", Action: "Print"})
	lead.progress <- beacon.Progress{Percent: 30, HasPercent: true, Message: strings.Repeat("long ", 30), Log: []string{strings.Repeat("y", 500)}}
	s.enqueue(protocol.Submission{Capability: "Nobody", RunHash: strings.Repeat("z", 200)})
	b := s.browse()
	b.visit("/")
	luminance := "(() => { const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number); return r + g + b })()"
	require.Greater(t, eval[float64](b, luminance), 700.0, "light unless dark is wanted")
	b.dark(true)
	require.Less(t, eval[float64](b, luminance), 100.0)
	b.shoot("overview-dark")
	b.visit("/item?hash=" + url.QueryEscape(hash))
	b.sees("#log", "yyyy")
	b.shoot("item-dark")
	b.dark(false)
	b.phone()
	for name, path := range map[string]string{
		"overview": "/", "items": "/items", "item": "/item?hash=" + url.QueryEscape(hash), "beacons": "/beacons", "login": "/login",
	} {
		b.visit(path)
		require.LessOrEqual(t, eval[int](b, "document.documentElement.scrollWidth"), 360, "%s does not scroll sideways", path)
		b.shoot("phone-" + name)
	}
	lead.finish <- beacon.Result{}
	s.until(hash, protocol.StatusComplete)
}

func TestBrowserTenThousandItems(t *testing.T) {
	s := open(t, hub.Config{})
	b := s.browse()
	const many = 10_000
	var all sync.WaitGroup
	next := make(chan int)
	for range 16 {
		all.Go(func() {
			for n := range next {
				body := fmt.Sprintf(`{"Capability":"Cap-%d","Action":"Count","Tenant":"tenant-%d","SubmitterTag":"n-%05d"}`, n%3, n%7, n)
				r := httptest.NewRequest(http.MethodPost, "/Beacon/Work/Enqueue", strings.NewReader(body))
				r.RemoteAddr, r.Host = "127.0.0.1:1", "127.0.0.1"
				w := httptest.NewRecorder()
				s.hub.ServeHTTP(w, r)
				assert.Equal(t, http.StatusOK, w.Code, w.Body)
			}
		})
	}
	for n := range many {
		next <- n
	}
	close(next)
	all.Wait()
	require.False(t, t.Failed())

	b.visit("/")
	b.sees("#tile-waiting", "10,000")
	b.visit("/items")
	b.sees("#total", "10,000")
	require.Equal(t, 50, eval[int](b, "document.querySelectorAll('#items tbody tr').length"), "a page has its bound")
	b.shoot("items-10000")
	first := eval[string](b, "document.querySelector('#items tbody td').textContent")
	b.do(chromedp.Click("#next"))
	b.holds(fmt.Sprintf("location.search.includes('after=') && document.querySelector('#items tbody td').textContent !== %q", first))
	b.sees("#total", "10,000")
	// What is looked for is found, by keyboard alone.
	b.do(
		chromedp.Focus("input[name=search]"), chromedp.KeyEvent("n-09999"), chromedp.KeyEvent(kb.Enter),
		chromedp.WaitVisible("#total"),
	)
	b.holds("document.querySelector('#total')?.textContent === '1'")
	b.do(chromedp.Focus("#items td a"), chromedp.KeyEvent(kb.Enter))
	b.sees("#facts", "n-09999")
	// The page goes on being kept up to date.
	b.visit("/items?tenant=tenant-1")
	b.sees("#total", "1,429")
	s.enqueue(protocol.Submission{Capability: "Cap-1", Tenant: "tenant-1"})
	b.sees("#total", "1,430")
}
