package endpoint

import "sync/atomic"

// leastCharge is what a call is charged at least, in bytes: its goroutine, its
// context and its buffers.
const leastCharge = 8 << 10

// An allowance is the memory that calls hold together.
type allowance struct{ used atomic.Int64 }

// A charge is one call's part of an allowance.
type charge struct {
	from  *allowance
	limit int64 // Limits.InFlight; negative: none
	held  int64
}

func (e *Endpoint) newCharge() charge {
	return charge{from: &e.inFlight, limit: int64(e.limits.InFlight)}
}

// hold makes c hold n bytes, or leastCharge if that is more. It fails, with c
// as it was, when the allowance has not so much left.
func (c *charge) hold(n int64) *Error {
	more := max(n, leastCharge) - c.held
	if used := c.from.used.Add(more); more > 0 && c.limit >= 0 && used > c.limit {
		c.from.used.Add(-more)
		return refusal(ResourceExhausted, "the calls under way hold all of the %d bytes that they may: try again later", c.limit)
	}
	c.held += more
	return nil
}

// release gives everything back.
func (c *charge) release() {
	c.from.used.Add(-c.held)
	c.held = 0
}
