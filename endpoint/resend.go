package endpoint

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"gobnode/internal/session"

	"github.com/pkg/errors"
)

const (
	// maxTries bounds how often a call is sent that peers refuse or lose.
	maxTries = 3

	// The budget of calls that are sent again, in tenths: 10, and 0.1 for each
	// success. A service that fails everything so sees at most 1.1 times its load
	// (gRPC's retry throttling, proposal A6).
	tokensFull    = 10 * tokensPerTry
	tokensPerTry  = 10
	tokensPerCall = 1
)

// tokens is a budget that successes fill.
type tokens struct{ spent atomic.Int64 }

// earn adds what one success is worth.
func (t *tokens) earn() {
	for n := t.spent.Load(); n > 0; n = t.spent.Load() {
		if t.spent.CompareAndSwap(n, max(n-tokensPerCall, 0)) {
			return
		}
	}
}

// take takes what one call costs that is sent again, and reports whether it was
// there.
func (t *tokens) take() bool {
	if t.spent.Add(tokensPerTry) <= tokensFull {
		return true
	}
	t.spent.Add(-tokensPerTry)
	return false
}

type idempotentKey struct{}

// Idempotent returns a context under which calls may be run more than once: a
// Client sends a call again even if nothing is known of the last attempt, within
// the same bounds as one that did not run. A unary call that takes longer than
// 95 % of the last ones of its command is also sent to another node, if there is
// one that takes calls; the first answer wins and the other call is canceled.
// These copies are at most 5 % of all such calls.
func Idempotent(ctx context.Context) context.Context {
	return context.WithValue(ctx, idempotentKey{}, true)
}

func idempotent(ctx context.Context) bool { return ctx.Value(idempotentKey{}) != nil }

// byPeer reports whether the peer said that the call failed; otherwise this side
// found out by itself.
func (e *Error) byPeer() bool {
	var s *session.Error
	return errors.As(e.cause, &s) && s.Told
}

// crowded reports whether a call was refused for lack of room or readiness,
// which another node, or a later time, may have.
func (e *Error) crowded() bool {
	return e.Outcome == OutcomeNotRun && (e.Code == Unavailable || e.Code == ResourceExhausted)
}

// resending is one call of a Client's with all its attempts.
type resending struct {
	c       *Client
	tries   int     // that cost something
	tried   []*node // that refused
	unknown bool    // an attempt may have run
}

// again decides whether a call that failed on r is sent again, and waits until
// it is time to.
func (a *resending) again(ctx context.Context, r *route, refused *Error) bool {
	a.unknown = a.unknown || refused.Outcome != OutcomeNotRun
	if ctx.Err() != nil {
		return false
	}
	if refused.crowded() && !refused.byPeer() {
		if refused.Code != Unavailable {
			return false // too large, or no place and no time to wait for one
		}
		// Never written, or cut off by a drain. The session is of no more use, and
		// the next is waited for: this cannot go on without end.
		r.n.retire(r.l)
		a.c.resent.Add(1)
		return true
	}
	lost := refused.Outcome == OutcomeUnknown && refused.Code == Unavailable
	if !refused.crowded() && (!lost || !idempotent(ctx)) {
		return false
	}
	if a.tries++; a.tries >= maxTries || !a.c.tokens.take() {
		return false
	}
	if a.tried = append(a.tried, r.n); !a.c.elsewhere(a.tried) && !pauseWithin(ctx, a.c.backoff.delay(a.tries)) {
		return false
	}
	a.c.resent.Add(1)
	return true
}

// elsewhere reports whether a node takes calls that is not among tried.
func (c *Client) elsewhere(tried []*node) bool {
	for _, n := range *c.nodes.Load() {
		if n.link.Load() != nil && !slices.Contains(tried, n) {
			return true
		}
	}
	return false
}

// pauseWithin waits for d, or not at all if ctx ends before.
func pauseWithin(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// judge makes of the last attempt's error what is known of all of them.
func (a *resending) judge(refused *Error) *Error {
	if refused != nil && a.unknown && refused.Outcome == OutcomeNotRun {
		refused.Outcome = OutcomeUnknown
	}
	return refused
}

// attempt runs do on one route after the other, until it succeeds or is not to
// be sent again.
func (c *Client) attempt(ctx context.Context, info *Info, do func(*route) *Error) *Error {
	a := resending{c: c}
	for {
		r, refused := c.route(ctx, a.tried)
		if refused != nil {
			return a.judge(refused)
		}
		if info != nil {
			info.Peer = &r.l.peer
		}
		if refused = do(&r); refused == nil {
			c.tokens.earn()
			return nil
		}
		if !a.again(ctx, &r, refused) {
			return a.judge(refused)
		}
	}
}
