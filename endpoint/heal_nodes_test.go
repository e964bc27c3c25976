package endpoint_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// percentile returns the p-th of sorted latencies.
func percentile(of []time.Duration, p float64) time.Duration {
	slices.Sort(of)
	return of[min(int(float64(len(of))*p/100), len(of)-1)]
}

// steady makes calls at 1,000 a second for d and returns their latencies.
func steady(ctx context.Context, t *testing.T, c *endpoint.Client, d time.Duration) []time.Duration {
	t.Helper()
	n := int(d / time.Millisecond)
	took := make([]time.Duration, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			begin := time.Now()
			_, err := work.Call(ctx, c, job{i})
			assert.NoError(t, err)
			took[i] = time.Since(begin)
		})
		time.Sleep(time.Millisecond)
	}
	wg.Wait()
	return took
}

// after is work that takes so long.
func after(d *time.Duration) func(context.Context, job) (job, error) {
	return func(_ context.Context, j job) (job, error) {
		time.Sleep(*d)
		return j, nil
	}
}

// TestHealSlowNode: a node slowed by 50 ms gets under 10 % of the calls, and the
// p99 stays within 2 × of the fast one's.
func TestHealSlowNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		fast, slow := time.Millisecond, time.Millisecond
		a, b := w.up("a:1", after(&fast)), w.up("b:1", after(&slow))
		c := w.client(endpoint.Dialer{}, "a:1", "b:1")
		time.Sleep(time.Second)
		steady(t.Context(), t, c, 5*time.Second)
		assert.InDelta(t, 0.5, float64(a.runs.Load())/5000, 0.1, "alike, they share")

		a.runs.Store(0)
		b.runs.Store(0)
		slow += 50 * time.Millisecond
		took := steady(t.Context(), t, c, 10*time.Second)
		share := float64(b.runs.Load()) / 10000
		t.Logf("share of the slow node %.2f %%, p99 %v", 100*share, percentile(took, 99))
		assert.Less(t, share, 0.1)
		assert.LessOrEqual(t, percentile(took, 99), 2*fast)

		slow = fast // and back: it gets its share again
		time.Sleep(2 * time.Minute)
		steady(t.Context(), t, c, time.Second)
		b.runs.Store(0)
		steady(t.Context(), t, c, 5*time.Second)
		assert.InDelta(t, 0.5, float64(b.runs.Load())/5000, 0.15)
	})
}

// TestHealHedge: of a service where 1 % of the calls are slow the p99 falls by at
// least 5 × with hedging, and its load grows by 6 % at most.
func TestHealHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var calls atomic.Int64
		do := func(ctx context.Context, j job) (job, error) {
			d := time.Millisecond
			if calls.Add(1)%67 == 0 { // 1.5 %, so that the p99 is one of them
				d = 100 * time.Millisecond
			}
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
			return j, ctx.Err()
		}
		w.up("a:1", do)
		w.up("b:1", do)
		c := w.client(endpoint.Dialer{}, "a:1", "b:1")
		time.Sleep(time.Second)
		plain := percentile(steady(t.Context(), t, c, 5*time.Second), 99)
		calls.Store(0)
		hedged := percentile(steady(endpoint.Idempotent(t.Context()), t, c, 5*time.Second), 99)
		load := float64(calls.Load()) / 5000
		t.Logf("p99 %v without, %v with; load %.3f, %d hedged", plain, hedged, load, c.Stats().Hedged)
		assert.GreaterOrEqual(t, plain, 5*hedged)
		assert.LessOrEqual(t, load, 1.06)
	})
}

// TestHealHedgeBounds: a service that is slow now and fast then gets no more
// copies than 5 %, and a failure that ran is an answer.
func TestHealHedgeBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var calls atomic.Int64
		var d atomic.Int64
		d.Store(int64(time.Millisecond))
		do := func(_ context.Context, j job) (job, error) {
			calls.Add(1)
			time.Sleep(time.Duration(d.Load()))
			return j, endpoint.Errorf(endpoint.NotFound, "no such job")
		}
		w.up("a:1", do)
		w.up("b:1", do)
		c := w.client(endpoint.Dialer{}, "a:1", "b:1")
		time.Sleep(time.Second)
		ctx := endpoint.Idempotent(t.Context())
		for i := range 3000 {
			d.Store(int64(1+i%2*20) * int64(time.Millisecond))
			_, err := work.Call(ctx, c, job{})
			assertFailed(t, err, endpoint.NotFound, endpoint.OutcomeFailed, "no such job")
		}
		assert.LessOrEqual(t, calls.Load(), int64(3000*1.05+11))
		assert.Less(t, uint64(0), c.Stats().Hedged+1)
	})
}

