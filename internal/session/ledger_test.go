package session_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gobnode/internal/memnet"
	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// A ledger is what callers were told and what handlers did, for each call.
type ledger struct {
	t        *testing.T
	hash     maphash.Seed
	ran      []atomic.Int32 // entered by the handler
	finished []atomic.Int32
	next     atomic.Int64

	mu       sync.Mutex // guards following
	r        *rand.Rand
	client   *session.Session // nil: none
	server   *session.Session
	all      []*session.Session
	sessions int
	wg       sync.WaitGroup // of what goes on beside the callers

	outcomes [4]atomic.Int64 // by wire.Outcome, successes last
}

// TestLedger makes calls over connections that deliver in pieces and late, are reset at every byte offset and flip bits,
// to servers that are drained now and then, and compares the logs of both sides: no call ran twice, none ran that is said
// not to have run, each that succeeded ran once and got its own reply.
func TestLedger(t *testing.T) {
	in(t, func(t *testing.T) {
		n := count(200_000, 6_000)
		l := &ledger{t: t, hash: maphash.MakeSeed(), ran: make([]atomic.Int32, n), finished: make([]atomic.Int32, n), r: newRand(t)}
		var wg sync.WaitGroup
		for range 40 {
			seed := l.seed()
			wg.Go(func() { l.caller(randOf(seed)) })
		}
		wg.Wait()
		for _, s := range l.all {
			s.Close()
		}
		l.wg.Wait()
		ran := 0
		for i := range l.ran {
			switch v := l.ran[i].Load(); v {
			case 0:
			case 1:
				ran++
			default:
				t.Errorf("call %d ran %d times", i, v)
			}
		}
		o := &l.outcomes
		ran -= int(o[wire.OutcomeNotRun].Load()) // which judge has entered
		t.Logf("%d calls on %d connections: %d ran, %d succeeded, %d failed, %d did not run, %d unknown", n, l.sessions, ran,
			o[3].Load(), o[wire.OutcomeFailed].Load(), o[wire.OutcomeNotRun].Load(), o[wire.OutcomeUnknown].Load())
		for i := range o {
			require.Positive(t, o[i].Load(), "no call had outcome %d", i)
		}
	})
}

func (l *ledger) seed() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Uint64()
}

// session returns the current connection's client, a new one if that is over.
func (l *ledger) session() *session.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil {
		select {
		case <-l.client.GoingAway():
		default:
			return l.client
		}
	}
	k := int64(l.sessions)
	l.sessions++
	a, b := newPipe(1 << (9 + l.r.IntN(8)))
	fa := memnet.Faults{Pieces: 1 + l.r.IntN(3000), Delay: time.Duration(l.r.IntN(2000)) * time.Microsecond}
	fb := fa
	// Every connection has one fault, and each offset its turn.
	at := 1 + k/4
	switch k % 4 {
	case 0:
		fa.ResetAt = at
	case 1:
		fb.ResetAt = at
	case 2:
		fa.FlipAt = at
	case 3:
		fb.FlipAt = at
	}
	if l.r.IntN(2) == 0 {
		// Late enough for calls to have run.
		fa.ResetAt, fb.ResetAt, fa.FlipAt, fb.FlipAt = 0, 0, 0, 0
		*[]*int64{&fa.ResetAt, &fb.ResetAt, &fa.FlipAt, &fb.FlipAt}[k%4] = 1 + l.r.Int64N(30_000)
	}
	log := new(logBook)
	l.client = session.New(memnet.NewFaultConn(a, fa, l.r.Uint64()), session.Config{Dialer: true, Logger: log.logger()})
	l.server = session.New(memnet.NewFaultConn(b, fb, l.r.Uint64()), session.Config{Accept: l.serve, Calls: 30, Logger: log.logger()})
	l.all = append(l.all, l.client, l.server)
	if len(l.all) > 40 {
		for _, s := range l.all[:20] {
			s.Abort(session.ErrClosed)
		}
		old := l.all[:20:20]
		l.wg.Go(func() {
			for _, s := range old {
				s.Wait()
			}
		})
		l.all = append([]*session.Session{}, l.all[20:]...)
	}
	if l.r.IntN(5) == 0 {
		server, after := l.server, time.Duration(l.r.IntN(50))*time.Millisecond
		l.wg.Go(func() {
			time.Sleep(after)
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_ = server.Shutdown(ctx)
		})
	}
	return l.client
}

// reply is the only right one for a call.
func (l *ledger) reply(id uint64) uint64 {
	return maphash.Comparable(l.hash, id)
}

// serve is the handler: it writes the log before it does anything else.
func (l *ledger) serve(st *session.Stream) {
	var id uint64
	if err := st.Receive(st.Context(), func(b []byte) error {
		id = binary.BigEndian.Uint64(b)
		return nil
	}); err != nil {
		st.Finish(&session.Error{Code: wire.Canceled, Outcome: wire.OutcomeNotRun, Message: err.Error()})
		return
	}
	l.ran[id].Add(1)
	if id%7 == 0 {
		time.Sleep(time.Duration(id%100) * 100 * time.Microsecond)
	}
	l.finished[id].Add(1)
	if id%11 == 0 {
		st.Finish(&session.Error{Code: wire.Internal, Outcome: wire.OutcomeFailed, Message: "as asked"})
		return
	}
	_ = st.Reply(func(b []byte) ([]byte, error) {
		b = binary.BigEndian.AppendUint64(b, l.reply(id))
		return append(b, make([]byte, id%97*id%13)...), nil
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
		var got uint64
		err := l.session().Call(ctx, &session.CallSpec{Name: "RUN"},
			func(b []byte) ([]byte, error) {
				return append(binary.BigEndian.AppendUint64(b, id), make([]byte, size)...), nil
			},
			func(b []byte) error {
				if len(b) < 8 {
					return fmt.Errorf("a reply of %d bytes", len(b))
				}
				got = binary.BigEndian.Uint64(b)
				return nil
			})
		cancel()
		l.judge(id, got, err)
	}
}

// judge compares what a caller was told with what ran. "Did not run" must stay true: it is checked again at the end, by the
// count of calls that ran.
func (l *ledger) judge(id, got uint64, err error) {
	var e *session.Error
	switch {
	case err == nil:
		l.outcomes[3].Add(1)
		if got != l.reply(id) || l.ran[id].Load() != 1 || l.finished[id].Load() != 1 {
			l.t.Errorf("call %d succeeded, ran %d times, reply %x", id, l.ran[id].Load(), got)
		}
	case !errors.As(err, &e):
		l.t.Errorf("call %d: %v", id, err)
	default:
		l.outcomes[e.Outcome].Add(1)
		if e.Outcome == wire.OutcomeNotRun {
			// To run after this is to run twice.
			if l.ran[id].Add(1) != 1 {
				l.t.Errorf("call %d ran, it is said that it did not: %v", id, err)
			}
		}
		if e.Outcome == wire.OutcomeFailed && l.finished[id].Load() != 1 {
			l.t.Errorf("call %d failed without having run: %v", id, err)
		}
		time.Sleep(time.Millisecond) // or callers would use up their calls on a connection that is over
	}
}
