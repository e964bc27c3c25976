package endpoint

import (
	"bytes"
	"context"
	"io"
	"os"
	"time"

	"gobnode/internal/gobcodec"
	"gobnode/internal/session"

	"github.com/pkg/errors"
)

// errDead is why a Conn takes no more calls.
var errDead = errors.New("the connection broke at an earlier call: open another")

// call runs one call over c. Another call under way is waited for within ctx.
// After any error but an ERR reply c is dead: what is still on its way belongs
// to the failed call.
func (c *Conn) call(ctx context.Context, name string, x outgoing) *Error {
	if err := ctx.Err(); err != nil {
		return notSent(err)
	}
	if err := checkName(name); err != nil {
		return notSent(err)
	}
	if len(headerOf(ctx)) > 0 {
		return refusal(FailedPrecondition, "a header needs a session: use Dial in place of Open")
	}
	if _, ok := c.conn.(*rawStream); ok {
		return refusal(FailedPrecondition, "this Conn is one raw command of a session: call on the Client")
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil { // both may have been ready
		return notSent(err)
	}
	if c.dead {
		return &Error{Code: Unavailable, Outcome: OutcomeNotRun, Message: errDead.Error(), cause: errDead}
	}
	buf := requests.Get().(*[]byte)
	defer dropRequest(buf)
	request, err := x.appendRequest(append(append((*buf)[:0], name...), '\n'))
	if err != nil {
		return badRequest(err)
	}
	*buf = request
	if limit, n := c.limits.Message, len(request)-len(name)-1; limit >= 0 && n > limit {
		return refusal(ResourceExhausted, "a request of %d bytes, more than %d", n, limit)
	}
	if n := c.Reader.Buffered(); n > 0 {
		c.dead = true // the reply to this call could not be told from them
		return refusal(FailedPrecondition, "%d bytes that belong to no call are unread", n)
	}
	defer c.bound(ctx)()
	if err = c.Flush(); err != nil {
		c.dead = true
		return c.broken(ctx, err, 0)
	}
	answer, sent, err := c.exchange(request, x, buf)
	if err != nil {
		c.dead = true
		return c.broken(ctx, err, sent)
	}
	c.dead = c.dead || answer.closes()
	return answer
}

// closes reports whether the endpoint closes the connection behind e: it does
// not know where the data of an unknown command ends, and one that is shutting
// down serves no more. An interceptor may have refused with the same, and then
// another connection costs little.
func (e *Error) closes() bool {
	return e != nil && e.Outcome == OutcomeNotRun && (e.Code == Unimplemented || e.Code == Unavailable)
}

// exchange sends the request and reads the reply into x, or the answer that is
// there instead. buf holds the request, and then the reply.
func (c *Conn) exchange(request []byte, x outgoing, buf *[]byte) (answer *Error, sent int, err error) {
	if sent, err = c.stream.Write(request); err == nil {
		answer, err = c.readReply(x, buf)
		return answer, sent, err
	}
	// An endpoint that refuses a request before its end says so and closes. That
	// answer has come, then, and reading does not wait.
	if gone(err) {
		if line, readErr := c.readLine(); readErr == nil {
			if told, ok := parseErrLine(string(line)); ok {
				c.dead = true
				return told, sent, nil
			}
		}
	}
	return nil, sent, err
}

// bound makes reads and writes fail from the end of ctx on, until release is
// called, which puts the deadline of SetDeadline back in force.
func (c *Conn) bound(ctx context.Context) (release func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	released := false // guarded by c.mu
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !released {
			c.ended = true
			_ = c.stream.SetDeadline(time.Unix(1, 0))
		}
	})
	return func() {
		if stop() {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		released = true
		if c.ended {
			c.ended = false
			_ = c.stream.SetDeadline(c.deadline)
		}
	}
}

// broken is the error of a call that failed on the connection. Nothing is known
// of the run, unless nothing was sent.
func (c *Conn) broken(ctx context.Context, err error, sent int) *Error {
	e := &Error{Code: Unavailable, Message: "the connection broke: " + err.Error(), cause: err}
	if sent == 0 {
		e.Outcome = OutcomeNotRun
	}
	var own *Error
	switch {
	case ctx.Err() != nil:
		e.Code, e.Message, e.cause = CodeOf(ctx.Err()), ctx.Err().Error(), ctx.Err()
	case errors.As(err, &own):
		e.Code, e.Message = own.Code, own.Message
	case errors.Is(err, os.ErrDeadlineExceeded):
		e.Code, e.Message = DeadlineExceeded, "the deadline of SetDeadline passed"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Message = "the endpoint closed the connection before the reply was whole"
	}
	return e
}

// badRequest is the error of a call whose request cannot be encoded.
func badRequest(err error) *Error {
	return &Error{Code: InvalidArgument, Outcome: OutcomeNotRun, Message: "the request cannot be encoded: " + err.Error(), cause: err}
}

// badReply is the error of a call whose reply cannot be decoded.
func badReply(err error) *Error {
	return &Error{Code: badData(err).Code, Message: "the reply cannot be decoded: " + err.Error(), cause: err}
}

