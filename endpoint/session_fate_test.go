package endpoint_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSessionReplyTooLargeForTheCaller: the caller's limit is the lower one. The
// handler has run, and the caller is told so.
func TestSessionReplyTooLargeForTheCaller(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		fail.Handle(e, func(context.Context, text) (text, error) { return text{strings.Repeat("x", 2000)}, nil })
	})
	c := dialNode(t, n, &endpoint.Dialer{Limits: endpoint.Limits{Message: 1000}})
	_, err := fail.Call(t.Context(), c, text{})
	assertFailed(t, err, endpoint.ResourceExhausted, endpoint.OutcomeFailed, "more than 1000")
	assertReleased(t, n)
}

// TestSessionMessageNotSent: a message that cannot be sent says nothing of the
// stream, whose handler runs and goes on.
func TestSessionMessageNotSent(t *testing.T) {
	const upload endpoint.StreamCommand[holder, text] = "UPLOAD"
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.Message = 1000
		upload.Handle(e, func(_ context.Context, s *endpoint.Stream[holder, text]) error {
			for h, err := range s.All() {
				if err != nil {
					return err
				}
				if err := s.Send(text{h.B.how}); err != nil {
					return err
				}
			}
			return nil
		})
	})
	for name, to := range map[string]endpoint.Caller{"Client": dialNode(t, n, nil), "Endpoint": n.Endpoint} {
		s, err := upload.Open(t.Context(), to)
		require.NoError(t, err, name)
		assertFailed(t, s.Send(holder{brokenGob{strings.Repeat("x", 2000)}}), endpoint.ResourceExhausted, endpoint.OutcomeUnknown, "more than 1000")
		assertFailed(t, s.Send(holder{brokenGob{"error"}}), endpoint.InvalidArgument, endpoint.OutcomeUnknown, "cannot be encoded")
		require.NoError(t, s.Send(holder{brokenGob{"fine"}}))
		got, err := s.Recv()
		require.NoError(t, err)
		assert.Equal(t, text{"fine"}, got)
		require.NoError(t, s.Close())
	}
}

// TestSessionAbortBeforeTheHandler: an interceptor aborts a command that has not
// run.
func TestSessionAbortBeforeTheHandler(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Interceptors = []endpoint.Interceptor{func(context.Context, *endpoint.Info, next) error { panic(endpoint.ErrAbort) }}
		fail.Handle(e, misbehave)
		echoStream.Handle(e, func(context.Context, *endpoint.Stream[line, line]) error { return nil })
	})
	for name, to := range map[string]endpoint.Caller{"Client": dialNode(t, n, nil), "Endpoint": n.Endpoint} {
		_, err := fail.Call(t.Context(), to, text{})
		assertFailed(t, err, endpoint.Aborted, endpoint.OutcomeNotRun, "aborted")
		s, err := echoStream.Open(t.Context(), to)
		require.NoError(t, err, name)
		_, err = s.Recv()
		assertFailed(t, err, endpoint.Aborted, endpoint.OutcomeNotRun, "aborted")
	}
}

// TestSessionStreamDeadline: whatever a stream is used for when its context
// ends, the context's own error comes.
func TestSessionStreamDeadline(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		echoStream.Handle(e, func(ctx context.Context, _ *endpoint.Stream[line, line]) error {
			<-ctx.Done()
			return ctx.Err()
		})
	})
	for name, to := range map[string]endpoint.Caller{"Client": dialNode(t, n, nil), "Endpoint": n.Endpoint} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				s, err := echoStream.Open(ctx, to)
				if err == nil {
					_, err = s.Recv()
				}
				assert.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, endpoint.DeadlineExceeded, endpoint.CodeOf(err))
				if s != nil {
					<-ctx.Done()
					time.Sleep(time.Millisecond)
					_, err = s.Recv()
					assert.ErrorIs(t, err, context.DeadlineExceeded)
					assert.ErrorIs(t, s.Send(line{}), context.DeadlineExceeded)
				}
				cancel()

				ctx, cancel = context.WithCancel(t.Context())
				s, err = echoStream.Open(ctx, to)
				require.NoError(t, err)
				cancel()
				_, err = s.Recv()
				assert.ErrorIs(t, err, context.Canceled)
			}
		})
	}
}

