package endpoint_test

import (
	"context"
	"fmt"
	"math/rand/v2"
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

// TestRow21CloseOnFullConnections: Close returns soon although peers take
// nothing of what was written to them, and so does that of a Client.
func TestRow21CloseOnFullConnections(t *testing.T) {
	for range longOr(100, 10) {
		synctest.Test(t, func(t *testing.T) {
			large := strings.Repeat("x", 1<<20)
			n := memNode(t, func(e *endpoint.Endpoint) {
				fail.Handle(e, func(context.Context, text) (text, error) { return text{large}, nil })
				streamCommands(e)
			})
			for range 5 {
				f := foeOf(t, n)
				f.send(foeCall(1, endpoint.KindUnary, "FAIL", gobOf(t, text{})), foeCall(3, endpoint.KindStream, "STALL", ""))
			}
			c, _ := dialFoe(t, endpoint.Dialer{Logger: n.Logger})
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					_, err := fail.Call(t.Context(), c, text{large})
					assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, "") // its last frame did not leave
				})
			}
			time.Sleep(time.Second)
			begin := time.Now()
			require.NoError(t, c.Close())
			wg.Wait()
			assert.Less(t, time.Since(begin), 6*time.Second)
			begin = time.Now()
			require.NoError(t, n.Close())
			assert.Less(t, time.Since(begin), 6*time.Second)
			assert.Zero(t, n.Held())
		})
	}
}

// TestRow27RepliesOfTypedCalls: half of the calls are given up at random, and
// every reply that comes is its call's own.
func TestRow27RepliesOfTypedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			fail.Handle(e, func(_ context.Context, req text) (text, error) {
				if len(req.S)%2 == 0 {
					time.Sleep(time.Duration(len(req.S)) * time.Microsecond)
				}
				return text{"re: " + req.S}, nil
			})
		})
		c := dialNode(t, n, nil)
		r := seeded(t)
		var good, lost atomic.Int64
		var wg sync.WaitGroup
		for g := range 100 {
			r := rand.New(rand.NewPCG(r.Uint64(), 0))
			wg.Go(func() {
				for i := range longOr(10_000, 200) {
					id := fmt.Sprintf("%d/%d/%s", g, i, strings.Repeat("x", r.IntN(40)))
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(60))*time.Microsecond)
					got, err := fail.Call(ctx, c, text{id})
					cancel()
					if err != nil {
						lost.Add(1)
						assert.ErrorIs(t, err, context.DeadlineExceeded)
						continue
					}
					good.Add(1)
					assert.Equal(t, "re: "+id, got.S)
				}
			})
		}
		wg.Wait()
		t.Logf("%d replies, %d given up", good.Load(), lost.Load())
		assert.Positive(t, good.Load())
		assert.Positive(t, lost.Load())
		time.Sleep(time.Second)
		assert.Zero(t, n.Held())
	})
}

// TestRow35CallsCrossShutdown: callers that call without a pause while the
// endpoint shuts down, at every moment: each call succeeds and ran once, or did
// not run.
func TestRow35CallsCrossShutdown(t *testing.T) {
	r := seeded(t)
	var succeeded, refused int64
	for range longOr(2_000, 20) {
		synctest.Test(t, func(t *testing.T) {
			var ran, good, notRun atomic.Int64
			n := memNode(t, func(e *endpoint.Endpoint) {
				fail.Handle(e, func(_ context.Context, req text) (text, error) {
					ran.Add(1)
					time.Sleep(time.Duration(len(req.S)) * time.Microsecond)
					return req, nil
				})
			})
			clients := []*endpoint.Client{dialNode(t, n, nil), dialNode(t, n, nil)}
			var wg sync.WaitGroup
			for g := range 20 {
				wg.Go(func() {
					for {
						ctx, cancel := context.WithTimeout(t.Context(), time.Second)
						_, err := fail.Call(ctx, clients[g%2], text{strings.Repeat("x", g*10)})
						cancel()
						if err != nil {
							assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeNotRun, "connection refused")
							notRun.Add(1)
							return
						}
						good.Add(1)
						time.Sleep(time.Microsecond)
					}
				})
			}
			time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
			defer cancel()
			require.NoError(t, n.Shutdown(ctx))
			wg.Wait()
			assert.Equal(t, good.Load(), ran.Load())
			assert.EqualValues(t, 20, notRun.Load())
			succeeded += good.Load()
			refused += notRun.Load()
		})
	}
	t.Logf("%d succeeded, %d did not run", succeeded, refused)
}

// TestRow37DrainWithCallsInFlight: a hundred calls of up to 5 s each finish, and
// the endpoint is down right behind the slowest. One that takes too long is cut
// at the drain's limit, and its caller does not know.
func TestRow37DrainWithCallsInFlight(t *testing.T) {
	r := seeded(t)
	for round := range longOr(200, 10) {
		synctest.Test(t, func(t *testing.T) {
			tooLong := round%2 == 1
			n := memNode(t, func(e *endpoint.Endpoint) {
				deeper.Handle(e, func(ctx context.Context, ms int) (int, error) {
					select {
					case <-time.After(time.Duration(ms) * time.Millisecond):
						return ms, nil
					case <-ctx.Done():
						return 0, ctx.Err()
					}
				})
			})
			c := dialNode(t, n, nil)
			begin := time.Now()
			var slowest time.Duration
			var wg sync.WaitGroup
			for range 100 {
				ms := r.IntN(5000)
				slowest = max(slowest, time.Duration(ms)*time.Millisecond)
				wg.Go(func() {
					got, err := deeper.Call(t.Context(), c, ms)
					assert.NoError(t, err)
					assert.Equal(t, ms, got)
				})
			}
			if tooLong {
				wg.Go(func() {
					_, err := deeper.Call(t.Context(), c, 60_000)
					assert.Error(t, err)
					assert.NotEqual(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
					assert.Equal(t, 25*time.Second, time.Since(begin).Truncate(time.Second))
				})
			}
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
			defer cancel()
			err := n.Shutdown(ctx)
			if took := time.Since(begin); tooLong {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				assert.LessOrEqual(t, took, 27*time.Second)
			} else {
				require.NoError(t, err)
				assert.LessOrEqual(t, took, slowest+time.Second)
			}
			wg.Wait()
		})
	}
}
