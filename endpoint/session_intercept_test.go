package endpoint_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type intercepted = func(ctx context.Context, info *endpoint.Info, next next) error

// TestSessionClientInterceptors: what those around a call may do, and what the
// caller is told of the run whatever they say.
func TestSessionClientInterceptors(t *testing.T) {
	again := func(ctx context.Context, _ *endpoint.Info, next next) error {
		_ = next(ctx)
		return next(ctx)
	}
	liar := &endpoint.Error{Code: endpoint.Unavailable, Outcome: endpoint.OutcomeNotRun, Message: "a lie"}
	for _, test := range []struct {
		name    string
		i       intercepted
		request []string // of the runs in turn
		reply   text
		code    endpoint.Code // OK: none of the following
		outcome endpoint.Outcome
		text    string
	}{
		{"twice, the last reply counts", again, []string{"a long text", ""}, text{}, 0, 0, ""},
		{"twice, the last failure counts", again, []string{"fine", "panic"}, text{}, endpoint.Internal, endpoint.OutcomeUnknown, "incident"},
		{"twice, after a failure", again, []string{"panic", "fine"}, text{"fine"}, 0, 0, ""},
		{"twice, both fail", again, []string{"panic", "panic"}, text{}, endpoint.Internal, endpoint.OutcomeFailed, "incident"},
		{"twice, refused in the end", again, []string{"panic", "refuse"}, text{}, endpoint.PermissionDenied, endpoint.OutcomeFailed, "may not"},
		{"refused twice", again, []string{"refuse", "refuse"}, text{}, endpoint.PermissionDenied, endpoint.OutcomeNotRun, "may not"},
		{"refused here", func(context.Context, *endpoint.Info, next) error {
			return endpoint.Errorf(endpoint.Unauthenticated, "who?")
		}, nil, text{}, endpoint.Unauthenticated, endpoint.OutcomeNotRun, "who?"},
		{"nil without next", func(context.Context, *endpoint.Info, next) error { return nil }, nil, text{}, endpoint.Internal, endpoint.OutcomeNotRun, "without having called next"},
		{"a failure swallowed", func(ctx context.Context, _ *endpoint.Info, next next) error {
			_ = next(ctx)
			return nil
		}, []string{"panic"}, text{}, endpoint.Internal, endpoint.OutcomeFailed, "incident"},
		{"a success refused", func(ctx context.Context, _ *endpoint.Info, next next) error {
			_ = next(ctx)
			return liar
		}, []string{"fine"}, text{}, endpoint.Unavailable, endpoint.OutcomeUnknown, "a lie"},
		{"a failure called not run", func(ctx context.Context, _ *endpoint.Info, next next) error {
			_ = next(ctx)
			return liar
		}, []string{"panic"}, text{}, endpoint.Unavailable, endpoint.OutcomeFailed, "a lie"},
		{"a failure wrapped", func(ctx context.Context, _ *endpoint.Info, next next) error {
			return endpoint.Errorf(endpoint.DataLoss, "so: %w", next(ctx))
		}, []string{"refuse"}, text{}, endpoint.DataLoss, endpoint.OutcomeNotRun, "so: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			runs := make(chan string, 3)
			for _, r := range test.request {
				runs <- r
			}
			n := tcpNode(t, func(e *endpoint.Endpoint) {
				e.Interceptors = []endpoint.Interceptor{func(ctx context.Context, info *endpoint.Info, next next) error {
					how := <-runs
					if how == "refuse" {
						return endpoint.Errorf(endpoint.PermissionDenied, "may not")
					}
					return next(context.WithValue(ctx, contextKey{}, how))
				}}
				fail.Handle(e, func(ctx context.Context, _ text) (text, error) {
					return misbehave(ctx, text{ctx.Value(contextKey{}).(string)})
				})
				echoStream.Handle(e, func(ctx context.Context, s *endpoint.Stream[line, line]) error {
					if _, err := misbehave(ctx, text{ctx.Value(contextKey{}).(string)}); err != nil {
						return err
					}
					return s.Send(line{"open"})
				})
			})
			var ends []error
			c := dialNode(t, n, &endpoint.Dialer{Interceptors: []endpoint.Interceptor{func(ctx context.Context, info *endpoint.Info, next next) error {
				assert.Equal(t, "me", info.Header("user"))
				info.OnEnd(func(err error) { ends = append(ends, err) })
				return test.i(ctx, info, next)
			}}})
			ctx := endpoint.WithHeader(t.Context(), "user", "me")
			reply, err := fail.Call(ctx, c, text{})
			assert.Equal(t, test.reply, reply)
			require.Len(t, ends, 1)
			if test.text == "" {
				require.NoError(t, err)
				require.NoError(t, ends[0])
				return
			}
			assertFailed(t, err, test.code, test.outcome, test.text)
			assert.Equal(t, "FAIL", failure(t, err).Command)
			assert.ErrorIs(t, ends[0], test.code)
			assert.Equal(t, test.outcome, endpoint.OutcomeOf(ends[0]))
		})
	}
}

