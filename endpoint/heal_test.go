package endpoint_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestHealServerBack: a call waits while its server is away for 30 s, and runs
// within 200 ms of its return; a call with less time says why it did not run.
func TestHealServerBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 { // the waits are random
			w := newWorld(t)
			w.up("a:1", nil)
			c := w.client(endpoint.Dialer{}, "a:1")
			require.NoError(t, within(t, c, time.Second))
			w.down("a:1")
			synctest.Wait()
			begin := time.Now()
			err := within(t, c, time.Second)
			assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeNotRun, "connection refused")
			assert.Equal(t, time.Second, time.Since(begin))

			done := make(chan error, 1)
			go func() { done <- within(t, c, time.Minute) }()
			time.Sleep(29 * time.Second)
			h := w.up("a:1", nil)
			back := time.Now()
			require.NoError(t, <-done)
			assert.LessOrEqual(t, time.Since(back), 200*time.Millisecond)
			assert.EqualValues(t, 1, h.runs.Load())
			assert.LessOrEqual(t, len(w.dialled("a:1")), 2+30*20, "a waiting call does not press")
		}
	})
}

// TestHealBlackhole: while a call waits, a host that answers nothing is tried
// again so often that it is found within 200 ms of its return; without one it is
// not.
func TestHealBlackhole(t *testing.T) {
	for i := range 50 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.up("a:1", nil)
			c := w.client(endpoint.Dialer{}, "a:1")
			w.silence("a:1", true)
			c.CutConnections()
			time.Sleep(time.Minute)
			assert.Less(t, len(w.dialled("a:1")), 1+20, "5 s for each attempt, and the backoff")
			assertFailed(t, within(t, c, 6*time.Second), endpoint.DeadlineExceeded, endpoint.OutcomeNotRun, "no answer for 5s")
			done := make(chan error, 1)
			go func() { done <- within(t, c, time.Minute) }()
			time.Sleep(20*time.Second + time.Duration(i)*103*time.Millisecond)
			w.silence("a:1", false)
			back := time.Now()
			require.NoError(t, <-done)
			assert.LessOrEqual(t, time.Since(back), 200*time.Millisecond)
		})
	}
}

// TestHealStates: the states of a Client whose server drains, goes and returns,
// as a watcher sees them, one line of the log for each that matters, and what
// Stats tells at the end.
func TestHealStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release := make(chan bool)
		w.up("a:1", func(context.Context, job) (job, error) { <-release; return job{}, nil })
		c := w.client(endpoint.Dialer{}, "a:1")
		var seen []endpoint.State
		watched := make(chan bool)
		go func() {
			defer close(watched)
			for s := range c.States(t.Context()) {
				seen = append(seen, s)
			}
		}()
		synctest.Wait()
		assert.Equal(t, "ready", c.State().String())
		slow := make(chan error, 1)
		go func() { slow <- within(t, c, time.Minute) }()
		synctest.Wait()
		drained := make(chan bool)
		go func() { w.drain("a:1"); close(drained) }()
		time.Sleep(2 * time.Second)
		assert.Equal(t, endpoint.PhaseDraining, c.State().Phase)
		assert.ErrorContains(t, c.State().Err, "connection refused", "of the attempt to connect anew")
		release <- true
		require.NoError(t, <-slow, "accepted calls finish")
		<-drained
		time.Sleep(time.Minute)
		s := c.State()
		require.Equal(t, endpoint.PhaseBackingOff, s.Phase)
		assert.ErrorIs(t, s.Err, endpoint.Unavailable)
		assert.ErrorContains(t, s.Err, "connection refused")
		assert.WithinRange(t, s.Until, time.Now(), time.Now().Add(5*time.Second))
		w.up("a:1", nil)
		require.NoError(t, within(t, c, time.Second))
		stats := c.Stats()
		require.Len(t, stats.Nodes, 1)
		n := stats.Nodes[0]
		assert.Equal(t, "a:1", n.Addr)
		assert.Equal(t, endpoint.State{Phase: endpoint.PhaseReady}, n.State)
		assert.EqualValues(t, 2, n.Succeeded)
		assert.EqualValues(t, 1, n.Reconnects)
		assert.Zero(t, n.Failed+n.NotRun+n.Unknown+n.InFlight)

		require.NoError(t, c.Close())
		<-watched
		phases := map[endpoint.Phase]bool{}
		for _, s := range seen {
			phases[s.Phase] = true
		}
		assert.Len(t, phases, 5, "%v", seen)
		assert.Equal(t, endpoint.State{Phase: endpoint.PhaseReady}, seen[0])
		assert.Equal(t, endpoint.State{Phase: endpoint.PhaseClosed}, seen[len(seen)-1])
		assert.Len(t, w.journal.with("level=INFO"), 2, "drained, and connected again")
		assert.Empty(t, w.journal.with("level=WARN"))
		assert.Empty(t, w.journal.with("level=ERROR"))
		assertFailed(t, within(t, c, time.Second), endpoint.Unavailable, endpoint.OutcomeNotRun, "client is closed")
		for s := range c.States(t.Context()) {
			assert.Equal(t, endpoint.PhaseClosed, s.Phase)
		}
	})
}

