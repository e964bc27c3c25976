package endpoint_test

import (
	"bufio"
	"context"
	"log/slog"
	"math"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestHealFailingNode: a node whose handlers fail at once is no better than one
// where they work: it does not draw the others' calls.
func TestHealFailingNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		took := 5 * time.Millisecond
		a := w.up("a:1", func(_ context.Context, j job) (job, error) {
			time.Sleep(took)
			return j, endpoint.Errorf(endpoint.Internal, "no database")
		})
		b := w.up("b:1", after(&took))
		c := w.client(endpoint.Dialer{}, "a:1", "b:1")
		time.Sleep(time.Second)
		for range 1000 {
			_ = within(t, c, time.Second)
		}
		assert.InDelta(t, 500, a.runs.Load(), 120)
		assert.InDelta(t, 500, b.runs.Load(), 120)
	})
}

// TestHealSilentNode: one caller at a time finds out that a node does not answer,
// and leaves it: calls that ran out of time tell how slow it is.
func TestHealSilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		fast := time.Millisecond
		var stuck atomic.Bool
		a := w.up("a:1", func(ctx context.Context, j job) (job, error) {
			if time.Sleep(fast); stuck.Load() {
				<-ctx.Done()
				time.Sleep(time.Second) // or the reply might still be in time
			}
			return j, nil
		})
		w.up("b:1", after(&fast))
		c := w.client(endpoint.Dialer{}, "a:1", "b:1")
		time.Sleep(time.Second)
		for range 100 {
			require.NoError(t, within(t, c, time.Second))
		}
		stuck.Store(true)
		a.runs.Store(0)
		for range 1000 {
			_ = within(t, c, 100*time.Millisecond)
		}
		assert.LessOrEqual(t, a.runs.Load(), int64(5))
	})
}

// ledgerFuse is a breaker that counts what it is told.
type ledgerFuse struct {
	handSwitch
	mu   sync.Mutex
	ends []error
}

func (f *ledgerFuse) Allow() (func(error), error) {
	done, err := f.handSwitch.Allow()
	if err != nil {
		return nil, err
	}
	return func(err error) {
		f.mu.Lock()
		f.ends = append(f.ends, err)
		f.mu.Unlock()
		done(err)
	}, nil
}

// TestHealBreakerLies: a breaker hears of calls alone: not of a copy that found
// no other node, nor of a call whose time was over before it began.
func TestHealBreakerLies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		fuses := map[string]*ledgerFuse{"a:1": {}, "b:1": {}}
		took := time.Millisecond
		a := w.up("a:1", after(&took))
		w.up("b:1", after(&took))
		c := w.client(endpoint.Dialer{Breaker: func(addr string) endpoint.Breaker { return fuses[addr] }}, "a:1", "b:1")
		time.Sleep(time.Second)
		ctx := endpoint.Idempotent(t.Context())
		for range 100 {
			_, err := work.Call(ctx, c, job{})
			require.NoError(t, err)
		}
		fuses["b:1"].open.Store(true)
		hedged := c.Stats().Hedged
		before, ran := len(fuses["a:1"].ends), a.runs.Load()
		took = 100 * time.Millisecond // all calls last longer than the 95 %
		for range 10 {
			_, err := work.Call(ctx, c, job{})
			require.NoError(t, err)
		}
		assert.EqualValues(t, a.runs.Load()-ran, len(fuses["a:1"].ends)-before)
		assert.Equal(t, hedged, c.Stats().Hedged, "there were no copies")

		before = len(fuses["a:1"].ends)
		late, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		_, err := work.Call(late, c, job{})
		assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeNotRun, "")
		assert.Len(t, fuses["a:1"].ends, before)
	})
}

// lookingHandler is a log whose handler looks at the Client that writes it.
type lookingHandler struct {
	slog.Handler
	look func()
}

func (h lookingHandler) Enabled(context.Context, slog.Level) bool  { return true }
func (h lookingHandler) Handle(context.Context, slog.Record) error { h.look(); return nil }

