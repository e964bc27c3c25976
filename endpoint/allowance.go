package endpoint

import (
	"fmt"
	"math"

	"gobnode/internal/session"
)

// leastCharge is what a call is charged at least, in bytes: its goroutine, its
// context and its buffers.
const leastCharge = 8 << 10

// A charge is one call's part of a budget.
type charge struct {
	from  *session.Budget
	limit int64 // of from, or of what may be held of it; negative: none
	full  noter // told when there is not so much left, if not nil
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

// A noter takes note of a call that is refused for Limits.InFlight.
type noter interface{ inFlightFull(text string) }

func (e *Endpoint) newCharge() charge {
	return charge{from: e.inFlight, limit: int64(e.limits.InFlight), full: e, least: leastCharge}
}

// newCharge is that of a message in a session, which has charged 8 KiB for the
// call itself.
func (l *link) newCharge() charge {
	return charge{from: l.budget, limit: l.share, full: l}
}

// hold makes c hold n bytes, or c.least if that is more. It fails, with c as it
// was, when the budget has not so much left.
func (c *charge) hold(n int64) *Error {
	text := c.try(n)
	if text == "" {
		return nil
	}
	if c.full != nil {
		c.full.inFlightFull(text)
	}
	return refusal(ResourceExhausted, "%s", text)
}

// holdAbout makes c hold n bytes, or a quarter less and so on, but least at
// least, and returns how many it holds.
func (c *charge) holdAbout(least, n int64) (held int64, _ *Error) {
	for ; n > least; n = max(n-n/4, least) {
		if c.try(n) == "" {
			return n, nil
		}
	}
	return least, c.hold(least)
}

// try is hold, and returns why it failed.
func (c *charge) try(n int64) (full string) {
	more := max(n, c.least) - c.held
	switch {
	case more <= 0:
		c.from.Give(-more)
	case !c.from.Take(more):
		return c.from.Full(more)
	case c.limit >= 0 && c.from.Used() > c.limit:
		c.from.Give(more)
		return fmt.Sprintf("the calls under way hold all of the %d bytes that they may: try again later", c.limit)
	}
	c.held += more
	return ""
}

// release gives everything back.
func (c *charge) release() {
	c.from.Give(c.held)
	c.held = 0
}
