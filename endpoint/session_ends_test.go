package endpoint_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestClientOpenContext: the context of Client.Open governs the stream for its
// life, as that of a StreamCommand's does.
func TestClientOpenContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handlers := make(chan error, 1)
		n := memNode(t, func(e *endpoint.Endpoint) {
			rawCommands(e)
			e.Handle("HEAR", endpoint.ServeFunc(func(ctx context.Context, _ *bufio.ReadWriter) error {
				<-ctx.Done()
				handlers <- ctx.Err()
				return ctx.Err()
			}))
		})
		c := dialNode(t, n, nil)
		ctx, cancel := context.WithCancel(t.Context())
		conn, err := c.Open(ctx, "HEAR")
		require.NoError(t, err)
		time.AfterFunc(time.Minute, cancel)
		begin := time.Now()
		_, err = conn.ReadByte()
		require.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, endpoint.Canceled, endpoint.CodeOf(err))
		assert.Equal(t, time.Minute, time.Since(begin))
		assert.ErrorIs(t, <-handlers, context.Canceled)
		assert.Equal(t, time.Minute, time.Since(begin), "the handler hears of it at once")
		_, err = conn.Write(make([]byte, 10_000)) // past the buffer
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, conn.Close())

		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		conn, err = c.Open(ctx, "SLOW") // reads nothing for an hour
		require.NoError(t, err)
		begin = time.Now()
		_, err = conn.Write(make([]byte, 1<<20))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, endpoint.DeadlineExceeded, endpoint.CodeOf(err))
		assert.Equal(t, time.Minute, time.Since(begin))
		require.NoError(t, conn.Close())

		// What came before the end can still be read, and a stream that has ended
		// keeps its end.
		ctx, cancel = context.WithCancel(t.Context())
		conn, err = c.Open(ctx, "PING")
		require.NoError(t, err)
		got, err := io.ReadAll(conn)
		require.NoError(t, err)
		assert.Equal(t, "PONG\n", string(got))
		cancel()
		synctest.Wait()
		_, err = conn.ReadByte()
		assert.Equal(t, io.EOF, err)
		require.NoError(t, conn.Close())

		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = c.Open(ended, "PING")
		assertFailed(t, err, endpoint.Canceled, endpoint.OutcomeNotRun, "")
	})
}

// TestSendAfterTheEnd: what Send says once the other side has had its last
// word, or this one its own.
func TestSendAfterTheEnd(t *testing.T) {
	const short endpoint.StreamCommand[line, line] = "SHORT"
	late := make(chan error, 2)
	register := func(e *endpoint.Endpoint) {
		streamCommands(e)
		short.Handle(e, func(_ context.Context, s *endpoint.Stream[line, line]) error {
			if l, err := s.Recv(); err != nil || l.Text == "enough" {
				return err
			}
			assert.NoError(t, s.CloseSend())
			late <- s.Send(line{"late"})
			return endpoint.Errorf(endpoint.NotFound, "as asked")
		})
	}
	streamCallers(t, register, func(t *testing.T, _ *node, to endpoint.Caller) {
		late = make(chan error, 2)
		s, err := short.Open(t.Context(), to)
		require.NoError(t, err)
		require.NoError(t, s.Send(line{"enough"}))
		synctest.Wait()
		for range 2 {
			assert.Equal(t, io.EOF, s.Send(line{"more"}), "it returned without an error, and so says Recv")
		}
		_, err = s.Recv()
		assert.Equal(t, io.EOF, err)
		assert.Equal(t, io.EOF, s.Send(line{"more"}))
		require.NoError(t, s.CloseSend(), "there is nothing to say")

		s, err = short.Open(t.Context(), to) // a Send that waits for credit when the end comes
		require.NoError(t, err)
		require.NoError(t, s.Send(line{"enough"}))
		for err == nil {
			err = s.Send(line{strings.Repeat("x", 100_000)})
		}
		assert.Equal(t, io.EOF, err)

		s, err = short.Open(t.Context(), to)
		require.NoError(t, err)
		require.NoError(t, s.Send(line{"fail"}))
		assertFailed(t, <-late, endpoint.FailedPrecondition, endpoint.OutcomeUnknown, "CloseSend")
		synctest.Wait()
		assertFailed(t, s.Send(line{"more"}), endpoint.NotFound, endpoint.OutcomeFailed, "as asked")

		s, err = echoStream.Open(t.Context(), to)
		require.NoError(t, err)
		require.NoError(t, s.CloseSend())
		assertFailed(t, s.Send(line{"more"}), endpoint.FailedPrecondition, endpoint.OutcomeUnknown, "CloseSend")
		assert.NotErrorIs(t, s.CloseSend(), io.EOF)
		require.NoError(t, s.Close())
	})
}

