package endpoint

import (
	"context"
	"slices"

	"github.com/pkg/errors"
)

// Shutdown ends the endpoint in order: it stops listening, closes the
// connections that run no command, lets the running commands finish, and
// returns nil when all of the endpoint's goroutines have ended. A command that
// came in behind a running one is told unavailable not_run. On the sessions of
// Clients that have the endpoint as their Dialer's Endpoint the same holds for
// what it serves there; the sessions, and the calls that the Clients make, go on.
//
// When ctx ends first, the remaining connections are cut, their handlers'
// contexts end, and the error says how many there were; it wraps ctx's. Even
// then Shutdown waits for the handlers to return.
//
// An endpoint that was shut down does not serve again. A handler that wants its
// own endpoint to end calls Shutdown on a goroutine of its own: from inside it
// would wait for itself.
func (e *Endpoint) Shutdown(ctx context.Context) error {
	ended := e.beginClosing()
	for _, c := range e.snapshot() {
		c.closeIdle()
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	n := e.cutAll()
	<-ended
	if n == 0 {
		return nil
	}
	return errors.Wrapf(context.Cause(ctx), "shutdown cut off %d running commands", n)
}

// Close ends the endpoint at once: listeners and connections are closed, the
// handlers' contexts end, on Clients' sessions too. It returns, with nil, when
// all handlers have.
func (e *Endpoint) Close() error {
	ended := e.beginClosing()
	e.cutAll()
	<-ended
	return nil
}

// beginClosing closes the listeners, once. The channel it returns is closed
// when all has ended.
func (e *Endpoint) beginClosing() <-chan struct{} {
	e.init()
	e.mu.Lock()
	if !e.closing.Swap(true) {
		close(e.stop)
	}
	listeners := slices.Clone(e.listeners)
	e.checkEnded()
	e.mu.Unlock()
	for _, l := range listeners {
		_ = (*l).Close() // not under the lock: it may block
	}
	return e.ended
}

func (e *Endpoint) snapshot() []*lineConn {
	e.mu.RLock()
	defer e.mu.RUnlock()
	list := make([]*lineConn, 0, len(e.conns))
	for c := range e.conns {
		list = append(list, c)
	}
	return list
}

// cutAll cuts every connection and returns how many of them ran a command.
func (e *Endpoint) cutAll() int {
	running := 0
	for _, c := range e.snapshot() {
		if s := c.session.Load(); s != nil {
			running += s.Stats().Serving
		} else if c.state.Load() == connBusy {
			running++
		}
		c.cut()
	}
	running += int(e.back.n.Load())
	e.back.cancel(errCut)
	e.mu.RLock()
	defer e.mu.RUnlock()
	for c := range e.locals {
		running++
		c.cancel(errCut)
	}
	return running
}
