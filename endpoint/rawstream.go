package endpoint

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"gobnode/internal/session"

	"github.com/pkg/errors"
)

// A rawStream is a raw command's stream as a net.Conn, on the caller's side.
type rawStream struct {
	st     *session.Stream
	mine   *opened
	conn   net.Conn        // below the session, for its addresses
	ctx    context.Context // of Open: it ends the stream
	unbind func() bool     // from ctx

	mu    sync.Mutex // guards following
	until *untilSet
	timer *time.Timer // ends until; nil without a deadline
	sets  int         // calls of SetDeadline: a timer that is stopped too late sees that it was
}

func newRawStream(ctx context.Context, o *opened, conn net.Conn) *rawStream {
	r := &rawStream{st: o.st, mine: o, conn: conn, ctx: ctx, until: newUntilSet()}
	r.unbind = context.AfterFunc(ctx, func() { o.end(ctx.Err()) })
	return r
}

// end lets go of the stream, which ended with err.
func (r *rawStream) end(err error) {
	r.unbind()
	r.mine.end(err)
}

// untilSet is what reads and writes wait with: a context that ends at the
// deadline, wherever that is moved meanwhile. A context of package context would
// have to be replaced, and a write that is half sent cannot begin anew.
type untilSet struct {
	context.Context
	done chan struct{}
}

func newUntilSet() *untilSet {
	return &untilSet{Context: context.Background(), done: make(chan struct{})}
}

func (u *untilSet) Done() <-chan struct{} { return u.done }

func (u *untilSet) Err() error {
	select {
	case <-u.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// do runs one read or write under the deadline.
func (r *rawStream) do(f func(ctx context.Context) (int, error)) (int, error) {
	r.mu.Lock()
	until := r.until
	r.mu.Unlock()
	n, err := f(until)
	if until.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
		return n, os.ErrDeadlineExceeded
	}
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	if r.ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = r.ctx.Err() // what its end made of the stream is a consequence
	}
	return n, fromSession(err)
}

func (r *rawStream) Read(p []byte) (int, error) {
	n, err := r.do(func(ctx context.Context) (int, error) { return r.st.Read(ctx, p) })
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
	case errors.Is(err, io.EOF):
		r.end(nil)
	default:
		r.end(err)
	}
	return n, err
}

func (r *rawStream) Write(p []byte) (int, error) {
	n, err := r.do(func(ctx context.Context) (int, error) { return r.st.Write(ctx, p) })
	if errors.Is(err, io.EOF) { // which would end an io.Copy as if all was well
		err = &Error{Code: FailedPrecondition, Message: "the command has returned, and reads no more", cause: err}
	}
	return n, err
}

func (r *rawStream) CloseWrite() error { return r.st.CloseSend() }

func (r *rawStream) Close() error {
	_ = r.SetDeadline(time.Time{})
	r.end(errClosedHere)
	return nil
}

func (r *rawStream) LocalAddr() net.Addr  { return r.conn.LocalAddr() }
func (r *rawStream) RemoteAddr() net.Addr { return r.conn.RemoteAddr() }

func (r *rawStream) SetDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sets++
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	if r.until.Err() != nil {
		r.until = newUntilSet()
	}
	if t.IsZero() {
		return nil
	}
	left := time.Until(t)
	if left <= 0 {
		close(r.until.done)
		return nil
	}
	set := r.sets
	r.timer = time.AfterFunc(left, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.sets == set {
			close(r.until.done)
		}
	})
	return nil
}

func (r *rawStream) SetReadDeadline(t time.Time) error  { return r.SetDeadline(t) }
func (r *rawStream) SetWriteDeadline(t time.Time) error { return r.SetDeadline(t) }
