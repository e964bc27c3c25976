package session_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// inlinePair is a pair whose b serves QUICK at once and everything else as slow does, and has seen so many quick calls that its
// reader serves them itself.
func inlinePair(t *testing.T, slow func(*session.Stream)) *pair {
	p := newPair(session.Config{}, session.Config{Accept: func(st *session.Stream) {
		_ = st.Receive(context.Background(), func(msg []byte) error {
			if st.Name() != "QUICK" {
				slow(st)
			}
			return st.Reply(func(b []byte) ([]byte, error) { return append(b, msg...), nil })
		})
	}})
	for range 1000 {
		burst(t, p, 50, "QUICK")
		if p.b.Stats().Inline > 0 {
			return p
		}
	}
	require.Fail(t, "the reader serves no calls")
	return nil
}

// burst makes n calls at once and returns when all of them have their replies.
func burst(t *testing.T, p *pair, n int, name string) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			_, err := call(t.Context(), p.a, name, []byte("x"))
			assert.NoError(t, err)
		})
	}
	wg.Wait()
}

// TestStalledHandlerIsLeftBehind: a handler that the reader runs and that waits holds nobody up for longer than it takes to notice,
// and learns that its caller has given up.
func TestStalledHandlerIsLeftBehind(t *testing.T) {
	in(t, func(t *testing.T) {
		ended := make(chan time.Time, 1)
		p := inlinePair(t, func(st *session.Stream) {
			time.Sleep(10 * time.Millisecond)
			<-st.Context().Done()
			ended <- time.Now()
		})
		defer p.close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		begin := time.Now()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_, err := call(t.Context(), p.a, "QUICK", nil)
				assert.NoError(t, err)
				assert.LessOrEqual(t, time.Since(begin), 2*time.Millisecond, "one look of the guard sees the handler, the next one that it stalls")
			})
		}
		wg.Go(func() {
			_, err := call(ctx, p.a, "WAIT", nil)
			requireError(t, err, wire.Canceled, wire.OutcomeUnknown)
		})
		for range 20 {
			wg.Go(func() {
				_, err := call(t.Context(), p.a, "QUICK", nil)
				assert.NoError(t, err)
			})
		}
		time.Sleep(time.Second)
		canceled := time.Now()
		cancel()
		assert.Equal(t, canceled, <-ended)
		wg.Wait()
		burst(t, p, 50, "QUICK")
		assert.Equal(t, p.b.Stats().Served, p.a.Stats().Opened)
	})
}

// TestSlowHandlersGetWorkers: handlers that all wait are soon run beside each other, as if the reader had never served any.
func TestSlowHandlersGetWorkers(t *testing.T) {
	in(t, func(t *testing.T) {
		p := inlinePair(t, func(*session.Stream) { time.Sleep(10 * time.Millisecond) })
		defer p.close()
		begin := time.Now()
		burst(t, p, 90, "SLOW")
		assert.Less(t, time.Since(begin), 10*time.Millisecond+16*2*time.Millisecond, "a few stall, then the others have workers")
		begin = time.Now()
		burst(t, p, 90, "SLOW")
		assert.Equal(t, 10*time.Millisecond, time.Since(begin))
	})
}

// TestGoexitOnTheReader: a handler that ends its goroutine ends its call alone, though that was the goroutine that read.
func TestGoexitOnTheReader(t *testing.T) {
	in(t, func(t *testing.T) {
		p := inlinePair(t, func(*session.Stream) { runtime.Goexit() })
		defer p.close()
		for range 10 {
			before := p.b.Stats().Inline
			burst(t, p, 50, "QUICK")
			assert.Greater(t, p.b.Stats().Inline, before)
			_, err := call(t.Context(), p.a, "EXIT", nil)
			requireError(t, err, wire.Internal, wire.OutcomeFailed)
		}
	})
}

// TestHandlersOnTheReaderCallBack: the reply to a call that a handler makes is read while the handler waits for it.
func TestHandlersOnTheReaderCallBack(t *testing.T) {
	in(t, func(t *testing.T) {
		var p *pair
		accept := func(st *session.Stream) {
			if st.Name() == "BACK" {
				_, err := call(st.Context(), p.b, "QUICK", nil)
				assert.NoError(t, err)
			}
			bounce(st)
		}
		p = newPair(session.Config{Accept: bounce}, session.Config{Accept: accept})
		defer p.close()
		for p.b.Stats().Inline == 0 {
			burst(t, p, 50, "QUICK")
		}
		begin := time.Now()
		burst(t, p, 50, "BACK")
		assert.Zero(t, time.Since(begin), "a handler that asks for its context is expected to wait")
		burst(t, p, 50, "QUICK")
	})
}

// TestSessionEndsUnderAHandler: a session that is closed by the peer while its reader runs a handler ends, and says so to the handler.
func TestSessionEndsUnderAHandler(t *testing.T) {
	in(t, func(t *testing.T) {
		told := make(chan struct{}, 1)
		p := inlinePair(t, func(st *session.Stream) {
			<-st.Context().Done()
			told <- struct{}{}
		})
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = call(t.Context(), p.a, "WAIT", nil) })
		for range 20 {
			wg.Go(func() { _, _ = call(t.Context(), p.a, "QUICK", nil) })
		}
		synctest.Wait()
		p.a.Close()
		<-told
		wg.Wait()
		p.b.Close()
	})
}

// TestEndBesideGuard: the session ends while the reader stands in a handler that has replied, and which returns about when the guard
// takes the reading over. Whoever is last, OnGone is called once.
func TestEndBesideGuard(t *testing.T) {
	for round := range 100 {
		var gone atomic.Int32
		replied := make(chan bool, 100)
		p := newPair(session.Config{}, session.Config{OnGone: func() { gone.Add(1) }, Accept: func(st *session.Stream) {
			assert.NoError(t, st.Receive(context.Background(), func([]byte) error { return nil }))
			_ = st.Reply(func(b []byte) ([]byte, error) { return b, nil }) // outside of Receive: nothing is left to do then
			if st.Name() != "QUICK" {
				replied <- true
				time.Sleep(time.Millisecond + time.Duration(round)*20*time.Microsecond)
			}
		}})
		for tries := 0; p.b.Stats().Inline == 0 && tries < 1000; tries++ {
			burst(t, p, 50, "QUICK")
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { _, _ = call(ctx, p.a, "SLOW", nil) })
		}
		<-replied
		p.b.Abort(session.ErrClosed)
		p.b.Wait()
		cancel()
		wg.Wait()
		assert.NoError(t, p.a.Close())
		time.Sleep(time.Millisecond)
		assert.EqualValues(t, 1, gone.Load())
	}
}
