package tasklog

import "time"

// What a tenant may have the host write of its output. The log keeps 80 MiB: at this
// rate that is over a minute's worth, and a hundred instances cannot fill a disk's
// queue. A tenant that writes more waits in its own write, as it would for a terminal.
const (
	rate  = 1 << 20  // bytes of records a second
	burst = 16 << 20 // after silence
)

// chunk is how much must be there again before a tenant that waits is read: ten
// reads a second cost nothing.
const chunk = rate / 10

// budget is what may still be written. Reading ends when it is used up; the last
// read may overdraw it, which the tenant waits for too.
type budget struct {
	left  int64
	until time.Time // left is of this moment
}

func newBudget(now time.Time) *budget { return &budget{left: burst, until: now} }

// spend takes n bytes.
func (b *budget) spend(n int) { b.left -= int64(n) }

// pause is how long nothing may be read; 0: go on.
func (b *budget) pause(now time.Time) time.Duration {
	if passed := now.Sub(b.until); passed > 0 {
		full := time.Duration(burst-b.left) * time.Second / rate
		b.left += int64(min(passed, full) * rate / time.Second)
		b.until = now
	}
	if b.left > 0 {
		return 0
	}
	return time.Duration(chunk-b.left) * time.Second / rate
}
