package endpoint

import (
	"context"
	"iter"
	"time"
)

// A Phase is what a Client, or one of its nodes, does about its connection.
type Phase uint8

// The phases.
const (
	PhaseConnecting Phase = iota // an attempt is under way
	PhaseReady                   // calls go out
	PhaseBackingOff              // the last attempt failed; the next one has to wait
	PhaseDraining                // the peer takes no more calls and finishes those under way; it is connected to anew meanwhile
	PhaseClosed                  // Close was called
)

var phaseNames = [...]string{"connecting", "ready", "backing off", "draining", "closed"}

// String returns the phase's name, such as "backing off".
func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return "unknown"
}

// A State is what is known of the connection of a Client or of one node.
type State struct {
	Phase Phase
	Until time.Time // of PhaseBackingOff: when the next attempt is made, or before if a call waits; zero otherwise
	Err   error     // why the last connection ended, or the last attempt failed; nil when ready
}

// String returns the state in words, with the time that is left and the error.
func (s State) String() string {
	text := s.Phase.String()
	if s.Phase == PhaseBackingOff {
		text += " for " + max(time.Until(s.Until), 0).Round(time.Millisecond).String()
	}
	if s.Err != nil {
		text += ": " + errText(s.Err)
	}
	return text
}

// same reports whether there is nothing to tell between s and t.
func (s State) same(t State) bool {
	return s.Phase == t.Phase && s.Until.Equal(t.Until) && s.Err == t.Err //nolint:errorlint // the very error
}

// State returns the Client's state: that of the node which is nearest to taking
// calls. A Client is ready when one of its nodes is.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state()
}

// state is State under mu.
func (c *Client) state() State {
	if c.closed {
		return State{Phase: PhaseClosed}
	}
	var best State
	found := false
	for _, n := range *c.nodes.Load() {
		if s := n.state(); !found || s.nearer(best) {
			best, found = s, true
		}
	}
	return best
}

// nearer reports whether a node in s takes calls before one in t does.
func (s State) nearer(t State) bool {
	order := [...]int{PhaseReady: 0, PhaseDraining: 1, PhaseConnecting: 2, PhaseBackingOff: 3, PhaseClosed: 4}
	if s.Phase != t.Phase {
		return order[s.Phase] < order[t.Phase]
	}
	return s.Phase == PhaseBackingOff && s.Until.Before(t.Until)
}

// States returns the state now and each one that follows, until ctx ends or
// PhaseClosed was returned. Who takes them slowly misses some, never the last.
func (c *Client) States(ctx context.Context) iter.Seq[State] {
	return func(yield func(State) bool) {
		var last State
		for first := true; ; first = false {
			c.mu.Lock()
			s, changed := c.state(), c.changed.wait()
			c.mu.Unlock()
			if first || !s.same(last) {
				if !yield(s) || s.Phase == PhaseClosed {
					return
				}
				last = s
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Watch returns the counts now, and again whenever the state of a node changes,
// until ctx ends or Close was called. Who takes them slowly misses some, never
// the last.
func (c *Client) Watch(ctx context.Context) iter.Seq[ClientStats] {
	return func(yield func(ClientStats) bool) {
		for {
			c.mu.Lock()
			closed, changed := c.closed, c.changed.wait()
			c.mu.Unlock()
			if closed || ctx.Err() != nil || !yield(c.Stats()) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// ClientStats are counts since Dial.
type ClientStats struct {
	Nodes  []NodeStats // those in use now
	Resent uint64      // calls that were sent again
	Hedged uint64      // calls of which a copy went to another node, see Idempotent
}

// NodeStats are counts of one node of a Client's. Each call that went to it
// counts, those sent again and the copies of hedged ones too.
type NodeStats struct {
	Addr       string
	State      State
	RTT        time.Duration // of the last PING, which goes when nothing comes; at first of the greeting; 0 without a connection
	Reconnects uint64        // connections made beyond the first
	InFlight   uint64        // calls and streams under way
	Succeeded  uint64
	Failed     uint64 // by outcome
	NotRun     uint64
	Unknown    uint64
}

// Stats returns the counts.
func (c *Client) Stats() ClientStats {
	s := ClientStats{Resent: c.resent.Load(), Hedged: c.hedges.Load()}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range *c.nodes.Load() {
		s.Nodes = append(s.Nodes, n.stats())
	}
	return s
}
