package endpoint

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// A Breaker keeps calls from a node that fails them: a circuit breaker. Each
// node of a Client has one of its own, see Dialer.Breaker. Its methods are
// called by many goroutines at once. Package breaker has one.
type Breaker interface {
	// Allow is asked before each call. An error keeps the call from the node;
	// otherwise done is called once, with the call's error or nil.
	Allow() (done func(err error), err error)
}

// A route is the way of one call: a node and its session.
type route struct {
	n    *node
	l    *link
	done func(error) // of the node's breaker; may be nil
	at   int64       // when the call began, as of Client.now; 0 if that is of no interest
}

// begin counts a call that takes r.
func (r *route) begin() {
	r.n.started.Add(1)
	if r.n.c.several() {
		r.at = r.n.c.now()
	}
}

// call makes a unary call on r, and counts it.
func (r *route) call(ctx context.Context, name string, x outgoing) (refused *Error) {
	ended := false
	defer func() { // deferred for runtime.Goexit in a user's method that encodes
		if !ended {
			refused = refusal(Canceled, "the caller's goroutine ended")
		}
		r.end(refused)
	}()
	r.begin()
	refused = r.l.call(ctx, name, x)
	ended = true
	return refused
}

// end counts the end of a call that took r.
func (r *route) end(refused *Error) {
	n := r.n
	n.ended(refused)
	switch {
	case refused == nil, refused.Outcome == OutcomeFailed:
		// A failure counts like a success: a node that fails all calls, of which
		// nothing else were known, would look idle and draw those of the others.
		n.unshun()
		r.took(false)
	case refused.byPeer() && refused.crowded():
		n.shun(n.c.backoff, n.c.now())
	default:
		r.took(true)
	}
	if r.done != nil {
		r.done(asError(refused))
	}
}

// took counts how long the call took, or would have taken at least if it ended
// without an answer: a node that gives none would keep the mean of its best days,
// but one that was given up early says nothing of the node.
func (r *route) took(atLeast bool) {
	if r.at == 0 {
		return
	}
	now := r.n.c.now()
	if d := now - r.at; !atLeast || float64(d) > r.n.latency(now) {
		r.n.took(time.Duration(d), now)
	}
}

// several reports whether there is a choice between nodes.
func (c *Client) several() bool { return len(*c.nodes.Load()) > 1 }

// pick returns a node that takes calls, but for those in not if there is
// another; without a node if there is none. An error says that breakers keep calls
// from every node.
func (c *Client) pick(not []*node) (route, error) {
	if len(not) > 0 {
		if r, _ := c.pickBut(not); r.l != nil {
			return r, nil
		}
	}
	return c.pickBut(nil)
}

// pickBut is pick without those in not, whatever others there are. Of two chosen at random it takes the
// one where less is to be waited for ("power of two choices"): unlike always the
// best of all it does not send every client's calls to the same node. Nodes that
// refused calls lately are taken when there are no others.
func (c *Client) pickBut(not []*node) (r route, broken error) {
	nodes := *c.nodes.Load()
	if len(nodes) == 1 && nodes[0].breaker == nil && len(not) == 0 {
		return route{n: nodes[0], l: nodes[0].link.Load()}, nil
	}
	var closed []*node // by their breakers
	for {
		n, l := c.choose(nodes, not, closed)
		if n == nil {
			return route{}, broken
		}
		if n.breaker == nil {
			return route{n: n, l: l}, nil
		}
		done, err := n.breaker.Allow()
		if err == nil {
			return route{n: n, l: l, done: done}, nil
		}
		broken, closed = fmt.Errorf("%s: %w", n.addr, err), append(closed, n)
	}
}

// choose is pick without breakers.
func (c *Client) choose(nodes, not, nor []*node) (*node, *link) {
	now := c.now()
	n, l := chooseOf(nodes, func(n *node) bool {
		return n.shunned.Load() <= now && !slices.Contains(not, n) && !slices.Contains(nor, n)
	}, now)
	if n == nil {
		n, l = chooseOf(nodes, func(n *node) bool { return !slices.Contains(not, n) && !slices.Contains(nor, n) }, now)
	}
	return n, l
}

// chooseOf chooses among those that are connected and fit.
func chooseOf(nodes []*node, fit func(*node) bool, now int64) (*node, *link) {
	var two [2]*node
	var links [2]*link
	seen := uint32(0)
	for _, n := range nodes {
		l := n.link.Load()
		if l == nil || !fit(n) {
			continue
		}
		// Each pair of those that fit is as likely as any other.
		at := seen
		if seen >= 2 {
			at = rand.Uint32N(seen + 1)
		}
		if at < 2 {
			two[at], links[at] = n, l
		}
		seen++
	}
	if seen >= 2 {
		a, b := two[0].load(now), two[1].load(now)
		if b < a || b == a && rand.Uint32N(2) == 0 {
			return two[1], links[1]
		}
	}
	return two[0], links[0]
}

// route returns the way of a call. While there is none it waits for one, until
// ctx ends.
func (c *Client) route(ctx context.Context, not []*node) (route, *Error) {
	if err := ctx.Err(); err != nil {
		return route{}, notSent(err) // the nodes, and their breakers, have nothing to do with it
	}
	if r, err := c.pick(not); r.l != nil {
		return r, nil
	} else if err != nil {
		return r, allBroken(err)
	}
	c.waiting.Add(1)
	defer c.waiting.Add(-1)
	for {
		c.mu.Lock()
		closed, usable := c.closed, c.usable.wait()
		c.mu.Unlock()
		if closed {
			return route{}, refusal(Unavailable, "the client is closed")
		}
		if r, err := c.pick(not); r.l != nil {
			return r, nil
		} else if err != nil {
			return r, allBroken(err)
		}
		for _, n := range *c.nodes.Load() {
			n.hurry()
		}
		select {
		case <-usable: // not every change: each attempt of a node has some, and thousands may wait here
		case <-ctx.Done():
			return route{}, c.noRoute(ctx)
		}
	}
}

// allBroken is the error of a call that breakers keep from every node.
func allBroken(err error) *Error {
	return &Error{Code: Unavailable, Outcome: OutcomeNotRun, Message: "no node takes calls: " + err.Error(), cause: err}
}

// noRoute is the error of a call that waited for a connection until its ctx
// ended: it says how the last attempts failed.
func (c *Client) noRoute(ctx context.Context) *Error {
	e := &Error{Code: CodeOf(ctx.Err()), Outcome: OutcomeNotRun, cause: ctx.Err()}
	e.Message = "no connection: " + c.reasons() + ": " + ctx.Err().Error()
	return e
}

// reasons says why no node is connected.
func (c *Client) reasons() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var texts []string
	for _, n := range *c.nodes.Load() {
		text := n.addr + ": "
		if n.err != nil {
			text += errText(n.err)
		} else {
			text += "still " + n.phase.String()
		}
		if texts = append(texts, text); len(texts) == 4 {
			break // enough to act on
		}
	}
	return strings.Join(texts, "; ")
}
