package endpoint_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A bag has many fields that are zero in most calls: what an earlier call has
// left in one shows.
type bag struct {
	ID   uint64
	Deed bagDeed
	Text string
	List []int
	Map  map[string]int
	Ptr  *int
	Sub  struct{ A, B int }
}

type bagDeed uint8

const (
	bagQuick bagDeed = iota
	bagSleep
	bagPanic
	bagExit
	bagFail
	bagAbort
	bagContext // asks for its context late
	bagLate    // leaves a goroutine that asks for it when the call is over
	bagEnd     // has a function called at the end that panics
	bagExitEnd // ... that ends the goroutine
	bagBack    // calls the peer
	bagLarge
	numBagDeeds
)

const (
	wildBag  endpoint.Command[bag, bag] = "BAG"
	wildBag2 endpoint.Command[bag, bag] = "BAG2"
)

func randomBag(r *rand.Rand) bag {
	b := bag{ID: r.Uint64()}
	if r.IntN(30) == 0 {
		b.Deed = bagDeed(r.IntN(int(numBagDeeds)))
	}
	switch r.IntN(7) {
	case 0:
		b.Text = "some text"
	case 1:
		b.List = make([]int, 1+r.IntN(20))
		for i := range b.List {
			b.List[i] = 1 + r.IntN(100)
		}
	case 2:
		b.Map = map[string]int{"one": 1 + r.IntN(100)}
	case 3:
		n := 1 + r.IntN(100)
		b.Ptr = &n
	case 4:
		b.Sub.B = r.IntN(100)
	}
	return b
}

// answered is the reply to b.
func (b bag) answered() bag {
	b.ID = ^b.ID
	if b.Deed == bagLarge {
		b.Text = string(make([]byte, 90<<10))
	}
	return b
}

// serveBag answers in many ways, and few well.
func serveBag(ctx context.Context, b bag) (bag, error) {
	switch b.Deed {
	case bagQuick, bagLarge, numBagDeeds:
	case bagSleep:
		time.Sleep(time.Duration(b.ID%3000) * time.Microsecond)
	case bagPanic:
		panic("as asked")
	case bagExit:
		runtime.Goexit()
	case bagFail:
		return b, endpoint.Errorf(endpoint.NotFound, "%d", b.ID) // with a reply, which does not travel
	case bagAbort:
		panic(endpoint.ErrAbort)
	case bagContext:
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond):
		}
	case bagLate:
		go func() { // ends with the call, or when that is over
			time.Sleep(time.Duration(b.ID%200) * time.Microsecond)
			<-ctx.Done()
			_, _ = ctx.Err(), context.Cause(ctx)
		}()
	case bagEnd:
		endpoint.InfoFrom(ctx).OnEnd(func(error) { panic("at the end") })
	case bagExitEnd:
		endpoint.InfoFrom(ctx).OnEnd(func(error) { runtime.Goexit() })
	case bagBack:
		ask := randomBag(rand.New(rand.NewPCG(b.ID, 1)))
		ask.Deed = bagQuick
		reply, err := wildBag.Call(ctx, endpoint.PeerFrom(ctx), ask)
		if err == nil && reply.ID != ^ask.ID {
			return b, endpoint.Errorf(endpoint.DataLoss, "another call's reply")
		}
	}
	return b.answered(), nil
}

// wildNode returns an endpoint that serves bags, through interceptors or not.
func wildNode(intercepted bool) *endpoint.Endpoint {
	e := endpoint.New()
	e.Logger = slog.New(slog.DiscardHandler)
	wildBag.Handle(e, serveBag)
	wildBag2.Handle(e, serveBag)
	if intercepted {
		e.Interceptors = []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next next) error {
			return next(context.WithValue(ctx, contextKey{}, "x"))
		}, func(ctx context.Context, info *endpoint.Info, next next) error {
			if info.Kind != endpoint.KindUnary {
				return next(ctx)
			}
			ended := make(chan error, 1)
			go func() { // ends with next, which is waited for
				defer close(ended)
				ended <- next(ctx)
			}()
			err, ok := <-ended
			if !ok {
				runtime.Goexit()
			}
			return err
		}}
	}
	return e
}