// TestHealHerd: the clients of a server that was away for 10 s return spread out.
func TestHealHerd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients = 200
		w := newWorld(t)
		w.up("a:1", nil)
		for range clients {
			w.client(endpoint.Dialer{}, "a:1")
		}
		w.down("a:1")
		time.Sleep(10 * time.Second)
		tried := len(w.dialled("a:1"))
		h := w.up("a:1", nil)
		time.Sleep(5 * time.Second)
		back := w.dialled("a:1")[tried:]
		require.Len(t, back, clients, "each needs one attempt, 5 s at the latest")
		_ = h
		most := 0
		for i, from := range back {
			n := 0
			for _, at := range back[i:] {
				if at.Sub(from) < 100*time.Millisecond {
					n++
				}
			}
			most = max(most, n)
		}
		t.Logf("at most %d of %d clients in 100 ms", most, clients)
		assert.LessOrEqual(t, most, clients*12/100)
	})
}

// TestHealRefused: a server that refuses every call sees at most 1.1 times the
// load, and the ten calls of the budget; one call has three tries at most.
func TestHealRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var attempts int
		broken := true
		h := w.up("a:1", nil, func(ctx context.Context, _ *endpoint.Info, next func(context.Context) error) error {
			if attempts++; broken {
				return endpoint.Errorf(endpoint.Unavailable, "no room")
			}
			return next(ctx)
		})
		c := w.client(endpoint.Dialer{}, "a:1")
		begin := time.Now()
		assertFailed(t, within(t, c, time.Minute), endpoint.Unavailable, endpoint.OutcomeNotRun, "no room")
		assert.Equal(t, 3, attempts)
		assert.LessOrEqual(t, time.Since(begin), 260*time.Millisecond, "of two backoffs")
		assertFailed(t, within(t, c, 0), endpoint.DeadlineExceeded, endpoint.OutcomeNotRun, "")
		for range 999 {
			assertFailed(t, within(t, c, time.Minute), endpoint.Unavailable, endpoint.OutcomeNotRun, "no room")
		}
		assert.Equal(t, 1000+10, attempts)
		broken = false
		for range 30 {
			require.NoError(t, within(t, c, time.Minute))
		}
		broken, attempts = true, 0
		for range 1000 {
			assert.Error(t, within(t, c, time.Minute))
		}
		assert.Equal(t, 1000+3, attempts, "30 successes pay for 3")
		assert.EqualValues(t, 30, h.runs.Load())
		assert.EqualValues(t, 13, c.Stats().Resent)
	})
}

