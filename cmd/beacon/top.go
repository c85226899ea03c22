package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/submit"
)

type topOptions struct {
	streams
	server string
	once   bool
	asJSON bool
	tls    tlsFlags
	nats   natsFlags
	login  loginFlags
}

func newTopCommand(s streams) *cobra.Command {
	o := &topOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show what goes on at a hub",
		Long: `Show what goes on at a hub: its beacons, queue, tenants and what runs, as its
dashboard does in a browser. On a terminal the view is kept up to date: arrows and
page keys scroll, q ends it. Elsewhere, and with --once, it is printed once.

--json prints an object for each look, one a line; with --once just one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.tls.choose(cmd.Flags(), config{})
			return o.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.server, "server", "s", cmp.Or(os.Getenv("BEACON_SERVER"), "http://"+defaultListen), "the hub's URL, or those of a NATS cluster that hubs share (nats://a,nats://b), also BEACON_SERVER")
	f.BoolVar(&o.once, "once", false, "print the view once and end")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	o.tls.register(f)
	o.nats.register(f)
	o.login.register(f)
	return cmd
}

func (o *topOptions) run(ctx context.Context) (err error) {
	secure, err := o.tls.config()
	if err != nil {
		return err
	}
	options, err := o.login.config(o.server)
	if err != nil {
		return err
	}
	if standard, ok := http.DefaultTransport.(*http.Transport); ok && secure != nil {
		own := standard.Clone()
		own.TLSClientConfig = secure
		options.Transport = own
	}
	shown, closeHub, err := o.nats.reach(ctx, o.server, &options, o.err)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeHub()) }()
	o.server = shown
	client, err := submit.New(options)
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	now, err := look(ctx, client)
	if err != nil {
		return serverError(o.server, err)
	}
	switch {
	case o.asJSON:
		return o.print(ctx, client, now)
	case o.once || !isTerminal(o.out):
		_, err := fmt.Fprint(o.out, now.text())
		return err
	}
	return o.watch(ctx, client, now)
}

// print prints JSON, again and again unless once is enough.
func (o *topOptions) print(ctx context.Context, client *submit.Client, now topView) error {
	out := json.NewEncoder(o.out)
	for {
		if err := out.Encode(now); err != nil || o.once {
			return err
		}
		next, err := now.next(ctx, client)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // an interrupt is a way to end it
		}
		if err != nil {
			return serverError(o.server, err)
		}
		now = next
	}
}

// A topView is everything that beacon top shows.
type topView struct {
	At       protocol.Timestamp       `json:"At"`
	Beacons  []protocol.BeaconRecord  `json:"Beacons"`
	Backlog  []protocol.BacklogRecord `json:"Backlog"`
	Tenants  []protocol.TenantRecord  `json:"Tenants"`
	Running  protocol.ItemPage        `json:"Running"`
	Dead     int                      `json:"DeadLetters"`
	LastStep protocol.Step            `json:"Lately"` // the last step of the hub's series that is over
	StepMs   int64                    `json:"LatelyMs"`

	version uint64
}

// mostTop is how many of the items that run are shown.
const mostTop = 100

// look asks a hub for everything.
func look(ctx context.Context, client *submit.Client) (topView, error) {
	v := topView{At: protocol.Timestamp{Time: time.Now()}}
	var tenants struct{ Tenants []protocol.TenantRecord }
	var backlog struct{ Backlog []protocol.BacklogRecord }
	var dead protocol.ItemPage
	var series protocol.Series
	var changes protocol.Changes
	for _, read := range []struct {
		path  string
		query url.Values
		into  any
	}{
		{"/Beacon/Changes", nil, &changes},
		{"/Beacon", nil, &v.Beacons},
		{"/Beacon/Tenants", nil, &tenants},
		{"/Beacon/Backlog", nil, &backlog},
		{"/Beacon/Items", url.Values{"list": {protocol.ListRunning}, "limit": {strconv.Itoa(mostTop)}}, &v.Running},
		{"/Beacon/Items", url.Values{"list": {protocol.ListDead}, "limit": {"1"}}, &dead},
		{"/Beacon/Series", nil, &series},
	} {
		if err := client.Look(ctx, read.path, read.query, read.into); err != nil {
			return v, err
		}
	}
	v.Tenants, v.Backlog, v.Dead, v.version, v.StepMs = tenants.Tenants, backlog.Backlog, dead.Total, changes.Version, series.StepMs
	if n := len(series.Steps); n > 1 {
		v.LastStep = series.Steps[n-2]
	}
	slices.SortFunc(v.Beacons, func(a, b protocol.BeaconRecord) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.BeaconID, b.BeaconID))
	})
	return v, nil
}

// topPause is the least time between two looks.
const topPause = 500 * time.Millisecond

// next waits for news and looks again.
func (v topView) next(ctx context.Context, client *submit.Client) (topView, error) {
	timer := time.NewTimer(topPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return v, context.Cause(ctx)
	}
	var changes protocol.Changes
	query := url.Values{"after": {strconv.FormatUint(v.version, 10)}}
	if err := client.Look(ctx, "/Beacon/Changes", query, &changes); err != nil {
		return v, err
	}
	return look(ctx, client)
}

// text is the view in lines. What strangers wrote is made printable.
func (v topView) text() string {
	var b strings.Builder
	var waiting, running, later, free, slots, away int
	var completed, failed, canceled uint64
	for _, t := range v.Tenants {
		waiting, running, later = waiting+t.Queued, running+t.Running, later+max(0, t.Live-t.Queued-t.Running)
		completed, failed, canceled = completed+t.Completed, failed+t.Failed, canceled+t.Canceled
	}
	for _, beacon := range v.Beacons {
		if beacon.Status == protocol.BeaconOffline {
			away++
			continue
		}
		slots += beacon.MaxConcurrent
		free += max(0, beacon.MaxConcurrent-len(beacon.CurrentWorkItems))
	}
	fmt.Fprintf(&b, "Items    %s waiting, %s running, %s later; %s completed, %s failed, %s canceled, %s dead letters\n",
		commas(waiting), commas(running), commas(later), commas(completed), commas(failed), commas(canceled), commas(v.Dead))
	fmt.Fprintf(&b, "Beacons  %d here, %d away; %d of %d slots free\n", len(v.Beacons)-away, away, free, slots)
	s := v.LastStep
	if v.StepMs > 0 {
		fmt.Fprintf(&b, "Lately   %s items a minute; wait %s, 95 %% %s; run %s, 95 %% %s\n",
			humanize.CommafWithDigits(float64(s.Completed+s.Failed)*60_000/float64(v.StepMs), 1), ms(s.WaitMs50), ms(s.WaitMs95), ms(s.RunMs50), ms(s.RunMs95))
	}
	section := func(title string, n int, rows func(row func(cells ...any))) {
		if n == 0 {
			return
		}
		b.WriteString("\n" + title + "\n")
		w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
		rows(func(cells ...any) {
			for i, cell := range cells {
				if i > 0 {
					fmt.Fprint(w, "\t")
				}
				fmt.Fprint(w, beacon.Excerpt(fmt.Sprint(cell), 60))
			}
			fmt.Fprintln(w)
		})
		_ = w.Flush() // to memory
	}
	section("RUNNING", len(v.Running.Items), func(row func(...any)) {
		row("Item", "What", "Tenant", "Progress", "")
		for _, it := range v.Running.Items {
			p := protocol.ProgressOf(it.Progress)
			bar := ""
			if p.Percent != nil {
				full := int(min(100, max(0, *p.Percent)) / 5)
				bar = strings.Repeat("#", full) + strings.Repeat("-", 20-full) + fmt.Sprintf(" %.0f %%", min(100, max(0, *p.Percent)))
			}
			row(strings.TrimPrefix(it.WorkItemHash, "wi-unknown-unknown-"), it.Capability+" "+it.Action, it.Tenant, bar, p.Message)
		}
	})
	if more := v.Running.Total - len(v.Running.Items); more > 0 {
		fmt.Fprintf(&b, "and %s more\n", commas(more))
	}
	section("CAPABILITIES", len(v.Backlog), func(row func(...any)) {
		row("Name", "Waiting", "Running", "Free slots", "Beacons", "Longest wait")
		for _, c := range v.Backlog {
			row(c.Capability, commas(c.Waiting), commas(c.Running), commas(c.FreeSlots), commas(c.Beacons), ms(c.OldestMs))
		}
	})
	section("TENANTS", len(v.Tenants), func(row func(...any)) {
		row("Name", "Waiting", "Running", "Completed", "Failed", "Canceled", "Time in slots", "Fuel", "Files", "Network", "Tokens", "Weight")
		for _, t := range v.Tenants {
			row(t.Tenant, commas(t.Queued), commas(t.Running), commas(t.Completed), commas(t.Failed), commas(t.Canceled), ms(t.SlotMs),
				quantity(t.Usage.Fuel), humanize.IBytes(uint64(t.Usage.Staged)), humanize.IBytes(uint64(t.Usage.Sent+t.Usage.Received)), quantity(t.Usage.Tokens), t.Weight)
		}
	})
	section("BEACONS", len(v.Beacons), func(row func(...any)) {
		row("Name", "State", "Slots", "Capabilities", "Last seen")
		for _, r := range v.Beacons {
			state := strings.ToLower(r.Status)
			if r.Draining {
				state += ", draining"
			}
			seen := "now"
			if since := v.At.Sub(r.LastHeartbeat.Time); since >= 30*time.Second {
				seen = since.Round(time.Second).String() + " ago"
			}
			row(r.Name, state, fmt.Sprintf("%d of %d", len(r.CurrentWorkItems), r.MaxConcurrent), strings.Join(r.Capabilities, ", "), seen)
		}
	})
	return b.String()
}

func commas[N int | uint64](n N) string { return humanize.Comma(int64(n)) } //nolint:gosec // counts

// quantity is a large number, in short.
func quantity(n int64) string {
	if n < 1000 {
		return commas(int(n))
	}
	return strings.TrimSpace(humanize.SIWithDigits(float64(n), 1, ""))
}

func ms(n int64) string {
	d := time.Duration(n) * time.Millisecond
	if d >= time.Minute {
		d = d.Round(time.Second)
	}
	return d.String()
}

// A screen is a terminal in which a view is kept up to date.
type screen struct {
	out           io.Writer
	width, height int
	from          int // the first line that is shown
}

// Control sequences of terminals: the other screen without a cursor, and back.
const (
	screenOpen  = "\x1b[?1049h\x1b[?25l"
	screenClose = "\x1b[?25h\x1b[?1049l"
)

// watch shows a hub on a terminal until somebody ends it.
func (o *topOptions) watch(ctx context.Context, client *submit.Client, now topView) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys := make(chan string)
	if f, ok := o.in.(*os.File); ok && isTerminal(f) {
		state, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return fmt.Errorf("use the terminal: %w", err)
		}
		defer func() { _ = term.Restore(int(f.Fd()), state) }()
		// It waits for a key that may never come, and ends with the process.
		go readKeys(ctx, f, keys)
	}
	s := &screen{out: o.out}
	if _, err := io.WriteString(o.out, screenOpen); err != nil {
		return err
	}
	defer func() { _, _ = io.WriteString(o.out, screenClose) }()
	news := make(chan topNews)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel()
	looking.Go(func() { follow(ctx, client, now, news) })
	var trouble error
	for {
		if err := s.show(o.server, now, trouble); err != nil {
			return err
		}
		select {
		case n := <-news:
			if trouble = n.err; trouble == nil {
				now = n.view
			}
		case key := <-keys:
			if !s.scroll(key) {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

type topNews struct {
	view topView
	err  error
}

// follow sends each new view. After an error it tries again.
func follow(ctx context.Context, client *submit.Client, now topView, news chan<- topNews) {
	for {
		next, err := now.next(ctx, client)
		if err != nil {
			next, now.version = now, 0 // the hub may be another one
		}
		select {
		case news <- topNews{next, err}:
		case <-ctx.Done():
			return
		}
		if err == nil {
			now = next
		}
	}
}

// readKeys sends what is pressed.
func readKeys(ctx context.Context, in io.Reader, keys chan<- string) {
	buffer := make([]byte, 32)
	for {
		n, err := in.Read(buffer)
		if err != nil {
			return
		}
		select {
		case keys <- string(buffer[:n]):
		case <-ctx.Done():
			return
		}
	}
}

// scroll does what a key says; it is false for one that ends it all.
func (s *screen) scroll(key string) bool {
	switch page := max(1, s.height-3); key {
	case "q", "\x1b", "\x03":
		return false
	case "j", "\x1b[B", "\x1bOB":
		s.from++
	case "k", "\x1b[A", "\x1bOA":
		s.from--
	case " ", "\x1b[6~":
		s.from += page
	case "b", "\x1b[5~":
		s.from -= page
	case "g", "\x1b[H", "\x1b[1~":
		s.from = 0
	}
	return true
}

// show draws the view over the one before.
func (s *screen) show(server string, now topView, trouble error) error {
	s.width, s.height = 80, 24
	if f, ok := s.out.(*os.File); ok {
		if width, height, err := term.GetSize(int(f.Fd())); err == nil && width > 0 && height > 0 {
			s.width, s.height = width, height
		}
	}
	head := "beacon top  " + beacon.Excerpt(server, 100) + "  " + now.At.Format(time.TimeOnly) + "  q ends, arrows scroll"
	if trouble != nil {
		head = "beacon top  " + beacon.Excerpt(trouble.Error(), 200)
	}
	lines := strings.Split(strings.TrimSuffix(now.text(), "\n"), "\n")
	s.from = max(0, min(s.from, len(lines)-max(1, s.height-2)))
	lines = append([]string{head, ""}, lines[s.from:]...)
	bold := func(line string) string {
		if os.Getenv("NO_COLOR") != "" {
			return line
		}
		return "\x1b[1m" + line + "\x1b[0m"
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, line := range lines[:min(len(lines), s.height)] {
		if runes := []rune(line); len(runes) > s.width {
			line = string(runes[:s.width])
		}
		if i == 0 || line != "" && strings.Trim(line, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
			line = bold(line)
		}
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	_, err := io.WriteString(s.out, b.String())
	return err
}