// TestHealRolling: restarts in order of two nodes one after the other, at 1,000
// calls a second: no call fails, none runs twice.
func TestHealRolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var mu sync.Mutex
		ran := map[int]int{}
		do := func(_ context.Context, j job) (job, error) {
			mu.Lock()
			ran[j.ID]++
			mu.Unlock()
			time.Sleep(time.Duration(j.ID%30) * time.Millisecond)
			return j, nil
		}
		w.up("a:1", do)
		w.up("b:1", do)
		c := w.client(endpoint.Dialer{}, "a:1", "b:1")
		time.Sleep(time.Second)
		restarts := 50
		if raceEnabled {
			restarts = 10 // 10 times slower
		}
		stop := make(chan bool)
		go func() {
			defer close(stop)
			for i := range restarts {
				addr := []string{"a:1", "b:1"}[i%2]
				w.drain(addr)
				time.Sleep(time.Duration(i*10) * time.Millisecond)
				w.up(addr, do)
				time.Sleep(700 * time.Millisecond)
			}
		}()
		steady(t.Context(), t, c, time.Duration(restarts)*900*time.Millisecond)
		<-stop
		time.Sleep(6 * time.Second) // for the last to be connected to
		require.Len(t, ran, restarts*900)
		for id, n := range ran {
			require.Equal(t, 1, n, "job %d", id)
		}
		time.Sleep(5 * time.Second) // the last one may be waiting to try again
		n := c.Stats().Nodes
		t.Logf("%d reconnects, %d calls sent again", n[0].Reconnects+n[1].Reconnects, c.Stats().Resent)
		assert.EqualValues(t, restarts, n[0].Reconnects+n[1].Reconnects)
	})
}

// TestHealDead: one node of two that refuses connections, and one that answers
// nothing, keep nobody from the other.
func TestHealDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.up("c:1", nil)
		w.silence("b:1", true)
		begin := time.Now()
		c := w.client(endpoint.Dialer{}, "a:1", "b:1", "c:1")
		assert.Zero(t, time.Since(begin))
		for range 1000 {
			require.NoError(t, within(t, c, time.Second))
		}
		assert.Zero(t, time.Since(begin))
		assert.Equal(t, endpoint.PhaseReady, c.State().Phase)
		w.down("c:1")
		err := within(t, c, 10*time.Second)
		for _, why := range []string{"a:1: cannot connect", "connection refused", "b:1: cannot connect", "no answer for 5s", "c:1: "} {
			assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeNotRun, why)
		}
		d := endpoint.Dialer{NetDial: w.dial}
		_, err = d.Dial(t.Context(), "a:1", "b:1", "c:1")
		assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, "cannot connect to any node: a:1: ")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = d.Dial(ctx, "b:1")
		assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeNotRun, "b:1: still connecting")
	})
}

// TestHealCrowded: a node that refuses calls is left out while another takes
// them, and tried again.
func TestHealCrowded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		refusing, refused := true, 0
		a := w.up("a:1", nil, func(ctx context.Context, _ *endpoint.Info, next func(context.Context) error) error {
			if refusing {
				refused++
				return endpoint.Errorf(endpoint.ResourceExhausted, "no room")
			}
			return next(ctx)
		})
		w.up("b:1", nil)
		c := w.client(endpoint.Dialer{}, "a:1", "b:1")
		time.Sleep(time.Second)
		steady(t.Context(), t, c, 10*time.Second)
		t.Logf("%d of 10000 calls refused", refused)
		assert.Less(t, refused, 60, "it is left out for up to 5 s each time")
		assert.Positive(t, refused)
		refusing = false
		time.Sleep(5 * time.Second)
		steady(t.Context(), t, c, time.Second)
		assert.Greater(t, a.runs.Load(), int64(300))
	})
}

