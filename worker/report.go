package worker

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/transport"
)

// A report is kept first and sent then, by one goroutine each: what ends while
// one is at it goes together the next time. So the more there is to do, the less
// each report costs.

// Bounds on what is kept or sent together.
const (
	maxTogether      = 1024
	maxTogetherBytes = 4 << 20
)

// deliveries is how many of them are being sent at once. Those that wait for the
// server's word do not count.
const deliveries = 16

// retryBase and retryLimit bound the waits between deliveries of one report.
const (
	retryBase  = time.Second
	retryLimit = time.Minute
)

// ended notes the report of an item that runs no longer, and has it kept. It is
// false for an item that was left behind.
func (w *worker) ended(j *job, report Report) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.known[j.hash] != j || !j.running {
		if j.superseded {
			w.abandoned--
			w.log.Info("the item that was given up has ended", "item", tag(j.hash))
		} else {
			w.log.Error("the item ended after it was left behind", "item", tag(j.hash))
		}
		return false
	}
	report.Attempt = j.attempt
	j.running, j.first, j.report, j.size = false, true, report, size(report)
	w.running--
	w.backlog++
	w.reporting++
	w.reportingBytes += j.size
	if by := time.Now().Add(patience(time.Since(j.began), w.running)); len(w.unkept) == 0 || by.Before(w.keepBy) {
		w.keepBy = by
	}
	w.unkept = append(w.unkept, j)
	w.announce()
	signal(w.keep)
	return true
}

// size is roughly what a report takes in memory.
func size(r Report) int64 {
	n := int64(200 + len(r.Hash) + len(r.Message))
	for _, line := range r.Result.Log {
		n += int64(len(line)) + 16
	}
	for name, value := range r.Result.Outputs {
		n += int64(len(name)) + 64
		if raw, ok := value.(json.RawMessage); ok {
			n += int64(len(raw))
		}
	}
	return n
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take moves as many jobs as may go together out of a queue; mu is held.
func take(queue *[]*job) []*job {
	n, bytes := 0, int64(0)
	for n < len(*queue) && n < maxTogether && (n == 0 || bytes+(*queue)[n].size <= maxTogetherBytes) {
		bytes += (*queue)[n].size
		n++
	}
	taken := (*queue)[:n:n]
	if *queue = (*queue)[n:]; len(*queue) == 0 {
		*queue = nil
	}
	return taken
}

// Bounds on the patience of a report. For less than the least a timer is no good,
// and items that are that short come in such numbers that they go together anyway.
const (
	leastPatience = 300 * time.Microsecond
	mostPatience  = 5 * time.Millisecond
)

// patience is how long the report of an item may wait to be kept with those of
// the others that run: no longer than half of what the item itself took, and not
// at all where, if they take as long, probably none will end meanwhile.
func patience(took time.Duration, running int) time.Duration {
	wait := min(took/2, mostPatience)
	if wait < leastPatience || took/2 > wait*time.Duration(running) {
		return 0
	}
	return wait
}

// keeper puts reports into the outbox until ctx is done and none is left.
func (w *worker) keeper(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var jobs []*job
		var due <-chan time.Time
		w.mu.Lock()
		if n := len(w.unkept); n > 0 {
			wait := time.Duration(0)
			if w.running > 0 && n < maxTogether && ctx.Err() == nil {
				wait = time.Until(w.keepBy)
			}
			if wait > 0 {
				timer.Reset(wait)
				due = timer.C
			} else {
				jobs = take(&w.unkept)
			}
		}
		w.mu.Unlock()
		if len(jobs) > 0 {
			w.store(jobs)
			w.kept(jobs)
			continue
		}
		select {
		case <-due:
		case <-w.keep:
		case <-ctx.Done():
			w.mu.Lock()
			over := len(w.unkept) == 0
			w.mu.Unlock()
			if over {
				return
			}
		}
	}
}

// kept has reports sent, unless they are not wanted any more.
func (w *worker) kept(jobs []*job) {
	var unwanted []string
	w.mu.Lock()
	for _, j := range jobs {
		if w.known[j.hash] == j {
			w.unsent = append(w.unsent, j)
		} else {
			unwanted = append(unwanted, j.hash)
		}
	}
	w.mu.Unlock()
	signal(w.send)
	if len(unwanted) == 0 {
		return
	}
	if err := w.cfg.Outbox.Delivered(unwanted...); err != nil {
		w.log.Error("cannot remove results that are not wanted any more", "results", len(unwanted), "err", err)
	}
}

// store puts reports into the outbox together or, if that fails, each on its
// own, so that one that cannot be kept harms no other. An item whose result
// cannot be kept has failed, for that reason; the failure is delivered even if it
// cannot be kept.
func (w *worker) store(jobs []*job) {
	reports := w.reportsOf(jobs)
	if len(jobs) > 1 && w.cfg.Outbox.Put(reports...) == nil {
		return
	}
	for i, j := range jobs {
		err := w.cfg.Outbox.Put(reports[i])
		if err == nil {
			continue
		}
		w.log.Error("cannot keep the result", "item", tag(j.hash), "err", err)
		w.discard(reports[i].Result)
		failure := Report{Hash: j.hash, Attempt: reports[i].Attempt, Failed: true, Message: "the beacon could not store the result (the reason is in its log)"}
		if err := w.cfg.Outbox.Put(failure); err != nil {
			w.log.Error("cannot keep the failure either; it will be delivered from memory", "item", tag(j.hash), "err", err)
		}
		w.mu.Lock()
		j.report = failure
		w.mu.Unlock()
	}
}

