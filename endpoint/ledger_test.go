package endpoint_test

import (
	"context"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
)

type (
	ledgerRequest struct {
		ID   uint64
		Data []byte
	}
	ledgerReply struct {
		ID, Hash uint64
		Data     []byte
	}
)

const ledgerCall endpoint.Command[ledgerRequest, ledgerReply] = "RUN"

// A ledger is what callers were told and what handlers did, for each call.
type ledger struct {
	t        *testing.T
	hash     maphash.Seed
	ran      []atomic.Int32 // entered by the handler
	finished []atomic.Int32
	next     atomic.Int64
	outcomes [4]atomic.Int64 // by endpoint.Outcome, successes last

	lock   chan struct{}    // guards client; a bubble sees who waits for it, and dialing takes time
	client *endpoint.Client // nil: none

	mu    sync.Mutex // guards following
	r     *rand.Rand
	ends  []func() // of the connections, the oldest first
	dials int64
	wg    sync.WaitGroup // of what goes on beside the callers
}

// TestLedger makes typed calls over connections that deliver in pieces and
// late, are reset at every byte offset and flip bits, to endpoints that shut
// down now and then, and compares the logs of both sides: no call ran twice,
// none ran that is said not to have run, each that succeeded ran once and got
// its own reply. -long makes it 200,000 calls; SEED=n repeats a run's chance.
func TestLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 5_000
		if *long {
			n = 200_000
		}
		l := &ledger{
			t: t, hash: maphash.MakeSeed(), ran: make([]atomic.Int32, n), finished: make([]atomic.Int32, n),
			r: seeded(t), lock: make(chan struct{}, 1),
		}
		var callers sync.WaitGroup
		for i, seed := range seeds(l.r, 40) {
			callers.Go(func() { l.caller(rand.New(rand.NewPCG(seed, uint64(i)))) })
		}
		callers.Wait()
		for ends := l.takeEnds(); len(ends) > 0; ends = l.takeEnds() { // a Client that is not closed yet connects again
			for _, end := range ends {
				end()
			}
		}
		l.wg.Wait()
		time.Sleep(time.Second) // Close does not wait for a read of a closed connection that its faults hold up
		ran := 0
		for id := range l.ran {
			runs := l.ran[id].Load()
			assert.LessOrEqual(t, runs, int32(1), "runs of call %d, and one more if it is said not to have run", id)
			ran += int(runs)
		}
		o := &l.outcomes
		ran -= int(o[endpoint.OutcomeNotRun].Load()) // which judge has entered
		t.Logf("%d calls on %d connections: %d ran, %d succeeded, %d failed, %d did not run, %d unknown", n, l.dials, ran,
			o[3].Load(), o[endpoint.OutcomeFailed].Load(), o[endpoint.OutcomeNotRun].Load(), o[endpoint.OutcomeUnknown].Load())
		for outcome := range o {
			assert.Positive(t, o[outcome].Load(), "no call had outcome %d", outcome)
		}
	})
}

// caller makes calls until there are enough, and judges each at once.
func (l *ledger) caller(r *rand.Rand) {
	for {
		id := uint64(l.next.Add(1) - 1)
		if id >= uint64(len(l.ran)) {
			return
		}
		size := r.IntN(300)
		if r.IntN(50) == 0 {
			size = r.IntN(200_000)
		}
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		switch r.IntN(10) {
		case 0:
			ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(20_000))*time.Microsecond)
		case 1:
			ctx, cancel = context.WithTimeout(ctx, time.Minute)
		}
		c := l.use()
		reply, err := ledgerCall.Call(ctx, c, ledgerRequest{ID: id, Data: make([]byte, size)})
		cancel()
		l.judge(id, reply, err)
		if endpoint.CodeOf(err) == endpoint.Unavailable {
			l.leave(c)
		}
	}
}

