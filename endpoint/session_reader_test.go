package endpoint_test

import (
	"bufio"
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The commands that a Client's other end calls back in a flood, so that the
// reader runs the quick ones itself.
const (
	quick   endpoint.Command[errand, errand]       = "QUICK"
	odd     endpoint.Command[errand, errand]       = "ODD"
	oddly   endpoint.StreamCommand[errand, errand] = "ODDLY"
	oddRaw                                         = "ODDRAW"
	floodMe endpoint.Command[errand, errand]       = "FLOODME"
)

// A readerCase is one thing that a handler does where it may stand in the way of
// all others.
type readerCase struct {
	ends bool // no later call gets through
	do   func(ctx context.Context, e *endpoint.Endpoint, c *endpoint.Client)
}

var readerCases = map[string]readerCase{
	"closes the Client": {true, func(_ context.Context, _ *endpoint.Endpoint, c *endpoint.Client) { _ = c.Close() }},
	"closes the Peer": {true, func(ctx context.Context, _ *endpoint.Endpoint, _ *endpoint.Client) {
		_ = endpoint.PeerFrom(ctx).Close()
	}},
	"ends the Endpoint": {true, func(_ context.Context, e *endpoint.Endpoint, _ *endpoint.Client) { go func() { _ = e.Close() }() }},
	"leaves by Goexit":  {false, func(context.Context, *endpoint.Endpoint, *endpoint.Client) { runtime.Goexit() }},
	"panics":            {false, func(context.Context, *endpoint.Endpoint, *endpoint.Client) { panic("as it does") }},
	"blocks":            {false, func(context.Context, *endpoint.Endpoint, *endpoint.Client) { time.Sleep(20 * time.Millisecond) }},
	"waits for its end": {false, func(ctx context.Context, _ *endpoint.Endpoint, _ *endpoint.Client) { <-ctx.Done() }},
	"asks for it late": {false, func(ctx context.Context, _ *endpoint.Endpoint, _ *endpoint.Client) {
		time.Sleep(3 * time.Millisecond)
		<-ctx.Done()
	}},
	"calls with its own": {false, func(ctx context.Context, _ *endpoint.Endpoint, c *endpoint.Client) {
		_, _ = quick.Call(ctx, c, errand{})
	}},
	"calls with no limit": {false, func(_ context.Context, _ *endpoint.Endpoint, c *endpoint.Client) {
		_, _ = quick.Call(context.Background(), c, errand{})
	}},
	"computes": {false, func(context.Context, *endpoint.Endpoint, *endpoint.Client) { spin(2 * time.Millisecond) }},
}

func spin(d time.Duration) {
	for begin := time.Now(); time.Since(begin) < d; {
	}
}

// TestHandlersInTheReadersWay: whatever a handler does that is called back, of
// each kind and among a flood of quick ones, all calls come back, and Close does.
func TestHandlersInTheReadersWay(t *testing.T) {
	r := seeded(t)
	rounds := 1
	if *long {
		rounds = 50
	}
	for name, test := range readerCases {
		for _, kind := range []endpoint.Kind{endpoint.KindUnary, endpoint.KindStream, endpoint.KindRaw} {
			t.Run(name+"/"+kind.String(), func(t *testing.T) {
				for range rounds {
					inTheWay(t, r, test, kind)
				}
			})
		}
	}
}

func inTheWay(t *testing.T, r *rand.Rand, test readerCase, kind endpoint.Kind) {
	var c *endpoint.Client
	log := slog.New(slog.DiscardHandler)
	mine := endpoint.New()
	mine.Logger = log
	var did atomic.Int32
	do := func(ctx context.Context) {
		did.Add(1)
		test.do(ctx, mine, c)
	}
	quick.Handle(mine, func(_ context.Context, j errand) (errand, error) { return j, nil })
	odd.Handle(mine, func(ctx context.Context, j errand) (errand, error) { do(ctx); return j, nil })
	oddly.Handle(mine, func(ctx context.Context, _ *endpoint.Stream[errand, errand]) error { do(ctx); return nil })
	mine.Handle(oddRaw, endpoint.ServeFunc(func(ctx context.Context, _ *bufio.ReadWriter) error { do(ctx); return nil }))

	far := endpoint.New()
	far.Logger = log
	quick.Handle(far, func(_ context.Context, j errand) (errand, error) { return j, nil })
	peer := make(chan *endpoint.Peer, 1)
	floodMe.Handle(far, func(ctx context.Context, j errand) (errand, error) { peer <- endpoint.PeerFrom(ctx); return j, nil })
	dial, served := serveFar(t, far, r.IntN(4) > 0)
	d := endpoint.Dialer{Endpoint: mine, Logger: log, NetDial: dial}
	c, err := d.Dial(t.Context(), "far:1")
	require.NoError(t, err)
	_, err = floodMe.Call(t.Context(), c, errand{})
	require.NoError(t, err)
	back := <-peer

	var callers sync.WaitGroup
	const flooders, calls = 16, 30
	for i := range flooders {
		at := r.IntN(calls)
		callers.Go(func() {
			for n := range calls {
				j := errand{ID: i*1000 + n}
				if i == 0 && n == at {
					oddCall(t.Context(), back, kind, j)
					continue
				}
				reply, err := quick.Call(t.Context(), back, j)
				if err != nil {
					assert.True(t, test.ends, "%v", err)
					return
				}
				assert.Equal(t, j.ID, reply.ID)
			}
		})
	}
	await(t, "callers", callers.Wait)
	if !test.ends {
		assert.LessOrEqual(t, did.Load(), int32(1), "if it got there in time")
		_, err := quick.Call(t.Context(), back, errand{ID: 1})
		assert.NoError(t, err)
	}
	await(t, "Client.Close", func() { assert.NoError(t, c.Close()) })
	await(t, "Close", func() { assert.NoError(t, mine.Close()) })
	await(t, "Close of the far end", func() { assert.NoError(t, far.Close()) })
	assert.ErrorIs(t, <-served, endpoint.ErrClosed)
}

// oddCall makes the call that is in the way; how it ends is of no interest.
func oddCall(ctx context.Context, to endpoint.Caller, kind endpoint.Kind, j errand) {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if kind == endpoint.KindUnary {
		_, _ = odd.Call(ctx, to, j)
		return
	}
	open := func() (interface{ Close() error }, error) { return oddly.Open(ctx, to) }
	if kind == endpoint.KindRaw {
		open = func() (interface{ Close() error }, error) { return endpoint.OpenRaw(ctx, to, oddRaw) }
	}
	s, err := open()
	if err != nil {
		return
	}
	if recv, ok := s.(*endpoint.Stream[errand, errand]); ok {
		_, _ = recv.Recv()
	} else {
		_, _ = s.(*endpoint.Conn).ReadByte()
	}
	_ = s.Close()
}

// serveFar serves e and returns how to dial it.
func serveFar(t *testing.T, e *endpoint.Endpoint, tcp bool) (func(context.Context, string, string) (net.Conn, error), <-chan error) {
	served := make(chan error, 1)
	if !tcp {
		l := memnet.Listen()
		go func() { served <- e.Serve(l) }()
		return func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx) }, served
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { served <- e.Serve(l) }()
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}, served
}

// await fails the test, with all stacks, if f does not return.
func await(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		stacks := make([]byte, 1<<20)
		t.Fatalf("%s does not return:\n%s", what, stacks[:runtime.Stack(stacks, true)])
	}
}
