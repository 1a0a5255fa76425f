package api

import (
	"sync"
	"time"
)

// Limits of one caller. Root is as good as unlimited: whoever has root has
// shorter ways to busy the host.
const (
	rateOthers     = 50 // requests a second, with a burst of twice that
	rateRoot       = 5000
	maxInFlight    = 64 // requests of one uid at a time, streams included
	maxRootCalls   = 4096
	maxConnections = 128 // of one uid at a time
	largeBody      = 256 << 10
	maxBodies      = 4 * maxFolderBody // bytes of all large bodies at a time
)

// limiter bounds what each uid takes of the agent: connections, rate and number
// of requests, and the memory of their bodies. One tenant's loop cannot starve the
// operator.
type limiter struct {
	now func() time.Time
	// decoding is a token: of large bodies, one at a time becomes objects, which
	// for that moment take many times its bytes.
	decoding chan struct{}

	mu     sync.Mutex
	bucket map[uint32]*bucket
	bodies int64 // bytes of the large bodies under way
}

type bucket struct {
	tokens      float64
	at          time.Time
	inFlight    int
	connections int
	large       bool // a large body is under way
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, decoding: make(chan struct{}, 1), bucket: make(map[uint32]*bucket)}
}

func limitsOf(uid uint32) (rate float64, calls int) {
	if uid == 0 {
		return rateRoot, maxRootCalls
	}
	return rateOthers, maxInFlight
}

func (l *limiter) bucketLocked(uid uint32) *bucket {
	b := l.bucket[uid]
	if b == nil {
		rate, _ := limitsOf(uid)
		b = &bucket{tokens: 2 * rate, at: l.now()}
		l.bucket[uid] = b
	}
	return b
}

// connect takes one connection in and says whether it may stay; if so,
// disconnect must follow.
func (l *limiter) connect(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucketLocked(uid)
	if uid != 0 && b.connections >= maxConnections {
		return false
	}
	b.connections++
	return true
}

func (l *limiter) disconnect(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucket[uid].connections--
}

// enter takes one request in and says whether it may go on; if so, leave must
// follow.
func (l *limiter) enter(uid uint32) bool {
	rate, calls := limitsOf(uid)
	l.mu.Lock()
	defer l.mu.Unlock()
	b, now := l.bucketLocked(uid), l.now()
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

// counts says whether a body is one that take has to let in.
func counts(uid uint32, size int64) bool { return uid != 0 && size > largeBody }

// take lets a request's body of at most so many bytes in: of one uid one large
// one at a time. If it does, give must follow.
func (l *limiter) take(uid uint32, size int64) bool {
	if !counts(uid, size) {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucketLocked(uid)
	if b.large || l.bodies+size > maxBodies {
		return false
	}
	b.large = true
	l.bodies += size
	return true
}

func (l *limiter) give(uid uint32, size int64) {
	if !counts(uid, size) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucket[uid].large = false
	l.bodies -= size
}
