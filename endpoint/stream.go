package endpoint

import (
	"context"
	"io"
	"iter"

	"gobnode/internal/gobcodec"
	"gobnode/internal/session"

	"github.com/pkg/errors"
)

// A StreamCommand is a typed command of many messages each way, In from caller
// to handler and Out from handler to caller. Like a Command it is a constant:
//
//	const Chat endpoint.StreamCommand[Line, Line] = "CHAT"
//
// It needs a session, or an *Endpoint in process.
type StreamCommand[In, Out any] string

// Handle registers f as the command on e, in place of an earlier command of its
// name. The stream ends when f returns: its error reaches the caller as code and
// text, nil as io.EOF. Handle panics as Command.Handle does.
func (c StreamCommand[In, Out]) Handle(e *Endpoint, f func(context.Context, *Stream[In, Out]) error) {
	if f == nil {
		panic("endpoint: nil function for command " + quoteName(c)) //nolint:forbidigo // a defect of the program, found when it starts
	}
	in, out, err := codecs[In, Out]()
	if err != nil {
		panic("endpoint: command " + quoteName(c) + ": " + err.Error()) //nolint:forbidigo // a defect of the program, found when it starts
	}
	e.register(string(c), entry{kind: KindStream, stream: &streamCommand[In, Out]{name: string(c), in: in, out: out, f: f}})
	e.warn(string(c), append(in.Warnings(), out.Warnings()...))
}

// Open opens a stream of the command on to. It lasts until the handler has
// returned and everything was received, until Close, or until ctx ends; one of
// these must come, or the stream keeps its place among the peer's calls.
func (c StreamCommand[In, Out]) Open(ctx context.Context, to Caller) (*Stream[Out, In], error) {
	in, out, err := codecs[In, Out]()
	if err != nil {
		return nil, errors.WithStack(&Error{Code: InvalidArgument, Outcome: OutcomeNotRun, Command: string(c), Message: err.Error(), cause: err})
	}
	o, refused := to.open(ctx, string(c), KindStream)
	if refused != nil {
		refused.Command = string(c)
		return nil, errors.WithStack(refused)
	}
	s := &Stream[Out, In]{name: string(c), ctx: ctx, link: o.link, st: o.st, recv: out, send: in, mine: o}
	s.unbind = context.AfterFunc(ctx, func() { o.end(s.errorOf(ctx.Err())) })
	return s, nil
}

func codecs[A, B any]() (a *gobcodec.Codec[A], b *gobcodec.Codec[B], err error) {
	if a, err = gobcodec.For[A](); err == nil {
		b, err = gobcodec.For[B]()
	}
	return a, b, err
}

// streaming is a streamCommand without its types.
type streaming interface {
	serve(ctx context.Context, l *link, st *session.Stream) error
	describe() (request, reply, example string)
}

type streamCommand[In, Out any] struct {
	name string
	in   *gobcodec.Codec[In]
	out  *gobcodec.Codec[Out]
	f    func(context.Context, *Stream[In, Out]) error
}

func (c *streamCommand[In, Out]) serve(ctx context.Context, l *link, st *session.Stream) error {
	return c.f(ctx, &Stream[In, Out]{name: c.name, ctx: ctx, link: l, st: st, recv: c.in, send: c.out})
}

func (c *streamCommand[In, Out]) describe() (request, reply, example string) {
	return goText[In](), goText[Out](), ""
}

// A Stream is one side of an open StreamCommand: it receives messages of the one
// type and sends those of the other. One goroutine may receive while another
// sends. A handler's stream is not to be used after the handler has returned.
type Stream[Recv, Send any] struct {
	name   string
	ctx    context.Context
	link   *link
	st     *session.Stream
	recv   *gobcodec.Codec[Recv]
	send   *gobcodec.Codec[Send]
	mine   *opened // nil on the handler's side
	unbind func() bool
}

// Recv waits for the next message. After the last one the error is io.EOF: the
// handler has returned without an error, or the caller has called CloseSend.
// Any other error is an *Error and ends the stream.
func (s *Stream[Recv, Send]) Recv() (Recv, error) {
	var v Recv
	err := s.RecvInto(&v)
	return v, err
}

