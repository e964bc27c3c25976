package endpoint

import (
	"math"
	"math/rand/v2"
	"time"
)

// A Backoff says how long a Client waits before it tries again: after the n-th
// failure in a row a random time from 0 to Base × Factor^(n-1), or to Max where
// that is less. The whole time is random ("full jitter") so that the clients of
// a server that returns do not come all at once. A zero field means the default
// in its comment.
type Backoff struct {
	Base   time.Duration // 100 ms
	Factor float64       // 1.6, as gRPC's
	Max    time.Duration // 5 s; gRPC's 2 min keep clients away from servers that are back
}

// longestDelay is 36 years: a time from now can still be computed with it.
const longestDelay = time.Duration(1 << 60)

func (b Backoff) withDefaults() Backoff {
	if b.Base <= 0 {
		b.Base = 100 * time.Millisecond
	}
	if b.Factor < 1 || math.IsNaN(b.Factor) {
		b.Factor = 1.6
	}
	if b.Max <= 0 {
		b.Max = 5 * time.Second
	}
	b.Base, b.Max = min(b.Base, longestDelay), min(b.Max, longestDelay)
	return b
}

// Delay returns how long to wait after so many failures in a row, 1 or more: for
// programs that reconnect by themselves.
func (b Backoff) Delay(failures int) time.Duration {
	return b.withDefaults().delay(max(failures, 1))
}

// delay is Delay of a Backoff with its defaults.
func (b Backoff) delay(failures int) time.Duration {
	most := min(float64(b.Base)*math.Pow(b.Factor, float64(failures-1)), float64(b.Max))
	return time.Duration(rand.Float64() * most)
}

// hurried returns how long after the last attempt the next one is made while a
// call waits, 100 ms by default on average: soon enough to find a server that
// is back within 200 ms, seldom enough not to press one that is not.
func (b Backoff) hurried() time.Duration {
	return b.Base/2 + time.Duration(rand.Float64()*float64(b.Base))
}
