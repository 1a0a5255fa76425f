package api

import (
	"sync"
	"time"
)

// Limits of one caller. Root is as good as unlimited: whoever has root has
// shorter ways to busy the host.
const (
	rateOthers   = 50 // requests a second, with a burst of twice that
	rateRoot     = 5000
	maxInFlight  = 64 // requests of one uid at a time, streams included
	maxRootCalls = 4096
)

// limiter bounds rate and number of requests of each uid, so that one tenant's
// loop cannot starve the operator.
type limiter struct {
	now func() time.Time

	mu     sync.Mutex
	bucket map[uint32]*bucket
}

type bucket struct {
	tokens   float64
	at       time.Time
	inFlight int
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, bucket: make(map[uint32]*bucket)}
}

// enter takes one request in and says whether it may go on; if so, leave must
// follow.
func (l *limiter) enter(uid uint32) bool {
	rate, calls := float64(rateOthers), maxInFlight
	if uid == 0 {
		rate, calls = rateRoot, maxRootCalls
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b := l.bucket[uid]
	if b == nil {
		b = &bucket{tokens: 2 * rate, at: now}
		l.bucket[uid] = b
	}
	b.tokens = min(2*rate, b.tokens+rate*now.Sub(b.at).Seconds())
	b.at = now
	if b.tokens < 1 || b.inFlight >= calls {
		return false
	}
	b.tokens--
	b.inFlight++
	return true
}

func (l *limiter) leave(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucket[uid].inFlight--
}
