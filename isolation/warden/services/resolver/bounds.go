package resolver

import (
	"sync"
	"time"

	"github.com/miekg/dns"
)

// What one VPC may cost.
const (
	forwardsPerSecond = 500
	forwardBurst      = 1000
	connections       = 32
	cacheSize         = 1024
)

// bucket is a token bucket. The zero value is full.
type bucket struct {
	mu   sync.Mutex
	used float64
	last time.Time
}

// take takes one token if there is one.
func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if elapsed := now.Sub(b.last).Seconds(); elapsed > 0 {
		b.used = max(0, b.used-elapsed*forwardsPerSecond)
		b.last = now
	}
	if b.used+1 > forwardBurst {
		return false
	}
	b.used++
	return true
}

// forwardsInAll bounds the questions that are upstream at one time, of all VPCs.
const forwardsInAll = 1024

const slotShare = 8

// slots are the places of questions that are upstream. A VPC may have an eighth of
// what it leaves to others: one alone 114, and behind eight greedy ones there are 400
// places yet. It takes forty to fill them all.
type slots struct {
	mu   sync.Mutex
	free int
}

// take takes a place for a VPC, whose count it keeps, without waiting.
func (s *slots) take(have *int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *have*slotShare >= s.free {
		return false
	}
	*have++
	s.free--
	return true
}

// give gives one back.
func (s *slots) give(have *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*have--
	s.free++
}

// key is what makes two queries have the same answer.
type key struct {
	question dns.Question
	dnssec   bool
	unproved bool // checking disabled
}

func keyOf(asked *dns.Msg) key {
	return key{asked.Question[0], wantsDNSSEC(asked), asked.CheckingDisabled}
}

// cache keeps clean answers of upstreams for one VPC.
type cache struct {
	mu      sync.Mutex
	entries map[key]entry
}

type entry struct {
	answer      *dns.Msg
	stored, end time.Time
}

// get returns a stored answer and its age in seconds.
func (c *cache) get(k key, now time.Time) (answer *dns.Msg, age uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[k]
	if !ok {
		return nil, 0
	}
	if !now.Before(e.end) {
		delete(c.entries, k)
		return nil, 0
	}
	return e.answer, uint32(now.Sub(e.stored) / time.Second)
}

// put stores an answer for as long as it says. A full cache loses any other one.
func (c *cache) put(k key, answer *dns.Msg, now time.Time) {
	ttl := lifetime(answer)
	if ttl == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = map[key]entry{}
	}
	for other := range c.entries {
		if len(c.entries) < cacheSize {
			break
		}
		delete(c.entries, other)
	}
	c.entries[k] = entry{answer, now, now.Add(time.Duration(ttl) * time.Second)}
}
