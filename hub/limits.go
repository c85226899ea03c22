package hub

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limiters bound how often each of many callers may do something.
type limiters struct {
	mu    sync.Mutex
	known map[string]*limited
}

type limited struct {
	*rate.Limiter
	last time.Time
}

// mostLimited bounds the callers that are told apart; beyond, those who have
// been quiet longest are forgotten.
const mostLimited = 20_000

func newLimiters() *limiters { return &limiters{known: map[string]*limited{}} }

// allow reports whether a caller may do it once more.
func (l *limiters) allow(who string, perSecond float64, burst int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.known[who]
	if one == nil {
		if len(l.known) >= mostLimited {
			l.forget(time.Minute)
		}
		if len(l.known) >= mostLimited {
			clear(l.known)
		}
		one = &limited{Limiter: rate.NewLimiter(rate.Limit(perSecond), burst)}
		l.known[who] = one
	}
	one.last = time.Now()
	return one.Allow()
}

// forget drops those who have been quiet for a while; l.mu is held.
func (l *limiters) forget(quiet time.Duration) {
	for who, one := range l.known {
		if time.Since(one.last) > quiet {
			delete(l.known, who)
		}
	}
}

func (l *limiters) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(10 * time.Minute)
}
