package endpoint

import (
	"context"
	"sync/atomic"

	"gobnode/internal/session"
)

// backCalls are the calls that an Endpoint serves on the sessions of Clients,
// as their Dialer's Endpoint. Those sessions are not the endpoint's to end, so
// it keeps account of the calls themselves.
type backCalls struct {
	ctx    context.Context // what the handlers' contexts derive from
	cancel context.CancelCauseFunc
	n      atomic.Int64 // calls being served
}

// acceptBack is accept on a session that this side dialed. An endpoint that is
// ending refuses the calls that it gets there, and the session goes on without
// them: a GOAWAY, which tells the peer beforehand, would end the Client too.
func (l *link) acceptBack(st *session.Stream) {
	defer l.e.leaveBack() // deferred for runtime.Goexit in the handler
	// Counted before it looks, as Shutdown marks before it counts: one of the two
	// sees the other.
	if l.e.back.n.Add(1); l.e.closing.Load() {
		st.Finish(shuttingDown().overSession())
		return
	}
	l.accept(st)
}

func (e *Endpoint) leaveBack() {
	if e.back.n.Add(-1) == 0 && e.closing.Load() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.checkEnded()
	}
}
