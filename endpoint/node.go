package endpoint

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"gobnode/internal/session"

	"github.com/pkg/errors"
)

const (
	// provenTime is after which a connection counts as one that works even if
	// nothing was called on it. One that ends before that, unused, is followed by
	// a backoff: a peer that hangs up on whoever greets it is not pressed.
	provenTime = 10 * time.Second

	// maxLeaving bounds the sessions of a node that finish their calls at once.
	// A peer that drains each new one and ends none is not connected to again
	// before it does.
	maxLeaving = 8

	// leaveTime is what the calls under way have when a node is left out of a
	// Client; that of a drain.
	leaveTime = 25 * time.Second
)

// A node is one address of a Client's: at most one session that takes calls.
// While there is none a goroutine sees to it that there will be, see run; while
// there is, nobody waits for its end but the session itself, which calls goingAway.
type node struct {
	c       *Client
	addr    string
	breaker Breaker            // may be nil
	ctx     context.Context    // ends with the Client, or when the node is left out; nil before it is needed, see life
	leave   context.CancelFunc // leaves it out
	poke    chan struct{}      // one token when a call waits

	link atomic.Pointer[link] // that takes calls; nil while there is none
	traffic

	// What follows is guarded by c.mu.
	phase     Phase
	until     time.Time
	err       error
	drained   bool          // the last connection was ended by a drain
	leaving   int           // sessions that take no more calls and have not ended
	left      chan struct{} // closed when leaving falls, if not nil
	tried     bool          // the first attempt has ended
	connected uint64        // connections made
	current   *link         // in use: not going away, or nobody knows

	// What follows belongs to whoever connects, or follows the end of a connection.
	hangups  int       // in a row, of a peer that had greeted; attempts that failed before are not its fault
	since    time.Time // when the last connection was made
	answered uint64    // calls before that
}

func newNode(c *Client, addr string) *node {
	n := &node{c: c, addr: addr, poke: make(chan struct{}, 1)}
	if c.d.Breaker != nil {
		n.breaker = c.d.Breaker(addr)
	}
	return n
}

// life returns the node's context, which the first attempt of a Dial with one
// address does without. The caller holds c.mu.
func (n *node) life() context.Context {
	if n.ctx == nil {
		n.ctx, n.leave = context.WithCancel(n.c.ctx)
	}
	return n.ctx
}

// run connects the node. It ends when that has succeeded, the node is left out or
// the Client closed.
func (n *node) run(last attempt) {
	n.c.mu.Lock()
	n.life() // which is there from now on
	n.c.mu.Unlock()
	for n.pause(last) {
		n.set(PhaseConnecting, time.Time{})
		var hurried func() bool // nobody waits before Dial has returned
		if n.c.dialed.Load() {
			hurried = n.hurried
		}
		l, err := n.c.d.dialSession(n.ctx, n, hurried)
		if err == nil {
			n.use(l, last.failures)
			return
		}
		last = attempt{failures: last.failures + 1, at: time.Now(), reached: false}
		n.notConnected(err, last.failures)
	}
}

// first is run's first attempt, on the goroutine of a Dial that has nothing else
// to wait for. ctx is Dial's. The error is what Dial returns.
func (n *node) first(ctx context.Context) error {
	n.set(PhaseConnecting, time.Time{})
	l, err := n.c.d.dialSession(ctx, n, nil)
	switch {
	case err == nil:
		n.use(l, 0)
		return nil
	case ctx.Err() != nil:
		return n.c.noRoute(ctx)
	}
	n.notConnected(err, 1)
	return err
}

func (n *node) notConnected(err error, attempt int) {
	n.c.logger.Debug("cannot connect", "addr", n.addr, "attempt", attempt, "error", err)
	n.failed(err)
}

// An attempt is how the last connection, or the attempt to make one, went.
type attempt struct {
	failures int // in a row
	at       time.Time
	reached  bool // the peer was there, and hung up
}