// reportsOf are the reports of jobs as they are now: a later delivery of an item
// counts its attempts on.
func (w *worker) reportsOf(jobs []*job) []Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	reports := make([]Report, len(jobs))
	for i, j := range jobs {
		reports[i] = j.report
	}
	return reports
}

// sender delivers reports: first those that are new, then those whose time has
// come again.
func (w *worker) sender(ctx context.Context) {
	slots := make(chan struct{}, deliveries)
	timer := time.NewTimer(retryLimit)
	defer timer.Stop()
	for {
		select {
		case slots <- struct{}{}: // before a look, so that what comes meanwhile is seen
		case <-ctx.Done():
			return
		}
		s, jobs, wait := w.due()
		if len(jobs) > 0 {
			w.sending.Go(func() { w.deliver(ctx, s, jobs, func() { <-slots }) })
			continue
		}
		<-slots
		timer.Reset(wait)
		select {
		case <-w.send:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// due picks reports to deliver, and the link for them, or says how long to wait
// until there is one.
func (w *worker) due() (transport.Session, []*job, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wait := retryLimit
	if w.link == nil || lost(w.link) {
		for _, j := range w.unsent { // no longer new, but not tried either
			w.old(j)
		}
		w.unsent = nil
		return nil, nil, wait
	}
	jobs := take(&w.unsent)
	if len(jobs) == 0 && w.stuck > 0 {
		for _, j := range w.known {
			if j.running || j.first || j.sending {
				continue
			}
			if until := time.Until(j.due); until > 0 {
				wait = min(wait, until)
			} else if jobs = append(jobs, j); len(jobs) == maxTogether {
				break
			}
		}
	}
	for _, j := range jobs {
		j.sending, j.sent = true, w.link
	}
	return w.link, jobs, wait
}

// old notes that the first delivery of a report is over; mu is held.
func (w *worker) old(j *job) {
	if j.first {
		j.first = false
		w.reporting--
		w.reportingBytes -= j.size
		w.stuck++
	}
}

// deliver sends reports and forgets those that the server has. One that the
// server refuses for good is replaced by a failure that says so.
func (w *worker) deliver(ctx context.Context, s transport.Session, jobs []*job, sent func()) {
	reports := w.reportsOf(jobs)
	errs := transport.Deliver(ctx, s, reports, sent)
	delivered := make([]string, 0, len(jobs))
	for i, err := range errs {
		if errors.Is(err, transport.ErrRefused) {
			errs[i] = w.refused(ctx, s, reports[i], err)
		}
		if errs[i] == nil && w.current(jobs[i]) {
			delivered = append(delivered, jobs[i].hash)
		}
	}
	if len(delivered) > 0 {
		if err := w.cfg.Outbox.Delivered(delivered...); err != nil {
			w.log.Error("cannot remove delivered results; they will be sent again after a restart", "results", len(delivered), "err", err)
		}
	}
	for i, j := range jobs {
		if errs[i] == nil || !w.current(j) {
			w.discard(reports[i].Result)
		}
	}
	w.tried(s, jobs, errs)
}

// refused reports that a result was refused.
func (w *worker) refused(ctx context.Context, s transport.Session, report Report, reason error) error {
	w.log.Error("the server refused the result", "item", tag(report.Hash), "err", reason)
	err := s.Fail(ctx, report.Hash, "the server refused the result: "+beacon.Excerpt(reason.Error(), 300), nil)
	if errors.Is(err, transport.ErrRefused) {
		w.log.Error("the server refused the failure, too; giving up on the item", "item", tag(report.Hash), "err", err)
		return nil
	}
	return err
}

// current reports whether a job is still the one that its hash means.
func (w *worker) current(j *job) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[j.hash] == j
}

// tried notes what became of deliveries.
func (w *worker) tried(s transport.Session, jobs []*job, errs []error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.announce()
	defer signal(w.send)
	for i, j := range jobs {
		j.sending = false
		w.old(j)
		if w.known[j.hash] != j {
			continue
		}
		if errs[i] == nil {
			w.forget(j)
			w.active = time.Now()
			continue
		}
		if lost(s) {
			j.due = time.Time{} // as soon as there is a link
			continue
		}
		if j.retry.base == 0 {
			j.retry = backoff{next: retryBase, base: retryBase, limit: retryLimit}
		}
		wait := j.retry.delay()
		j.due = time.Now().Add(wait)
		w.log.Warn("the result could not be delivered; trying again", "item", tag(j.hash), "err", errs[i], "in", wait.Round(time.Millisecond))
	}
}

// forget drops a job whose report is delivered or no longer wanted; mu is held.
func (w *worker) forget(j *job) {
	delete(w.known, j.hash)
	w.backlog--
	if j.first {
		w.old(j)
	}
	w.stuck--
}

func lost(s transport.Session) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

// discard removes the files of a result that nobody needs any more.
func (w *worker) discard(result beacon.Result) {
	for _, f := range result.Outputs.Files() {
		if err := f.Remove(); err != nil {
			w.log.Error("the file of a result stays behind", "err", err)
		}
	}
}
