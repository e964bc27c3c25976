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
	c.converse(bytes.Clone(ahead))
}

// converse makes a session of c, which ends with it. No goroutine of c's waits
// for that: with the stack that reading the command has grown it would be most of
// what an idle session holds. ahead is what was read of the session already.
func (c *lineConn) converse(ahead []byte) {
	c.drop()
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
	begun := make(chan struct{})
	l.start(stream, linkConfig{
		ctx: c.ctx, preface: sessionOK, buffered: ahead, heartbeat: c.e.Heartbeat, spin: c.e.Spin, budget: c.e.inFlight,
		ended: func() { go c.afterSession(begun) },
	})
	s := l.s.Load()
	c.session.Store(s)
	if c.e.ConnContext != nil { // whose context may end for reasons of its own; the other one ends by cut
		c.uncut = context.AfterFunc(c.ctx, func() { s.Abort(context.Cause(c.ctx)) })
	} else if c.ctx.Err() != nil {
		s.Abort(context.Cause(c.ctx)) // cut was first
	}
	if c.e.closing.Load() {
		c.drainSession(s) // Shutdown may have looked before
	}
	close(begun)
}

// drainSession starts the goroutine that drains c's session, once. It ends with
// the session.
func (c *lineConn) drainSession(s *session.Session) {
	drained := make(chan struct{})
	if !c.drained.CompareAndSwap(nil, &drained) {
		return
	}
	go func() {
		defer close(drained)
		_ = s.Shutdown(c.ctx) // cut cancels it
	}()
}

// afterSession ends c when its session has ended and the last handler has
// returned.
func (c *lineConn) afterSession(begun <-chan struct{}) {
	<-begun
	c.session.Load().Wait()
	if never := (chan struct{})(nil); !c.drained.CompareAndSwap(nil, &never) {
		<-*c.drained.Load()
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
	select {
	case <-l.s.Load().Ready(): // what the limits are is known from here on
	case <-ctx.Done():
	}
	o, refused := l.open(ctx, name, kind)
	if refused != nil {
		l.s.Load().Abort(session.ErrClosed)
		return nil, refused
	}
	o.done = func(error) { l.s.Load().Abort(session.ErrClosed) }
	return o, nil
}
