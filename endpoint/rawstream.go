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
	st   *session.Stream
	mine *opened
	conn net.Conn // below the session, for its addresses

	mu       sync.Mutex // guards following
	ctx      context.Context
	cancel   context.CancelFunc
	deadline time.Time
}

func newRawStream(o *opened, conn net.Conn) *rawStream {
	r := &rawStream{st: o.st, mine: o, conn: conn}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// do runs one read or write under the deadline. A deadline that is set
// meanwhile ends the context that it waits with, and it waits on with another.
func (r *rawStream) do(f func(ctx context.Context) (int, error)) (int, error) {
	for {
		r.mu.Lock()
		ctx, deadline := r.ctx, r.deadline
		r.mu.Unlock()
		bounded, cancel := ctx, context.CancelFunc(func() {})
		if !deadline.IsZero() {
			bounded, cancel = context.WithDeadline(ctx, deadline)
		}
		n, err := f(bounded)
		timedOut := errors.Is(bounded.Err(), context.DeadlineExceeded)
		cancel()
		switch {
		case err == nil || n > 0:
			return n, err
		case timedOut && errors.Is(err, context.DeadlineExceeded):
			return n, os.ErrDeadlineExceeded
		case ctx.Err() != nil && errors.Is(err, context.Canceled):
			continue // SetDeadline was called
		}
		var e *session.Error
		if errors.As(err, &e) {
			return n, fromSession(err)
		}
		return n, err
	}
}

func (r *rawStream) Read(p []byte) (int, error) {
	n, err := r.do(func(ctx context.Context) (int, error) { return r.st.Read(ctx, p) })
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
	case errors.Is(err, io.EOF):
		r.mine.end(nil)
	default:
		r.mine.end(err)
	}
	return n, err
}

func (r *rawStream) Write(p []byte) (int, error) {
	return r.do(func(ctx context.Context) (int, error) { return r.st.Write(ctx, p) })
}

func (r *rawStream) CloseWrite() error { return r.st.CloseSend() }

func (r *rawStream) Close() error {
	r.mine.end(errClosedHere)
	return nil
}

func (r *rawStream) LocalAddr() net.Addr  { return r.conn.LocalAddr() }
func (r *rawStream) RemoteAddr() net.Addr { return r.conn.RemoteAddr() }

func (r *rawStream) SetDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deadline = t
	r.cancel()
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return nil
}

func (r *rawStream) SetReadDeadline(t time.Time) error  { return r.SetDeadline(t) }
func (r *rawStream) SetWriteDeadline(t time.Time) error { return r.SetDeadline(t) }