// pause waits as long as the last attempt asks for. It returns false when there
// is no need for another.
func (n *node) pause(last attempt) bool {
	if !n.awaitLeaving() {
		return false
	}
	if last.failures == 0 {
		return n.ctx.Err() == nil
	}
	// A waiting call does not hurry a peer that greets and hangs up: a connection
	// was made, and the next would go the same way.
	waiting, soon := !last.reached && n.hurried(), last.at.Add(n.c.backoff.hurried())
	until := last.at.Add(n.c.backoff.delay(last.failures))
	if waiting && soon.Before(until) {
		until = soon
	}
	n.set(PhaseBackingOff, until)
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return n.ctx.Err() == nil
		case <-n.ctx.Done():
			return false
		case <-n.poke:
			if !last.reached && soon.Before(until) {
				until = soon
				n.set(PhaseBackingOff, until)
				timer.Reset(time.Until(until))
			}
		}
	}
}

// awaitLeaving waits while too many sessions have not ended. It returns false
// when the node's context ends.
func (n *node) awaitLeaving() bool {
	for {
		n.c.mu.Lock()
		var left chan struct{}
		if n.leaving >= maxLeaving {
			if n.left == nil {
				n.left = make(chan struct{})
			}
			left = n.left
		}
		n.c.mu.Unlock()
		if left == nil {
			return true
		}
		select {
		case <-left:
		case <-n.ctx.Done():
			return false
		}
	}
}

// hurried reports whether a call waits for a connection.
func (n *node) hurried() bool { return n.c.waiting.Load() > 0 }

// hurry tells the node that a call waits.
func (n *node) hurry() {
	select {
	case n.poke <- struct{}{}:
	default:
	}
}

// use has l take calls until it is going away.
func (n *node) use(l *link, failures int) {
	n.answered, n.since = n.answers(), time.Now()
	n.link.Store(l)
	n.ready(l, failures)
	c := n.c
	c.mu.Lock()
	closed := c.closed
	if !closed {
		n.current = l
		if l.going || n.ctx != nil && n.ctx.Err() != nil {
			n.replace(l)
		}
	}
	c.mu.Unlock()
	if closed { // Close has looked before
		n.end(l)
	}
}

// goingAway is told by the session of l that it takes no more calls.
func (n *node) goingAway(l *link) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	l.going = true
	n.replace(l)
}

// replace has another session take the place of l, if that is in use: after Close
// none is. The caller holds c.mu.
func (n *node) replace(l *link) {
	if n.current == l {
		n.current = nil
		n.c.wg.Add(1)
		go n.reconnect(l)
	}
}

// reconnect follows the end of l. It ends as run does.
func (n *node) reconnect(l *link) {
	defer n.c.wg.Done()
	n.c.mu.Lock()
	ctx := n.life()
	n.c.mu.Unlock()
	n.retire(l)
	n.lost(l.s, ctx.Err() != nil)
	n.c.wg.Go(func() { n.seeOff(l) })
	var last attempt
	if n.answers() != n.answered || time.Since(n.since) >= provenTime {
		n.hangups = 0
	} else {
		n.hangups++
		last = attempt{failures: n.hangups, at: time.Now(), reached: true}
	}
	n.run(last)
}

// end ends l, which is in use, at once: the Client is closed.
func (n *node) end(l *link) {
	n.retire(l)
	n.lost(l.s, true)
	l.s.Abort(session.ErrClosed)
	n.seenOff(l)
}

// close is end for Client.Close, which has counted it.
func (n *node) close(l *link) {
	defer n.c.wg.Done()
	n.end(l)
}

// retire has l take no more calls.
func (n *node) retire(l *link) { n.link.CompareAndSwap(l, nil) }

// leaveOut has the node take no more calls, for good.
func (n *node) leaveOut() {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.life()
	n.leave()
	if l := n.current; l != nil {
		n.replace(l) // by none: run looks at the context
	}
}

