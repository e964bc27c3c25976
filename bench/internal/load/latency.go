package load

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// shards is the number of histograms of a window. One for each of thousands of callers would be tens of megabytes, and the garbage
// collector would run less often for it than in a program that measures nothing; one for all would be a lock that they wait for.
const shards = 16

// latencies are the times that calls took.
type latencies [shards]struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram
}

// newLatencies resolves 1 % of up to a minute.
func newLatencies() *latencies {
	l := new(latencies)
	for i := range l {
		l[i].h = hdrhistogram.New(1, time.Minute.Nanoseconds(), 2)
	}
	return l
}

// add records what a call of the worker of that number took.
func (l *latencies) add(worker int, d time.Duration) {
	s := &l[worker%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.h.RecordValue(min(max(1, d.Nanoseconds()), time.Minute.Nanoseconds())) // in range, so there is no error
}

// quantile returns the q-th part of 100, in µs. Nobody may be adding.
func (l *latencies) quantile(q float64) float64 {
	all := hdrhistogram.New(1, time.Minute.Nanoseconds(), 2)
	for i := range l {
		all.Merge(l[i].h)
	}
	return float64(all.ValueAtQuantile(q)) / 1e3
}
