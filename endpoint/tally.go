package endpoint

import (
	"maps"
	"sync"

	"gobnode/internal/session"
)

// A tally counts what happens seldom and whoever runs an endpoint wants to know.
type tally struct {
	mu       sync.Mutex // guards following
	n        map[string]uint64
	inFlight seldom // calls in line mode and in process that were refused for Limits.InFlight
}

func (t *tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = make(map[string]uint64)
	}
	t.n[what]++
}

// countPanic is what a panic of a handler goes by in Counts.
const countPanic = "panic"

// Counts returns how often each limit was reached since the endpoint was made,
// by the name that the log line has as its "limit": those of connections, such
// as "Idle", and those of sessions, such as "pings", on whichever side it was
// that dialed. Beside them "panic" counts the panics of handlers. What never
// happened is not there. Counts never fall.
func (e *Endpoint) Counts() map[string]uint64 {
	e.tally.mu.Lock()
	defer e.tally.mu.Unlock()
	if e.tally.n == nil {
		return map[string]uint64{}
	}
	return maps.Clone(e.tally.n)
}

// onLimit counts a limit of a session, which logs it itself.
func (e *Endpoint) onLimit(l session.Limit) { e.tally.add(l.String()) }

// inFlightFull takes note of a call that was refused for Limits.InFlight, and
// logs it once a second at most.
func (e *Endpoint) inFlightFull(text string) {
	e.tally.add("InFlight")
	e.tally.mu.Lock()
	n, tell := e.tally.inFlight.count()
	e.tally.mu.Unlock()
	if tell {
		e.logger().Warn("call refused", "limit", "InFlight", "value", e.limits.InFlight, "why", text, "refused", n)
	}
}

// inFlightFull is the same for a session.
func (l *link) inFlightFull(text string) { l.s.Fired(session.LimitInFlight, text) }
