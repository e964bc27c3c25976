package endpoint

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// costShare is the part of a new latency in a node's mean: about the last 8
	// calls count, so that a node which slows down loses its calls at once.
	costShare = 1.0 / 8

	// costHalf is in which time a mean that is not renewed halves. A slow node
	// that gets no calls is so tried again, now and then.
	costHalf = 10 * time.Second
)

// traffic is what a node's calls tell of it. Its methods may be called from any
// goroutine.
type traffic struct {
	started   atomic.Uint64
	succeeded atomic.Uint64
	outcomes  [3]atomic.Uint64 // of those that did not

	cost    atomic.Uint64 // float64: mean latency in ns; 0 before the first
	costAt  atomic.Int64  // when that was, as of Client.now
	refused atomic.Int64  // calls in a row that the node refused for lack of room
	shunned atomic.Int64  // until then, as of Client.now, others are preferred
}

// ended counts the end of a call that started counted.
func (t *traffic) ended(refused *Error) {
	if refused == nil {
		t.succeeded.Add(1)
	} else {
		t.outcomes[min(refused.Outcome, OutcomeFailed)].Add(1)
	}
}

// answers returns how many calls the node has answered.
func (t *traffic) answers() uint64 {
	return t.succeeded.Load() + t.outcomes[OutcomeFailed].Load()
}

func (t *traffic) inFlight() uint64 {
	over := t.succeeded.Load()
	for i := range t.outcomes {
		over += t.outcomes[i].Load()
	}
	return max(t.started.Load(), over) - over // not read at one time
}

// took adds a latency to the mean. Two calls that end at once may lose one of
// them: a mean does not mind.
func (t *traffic) took(d time.Duration, now int64) {
	mean := float64(d)
	if old := t.latency(now); old > 0 {
		mean = old + (mean-old)*costShare
	}
	t.cost.Store(math.Float64bits(mean))
	t.costAt.Store(now)
}

// latency is the mean as it stands now.
func (t *traffic) latency(now int64) float64 {
	age := max(now-t.costAt.Load(), 0)
	return math.Float64frombits(t.cost.Load()) * math.Exp2(-float64(age)/float64(costHalf))
}

// load is what a further call is likely to wait: the mean latency times the
// calls ahead of it. Nodes of which nothing is known are compared by these alone.
func (t *traffic) load(now int64) float64 {
	return max(t.latency(now), 1) * float64(t.inFlight()+1)
}

// shun has others preferred for as long as b says after so many refusals in a
// row.
func (t *traffic) shun(b Backoff, now int64) {
	failures := t.refused.Add(1)
	t.shunned.Store(now + int64(b.delay(int(min(failures, 1000)))))
}

// unshun takes note of a call that the node did not refuse.
func (t *traffic) unshun() {
	if t.refused.Load() != 0 {
		t.refused.Store(0)
		t.shunned.Store(0)
	}
}
