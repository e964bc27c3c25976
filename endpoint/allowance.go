package endpoint

import (
	"math"

	"gobnode/internal/session"
)

// leastCharge is what a call is charged at least, in bytes: its goroutine, its
// context and its buffers.
const leastCharge = 8 << 10

// A charge is one call's part of a budget.
type charge struct {
	from  *session.Budget
	limit int64 // Limits.InFlight; negative: none
	least int64 // what hold takes at least
	held  int64
}

// newBudget returns the budget of Limits.InFlight.
func newBudget(limit int) *session.Budget {
	if limit < 0 {
		return session.NewBudget(math.MaxInt64, nil)
	}
	return session.NewBudget(int64(limit), nil)
}

func (e *Endpoint) newCharge() charge {
	return charge{from: e.inFlight, limit: int64(e.limits.InFlight), least: leastCharge}
}

// hold makes c hold n bytes, or c.least if that is more. It fails, with c as it
// was, when the budget has not so much left.
func (c *charge) hold(n int64) *Error {
	more := max(n, c.least) - c.held
	if more <= 0 {
		c.from.Give(-more)
		c.held += more
		return nil
	}
	ok := c.from.Take(more)
	if ok && c.limit >= 0 && c.from.Used() > c.limit {
		c.from.Give(more)
		ok = false
	}
	if !ok {
		return refusal(ResourceExhausted, "the calls under way hold all of the %d bytes that they may: try again later", c.limit)
	}
	c.held += more
	return nil
}

// release gives everything back.
func (c *charge) release() {
	c.from.Give(c.held)
	c.held = 0
}
