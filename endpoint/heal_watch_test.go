package endpoint_test

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBackoffDelay checks the bounds of what programs that reconnect by themselves
// are told to wait.
func TestBackoffDelay(t *testing.T) {
	t.Parallel()
	for failures, most := range map[int]time.Duration{
		-1: 100 * time.Millisecond, 0: 100 * time.Millisecond, 1: 100 * time.Millisecond, 2: 160 * time.Millisecond,
		3: 256 * time.Millisecond, 9: 4294967296 * time.Nanosecond, 10: 5 * time.Second, math.MaxInt: 5 * time.Second,
	} {
		longest := time.Duration(0)
		for range 1000 {
			d := endpoint.Backoff{}.Delay(failures)
			require.GreaterOrEqual(t, d, time.Duration(0))
			require.LessOrEqual(t, d, most)
			longest = max(longest, d)
		}
		require.Greater(t, longest, most*9/10) // but for one run in 10^45
	}
}

// TestWatch: the changes of one of two nodes are seen, though the Client is ready
// throughout, and the last one is never missed.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.up("a:1", nil)
		w.up("b:1", nil)
		c := w.client(endpoint.Dialer{}, "a:1", "b:1")
		synctest.Wait()
		var mu sync.Mutex            // guards following
		var all []endpoint.NodeStats // of b
		seen := func() []endpoint.NodeStats {
			mu.Lock()
			defer mu.Unlock()
			return all
		}
		watched := make(chan bool)
		go func() {
			defer close(watched)
			for s := range c.Watch(t.Context()) {
				require.Len(t, s.Nodes, 2)
				require.Equal(t, endpoint.PhaseReady, s.Nodes[0].State.Phase)
				mu.Lock()
				all = append(all, s.Nodes[1])
				mu.Unlock()
			}
		}()
		synctest.Wait()
		require.Len(t, seen(), 1)
		require.Equal(t, endpoint.PhaseReady, seen()[0].State.Phase)
		w.down("b:1")
		synctest.Wait()
		last := seen()[len(seen())-1]
		assert.Equal(t, endpoint.PhaseBackingOff, last.State.Phase)
		assert.Regexp(t, "^(the peer is being drained|the connection broke: .+)$", last.State.Err.Error()) // whichever comes first
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.ErrorContains(t, seen()[len(seen())-1].State.Err, "connection refused")
		w.up("b:1", nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		last = seen()[len(seen())-1]
		assert.Equal(t, endpoint.PhaseReady, last.State.Phase)
		assert.EqualValues(t, 1, last.Reconnects)
		require.NoError(t, c.Close())
		<-watched

		for range c.Watch(t.Context()) {
			assert.Fail(t, "of a closed Client")
		}
		other := w.client(endpoint.Dialer{}, "a:1")
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Second)
			w.silence("a:1", true)
			other.CutConnections()
			time.Sleep(time.Second)
			cancel()
		}()
		var why error
		for s := range other.Watch(ctx) {
			why = s.Nodes[0].State.Err
		}
		assert.ErrorContains(t, why, "the connection broke: ")
		assert.Error(t, ctx.Err())
	})
}

// TestHealUnused: connections on which nothing is called do not count as failures
// of the next ones: a node that was away for long, was back for a moment and
// restarts is found as soon as any other.
func TestHealUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 { // the waits are random
			w := newWorld(t)
			w.up("a:1", nil)
			c := w.client(endpoint.Dialer{}, "a:1")
			w.down("a:1")
			time.Sleep(time.Minute)
			w.up("a:1", nil)
			time.Sleep(6 * time.Second)
			require.Equal(t, endpoint.PhaseReady, c.State().Phase)
			w.down("a:1")
			w.up("a:1", nil)
			synctest.Wait()
			back := time.Now()
			require.NoError(t, within(t, c, time.Minute))
			require.LessOrEqual(t, time.Since(back), 200*time.Millisecond)
		}
	})
}

// TestHealFrozenNode: one of two nodes stops to answer, with its connections intact,
// as under SIGSTOP, just when its calls were the faster ones. What is lost to it are
// the calls of the first moments, not a third of all until its silence is noticed.
func TestHealFrozenNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const each = 5 * time.Millisecond
		frozen := make(chan bool)
		var stopped atomic.Bool
		a := w.up("a:1", func(context.Context, job) (job, error) {
			if time.Sleep(time.Millisecond); stopped.Load() {
				<-frozen
			}
			return job{}, nil
		})
		var calls atomic.Int64
		w.up("b:1", func(context.Context, job) (job, error) {
			if time.Sleep(time.Millisecond); calls.Add(1)%10 == 0 {
				time.Sleep(100 * time.Millisecond)
			}
			return job{}, nil
		})
		c := w.client(endpoint.Dialer{}, "a:1", "b:1")
		synctest.Wait()
		var wg sync.WaitGroup
		for n := range 2000 {
			if n == 100 {
				stopped.Store(true)
				a.runs.Store(0)
			}
			wg.Go(func() { _ = within(t, c, 500*time.Millisecond) })
			time.Sleep(each)
		}
		wg.Wait()
		lost := a.runs.Load()
		t.Logf("%d of 1900 calls lost", lost)
		assert.LessOrEqual(t, lost, int64(95), "5 %%")
		close(frozen)
	})
}