// RecvInto is Recv into *v, of which nothing is left before but the room of its
// []byte fields, which is used again. It is for who is done with a message before
// the next. For a stream of messages of 32 KiB or 1 MiB it takes a quarter off the CPU
// time of both sides together, which the garbage collector and the system spend
// on memory for values that are dropped at once. What was kept of the message
// before, of its []byte fields, is overwritten; no two of them may share memory that the caller put there. *v keeps the room of
// the largest message, which no limit counts once RecvInto has returned. After an error it is the zero value.
func (s *Stream[Recv, Send]) RecvInto(v *Recv) error {
	err := s.st.Receive(s.ctx, func(src []byte) error {
		c := s.link.newCharge()
		defer c.release()
		refused := c.decode(src, s.link.limits.gob(), func(src []byte, limits gobcodec.Limits) (int, error) {
			s.recv.Clear(v) // of what a first try with a lower limit left behind, too
			return s.recv.Decode(src, v, limits)
		})
		if refused != nil {
			refused.Outcome = OutcomeUnknown
			return refused
		}
		return nil
	})
	if err != nil {
		var zero Recv
		*v = zero
		err = s.errorOf(err)
		s.ended(err)
	}
	return err
}

// All returns the messages that are still to come. It ends after the last one,
// or after yielding the error of Recv.
func (s *Stream[Recv, Send]) All() iter.Seq2[Recv, error] {
	return func(yield func(Recv, error) bool) {
		for {
			v, err := s.Recv()
			if err == io.EOF || !yield(v, err) || err != nil { //nolint:errorlint // as Recv returns it
				return
			}
		}
	}
}

// Send sends a message. It waits while the other side does not receive, until
// the stream's context ends. When the handler has returned, the caller's Send
// says how, as Recv does when it comes to that: its error, or io.EOF if there
// was none. After CloseSend it fails, failed_precondition.
func (s *Stream[Recv, Send]) Send(v Send) error {
	return s.errorOf(s.st.SendBy(s.ctx, func(dst []byte) ([]byte, error) {
		out, err := s.send.Append(dst, &v)
		if err != nil {
			bad := badRequest(err)
			bad.Outcome = OutcomeUnknown // of the stream, which goes on
			return dst, bad
		}
		return out, nil
	}))
}

// CloseSend says that no more is sent; the other side's Recv returns io.EOF
// after the last message. On the handler's side returning does the same. It
// fails after an earlier CloseSend, and when the stream has failed.
func (s *Stream[Recv, Send]) CloseSend() error { return s.errorOf(s.st.CloseSend()) }

// Close ends a stream that Open returned: the handler's context ends, what is
// still under way is dropped. On the handler's side it gives the stream up ahead
// of the handler's return, which still decides what the caller is told: Send and
// Recv under way on other goroutines, and later ones, fail, canceled. That is how
// a handler gets out of a Send to a caller who does not receive.
//
// Close may be called at any time, more than once, and waits for nothing.
func (s *Stream[Recv, Send]) Close() error {
	if s.mine == nil {
		s.st.Stop()
	} else {
		s.ended(errClosedHere)
	}
	return nil
}

// ended lets go of a stream of the caller's, which ended with err.
func (s *Stream[Recv, Send]) ended(err error) {
	if s.mine == nil {
		return
	}
	if s.unbind != nil {
		s.unbind()
	}
	if err == io.EOF { //nolint:errorlint // as errorOf returns it
		err = nil
	}
	s.mine.end(err)
}

// errorOf makes an error of the session one of the command; io.EOF stays.
func (s *Stream[Recv, Send]) errorOf(err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // returned as it is
		return err
	}
	if s.mine != nil && s.ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, session.ErrClosed)) {
		err = s.ctx.Err() // what unbind made of it is a consequence
	}
	e := *fromSession(err)
	e.Command = s.name
	return errors.WithStack(&e)
}