// TestSessionContextsAcross: the handler sees the caller's deadline and its
// cancel, and the caller the context errors of the handler, as themselves.
func TestSessionContextsAcross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type seen struct {
			left time.Duration
			err  error
		}
		handlers := make(chan seen, 1)
		n := memNode(t, func(e *endpoint.Endpoint) {
			fail.Handle(e, func(ctx context.Context, req text) (text, error) {
				if req.S == "own" {
					own, cancel := context.WithTimeout(ctx, time.Second)
					defer cancel()
					<-own.Done()
					return text{}, own.Err()
				}
				var s seen
				if deadline, ok := ctx.Deadline(); ok {
					s.left = time.Until(deadline)
				}
				<-ctx.Done()
				s.err = ctx.Err()
				handlers <- s
				time.Sleep(time.Millisecond) // both sides' clocks are one here: a reply at once may be in time
				return text{"late"}, nil
			})
		})
		c := dialNode(t, n, nil)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		begin := time.Now()
		_, err := fail.Call(ctx, c, text{})
		cancel()
		assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeUnknown, "")
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(begin))
		got := <-handlers
		assert.Equal(t, time.Minute, got.left)
		assert.Error(t, got.err)

		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		begin = time.Now()
		_, err = fail.Call(ctx, c, text{})
		assertFailed(t, err, endpoint.Canceled, endpoint.OutcomeUnknown, "")
		assert.ErrorIs(t, err, context.Canceled)
		got = <-handlers
		assert.Equal(t, time.Minute, time.Since(begin), "the handler hears of it at once")
		assert.Zero(t, got.left)
		assert.ErrorIs(t, got.err, context.Canceled)

		_, err = fail.Call(t.Context(), c, text{"own"})
		assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeFailed, "")
		assert.ErrorIs(t, err, context.DeadlineExceeded)

		// The caller dies.
		dying := dialNode(t, n, nil)
		done := make(chan error, 1)
		go func() {
			_, err := fail.Call(t.Context(), dying, text{})
			done <- err
		}()
		synctest.Wait()
		begin = time.Now()
		dying.CutConnections()
		assertFailed(t, <-done, endpoint.Unavailable, endpoint.OutcomeUnknown, "connection lost")
		got = <-handlers
		assert.Zero(t, time.Since(begin))
		assert.ErrorIs(t, got.err, context.Canceled)

		_, err = fail.Call(t.Context(), c, text{"own"})
		assert.ErrorIs(t, err, context.DeadlineExceeded, "the other session goes on")
	})
}

// TestSessionLost: nothing is known of the calls that were written when the
// connection broke. Those that were not are sent again on the next, and run once.
func TestSessionLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int64
		var back atomic.Bool
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.Limits.Calls = 2
			waitCall.Handle(e, func(ctx context.Context, _ line) (line, error) {
				runs.Add(1)
				if back.Load() {
					return line{}, nil
				}
				<-ctx.Done()
				return line{}, ctx.Err()
			})
		})
		c := dialNode(t, n, nil)
		errs := make(chan error, 10)
		for range 10 {
			go func() {
				_, err := waitCall.Call(t.Context(), c, line{})
				errs <- err
			}()
		}
		synctest.Wait()
		back.Store(true)
		c.CutConnections()
		failed := 0
		for range 10 {
			if err := <-errs; err != nil {
				assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeUnknown, "connection lost")
				failed++
			}
		}
		assert.Equal(t, 2, failed)
		assert.EqualValues(t, 10, runs.Load())
	})
}

// TestSessionShutdown: calls under way finish, calls back included; later ones
// did not run. Close cuts off.
func TestSessionShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entered := make(chan bool, 10)
		n := memNode(t, func(e *endpoint.Endpoint) {
			fail.Handle(e, func(ctx context.Context, req text) (text, error) {
				entered <- true
				select {
				case <-time.After(time.Minute):
				case <-ctx.Done():
					return text{}, ctx.Err()
				}
				return fail.Call(ctx, endpoint.PeerFrom(ctx), req)
			})
		})
		callee := endpoint.New()
		fail.Handle(callee, func(_ context.Context, req text) (text, error) { return text{req.S + " back"}, nil })
		c := dialNode(t, n, &endpoint.Dialer{Endpoint: callee})
		type answer struct {
			text
			error
		}
		answers := make(chan answer, 10)
		for range 10 {
			go func() {
				reply, err := fail.Call(t.Context(), c, text{"there"})
				answers <- answer{reply, err}
			}()
			<-entered
		}
		idle := dialNode(t, n, nil)
		begin := time.Now()
		ended := make(chan error, 1)
		go func() { ended <- n.Shutdown(t.Context()) }()
		synctest.Wait()
		for _, to := range []endpoint.Caller{c, idle} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := fail.Call(ctx, to, text{})
			cancel()
			assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeNotRun, "connection refused")
		}
		for range 10 {
			a := <-answers
			require.NoError(t, a.error)
			assert.Equal(t, "there back", a.S)
		}
		require.NoError(t, <-ended)
		assert.Equal(t, time.Minute, time.Since(begin).Round(time.Second))
		require.NoError(t, c.Close())
		require.NoError(t, idle.Close())
	})
}

func TestSessionShutdownCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		returned := make(chan error, 3)
		n := memNode(t, func(e *endpoint.Endpoint) {
			waitCall.Handle(e, func(ctx context.Context, _ line) (line, error) {
				<-ctx.Done()
				time.Sleep(time.Second) // a handler that is slow to hear
				returned <- ctx.Err()
				return line{}, ctx.Err()
			})
		})
		c := dialNode(t, n, nil)
		errs := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := waitCall.Call(t.Context(), c, line{})
				errs <- err
			}()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := n.Shutdown(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Contains(t, err.Error(), "3 running commands")
		assert.Len(t, returned, 3, "Shutdown waits for the handlers")
		for range 3 {
			err := <-errs
			assert.NotEqual(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err), "%v", err)
		}
	})
}

func TestSessionClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, side := range []string{"Endpoint.Close", "Client.Close"} {
			returned := make(chan error, 3)
			n := memNode(t, func(e *endpoint.Endpoint) {
				waitCall.Handle(e, func(ctx context.Context, _ line) (line, error) {
					<-ctx.Done()
					returned <- ctx.Err()
					return line{}, io.ErrNoProgress
				})
			})
			c := dialNode(t, n, nil)
			errs := make(chan error, 3)
			for range 3 {
				go func() {
					_, err := waitCall.Call(t.Context(), c, line{})
					errs <- err
				}()
			}
			synctest.Wait()
			if side == "Client.Close" {
				require.NoError(t, c.Close())
				synctest.Wait()
			} else {
				require.NoError(t, n.Close())
			}
			assert.Len(t, returned, 3, side)
			for range 3 {
				assert.NotEqual(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(<-errs), side)
			}
			code, why := endpoint.Unavailable, "the client is closed"
			if side != "Client.Close" {
				code, why = endpoint.DeadlineExceeded, "connection refused"
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := waitCall.Call(ctx, c, line{})
			cancel()
			assertFailed(t, err, code, endpoint.OutcomeNotRun, why)
			require.NoError(t, c.Close())
		}
	})
}

// TestSessionHeader: pairs travel from caller to handler and no further.
func TestSessionHeader(t *testing.T) {
	const at endpoint.StreamCommand[line, line] = "AT"
	n := newNode(nil)
	headerCall.Handle(n.Endpoint, func(ctx context.Context, l line) (line, error) {
		if l.Text == "on" {
			return headerCall.Call(ctx, endpoint.PeerFrom(ctx), line{})
		}
		return line{endpoint.InfoFrom(ctx).Header("user")}, nil
	})
	at.Handle(n.Endpoint, func(ctx context.Context, s *endpoint.Stream[line, line]) error {
		return s.Send(line{endpoint.InfoFrom(ctx).Header("user")})
	})
	n.Handle("RAWHEADER", rawHeader{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n.net = l
	n.start(t, l)
	c := dialNode(t, n, &endpoint.Dialer{Endpoint: n.Endpoint})
	for name, to := range map[string]endpoint.Caller{"Client": c, "Endpoint": n.Endpoint} {
		t.Run(name, func(t *testing.T) {
			one := endpoint.WithHeader(t.Context(), "user", "me")
			two := endpoint.WithHeader(endpoint.WithHeader(one, "user", "you"), "other", "x")
			for want, ctx := range map[string]context.Context{"me": one, "you": two, "": t.Context()} {
				got, err := headerCall.Call(ctx, to, line{})
				require.NoError(t, err)
				assert.Equal(t, want, got.Text)
				s, err := at.Open(ctx, to)
				require.NoError(t, err)
				got, err = s.Recv()
				require.NoError(t, err)
				assert.Equal(t, want, got.Text)
				require.NoError(t, s.Close())
			}
			if name == "Client" {
				got, err := headerCall.Call(one, to, line{"on"})
				require.NoError(t, err)
				assert.Empty(t, got.Text, "not passed on")
				raw, err := c.Open(one, "RAWHEADER")
				require.NoError(t, err)
				reply, err := raw.Reply()
				require.NoError(t, err)
				assert.Equal(t, "me", reply)
				require.NoError(t, raw.Close())
			}
			for size, fits := range map[int]bool{8<<10 - 20: true, 8 << 10: false} {
				big := endpoint.WithHeader(t.Context(), "user", strings.Repeat("x", size))
				got, err := headerCall.Call(big, to, line{})
				s, errOpen := at.Open(big, to)
				if fits {
					require.NoError(t, err)
					require.NoError(t, errOpen)
					assert.Len(t, got.Text, size)
					require.NoError(t, s.Close())
				} else {
					assertFailed(t, err, endpoint.ResourceExhausted, endpoint.OutcomeNotRun, "8 KiB")
					assertFailed(t, errOpen, endpoint.ResourceExhausted, endpoint.OutcomeNotRun, "8 KiB")
				}
			}
		})
	}
}

type rawHeader struct{}

func (rawHeader) ServeCommand(ctx context.Context, rw *bufio.ReadWriter) error {
	_, err := rw.WriteString(endpoint.InfoFrom(ctx).Header("user") + "\n")
	return err // flushed by the endpoint
}