// wildCaller makes calls to to, which is a Client or a Peer.
func wildCaller(t *testing.T, to endpoint.Caller, r *rand.Rand, calls int) {
	for range calls {
		b := randomBag(r)
		command := wildBag
		if r.IntN(3) == 0 {
			command = wildBag2
		}
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		switch r.IntN(8) {
		case 0:
			ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(3000))*time.Microsecond)
		case 1:
			ctx, cancel = context.WithCancel(ctx)
			time.AfterFunc(time.Duration(r.IntN(3000))*time.Microsecond, cancel)
		case 2:
			ctx, cancel = context.WithTimeout(ctx, time.Minute)
		}
		reply, err := command.Call(ctx, to, b)
		_, limited := ctx.Deadline()
		over := ctx.Err() != nil || limited && endpoint.CodeOf(err) == endpoint.DeadlineExceeded
		cancel()
		code := endpoint.CodeOf(err)
		switch {
		case err == nil:
			assert.Contains(t, []bagDeed{bagQuick, bagSleep, bagContext, bagLate, bagBack, bagLarge}, b.Deed)
			assert.Equal(t, b.answered(), reply)
		case over && (code == endpoint.Canceled || code == endpoint.DeadlineExceeded):
		case b.Deed == bagFail:
			assert.Equal(t, endpoint.NotFound, code, "%v", err)
		case b.Deed == bagAbort:
			assert.Equal(t, endpoint.Aborted, code, "%v", err)
		default:
			assert.Contains(t, []bagDeed{bagPanic, bagExit, bagEnd, bagExitEnd}, b.Deed, "%v", err)
			assert.Equal(t, endpoint.Internal, code, "%v", err)
		}
		if t.Failed() {
			return
		}
	}
}

// TestWildBags: calls both ways to handlers that are quick, sleep, panic, leave,
// abort and ask for their contexts when all is over: each reply is its own
// call's, in all its fields, and nothing stays held.
func TestWildBags(t *testing.T) {
	r := seeded(t)
	for _, how := range []struct {
		name                string
		intercepted, socket bool
	}{{"in memory", false, false}, {"over a socket", false, true}, {"intercepted", true, true}} {
		t.Run(how.name, func(t *testing.T) {
			far, mine := wildNode(how.intercepted), wildNode(how.intercepted)
			met := make(chan *endpoint.Peer, 1)
			meet.Handle(far, func(ctx context.Context, _ empty) (empty, error) {
				met <- endpoint.PeerFrom(ctx)
				return empty{}, nil
			})
			var l net.Listener = memnet.Listen()
			if how.socket {
				var err error
				l, err = net.Listen("tcp", "127.0.0.1:0")
				require.NoError(t, err)
			}
			served := make(chan error, 1)
			go func() { served <- far.Serve(l) }()
			d := endpoint.Dialer{Endpoint: mine, Logger: mine.Logger}
			if m, ok := l.(*memnet.Listener); ok {
				d.NetDial = func(ctx context.Context, _, _ string) (net.Conn, error) { return m.Dial(ctx) }
			}
			c, err := d.Dial(t.Context(), l.Addr().String())
			require.NoError(t, err)
			_, err = meet.Call(t.Context(), c, empty{})
			require.NoError(t, err)
			back := <-met
			var wg sync.WaitGroup
			for i, seed := range seeds(r, 64) {
				to := endpoint.Caller(c)
				if i%2 == 1 {
					to = back
				}
				wg.Go(func() { wildCaller(t, to, rand.New(rand.NewPCG(seed, 0)), longOr(5000, 150)) })
			}
			await(t, "callers", wg.Wait)
			assert.Eventually(t, func() bool { return far.Held() == 0 && mine.Held() == 0 }, patience, ms)
			assert.NoError(t, c.Close())
			assert.NoError(t, far.Close())
			assert.NoError(t, mine.Close())
			assert.ErrorIs(t, <-served, endpoint.ErrClosed)
		})
	}
}