// TestSessionStreamInterceptors: next returns when the stream is open, OnEnd
// tells how it ended, on both sides.
func TestSessionStreamInterceptors(t *testing.T) {
	const raw = "RAWTEST"
	served := make(chan error, 10)
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Interceptors = []endpoint.Interceptor{func(ctx context.Context, info *endpoint.Info, next next) error {
			info.OnEnd(func(err error) { served <- err })
			return next(ctx)
		}}
		echoStream.Handle(e, func(ctx context.Context, s *endpoint.Stream[line, line]) error {
			for l, err := range s.All() {
				if err != nil {
					return err
				}
				if l.Text == "fail" {
					return endpoint.Errorf(endpoint.NotFound, "as asked")
				}
				if err := s.Send(l); err != nil {
					return err
				}
			}
			return nil
		})
		e.Handle(raw, endpoint.ServeFunc(func(_ context.Context, rw *bufio.ReadWriter) error {
			l, err := rw.ReadString('\n')
			if l == "fail\n" {
				return endpoint.Errorf(endpoint.NotFound, "as asked")
			}
			return errors.Join(err)
		}))
	})
	var ends []error
	calls := 0
	c := dialNode(t, n, &endpoint.Dialer{Interceptors: []endpoint.Interceptor{func(ctx context.Context, info *endpoint.Info, next next) error {
		calls++
		info.OnEnd(func(err error) { ends = append(ends, err) })
		if err := next(ctx); err != nil {
			return err
		}
		if calls == 1 {
			return next(ctx) // the first stream is given up
		}
		return nil
	}}})

	s, err := echoStream.Open(t.Context(), c)
	require.NoError(t, err)
	assert.ErrorIs(t, <-served, endpoint.Canceled, "the one that was given up")
	require.NoError(t, s.Send(line{"x"}))
	got, err := s.Recv()
	require.NoError(t, err)
	assert.Equal(t, line{"x"}, got)
	assert.Empty(t, ends)
	require.NoError(t, s.CloseSend())
	_, err = s.Recv()
	require.Equal(t, io.EOF, err)
	require.NoError(t, s.Close())
	require.Len(t, ends, 1)
	require.NoError(t, ends[0])
	require.NoError(t, <-served)

	s, err = echoStream.Open(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, s.Send(line{"fail"}))
	_, err = s.Recv()
	assertFailed(t, err, endpoint.NotFound, endpoint.OutcomeFailed, "as asked")
	require.Len(t, ends, 2)
	require.ErrorIs(t, ends[1], endpoint.NotFound)
	require.ErrorIs(t, <-served, endpoint.NotFound)

	s, err = echoStream.Open(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.Len(t, ends, 3)
	require.ErrorIs(t, ends[2], endpoint.Canceled)
	require.ErrorIs(t, <-served, endpoint.Canceled)

	conn, err := c.Open(t.Context(), raw)
	require.NoError(t, err)
	_, err = conn.WriteString("fail\n")
	require.NoError(t, err)
	_, err = conn.Reply()
	require.ErrorIs(t, err, endpoint.NotFound)
	require.Len(t, ends, 4)
	require.ErrorIs(t, ends[3], endpoint.NotFound)
	require.NoError(t, conn.Close())

	conn, err = c.Open(t.Context(), raw)
	require.NoError(t, err)
	_, err = conn.WriteString("fine\n")
	require.NoError(t, err)
	_, err = conn.Reply()
	require.ErrorIs(t, err, io.EOF)
	require.Len(t, ends, 5)
	require.NoError(t, ends[4])
	require.NoError(t, conn.Close())

	conn, err = c.Open(t.Context(), raw)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.Len(t, ends, 6)
	require.ErrorIs(t, ends[5], endpoint.Canceled)
}

// TestHandlerThatWasLeft: an interceptor ought to wait for next. Where one does
// not, a handler that ends its goroutine later ends no other call.
func TestHandlerThatWasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := make(chan struct{}, 1)
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.Interceptors = []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next next) error {
				ended := make(chan error, 1)
				go func() { ended <- next(ctx) }() // ends with the handler
				<-runs
				select {
				case err := <-ended:
					return err
				case <-time.After(10 * ms):
					return endpoint.Errorf(endpoint.DeadlineExceeded, "enough")
				}
			}}
			fail.Handle(e, func(_ context.Context, r text) (text, error) {
				runs <- struct{}{}
				if r.S == "late" {
					time.Sleep(15 * ms)
					runtime.Goexit()
				}
				time.Sleep(8 * ms)
				return r, nil
			})
		})
		c := dialNode(t, n, nil)
		_, err := fail.Call(t.Context(), c, text{"late"})
		require.ErrorIs(t, err, endpoint.DeadlineExceeded)
		_, err = fail.Call(t.Context(), c, text{"fine"})
		require.NoError(t, err, "it ran on while the other handler left")
	})
}