// TestHealResolve: the nodes are those that a name stands for at the time. What
// cannot be resolved stays as it was.
func TestHealResolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var mu sync.Mutex
		asked := 0
		addrs, fails := []string{"a:1", "a:1"}, error(nil)
		is := func(to []string, err error) {
			mu.Lock()
			defer mu.Unlock()
			addrs, fails = to, err
		}
		resolve := func(_ context.Context, name string) ([]string, error) {
			mu.Lock()
			defer mu.Unlock()
			assert.Equal(t, "service", name)
			asked++
			return addrs, fails
		}
		d := endpoint.Dialer{Resolve: resolve, NetDial: w.dial}
		is(nil, errors.New("no such name"))
		_, err := d.Dial(t.Context(), "service")
		assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, `cannot resolve "service": no such name`)
		is(nil, nil)
		_, err = d.Dial(t.Context(), "service")
		assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, `stands for no address`)

		is([]string{"a:1", "a:1"}, nil)
		var slow time.Duration
		a := w.up("a:1", after(&slow))
		c := w.client(d, "service")
		nodes := func() (of []string) {
			for _, n := range c.Stats().Nodes {
				of = append(of, n.Addr)
			}
			return of
		}
		assert.Equal(t, []string{"a:1"}, nodes())

		// Another node in place of the first, whose calls finish.
		slow = 40 * time.Second
		long := make(chan error, 1)
		go func() { long <- within(t, c, time.Minute) }()
		synctest.Wait()
		b := w.up("b:1", nil)
		is([]string{"b:1"}, nil)
		time.Sleep(31 * time.Second)
		assert.Equal(t, []string{"b:1"}, nodes())
		require.NoError(t, within(t, c, time.Second))
		assert.EqualValues(t, 1, b.runs.Load())
		require.NoError(t, <-long)
		assert.EqualValues(t, 1, a.runs.Load())

		// A resolver that fails, or knows nobody, changes nothing.
		for _, err := range []error{errors.New("no answer"), nil} {
			is(nil, err)
			time.Sleep(time.Minute)
			assert.Equal(t, []string{"b:1"}, nodes())
			require.NoError(t, within(t, c, time.Second))
		}

		// A node that moves is found within a second or so of its failure.
		is([]string{"c:1"}, nil)
		w.up("c:1", nil)
		mu.Lock()
		asked = 0
		mu.Unlock()
		w.down("b:1")
		require.NoError(t, within(t, c, 2*time.Second))
		assert.Equal(t, []string{"c:1"}, nodes())
		mu.Lock()
		assert.LessOrEqual(t, asked, 3)
		mu.Unlock()
	})
}

// handSwitch is a breaker that opens by hand.
type handSwitch struct {
	open        atomic.Bool
	asked, done atomic.Int64
	last        error
}

var errFuse = errors.New("the fuse is out")

func (f *handSwitch) Allow() (func(error), error) {
	if f.open.Load() {
		return nil, errFuse
	}
	f.asked.Add(1)
	return func(err error) { f.done.Add(1); f.last = err }, nil
}

// TestHealBreaker: breakers keep calls from their nodes, and hear of each call's
// end.
func TestHealBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		fuses := map[string]*handSwitch{"a:1": {}, "b:1": {}}
		fail := false
		do := func(_ context.Context, j job) (job, error) {
			if fail {
				return j, endpoint.Errorf(endpoint.NotFound, "no such job")
			}
			return j, nil
		}
		a, b := w.up("a:1", do), w.up("b:1", do)
		c := w.client(endpoint.Dialer{Breaker: func(addr string) endpoint.Breaker { return fuses[addr] }}, "a:1", "b:1")
		time.Sleep(time.Second)
		fuses["a:1"].open.Store(true)
		for range 100 {
			require.NoError(t, within(t, c, time.Second))
		}
		assert.Zero(t, a.runs.Load())
		assert.EqualValues(t, 100, b.runs.Load())
		fail = true
		require.Error(t, within(t, c, time.Second))
		assert.ErrorIs(t, fuses["b:1"].last, endpoint.NotFound)
		fuses["b:1"].open.Store(true)
		begin := time.Now()
		err := within(t, c, time.Second)
		assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, "no node takes calls")
		assert.ErrorIs(t, err, errFuse)
		assert.Zero(t, time.Since(begin))
		fuses["a:1"].open.Store(false)
		s, err := c.Open(t.Context(), "NOPE")
		require.NoError(t, err)
		require.NoError(t, s.Close())
		for _, f := range fuses {
			assert.Equal(t, f.asked.Load(), f.done.Load())
		}
	})
}
