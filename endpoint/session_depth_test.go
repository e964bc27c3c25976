package endpoint_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// long has the tests run that are too long for every day, in full.
var long = flag.Bool("long", false, "run long tests in full")

const deeper endpoint.Command[int, int] = "DEEPER"

// goDeeper calls the caller back as many times as its request says.
func goDeeper(e *endpoint.Endpoint) {
	deeper.Handle(e, func(ctx context.Context, n int) (int, error) {
		if n == 0 {
			return 0, nil
		}
		depth, err := deeper.Call(ctx, endpoint.PeerFrom(ctx), n-1)
		return depth + 1, err
	})
}

// TestSessionCallsBack: calls that call back that call back, 20 deep, from as
// many callers at once as there are places: each ends, with a reply or refused,
// and none waits.
func TestSessionCallsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, depth = 250, 20
		n := memNode(t, goDeeper)
		callee := endpoint.New()
		goDeeper(callee)
		c := dialNode(t, n, &endpoint.Dialer{Endpoint: callee})

		got, err := deeper.Call(t.Context(), c, 200)
		require.NoError(t, err)
		assert.Equal(t, 200, got)

		var wg sync.WaitGroup
		var replies, refused atomic.Int32
		begin := time.Now()
		for range callers {
			wg.Go(func() {
				got, err := deeper.Call(t.Context(), c, depth)
				if err == nil {
					replies.Add(1)
					assert.Equal(t, depth, got)
					return
				}
				refused.Add(1)
				// The innermost call did not run; the outer ones did, and failed.
				assertFailed(t, err, endpoint.ResourceExhausted, endpoint.OutcomeFailed, "as many calls as it allows")
			})
		}
		wg.Wait()
		assert.Zero(t, time.Since(begin), "nobody waited for time to pass")
		t.Logf("%d replies, %d refused", replies.Load(), refused.Load())
		assert.Equal(t, int32(callers), replies.Load()+refused.Load())
		assertReleased(t, n)

		got, err = deeper.Call(t.Context(), c, depth)
		require.NoError(t, err)
		assert.Equal(t, depth, got)
	})
}

// TestSessionPlaces: a caller over Limits.Calls waits within its deadline; a
// handler never waits.
func TestSessionPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan bool)
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.Limits.Calls = 2
			fail.Handle(e, func(context.Context, text) (text, error) { <-release; return text{}, nil })
		})
		callee := endpoint.New()
		c := dialNode(t, n, &endpoint.Dialer{Endpoint: callee})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				_, err := fail.Call(t.Context(), c, text{})
				assert.NoError(t, err)
			})
		}
		synctest.Wait()
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := fail.Call(ctx, c, text{})
		assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeNotRun, "")
		assert.Equal(t, time.Second, time.Since(begin))
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = fail.Call(ended, c, text{})
		assertFailed(t, err, endpoint.Canceled, endpoint.OutcomeNotRun, "")
		close(release)
		wg.Wait()
	})
}

// TestSessionInFlight: one session holds at most a quarter of Limits.InFlight,
// for whatever it asks.
func TestSessionInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 10
		release := make(chan bool)
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.Limits.InFlight = 4 * places * endpoint.LeastCharge * 2
			fail.Handle(e, func(context.Context, text) (text, error) { <-release; return text{}, nil })
		})
		var wg sync.WaitGroup
		for range 3 { // sessions
			c := dialNode(t, n, nil)
			var refused atomic.Int32
			for range 3 * places {
				wg.Go(func() {
					if _, err := fail.Call(t.Context(), c, text{}); err != nil {
						refused.Add(1)
						quarter := fmt.Sprint(" of this session hold all of the ", places*endpoint.LeastCharge*2, " bytes")
						assertFailed(t, err, endpoint.ResourceExhausted, endpoint.OutcomeNotRun, quarter)
					}
				})
			}
			synctest.Wait()
			assert.Positive(t, refused.Load(), "of each session: none takes the quarter of another")
			assert.Less(t, refused.Load(), int32(3*places))
		}
		assert.LessOrEqual(t, n.Held(), int64(3*places*endpoint.LeastCharge*2))
		close(release)
		wg.Wait()
		assertReleased(t, n)
	})
}