// TestHealCallbacks: the Dialer's functions and its log may ask the Client how it
// is.
func TestHealCallbacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.up("a:1", nil)
		w.up("b:1", nil)
		var client atomic.Pointer[endpoint.Client]
		look := func() {
			if c := client.Load(); c != nil {
				_ = c.Stats()
				_ = c.State()
			}
		}
		var addr atomic.Value
		addr.Store("a:1")
		c := w.client(endpoint.Dialer{
			Logger:  slog.New(lookingHandler{slog.DiscardHandler, look}),
			Breaker: func(string) endpoint.Breaker { look(); return nil },
			Resolve: func(context.Context, string) ([]string, error) {
				look()
				return []string{addr.Load().(string)}, nil
			},
		}, "service")
		client.Store(c)
		addr.Store("b:1")
		time.Sleep(31 * time.Second)
		done := make(chan endpoint.ClientStats, 1)
		go func() { done <- c.Stats() }()
		select {
		case s := <-done:
			require.Len(t, s.Nodes, 1)
			assert.Equal(t, "b:1", s.Nodes[0].Addr)
		case <-time.After(time.Second):
			t.Fatal("a callback that asks for Stats waits for ever")
		}
		w.down("b:1")
		_ = within(t, c, time.Second)
	})
}

// TestHealTunnel: a session that goes through a raw command of another one does
// not take what is known of that for what is known of its calls.
func TestHealTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		entered := make(chan struct{})
		inner := w.up("inner:1", func(ctx context.Context, j job) (job, error) {
			close(entered)
			<-ctx.Done()
			return j, ctx.Err()
		})
		outer := w.up("outer:1", nil)
		outer.Handle("TUNNEL", endpoint.ServeFunc(func(ctx context.Context, rw *bufio.ReadWriter) error {
			far, err := inner.mem.Dial(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = far.Close() }()
			go func() {
				_, _ = rw.WriteTo(far)
				_ = far.Close()
			}()
			for {
				p := make([]byte, 1024)
				n, err := far.Read(p)
				if err != nil {
					return err
				}
				if _, err = rw.Write(p[:n]); err == nil {
					err = rw.Flush()
				}
				if err != nil {
					return err
				}
			}
		}))
		way := w.client(endpoint.Dialer{}, "outer:1")
		d := endpoint.Dialer{Logger: slog.New(slog.DiscardHandler), NetDial: func(context.Context, string, string) (net.Conn, error) {
			c, err := way.Open(context.Background(), "TUNNEL")
			if err != nil {
				return nil, err
			}
			return tunnel{c}, nil
		}}
		c, err := d.Dial(t.Context(), "inner:1")
		require.NoError(t, err)
		defer func() { assert.NoError(t, c.Close()) }()
		lost := make(chan error, 1)
		go func() { lost <- within(t, c, time.Minute) }()
		<-entered
		tunnelFails.Store(&endpoint.Error{Code: endpoint.Unavailable, Outcome: endpoint.OutcomeNotRun, Message: "the peer takes no more calls"})
		defer tunnelFails.Store(nil)
		require.NoError(t, way.Close())
		err = <-lost
		assert.Equal(t, endpoint.OutcomeUnknown, endpoint.OutcomeOf(err), "%v", err)
		assert.EqualValues(t, 1, inner.runs.Load())
	})
}

// tunnelFails is what a tunnel fails with, as a stream of a session does that its
// peer cut off.
var tunnelFails atomic.Pointer[endpoint.Error]

// A tunnel is a Conn of a session as a net.Conn.
type tunnel struct{ c *endpoint.Conn }

func (c tunnel) Read(p []byte) (int, error) {
	n, err := c.c.Read(p)
	if e := tunnelFails.Load(); err != nil && e != nil {
		err = e
	}
	return n, err
}