// seeOff waits for the end of a session that takes no more calls. It ends with
// that: after a Close at once, when the node is left out after leaveTime at the
// latest, otherwise when the peer's drain is over or the connection breaks.
func (n *node) seeOff(l *link) {
	s := l.s
	select {
	case <-s.Done():
	case <-n.ctx.Done():
		if n.c.ctx.Err() == nil { // the node is left out
			go n.drain(s)
		}
		select {
		case <-s.Done():
		case <-n.c.ctx.Done():
			s.Abort(session.ErrClosed)
		}
	}
	n.seenOff(l)
}

// seenOff waits for the end of a session that has ended, or is about to.
func (n *node) seenOff(l *link) {
	<-l.s.Done()
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.leaving--
	if n.left != nil {
		close(n.left)
		n.left = nil
	}
	n.c.changed.ring()
}

// drain has a session end when its calls have. It ends with what the peer has
// called on it, which a Close does not wait for.
func (n *node) drain(s *session.Session) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	_ = s.Shutdown(ctx)
}

// state is the node's state. Under c.mu.
func (n *node) state() State {
	if n.phase != PhaseReady && n.leaving > 0 && n.drained {
		return State{Phase: PhaseDraining, Err: n.err}
	}
	return State{Phase: n.phase, Until: n.until, Err: n.err}
}

// set puts the node into a phase.
func (n *node) set(p Phase, until time.Time) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.phase, n.until = p, until
	n.c.changed.ring()
}

// failed takes note of an attempt that failed.
func (n *node) failed(err error) {
	n.c.mu.Lock()
	n.tried, n.err = true, err
	n.c.changed.ring()
	n.c.mu.Unlock()
	n.c.askAgain()
}

// ready takes note of a connection.
func (n *node) ready(l *link, failures int) {
	n.c.mu.Lock()
	n.drained = false
	n.phase, n.until, n.err, n.tried = PhaseReady, time.Time{}, nil, true
	n.connected++
	again := n.connected > 1
	n.c.changed.ring()
	n.c.usable.ring()
	n.c.mu.Unlock()
	level := slog.LevelDebug
	if again {
		level = slog.LevelInfo
	}
	if ctx := context.Background(); n.c.logger.Enabled(ctx, level) { // else its arguments would be allocated all the same
		n.c.logger.Log(ctx, level, "connected", "addr", n.addr, "peer", &l.peer, "again", again, "failures", failures)
	}
}

// errDraining is the last error of a node whose peer takes no more calls.
var errDraining = errors.New("the peer is being drained")

// lost takes note of a session that takes no more calls, which is this side's doing
// if ours.
func (n *node) lost(s *session.Session, ours bool) {
	err := s.Err()
	drained := err == nil || errors.Is(err, session.ErrClosed)
	if drained {
		err = errDraining
	} else {
		err = fmt.Errorf("the connection broke: %w", err)
	}
	n.c.mu.Lock()
	n.leaving++
	n.phase, n.drained, n.err = PhaseConnecting, drained, err
	n.c.changed.ring()
	n.c.mu.Unlock()
	switch {
	case ours:
	case drained:
		n.c.logger.Info("the peer is being drained; connecting again", "addr", n.addr)
	default:
		n.c.logger.Warn("connection lost; connecting again", "addr", n.addr, "error", err)
	}
	n.c.askAgain()
}

// stats returns the node's counts. Under c.mu.
func (n *node) stats() NodeStats {
	s := NodeStats{
		Addr: n.addr, State: n.state(), Reconnects: max(n.connected, 1) - 1,
		Succeeded: n.succeeded.Load(), Failed: n.outcomes[OutcomeFailed].Load(),
		NotRun: n.outcomes[OutcomeNotRun].Load(), Unknown: n.outcomes[OutcomeUnknown].Load(), InFlight: n.inFlight(),
	}
	if l := n.link.Load(); l != nil {
		s.RTT = l.s.Stats().RTT
	}
	return s
}
