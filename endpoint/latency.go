package endpoint

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// latencyWindow is how many calls the percentile is taken of: when so many
	// have been counted, all counts are halved.
	latencyWindow = 1024

	// latencyLeast is how many calls must have been counted for a percentile.
	latencyLeast = 20

	// latencyEvery is after how many calls it is computed anew.
	latencyEvery = 16

	// Of each power of two of a latency in µs there are so many buckets, so that a
	// percentile is at most an eighth too large.
	latencyParts   = 8
	latencyBuckets = 40 * latencyParts

	// maxLatencies bounds the commands that are counted, 0.7 KB each: a program may
	// call whatever names it is told.
	maxLatencies = 256
)

// latencies counts how long the calls of one command take.
type latencies struct {
	p95 atomic.Int64 // ns; 0: too few calls

	mu      sync.Mutex // guards following
	counts  [latencyBuckets]uint16
	total   int
	counted int
}

// bucket returns the bucket of a latency, and limit what is above all of it.
func bucket(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	if us < latencyParts {
		return int(us)
	}
	shift := bits.Len64(us) - 4 // latencyParts is 8: 3 bits below the highest
	return min((shift+1)*latencyParts+int(us>>shift)-latencyParts, latencyBuckets-1)
}

func limitOf(bucket int) time.Duration {
	if bucket < latencyParts {
		return time.Duration(bucket+1) * time.Microsecond
	}
	shift := bucket/latencyParts - 1
	return time.Duration((uint64(bucket%latencyParts)+latencyParts+1)<<shift) * time.Microsecond
}

// add counts a latency.
func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[bucket(d)]++
	l.total++
	l.counted++
	if l.total >= latencyWindow {
		l.total = 0
		for i, n := range l.counts {
			l.counts[i] = n / 2
			l.total += int(n / 2)
		}
	}
	if l.total < latencyLeast || l.counted%latencyEvery != 0 && l.p95.Load() != 0 {
		return
	}
	above := l.total / 20
	for i := latencyBuckets - 1; i >= 0; i-- {
		if above -= int(l.counts[i]); above < 0 {
			l.p95.Store(int64(limitOf(i)))
			return
		}
	}
}

// latencyTable is the latencies of a Client's commands.
type latencyTable struct {
	mu sync.RWMutex // guards following
	of map[string]*latencies
}

// get returns the latencies of a command. When there are too many, any other one
// gives way.
func (t *latencyTable) get(name string) *latencies {
	t.mu.RLock()
	l := t.of[name]
	t.mu.RUnlock()
	if l != nil {
		return l
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if l = t.of[name]; l == nil {
		if t.of == nil {
			t.of = make(map[string]*latencies)
		}
		for other := range t.of {
			if len(t.of) < maxLatencies {
				break
			}
			delete(t.of, other)
		}
		l = new(latencies)
		t.of[name] = l
	}
	return l
}