// judge compares what a caller was told with what ran. "Did not run" must stay
// true: it is checked again at the end, by the count of the runs.
func (l *ledger) judge(id uint64, reply ledgerReply, err error) {
	if err == nil {
		l.outcomes[3].Add(1)
		if reply.ID != id || reply.Hash != l.right(id) || len(reply.Data) != int(id*97%1300) || l.ran[id].Load() != 1 || l.finished[id].Load() != 1 {
			l.t.Errorf("call %d succeeded, ran %d times, reply %d %x", id, l.ran[id].Load(), reply.ID, reply.Hash)
		}
		return
	}
	e := failure(l.t, err)
	l.outcomes[e.Outcome].Add(1)
	switch {
	case e.Outcome == endpoint.OutcomeNotRun && l.ran[id].Add(1) != 1: // to run after this is to run twice
		l.t.Errorf("call %d ran, it is said that it did not: %v", id, err)
	case e.Outcome == endpoint.OutcomeFailed && l.finished[id].Load() != 1:
		l.t.Errorf("call %d failed without having run: %v", id, err)
	}
}

// right is the only hash that a call's reply may have.
func (l *ledger) right(id uint64) uint64 { return maphash.Comparable(l.hash, id) }

// serve is the handler: it writes the log before it does anything else.
func (l *ledger) serve(_ context.Context, req ledgerRequest) (ledgerReply, error) {
	l.ran[req.ID].Add(1)
	if req.ID%7 == 0 {
		time.Sleep(time.Duration(req.ID%100) * 100 * time.Microsecond)
	}
	l.finished[req.ID].Add(1)
	if req.ID%11 == 0 {
		return ledgerReply{}, endpoint.Errorf(endpoint.NotFound, "as asked")
	}
	return ledgerReply{ID: req.ID, Hash: l.right(req.ID), Data: make([]byte, req.ID*97%1300)}, nil
}

// use returns the Client of the moment, or dials until there is one.
func (l *ledger) use() *endpoint.Client {
	l.lock <- struct{}{}
	defer func() { <-l.lock }()
	for l.client == nil {
		d := endpoint.Dialer{NetDial: l.connect, Logger: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		c, err := d.Dial(ctx, "faulty")
		cancel()
		if err != nil {
			assert.Equal(l.t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err), "%v", err)
			continue
		}
		l.client = c
		l.endLater(func() { _ = c.Close() })
	}
	return l.client
}

// endLater has end called when there are many more: what a connection that was
// given up says late must find nobody.
func (l *ledger) endLater(end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends = append(l.ends, end)
	if len(l.ends) > 40 {
		old := l.ends[:20:20]
		l.ends = append([]func(){}, l.ends[20:]...)
		l.wg.Go(func() {
			for _, end := range old {
				end()
			}
		})
	}
}

// takeEnds returns what endLater was given and has not called.
func (l *ledger) takeEnds() []func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	ends := l.ends
	l.ends = nil
	return ends
}

// leave gives c up, if nobody has before.
func (l *ledger) leave(c *endpoint.Client) {
	l.lock <- struct{}{}
	defer func() { <-l.lock }()
	if l.client == c {
		l.client = nil
	}
}

// connect is the Dialer's NetDial: a connection with a fault of its own, and an
// endpoint of its own at the other end.
func (l *ledger) connect(context.Context, string, string) (net.Conn, error) {
	e := &endpoint.Endpoint{Logger: slog.New(slog.DiscardHandler), Limits: endpoint.Limits{Calls: 30}}
	ledgerCall.Handle(e, l.serve)
	l.endLater(func() { _ = e.Close() })
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.dials
	l.dials++
	a, b := memnet.Pipe()
	buffer := 1 << (9 + l.r.IntN(8))
	a.SetBuffer(buffer)
	b.SetBuffer(buffer)
	fa := memnet.Faults{Pieces: 1 + l.r.IntN(3000), Delay: time.Duration(l.r.IntN(2000)) * time.Microsecond}
	fb := fa
	at := 1 + k/8 // each offset has its turn, in turns with some that let calls run
	if k/4%2 == 1 {
		at = 1 + l.r.Int64N(30_000)
	}
	*[]*int64{&fa.ResetAt, &fb.ResetAt, &fa.FlipAt, &fb.FlipAt}[k%4] = at
	far := memnet.NewFaultConn(b, fb, l.r.Uint64())
	l.wg.Go(func() { e.ServeConn(context.Background(), far) })
	if l.r.IntN(5) == 0 {
		after := time.Duration(l.r.IntN(50)) * time.Millisecond
		l.wg.Go(func() {
			time.Sleep(after)
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_ = e.Shutdown(ctx)
		})
	}
	return memnet.NewFaultConn(a, fa, l.r.Uint64()), nil
}
