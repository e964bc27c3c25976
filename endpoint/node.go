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

// A node is one address of a Client's: at most one session that takes calls, and
// the goroutine that keeps it so.
type node struct {
	c       *Client
	addr    string
	breaker Breaker            // may be nil
	ctx     context.Context    // ends with the Client, or when the node is left out
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
}

func newNode(c *Client, addr string) *node {
	n := &node{c: c, addr: addr, poke: make(chan struct{}, 1)}
	n.ctx, n.leave = context.WithCancel(c.ctx)
	if c.d.Breaker != nil {
		n.breaker = c.d.Breaker(addr)
	}
	return n
}

// run keeps the node connected. It ends when the node is left out or the Client
// closed.
func (n *node) run() {
	var last attempt
	hangups := 0 // in a row, of a peer that had greeted; attempts that failed before are not its fault
	for n.pause(last) {
		n.set(PhaseConnecting, time.Time{})
		var hurried func() bool // nobody waits before Dial has returned
		if n.c.dialed.Load() {
			hurried = n.hurried
		}
		l, err := n.c.d.dialSession(n.ctx, n.addr, n.c.budget, hurried)
		switch {
		case err != nil:
			last = attempt{failures: last.failures + 1, at: time.Now(), reached: false}
			n.c.logger.Debug("cannot connect", "addr", n.addr, "attempt", last.failures, "error", err)
			n.failed(err)
		case n.serve(l, last.failures):
			last, hangups = attempt{}, 0
		default:
			hangups++
			last = attempt{failures: hangups, at: time.Now(), reached: true}
		}
	}
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

// serve has l take calls until it is going away, and reports whether it worked.
func (n *node) serve(l *link, failures int) (proven bool) {
	s := l.s.Load()
	answered, since := n.answered(), time.Now()
	n.link.Store(l)
	n.ready(l, failures)
	select {
	case <-s.GoingAway():
	case <-n.ctx.Done():
	}
	n.retire(l)
	n.lost(s)
	n.c.wg.Go(func() { n.seeOff(l) })
	return n.answered() != answered || time.Since(since) >= provenTime
}

// retire has l take no more calls.
func (n *node) retire(l *link) { n.link.CompareAndSwap(l, nil) }

// seeOff waits for the end of a session that takes no more calls. It ends with
// that: after a Close at once, when the node is left out after leaveTime at the
// latest, otherwise when the peer's drain is over or the connection breaks.
func (n *node) seeOff(l *link) {
	s := l.s.Load()
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
	<-s.Done()
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
	n.c.logger.Log(n.ctx, level, "connected", "addr", n.addr, "peer", &l.peer, "again", again, "failures", failures)
}

// errDraining is the last error of a node whose peer takes no more calls.
var errDraining = errors.New("the peer is being drained")

// lost takes note of a session that takes no more calls.
func (n *node) lost(s *session.Session) {
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
	case n.ctx.Err() != nil: // this side's doing
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
		s.RTT = l.s.Load().Stats().RTT
	}
	return s
}
