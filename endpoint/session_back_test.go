package endpoint_test

import (
	"bufio"
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// calledBack dials a hub whose end of the session can call what register puts
// on callee, which only serves on sessions that it dialed itself. Both ends log
// to callee's journal.
func calledBack(t *testing.T, register func(*endpoint.Endpoint)) (callee *node, c *endpoint.Client, back *endpoint.Peer) {
	t.Helper()
	met := make(chan *endpoint.Peer, 1)
	hub := memNode(t, func(e *endpoint.Endpoint) {
		fail.Handle(e, misbehave)
		meet.Handle(e, func(ctx context.Context, _ empty) (empty, error) {
			met <- endpoint.PeerFrom(ctx)
			return empty{}, nil
		})
	})
	callee = newNode(register)
	c = dialNode(t, hub, &endpoint.Dialer{Endpoint: callee.Endpoint, Limits: callee.Limits, Logger: callee.Logger})
	_, err := meet.Call(t.Context(), c, empty{})
	require.NoError(t, err)
	return callee, c, <-met
}

// TestSessionBackShutdown: an Endpoint that serves on a Client's session drains
// as one that listens does: calls under way finish, later ones did not run, and
// Shutdown waits. The Client's own calls go on, then and later.
func TestSessionBackShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entered, release := make(chan bool, 10), make(chan bool)
		callee, c, back := calledBack(t, func(e *endpoint.Endpoint) {
			streamCommands(e)
			fail.Handle(e, func(ctx context.Context, req text) (text, error) {
				entered <- true
				<-release
				return req, ctx.Err()
			})
		})
		answers := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := fail.Call(t.Context(), back, text{"x"})
				answers <- err
			}()
			<-entered
		}
		s, err := echoStream.Open(t.Context(), back)
		require.NoError(t, err)
		require.NoError(t, s.Send(line{"before"}))
		got, err := s.Recv()
		require.NoError(t, err)
		assert.Equal(t, "before", got.Text)

		ended := make(chan error, 1)
		go func() { ended <- callee.Shutdown(t.Context()) }()
		synctest.Wait()
		outward := func() {
			_, err := fail.Call(t.Context(), back, text{})
			assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, "shutting down")
			refused, err := echoStream.Open(t.Context(), back)
			require.NoError(t, err)
			_, err = refused.Recv()
			assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, "shutting down")
			_, err = fail.Call(t.Context(), c, text{"out"})
			require.NoError(t, err, "what the Client calls is no affair of its Endpoint")
		}
		outward()
		require.Empty(t, ended, "calls under way are waited for")
		require.NoError(t, s.Send(line{"after"}))
		got, err = s.Recv()
		require.NoError(t, err)
		assert.Equal(t, "after", got.Text)
		close(release)
		for range 3 {
			assert.NoError(t, <-answers)
		}
		synctest.Wait()
		require.Empty(t, ended, "so are streams")
		require.NoError(t, s.CloseSend())
		_, err = s.Recv()
		require.Equal(t, io.EOF, err)
		require.NoError(t, <-ended)
		outward()
		require.NoError(t, callee.Close())
	})
}

// TestSessionBackShutdownCutShort: what did not finish in time is cut off, and
// counted.
func TestSessionBackShutdownCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		returned := make(chan error, 3)
		callee, _, back := calledBack(t, func(e *endpoint.Endpoint) {
			waitCall.Handle(e, func(ctx context.Context, _ line) (line, error) {
				<-ctx.Done()
				time.Sleep(time.Second) // slow to hear
				returned <- ctx.Err()
				return line{}, ctx.Err()
			})
		})
		answers := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := waitCall.Call(t.Context(), back, line{})
				answers <- err
			}()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begin := time.Now()
		err := callee.Shutdown(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Contains(t, err.Error(), "3 running commands")
		assert.Equal(t, 6*time.Second, time.Since(begin))
		assert.Len(t, returned, 3, "Shutdown waits for the handlers")
		for range 3 {
			assertFailed(t, <-answers, endpoint.Canceled, endpoint.OutcomeFailed, "")
		}
	})
}

// TestSessionBackClose: Close ends the contexts of what runs on Clients'
// sessions, whatever its kind, and waits for it.
func TestSessionBackClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		returned := make(chan string, 10)
		wait := func(ctx context.Context, kind string) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			returned <- kind
			return ctx.Err()
		}
		callee, c, back := calledBack(t, func(e *endpoint.Endpoint) {
			waitCall.Handle(e, func(ctx context.Context, _ line) (line, error) { return line{}, wait(ctx, "unary") })
			echoStream.Handle(e, func(ctx context.Context, s *endpoint.Stream[line, line]) error {
				_, err := s.Recv()
				assert.ErrorIs(t, err, context.Canceled)
				return wait(ctx, "stream")
			})
			meet.Handle(e, func(ctx context.Context, _ empty) (empty, error) { // a call out of a call back
				_, err := waitCall.Call(ctx, endpoint.PeerFrom(ctx), line{})
				assert.Error(t, err)
				return empty{}, wait(ctx, "nested")
			})
			e.Handle("RAW", endpoint.ServeFunc(func(ctx context.Context, rw *bufio.ReadWriter) error {
				_, err := rw.ReadByte()
				assert.ErrorIs(t, err, context.Canceled)
				return wait(ctx, "raw")
			}))
		})
		answers := make(chan error, 10)
		go func() {
			_, err := waitCall.Call(t.Context(), back, line{})
			answers <- err
		}()
		go func() {
			_, err := meet.Call(t.Context(), back, empty{})
			answers <- err
		}()
		s, err := echoStream.Open(t.Context(), back)
		require.NoError(t, err)
		synctest.Wait()
		begin := time.Now()
		require.NoError(t, callee.Close())
		assert.Equal(t, time.Second, time.Since(begin))
		assert.Len(t, returned, 3)
		for range 2 {
			assert.NotEqual(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(<-answers))
		}
		_, err = s.Recv()
		assert.ErrorIs(t, err, endpoint.Canceled)
		_, err = fail.Call(t.Context(), c, text{})
		require.NoError(t, err)

		// Its Endpoint has closed: a new Client can call, and is not called.
		again, _, back := calledBack(t, nil)
		require.NoError(t, again.Close())
		_, err = fail.Call(t.Context(), back, text{})
		assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, "shutting down")
	})
}

// TestClientCloseInHandler: a handler that is called back may close the Client
// that it was called through.
func TestClientCloseInHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clients, closed := make(chan *endpoint.Client, 1), make(chan error, 1)
		callee, c, back := calledBack(t, func(e *endpoint.Endpoint) {
			fail.Handle(e, func(ctx context.Context, _ text) (text, error) {
				closed <- (<-clients).Close()
				<-ctx.Done()
				return text{}, ctx.Err()
			})
		})
		clients <- c
		_, err := fail.Call(t.Context(), back, text{})
		assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeUnknown, "")
		require.NoError(t, <-closed)
		_, err = fail.Call(t.Context(), c, text{})
		assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, "")
		require.NoError(t, callee.Close())
	})
}
