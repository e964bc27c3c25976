package endpoint

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"gobnode/internal/session"
	"gobnode/internal/wire"

	"github.com/pkg/errors"
)

// A link is one session in terms of commands, on either side of it: it serves
// the peer's calls from e's table and makes calls to the peer.
type link struct {
	e      *Endpoint // what the peer may call; nil: nothing
	limits *Limits
	budget *session.Budget // of the session, a quarter of its endpoint's
	share  int64           // the limit of budget; negative: none
	logger *slog.Logger
	ctx    context.Context // of the handlers
	peer   Peer
	s      *session.Session
	going  bool // of a node's: it takes no more calls. Guarded by Client.mu
}

// program is what a HELLO tells of this side.
const program = "gobnode"

// A linkConfig is what the two ways to a session differ in.
type linkConfig struct {
	ctx       context.Context // of the handlers
	dialer    bool
	preface   string // what is sent ahead of the first frame
	greeting  string // what is expected ahead of the peer's
	buffered  []byte // what was read behind the command line
	heartbeat time.Duration
	spin      time.Duration
	budget    *session.Budget // of the endpoint
	going     func()          // see session.Config.OnGoing
	gone      func()          // see session.Config.OnGone
}

// start begins the session. Nothing is read from it yet: see session.Begin.
func (l *link) start(stream net.Conn, c linkConfig) {
	if l.ctx = c.ctx; l.ctx == nil {
		l.ctx = context.Background()
	}
	if l.e != nil && c.dialer {
		l.ctx = l.e.back.ctx
	}
	if l.share = int64(l.limits.InFlight); l.share >= 0 {
		l.share /= 4
		l.budget = session.NewBudget(l.share, c.budget)
	} else {
		l.budget = newBudget(-1)
	}
	config := session.Config{
		Dialer: c.dialer, Preface: c.preface, Greeting: c.greeting, Buffered: c.buffered,
		Message: l.limits.Message, Calls: l.limits.Calls, Budget: l.budget, Heartbeat: c.heartbeat,
		Handshake: l.limits.Handshake, Progress: l.limits.Progress, Program: program, Context: l.ctx, Logger: l.logger,
		OnGoing: c.going, OnGone: c.gone, Spin: c.spin,
	}
	if l.e != nil {
		config.Accept, config.OnLimit, config.Workers = l.accept, l.e.onLimit, &l.e.workers
		if c.dialer {
			config.Accept = l.acceptBack
		}
	}
	if l.peer.conn != nil { // in process there is nothing to call back
		l.peer.link = l
	}
	l.s = session.Begin(stream, config)
}

// accept serves one call of the peer's, on a goroutine of the session's.
func (l *link) accept(st *session.Stream) {
	en := l.e.lookup([]byte(st.Name()))
	var refused *Error
	switch {
	case en == nil:
		refused = l.e.unknown([]byte(st.Name()))
	case en.kind != Kind(st.Kind()):
		refused = refusal(FailedPrecondition, "%s is a %s command and was called as a %s one", quoteName(en.name), en.kind, Kind(st.Kind()))
	case en.kind == KindUnary:
		refused = l.unary(st, en)
	default:
		refused = l.serve(st, en)
	}
	if refused != nil {
		st.Finish(refused.overSession())
	}
}

// overSession is e as a session sends it.
func (e *Error) overSession() *session.Error {
	return &session.Error{
		Code: wire.Code(e.Code), Outcome: wire.Outcome(e.Outcome), Message: string(appendErrText(nil, e.Message)),
	}
}

// serve runs a raw or streamed command for st and says the last word, unless it
// returns what to say.
func (l *link) serve(st *session.Stream, en *entry) *Error {
	v := &invocation{e: l.e, en: en, ctx: l.context(st, en), charge: l.newCharge()}
	defer v.ctx.end()
	defer v.charge.release()
	v.exited = func(answer *Error) { st.Finish(answer.overSession()) }
	serve := l.raw
	if en.kind == KindStream {
		serve = l.streamed
	}
	return v.unlessAborted(serve(st, v))
}

// context returns the context that a handler is called with.
func (l *link) context(st *session.Stream, en *entry) *callContext {
	c := &callContext{Context: l.ctx, st: st, info: Info{
		Command: en.name, Kind: en.kind, Peer: &l.peer, Logger: l.logger,
	}}
	c.info.carry(st.Header())
	if until, ok := st.Deadline(); ok {
		deadline := until // as in carry
		c.deadline = &deadline
	}
	return c
}

func (l *link) streamed(st *session.Stream, v *invocation) *Error {
	v.handle = func(ctx context.Context) error { return v.en.stream.serve(ctx, l, st) }
	if refused := v.run(nil); refused != nil {
		return refused
	}
	st.Finish(nil)
	return nil
}