// open fails: a stream needs a session.
func (c *Conn) open(context.Context, string, Kind) (*opened, *Error) {
	return nil, refusal(FailedPrecondition, "a stream needs a session: use Dial in place of Open")
}

// notSent is the error of a call of which nothing was sent.
func notSent(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	code := CodeOf(err)
	if code == Unknown {
		code = Unavailable
	}
	return &Error{Code: code, Outcome: OutcomeNotRun, Message: err.Error(), cause: err}
}

// readReply reads OK and the reply into x, or an ERR line, which is the answer.
// An error means that c is of no more use.
func (c *Conn) readReply(x outgoing, buf *[]byte) (answer *Error, err error) {
	line, err := c.readLine()
	if err != nil {
		return nil, err
	}
	if answer, ok := parseErrLine(string(line)); ok {
		return answer, nil
	}
	if !bytes.Equal(line, []byte("OK")) {
		return nil, Errorf(Internal, "the endpoint answered %s, which is no reply", quoteName(line))
	}
	if x.noReply() {
		return nil, nil
	}
	data, err := gobcodec.ReadMessage(c.Reader, (*buf)[:0], c.limits.gob())
	*buf = data
	if err == nil {
		_, err = x.decodeReply(data, c.limits.gob())
	}
	var bad *gobcodec.Error
	var bound *gobcodec.BoundError
	if errors.As(err, &bad) || errors.As(err, &bound) {
		return nil, badReply(err)
	}
	return nil, err
}

// call runs a command of e in this process. The values go through the codec, as
// they would over a connection, and the handler gets a context of its own, which
// has ctx's deadline and end but not its values.
func (e *Endpoint) call(ctx context.Context, name string, x outgoing) *Error {
	e.init()
	if err := ctx.Err(); err != nil {
		return notSent(err)
	}
	if err := checkName(name); err != nil {
		return notSent(err)
	}
	en := e.lookup([]byte(name))
	if en == nil {
		return e.unknown([]byte(name))
	}
	if en.unary == nil {
		return refusal(FailedPrecondition, "%s is a %s command: it cannot be called", quoteName(name), en.kind)
	}
	if err := session.CheckHeader(headerOf(ctx)); err != nil {
		return fromSession(err)
	}
	request, err := x.appendRequest(nil)
	if err != nil {
		return badRequest(err)
	}
	c := newLocalCall(ctx, e, en)
	if !e.addLocal(c) {
		c.cancel(ErrClosed)
		return notSent(&Error{Code: Unavailable, Outcome: OutcomeNotRun, Message: ErrClosed.Error(), cause: ErrClosed})
	}
	go c.run(request)
	select {
	case <-c.done:
	case <-ctx.Done():
		// The handler's context ends by itself at a deadline, and says why then.
		if _, timed := ctx.Deadline(); !timed || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			c.cancel(context.Cause(ctx))
		}
		return &Error{Code: CodeOf(ctx.Err()), Message: ctx.Err().Error(), cause: ctx.Err()}
	}
	if c.answer != nil {
		return c.answer.told()
	}
	if _, err := x.decodeReply(c.reply, e.limits.gob()); err != nil {
		return badReply(err)
	}
	return nil
}

// A localCall is a call in process, on a goroutine of its own so that the
// caller is back in time whatever the handler does.
type localCall struct {
	v      invocation
	cancel context.CancelCauseFunc
	done   chan struct{}
	reply  []byte
	answer *Error
}

func newLocalCall(caller context.Context, e *Endpoint, en *entry) *localCall {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := &localCall{cancel: cancel, done: make(chan struct{})}
	if deadline, ok := caller.Deadline(); ok {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, deadline)
		c.cancel = func(cause error) { cancel(cause); stop() }
	}
	call := en.unary.newCall()
	c.v = invocation{
		e: e, en: en, call: call, charge: e.newCharge(),
		ctx:    &callContext{Context: ctx, info: Info{Command: en.name, Kind: en.kind, Peer: &Peer{}, Logger: e.logger()}},
		exited: func(answer *Error) { c.answer = answer },
	}
	c.v.ctx.info.carry(headerOf(caller))
	return c
}

// run ends when the handler has returned.
func (c *localCall) run(request []byte) {
	defer func() { // deferred for runtime.Goexit in the handler
		c.v.charge.release()
		c.cancel(errEnded)
		close(c.done)
		c.v.e.removeLocal(c)
	}()
	if limit := c.v.e.limits.Message; limit >= 0 && len(request) > limit {
		c.answer = refusal(ResourceExhausted, "a request of %d bytes, more than %d", len(request), limit)
		return
	}
	c.answer = c.v.run(func() *Error { return c.v.decodeGob(request) })
	if c.answer == errAborted {
		c.answer = &Error{Code: Aborted, Outcome: c.v.outcome(), Message: c.v.en.name + " aborted"}
	}
	if c.answer == nil {
		c.reply, c.answer = c.v.reply(nil, c.v.call.appendReply)
	}
}

func (e *Endpoint) addLocal(c *localCall) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing.Load() {
		return false
	}
	if e.locals == nil {
		e.locals = make(map[*localCall]struct{})
	}
	e.locals[c] = struct{}{}
	return true
}

func (e *Endpoint) removeLocal(c *localCall) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.locals, c)
	e.checkEnded()
}