// TestSessionRawWriteAfterTheEnd: the same of bytes.
func TestSessionRawWriteAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memNode(t, rawCommands)
		conn, err := dialNode(t, n, nil).Open(t.Context(), "PING")
		require.NoError(t, err)
		synctest.Wait()
		_, err = conn.Write(make([]byte, 10_000))
		require.ErrorIs(t, err, endpoint.FailedPrecondition)
		assert.Contains(t, err.Error(), "has returned")
		require.NoError(t, conn.Close())
	})
}

// TestSessionRawErrorIsLogged: a raw handler's error is logged as in line mode,
// with its stack; what follows from a caller that went is no error.
func TestSessionRawErrorIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memNode(t, rawCommands)
		c := dialNode(t, n, nil)
		conn, err := c.Open(t.Context(), "ERROR")
		require.NoError(t, err)
		_, err = io.ReadAll(conn)
		require.ErrorIs(t, err, endpoint.NotFound)
		synctest.Wait()
		n.only(t, "level=ERROR", "command failed", "as asked", "command=", "ERROR", "peer=mem", "stack=")

		gone, err := c.Open(t.Context(), "WAIT")
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, gone.Close())
		synctest.Wait()
		for _, name := range []string{"ABORT", "PANIC", "NOPE"} {
			conn, err := c.Open(t.Context(), name)
			require.NoError(t, err)
			_, err = io.ReadAll(conn)
			require.Error(t, err)
		}
		synctest.Wait()
		assert.Len(t, n.with("command failed", "level=ERROR"), 1)
		assert.Len(t, n.with("command failed", "level=INFO", "WAIT"), 1)
		assert.Len(t, n.with("command panicked"), 1)
		assert.Len(t, n.all(), 3, "%q", n.all())
	})
}

// TestStreamsAreRecycledUnused: the session uses the streams of unary calls
// again. Handlers that leave in every way, and what they leave behind, do not
// touch the next call on theirs. The race detector sees to the rest.
func TestStreamsAreRecycledUnused(t *testing.T) {
	each := 300
	if raceEnabled {
		each = 50 // ten times slower
	}
	var late sync.WaitGroup
	var stale atomic.Int64
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Logger = slog.New(slog.DiscardHandler)
		fail.Handle(e, func(ctx context.Context, req text) (text, error) {
			how, _, _ := strings.Cut(req.S, "/")
			late.Go(func() { // a handler's goroutine that outlives it
				deadline, _ := ctx.Deadline()
				<-ctx.Done()
				info := endpoint.InfoFrom(ctx)
				if again, _ := ctx.Deadline(); again != deadline || info.Header("who") != req.S || ctx.Err() == nil || info.Peer.Addr() == nil {
					stale.Add(1)
				}
				if _, err := fail.Call(ctx, endpoint.PeerFrom(ctx), req); endpoint.OutcomeOf(err) != endpoint.OutcomeNotRun {
					stale.Add(1)
				}
			})
			switch how {
			case "goexit":
				runtime.Goexit()
			case "panic":
				panic(req.S)
			case "error":
				return text{}, endpoint.Errorf(endpoint.NotFound, "%s", req.S)
			case "large":
				return text{strings.Repeat(req.S+".", 20_000)}, nil // longer than the credit
			case "wait":
				<-ctx.Done()
			}
			return req, nil
		})
	})
	c := dialNode(t, n, &endpoint.Dialer{Endpoint: endpoint.New()})
	var wg sync.WaitGroup
	for _, how := range []string{"fine", "goexit", "panic", "error", "large", "wait"} {
		for g := range 3 {
			wg.Go(func() {
				for i := range each {
					want := fmt.Sprintf("%s/%d/%d", how, g, i)
					ctx, cancel := context.WithTimeout(endpoint.WithHeader(t.Context(), "who", want), patience)
					if how == "wait" {
						time.AfterFunc(time.Duration(i%7)*100*time.Microsecond, cancel)
					}
					got, err := fail.Call(ctx, c, text{want})
					cancel()
					switch how {
					case "fine":
						assert.NoError(t, err)
						assert.Equal(t, want, got.S)
					case "large":
						assert.NoError(t, err)
						assert.True(t, got.S == strings.Repeat(want+".", 20_000))
					case "error":
						assertFailed(t, err, endpoint.NotFound, endpoint.OutcomeFailed, want)
					case "wait":
						assert.ErrorIs(t, err, context.Canceled)
					default:
						assertFailed(t, err, endpoint.Internal, endpoint.OutcomeFailed, "incident")
					}
				}
			})
		}
	}
	wg.Wait()
	late.Wait()
	assert.Zero(t, stale.Load())
	assertReleased(t, n)
}