// TestHealLost: a call whose connection breaks while it runs is not sent again,
// unless it may run twice; then it has three tries.
func TestHealLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cuts := 1
		h := w.up("a:1", func(ctx context.Context, j job) (job, error) {
			if cuts--; cuts >= 0 {
				_ = endpoint.PeerFrom(ctx).Close()
				<-ctx.Done()
			}
			return j, nil
		})
		c := w.client(endpoint.Dialer{}, "a:1")
		assertFailed(t, within(t, c, time.Minute), endpoint.Unavailable, endpoint.OutcomeUnknown, "connection lost")
		require.NoError(t, within(t, c, time.Minute))
		require.EqualValues(t, 2, h.runs.Load())

		cuts = 2
		_, err := work.Call(endpoint.Idempotent(t.Context()), c, job{})
		require.NoError(t, err)
		assert.EqualValues(t, 5, h.runs.Load())
		cuts = 10
		_, err = work.Call(endpoint.Idempotent(t.Context()), c, job{})
		assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeUnknown, "connection lost")
		assert.EqualValues(t, 8, h.runs.Load())
		synctest.Wait()
		assert.Len(t, w.journal.with("level=WARN", "connection lost"), 6)
	})
}

// TestHealHangsUp: a peer that greets and hangs up, or drains at once, is not
// pressed: not even for a call that waits.
func TestHealHangsUp(t *testing.T) {
	for _, way := range []string{"drain", "cut"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.up("a:1", nil)
				c := w.client(endpoint.Dialer{}, "a:1")
				w.down("a:1")
				w.mu.Lock()
				rude := &host{mem: memnet.Listen()}
				w.hosts["a:1"] = rude
				w.mu.Unlock()
				var wg sync.WaitGroup
				wg.Go(func() {
					for {
						conn, err := rude.mem.Accept()
						if err != nil {
							return
						}
						e := endpoint.New()
						e.Logger = slog.New(slog.DiscardHandler)
						wg.Go(func() { e.ServeConn(context.Background(), conn) })
						time.Sleep(time.Microsecond)
						if way == "drain" {
							wg.Go(func() { _ = e.Shutdown(context.Background()) })
						} else {
							_ = e.Close()
						}
					}
				})
				before := len(w.dialled("a:1"))
				begin := time.Now()
				for time.Since(begin) < 10*time.Second {
					assert.Error(t, within(t, c, time.Second))
					time.Sleep(10 * time.Millisecond)
				}
				assert.LessOrEqual(t, len(w.dialled("a:1"))-before, 30)
				t.Logf("%d connections in 10 s", len(w.dialled("a:1"))-before)
				_ = rude.mem.Close()
				w.mu.Lock()
				delete(w.hosts, "a:1")
				w.mu.Unlock()
				wg.Wait()
			})
		})
	}
}

// TestHealInterceptor: an interceptor of the Dialer's is around all attempts of
// a call, and learns of the peer that answered.
func TestHealInterceptor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		refusals := 2
		w.up("a:1", nil, func(ctx context.Context, _ *endpoint.Info, next func(context.Context) error) error {
			if refusals--; refusals >= 0 {
				return endpoint.Errorf(endpoint.ResourceExhausted, "no room")
			}
			return next(ctx)
		})
		calls := 0
		c := w.client(endpoint.Dialer{Interceptors: []endpoint.Interceptor{
			func(ctx context.Context, info *endpoint.Info, next func(context.Context) error) error {
				calls++
				assert.NotNil(t, info.Peer)
				err := next(ctx)
				assert.NotNil(t, info.Peer.Addr())
				return err
			},
		}}, "a:1")
		require.NoError(t, within(t, c, time.Minute))
		assert.Equal(t, 1, calls)
		s, err := c.Open(t.Context(), "NOPE")
		require.NoError(t, err)
		_, err = s.ReadString('\n')
		assert.ErrorIs(t, err, endpoint.Unimplemented)
		require.NoError(t, s.Close())
		assert.Zero(t, c.Stats().Nodes[0].InFlight)
	})
}