// TestSessionBothWays: many callers on both sides, of commands that are there
// and of some that are not, over sockets that hold 4 KiB: all get on.
// They are unix sockets: TCP over the loopback moves some 100 KB/s with such
// buffers, whatever is above it (plain writes of 4 KiB, measured).
func TestSessionBothWays(t *testing.T) {
	callers, seconds := 100, 1
	if *long {
		callers, seconds = 1000, 10
	}
	l, err := net.Listen("unix", t.TempDir()+"/s")
	require.NoError(t, err)
	n := newNode(goDeeper)
	n.net = smallSockets{l}
	n.start(t, n.net)
	met := make(chan *endpoint.Peer, 1)
	meet.Handle(n.Endpoint, func(ctx context.Context, _ empty) (empty, error) {
		met <- endpoint.PeerFrom(ctx)
		return empty{}, nil
	})
	callee := endpoint.New()
	fail.Handle(callee, misbehave)
	fail.Handle(n.Endpoint, misbehave)
	goDeeper(callee)
	c := dialNode(t, n, &endpoint.Dialer{Endpoint: callee, NetDial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
		return shrink(c), err
	}})
	_, err = meet.Call(t.Context(), c, empty{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var done [2]atomic.Int64
	for side, to := range []endpoint.Caller{c, <-met} {
		for i := range callers {
			wg.Go(func() {
				for k := i; ctx.Err() == nil; k++ {
					var err error
					switch k % 3 {
					case 0:
						_, err = missing.Call(ctx, to, text{"x"})
						if ctx.Err() == nil {
							assertFailed(t, err, endpoint.Unimplemented, endpoint.OutcomeNotRun, "unknown command")
						}
					default:
						want := text{string(make([]byte, k%3000))}
						var got text
						got, err = fail.Call(ctx, to, want)
						if ctx.Err() == nil && assert.NoError(t, err) {
							assert.True(t, want == got)
						}
					}
					done[side].Add(1)
				}
			})
		}
	}
	for s := range seconds {
		before := [2]int64{done[0].Load(), done[1].Load()}
		time.Sleep(time.Second)
		for side := range before {
			assert.Greater(t, done[side].Load(), before[side], "side %d made no progress in second %d", side, s)
		}
	}
	began := time.Now()
	cancel()
	wg.Wait()
	t.Logf("all back after %v", time.Since(began))
	t.Logf("%d and %d calls by %d goroutines a side in %d s", done[0].Load(), done[1].Load(), callers, seconds)
}

// smallSockets is a listener whose connections hold as little as the system
// lets them.
type smallSockets struct{ net.Listener }

func (l smallSockets) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return shrink(c), err
}

func shrink(c net.Conn) net.Conn {
	if uc, ok := c.(*net.UnixConn); ok {
		_ = uc.SetReadBuffer(4 << 10)
		_ = uc.SetWriteBuffer(4 << 10)
	}
	return c
}

// TestSessionManyStreams: streams of many messages each way on one session, one
// of which is never received from.
func TestSessionManyStreams(t *testing.T) {
	streams, messages := 10, 200
	if *long {
		streams, messages = 100, 2000
	}
	n := tcpNode(t, streamCommands)
	c := dialNode(t, n, nil)
	unread, err := stall.Open(t.Context(), c)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range streams - 1 {
		wg.Go(func() { assert.NoError(t, exchange(t.Context(), c, i+1, messages, 100+i)) })
	}
	wg.Wait()
	first, err := unread.Recv()
	require.NoError(t, err)
	assert.Equal(t, block(0, 0, 1000), first)
	require.NoError(t, unread.Close())
	assertReleased(t, n)
}

// TestSessionGoroutines: when Close of both ends has returned no handler runs
// any more, and what is left of their goroutines is about to end.
func TestSessionGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	var running atomic.Int32
	for range 20 {
		mem := memnet.Listen()
		n := newNode(func(e *endpoint.Endpoint) {
			goDeeper(e)
			streamCommands(e)
			rawCommands(e)
			e.Interceptors = []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next next) error {
				running.Add(1)
				defer running.Add(-1)
				return next(ctx)
			}}
		})
		n.mem = mem
		served := make(chan error, 1)
		go func() { served <- n.Serve(mem) }()
		c, err := (&endpoint.Dialer{Endpoint: n.Endpoint, Logger: n.Logger, NetDial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return mem.Dial(ctx)
		}}).Dial(t.Context(), "mem")
		require.NoError(t, err)
		_, err = deeper.Call(t.Context(), c, 5)
		require.NoError(t, err)
		for _, to := range []endpoint.Caller{c, n.Endpoint} {
			s, err := echoStream.Open(t.Context(), to)
			require.NoError(t, err)
			require.NoError(t, s.Send(line{"x"}))
			_, err = s.Recv()
			require.NoError(t, err)
		}
		raw, err := c.Open(t.Context(), "UPPER")
		require.NoError(t, err)
		_ = bufio.NewReader(raw)
		require.NoError(t, n.Close())
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-served, endpoint.ErrClosed)
		require.Zero(t, running.Load())
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, patience, time.Millisecond) // + Eventually's own
}

// TestSessionLargestMessages: with the limits as they are by default, messages
// up to Limits.Message get through, and several at once do.
func TestSessionLargestMessages(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		fail.Handle(e, misbehave)
		streamCommands(e)
	})
	c := dialNode(t, n, nil)
	for _, size := range []int{1 << 20, 1<<21 + 1, 3 << 20, 4<<20 - 100} {
		want := text{strings.Repeat("x", size)}
		got, err := fail.Call(t.Context(), c, want)
		require.NoError(t, err, size)
		assert.True(t, got == want)
		require.NoError(t, exchange(t.Context(), c, 1, 2, size), size)
	}
	want := text{strings.Repeat("x", 4<<20-100)}
	var wg sync.WaitGroup
	for range 3 { // 4 MiB as it came, in one piece, decoded, and as the reply
		wg.Go(func() {
			got, err := fail.Call(t.Context(), c, want)
			assert.NoError(t, err)
			assert.True(t, got == want)
		})
	}
	wg.Wait()
	assertReleased(t, n)
}