// raw gives a stream of bytes to a raw command's handler.
func (l *link) raw(st *session.Stream, v *invocation) *Error {
	b := l.e.takeBuffers()
	b.r.Reset(&streamBytes{ctx: v.ctx, st: st})
	b.w.Reset(&streamBytes{ctx: v.ctx, st: st})
	b.rw = bufio.ReadWriter{Reader: b.r, Writer: b.w}
	v.handle = func(ctx context.Context) error { return v.en.handler.ServeCommand(ctx, &b.rw) }
	refused := v.run(nil)
	if v.panicked {
		return refused // what a panic left in the buffer is not to be trusted
	}
	if err := b.w.Flush(); err != nil && refused == nil {
		refused = &Error{Code: CodeOf(err), Outcome: OutcomeFailed, Message: err.Error(), cause: err}
	}
	l.e.dropBuffers(b)
	if refused == nil {
		st.Finish(nil)
	} else if refused != errAborted && v.entered {
		l.report(v, refused)
	}
	return refused
}

// report logs the failure of a raw command, as in line mode: the peer gets no
// more than its code and text.
func (l *link) report(v *invocation, failed *Error) {
	level := slog.LevelError
	if v.ctx.Err() != nil || gone(failed) {
		level = slog.LevelInfo // a consequence of the caller's going
	}
	l.logger.Log(v.ctx, level, "command failed", "error", failed.cause, "peer", &l.peer,
		"stack", fmt.Sprintf("%+v", withStack(failed.cause)), "command", quoteName(v.en.name))
}

// streamBytes is a raw stream as a buffer sees it.
type streamBytes struct {
	ctx context.Context
	st  *session.Stream
}

func (s *streamBytes) Read(p []byte) (int, error)  { return s.st.Read(s.ctx, p) }
func (s *streamBytes) Write(p []byte) (int, error) { return s.st.Write(s.ctx, p) }

// fromSession is an error of package session as one of this package.
//
// It is the outermost that tells: below it may be another of either kind, of the
// connection, if that is a stream of a session itself, and what is known of that
// stream is not known of the call.
func fromSession(err error) *Error {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		switch e := inner.(type) { //nolint:errorlint // one after the other
		case *Error:
			return e
		case *session.Error:
			return &Error{Code: Code(e.Code), Outcome: Outcome(e.Outcome), Message: e.Error(), cause: e}
		}
	}
	if errors.Is(err, session.ErrSendClosed) {
		return &Error{Code: FailedPrecondition, Message: "sent after CloseSend, or behind a message that was given up halfway", cause: err}
	}
	return &Error{Code: CodeOf(err), Message: err.Error(), cause: err}
}

// call makes a unary call to the peer.
func (l *link) call(ctx context.Context, name string, x outgoing) *Error {
	if err := checkName(name); err != nil {
		return notSent(err)
	}
	spec := session.CallSpec{Name: name, Header: headerOf(ctx), NoWait: inCall(ctx)}
	err := l.s.Call(ctx, &spec, func(dst []byte) ([]byte, error) {
		out, err := x.appendRequest(dst)
		if err != nil {
			return dst, badRequest(err)
		}
		return out, nil
	}, func(src []byte) error {
		if _, err := x.decodeReply(src, l.limits.gob()); err != nil {
			return badReply(err)
		}
		return nil
	})
	if err != nil {
		return fromSession(err)
	}
	return nil
}

// open opens a raw or typed stream to the peer.
func (l *link) open(ctx context.Context, name string, kind Kind) (*opened, *Error) {
	if err := checkName(name); err != nil {
		return nil, notSent(err)
	}
	spec := session.CallSpec{Name: name, Kind: uint8(kind), Header: headerOf(ctx), NoWait: inCall(ctx)}
	st, err := l.s.Open(ctx, &spec)
	if err != nil {
		return nil, fromSession(err)
	}
	return &opened{link: l, st: st}, nil
}

// An opened is a stream that this side opened.
type opened struct {
	link *link
	st   *session.Stream
	done func(error) // called when the stream has ended, if not nil; once or more
}

// end lets go of a stream that ended with err, nil after its last message.
func (o *opened) end(err error) {
	if err != nil {
		o.st.Cancel()
	}
	if o.done != nil {
		o.done(err)
	}
}

type headerKey struct{}

// WithHeader returns a context under which calls carry the pair to the handler,
// where Info.Header returns it; a later pair of the same key wins. Keys and
// values of one call are at most 8 KiB together. Headers that came in with a
// call are not passed on by themselves. A call in line mode cannot carry one
// and fails, not_run.
func WithHeader(ctx context.Context, key, value string) context.Context {
	pairs := headerOf(ctx)
	return context.WithValue(ctx, headerKey{}, append(slices.Clip(pairs), key, value))
}

func headerOf(ctx context.Context) []string {
	pairs, _ := ctx.Value(headerKey{}).([]string)
	return pairs
}

// inCall reports whether ctx is a handler's, so that a call made under it must
// not wait for a place: two handlers that wait for each other's would do so for
// ever.
func inCall(ctx context.Context) bool { return ctx.Value(infoKey{}) != nil }