func (c tunnel) Write(p []byte) (int, error) {
	n, err := c.c.Write(p)
	if err == nil {
		err = c.c.Flush()
	}
	return n, err
}
func (c tunnel) Close() error                     { return c.c.Close() }
func (tunnel) LocalAddr() net.Addr                { return &net.UnixAddr{Name: "near", Net: "unix"} }
func (tunnel) RemoteAddr() net.Addr               { return &net.UnixAddr{Name: "far", Net: "unix"} }
func (tunnel) SetDeadline(time.Time) error        { return nil }
func (tunnel) SetReadDeadline(time.Time) error    { return nil }
func (c tunnel) SetWriteDeadline(time.Time) error { return nil }

// A countedContext counts how often somebody begins to wait for its end.
type countedContext struct {
	context.Context
	waits *atomic.Int64
}

func (c countedContext) Done() <-chan struct{} {
	c.waits.Add(1)
	return c.Context.Done()
}

// TestHealWaitersSleep: a call that waits for a connection is not woken by each
// attempt to make one: ten thousand of them would use up a processor.
func TestHealWaitersSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		addrs := []string{"a:1", "b:1", "c:1"}
		for _, addr := range addrs {
			w.up(addr, nil)
		}
		c := w.client(endpoint.Dialer{}, addrs...)
		time.Sleep(time.Second)
		for _, addr := range addrs {
			w.down(addr)
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var waits atomic.Int64
		answer := make(chan error, 1)
		go func() {
			_, err := work.Call(countedContext{ctx, &waits}, c, job{})
			answer <- err
		}()
		before := len(w.dialled("a:1"))
		time.Sleep(9 * time.Second)
		assert.Greater(t, len(w.dialled("a:1")), before+50, "it hurries them")
		assert.LessOrEqual(t, waits.Load(), int64(2))
		begin := time.Now()
		w.up("b:1", nil)
		require.NoError(t, <-answer)
		assert.LessOrEqual(t, time.Since(begin), 200*time.Millisecond)
	})
}

// vanishing is a request whose encoding ends the goroutine that calls.
type vanishing struct{ N int }

func (v vanishing) GobEncode() ([]byte, error) {
	if v.N != 0 { // zero values are encoded to know the type
		runtime.Goexit()
	}
	return nil, nil
}
func (*vanishing) GobDecode([]byte) error { return nil }

// TestHealCallerVanishes: a call whose goroutine ends within it is over for the
// counts and for the breaker.
func TestHealCallerVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const vanish endpoint.Command[vanishing, job] = "VANISH"
		w := newWorld(t)
		w.up("a:1", nil)
		var fuse handSwitch
		c := w.client(endpoint.Dialer{Breaker: func(string) endpoint.Breaker { return &fuse }}, "a:1")
		gone := make(chan bool)
		go func() {
			defer close(gone)
			_, _ = vanish.Call(t.Context(), c, vanishing{1})
		}()
		<-gone
		assert.EqualValues(t, 1, fuse.asked.Load())
		assert.EqualValues(t, 1, fuse.done.Load())
		assert.Zero(t, c.Stats().Nodes[0].InFlight)
	})
}

// TestHealManyNames: a program that passes on names it is told does not keep
// count of all of them.
func TestHealManyNames(t *testing.T) {
	most := 0
	for i := range 20_000 {
		most = endpoint.CountLatencies("C" + strconv.Itoa(i))
	}
	assert.LessOrEqual(t, most, 1000)
}

// TestBackoffOdd: no Backoff makes a Client wait less than not at all.
func TestBackoffOdd(t *testing.T) {
	for _, b := range []endpoint.Backoff{
		{Factor: math.NaN()}, {Factor: math.Inf(1)}, {Factor: -1}, {Base: math.MaxInt64, Max: math.MaxInt64}, {Base: -1, Max: -1},
	} {
		for _, failures := range []int{-1, 0, 1, 2, 1000, math.MaxInt} {
			for range 100 {
				assert.GreaterOrEqual(t, b.Delay(failures), time.Duration(0), "%+v", b)
				assert.GreaterOrEqual(t, endpoint.BackoffHurried(b), time.Duration(0), "%+v", b)
			}
		}
	}
}
