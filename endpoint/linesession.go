package endpoint

import (
	"bytes"
	"context"
	"net"
	"time"

	"gobnode/internal/session"
)

// beginSession turns c into a session, for good.
func (c *lineConn) beginSession(inline bool) {
	line := []byte("\n")
	if inline {
		line, _ = c.b.r.ReadSlice('\n') // whole in the buffer: readLine saw it
	}
	if version := bytes.TrimRight(line, " \r\n"); string(version) != sessionVersion {
		c.refuse(refusal(FailedPrecondition, "this endpoint speaks %s %s, not version %s", sessionCommand, sessionVersion, quoteName(version)))
		return
	}
	if !c.state.CompareAndSwap(connIdle, connBusy) {
		return // Shutdown closed it
	}
	ahead, _ := c.b.r.Peek(c.b.r.Buffered())
	c.converse(ahead)
}

// converse makes a session of c, which ends with it; run reads it. ahead is what
// was read of the session already.
func (c *lineConn) converse(ahead []byte) {
	// The session has limits of its own, and deadlines of its own to hold them.
	c.t.limits = &Limits{Idle: -1, Progress: -1}
	_ = c.t.SetDeadline(time.Time{})
	stream := c.stream
	if c.peer.tls == nil {
		stream = c.peer.conn // a plain socket, which a session can wait on without a buffer
	}
	l := &link{e: c.e, limits: &c.e.limits, logger: c.e.logger()}
	if !c.inProcess {
		l.peer = c.peer
	}
	c.parts.Store(1)
	l.start(stream, linkConfig{
		ctx: c.ctx, preface: sessionOK, buffered: ahead, heartbeat: c.e.Heartbeat, spin: c.e.Spin, budget: c.e.inFlight,
		gone: c.partEnded,
	})
	c.drop() // with ahead
	s := l.s
	c.session.Store(s)
	if c.e.ConnContext != nil { // whose context may end for reasons of its own; the other one ends by cut
		c.uncut = context.AfterFunc(c.ctx, func() { s.Abort(context.Cause(c.ctx)) })
	} else if c.ctx.Err() != nil {
		s.Abort(context.Cause(c.ctx)) // cut was first
	}
	if c.e.closing.Load() {
		c.drainSession(s) // Shutdown may have looked before
	}
}

// drainSession starts the goroutine that drains c's session, once.
func (c *lineConn) drainSession(s *session.Session) {
	if c.draining.Swap(true) {
		return
	}
	for {
		n := c.parts.Load()
		if n == 0 {
			return // the session is gone
		}
		if c.parts.CompareAndSwap(n, n+1) {
			go c.drain(s)
			return
		}
	}
}

// drain ends with the session.
func (c *lineConn) drain(s *session.Session) {
	_ = s.Shutdown(c.ctx) // cut cancels it
	c.partEnded()
}

// partEnded ends c when its session has ended with the last handler, and nobody
// drains it any more.
func (c *lineConn) partEnded() {
	if c.parts.Add(-1) > 0 {
		return
	}
	if c.uncut != nil {
		c.uncut()
	}
	c.end()
}

// open opens a stream of a command of e, in this process: over a session of its
// own through a pipe, so that it is the same as over a network.
func (e *Endpoint) open(ctx context.Context, name string, kind Kind) (*opened, *Error) {
	e.init()
	near, far := net.Pipe()
	served := newLineConn(context.Background(), e, far)
	served.inProcess = true
	if _, err := e.add(served); err != nil {
		_, _ = near.Close(), far.Close()
		return nil, refusal(Unavailable, "%s", err)
	}
	served.start()
	limits := e.limits
	l := &link{limits: &limits, logger: e.logger()}
	l.start(near, linkConfig{ctx: context.Background(), dialer: true, greeting: sessionOK, heartbeat: e.Heartbeat, budget: newBudget(limits.InFlight)})
	l.s.Start()
	select {
	case <-l.s.Ready(): // what the limits are is known from here on
	case <-ctx.Done():
	}
	o, refused := l.open(ctx, name, kind)
	if refused != nil {
		l.s.Abort(session.ErrClosed)
		return nil, refused
	}
	o.done = func(error) { l.s.Abort(session.ErrClosed) }
	return o, nil
}
