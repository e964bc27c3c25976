package session_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/memnet"
	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// The deeds of a wild handler: a byte of the request says which.
const (
	deedQuick   = iota // takes the message, then replies: most do
	deedInTake         // replies while it has the message
	deedSleep          // ... and takes its time
	deedExit           // runtime.Goexit with the message in hand
	deedExitEnd        // ... when it has replied
	deedContext        // asks for its context late
	deedBeside         // ... on another goroutine, while it replies
	deedWait           // waits for its context, not for long
	deedFail
	deedNothing // returns without a word
	deedBack    // calls the peer
	deedEncode  // leaves its goroutine while it encodes the reply
	deedUnable  // cannot encode it
	deedLarge   // replies more than there is credit for
	deedTwice   // asks for a second message
	deedKill    // ends the session, and replies nonetheless
	numDeeds
)

const wildHead = 9 // bytes of a wild request: the deed and a number that no other call has

// wildReply is what follows a request: its number, and a pattern that depends on all of it.
func wildReply(dst, msg []byte) []byte {
	n := len(msg)
	if msg[0] == deedLarge {
		n += 100 << 10
	}
	for i := range n {
		dst = append(dst, msg[i%len(msg)]^0x5a)
	}
	return dst
}

// wild serves calls in all the ways there are to. Deeds that need a context ask for it, the others do not: so readers serve.
func wild(st *session.Stream) {
	var msg []byte
	deed := byte(deedQuick)
	encode := func(b []byte) ([]byte, error) { return wildReply(b, msg), nil }
	err := st.Receive(context.Background(), func(b []byte) error {
		msg = append(msg, b...)
		switch deed = msg[0]; deed {
		case deedInTake:
			return st.Reply(encode)
		case deedSleep:
			time.Sleep(time.Duration(msg[1]) * 16 * time.Microsecond)
		case deedExit:
			runtime.Goexit()
		case deedWait:
			select {
			case <-st.Context().Done():
			case <-time.After(3 * time.Millisecond):
			}
		case deedContext:
			_ = st.Context().Err()
		}
		if !bytes.Equal(b, msg) {
			panic("a message changed while a handler had it")
		}
		return nil
	})
	if err != nil {
		st.Finish(asError(err))
		return
	}
	if !wildWord(st, deed, msg, encode) || deed == deedInTake {
		return
	}
	if err := st.Reply(encode); err != nil {
		st.Finish(asError(err))
	}
	if deed == deedExitEnd {
		runtime.Goexit()
	}
}

// wildWord does what deed says between the message and the reply, and reports whether there is to be one.
func wildWord(st *session.Stream, deed byte, msg []byte, encode func([]byte) ([]byte, error)) bool {
	switch deed {
	case deedBeside:
		var wg sync.WaitGroup
		wg.Go(func() { _ = st.Context().Err() })
		_ = st.Reply(encode)
		wg.Wait()
		return false
	case deedFail:
		st.Finish(&session.Error{Code: wire.Internal, Outcome: wire.OutcomeFailed, Message: string(msg[1:wildHead])})
		return false
	case deedNothing:
		return false
	case deedBack:
		_ = wildCall(st.Context(), st.Session(), append([]byte{deedQuick}, msg[1:]...), true)
	case deedEncode:
		_ = st.Reply(func([]byte) ([]byte, error) { runtime.Goexit(); return nil, nil })
	case deedUnable:
		err := st.Reply(func([]byte) ([]byte, error) { return nil, errors.New(string(msg[1:wildHead])) })
		st.Finish(asError(err))
		return false
	case deedTwice:
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = st.Receive(ctx, func([]byte) error { panic("a second message") })
	case deedKill:
		st.Session().Abort(errKilled)
	}
	return true
}

var errKilled = errors.New("ended by a handler")

// wildCall makes a call and returns what is wrong with its end, nil if nothing is.
func wildCall(ctx context.Context, s *session.Session, msg []byte, noWait bool) error {
	var reply []byte
	err := s.Call(ctx, &session.CallSpec{Name: "WILD", NoWait: noWait},
		func(b []byte) ([]byte, error) { return append(b, msg...), nil },
		func(b []byte) error { reply = append(reply, b...); return nil })
	var e *session.Error
	switch {
	case err == nil && !bytes.Equal(wildReply(nil, msg), reply):
		return errors.New("the reply of another call, or none's")
	case err == nil:
		return nil
	case !errors.As(err, &e):
		return err
	case e.Code == wire.Unavailable && goingAway(s), e.Code == wire.ResourceExhausted && noWait:
		return nil
	case e.Code == wire.Canceled && ctx.Err() != nil, e.Code == wire.DeadlineExceeded && ctx.Err() != nil:
		return nil
	case e.Code == wire.DeadlineExceeded && !e.Told && hasDeadline(ctx): // before the call was sent
		return nil
	case e.Code == wire.Internal && e.Told:
		switch text := string(msg[1:wildHead]); msg[0] {
		case deedFail, deedUnable:
			if e.Message == text {
				return nil
			}
		case deedExit, deedNothing, deedEncode:
			if e.Message == "the handler did not finish" {
				return nil
			}
		}
	case (e.Code == wire.DeadlineExceeded || e.Code == wire.Canceled) && e.Told && hasDeadline(ctx):
		return nil
	}
	return err
}

func goingAway(s *session.Session) bool {
	select {
	case <-s.GoingAway():
		return true
	default:
		return false
	}
}

func hasDeadline(ctx context.Context) bool { _, ok := ctx.Deadline(); return ok }

// wildContext returns a context that ends in one way or another, or does not.
func wildContext(r *rand.Rand) (context.Context, context.CancelFunc) {
	d := time.Duration(r.IntN(3000)) * time.Microsecond
	switch r.IntN(8) {
	case 0:
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(d, cancel)
		return ctx, cancel
	case 1:
		return context.WithTimeout(context.Background(), d)
	case 2:
		ctx, cancel := context.WithCancel(context.Background())
		if r.IntN(20) == 0 {
			cancel()
		}
		return ctx, cancel
	}
	return context.Background(), func() {}
}

// wildRound has many call and be called at once over a connection until all are done, or for so long that somebody ends it in
// the middle of that. It returns how many calls readers served.
func wildRound(t *testing.T, ca, cb net.Conn, seed uint64, callers, calls int, last byte) uint64 {
	budgets := [2]*session.Budget{session.NewBudget(64<<20, nil), session.NewBudget(64<<20, nil)}
	logs := new(logBook)
	sessions := [2]*session.Session{
		session.New(ca, session.Config{Dialer: true, Accept: wild, Budget: budgets[0], Logger: logs.logger()}),
		session.New(cb, session.Config{Accept: wild, Budget: budgets[1], Logger: logs.logger()}),
	}
	var wg sync.WaitGroup
	for side, s := range sessions {
		for c := range callers {
			wg.Go(func() {
				r := randOf(seed + uint64(side*callers+c))
				for i := range calls {
					msg := make([]byte, wildHead+r.IntN(1+60<<r.IntN(6)))
					binary.BigEndian.PutUint64(msg[1:], r.Uint64())
					if msg[0] = deedQuick; r.IntN(40) == 0 {
						msg[0] = byte(r.IntN(int(last)))
					}
					ctx, cancel := wildContext(r)
					err := wildCall(ctx, s, msg, false)
					cancel()
					if !assert.NoError(t, err, "call %d of %d, deed %d, SEED=%d", i, c, msg[0], seed) {
						return
					}
				}
			})
		}
	}
	if last == numDeeds {
		wg.Go(func() {
			r := randOf(seed - 1)
			time.Sleep(time.Duration(r.IntN(20_000)) * time.Microsecond)
			sessions[r.IntN(2)].Abort(errKilled)
		})
	}
	wg.Wait()
	sessions[0].Close()
	sessions[1].Close()
	for _, b := range budgets {
		assert.Zero(t, b.Used())
	}
	return sessions[0].Stats().Inline + sessions[1].Stats().Inline
}

// TestWildCalls: handlers that are quick, sleep, leave, fail, call back and ask for their contexts late, callers that go away at
// random, both ways at once: each reply is its own call's, and nothing is left.
func TestWildCalls(t *testing.T) {
	seed := seedOf(t)
	in(t, func(t *testing.T) {
		ca, cb := memnet.Pipe()
		assert.Positive(t, wildRound(t, ca, cb, seed, 100, count(2000, 200), deedKill))
		synctest.Wait()
	})
	ca, cb := socketsOf(t, "unix", t.TempDir()+"/s")
	t.Log("over a socket readers served", wildRound(t, ca, cb, seed, 64, count(2000, 200), deedKill))
}

// TestWildEnds: the same with sessions that end in the middle of it, by a handler's hand or another's.
func TestWildEnds(t *testing.T) {
	seed := seedOf(t)
	for i := range uint64(count(300, 20)) {
		in(t, func(t *testing.T) {
			ca, cb := memnet.Pipe()
			wildRound(t, ca, cb, seed+i<<32, 50, 50, numDeeds)
		})
	}
	for i := range uint64(count(300, 20)) {
		ca, cb := socketsOf(t, "tcp", "127.0.0.1:0")
		wildRound(t, ca, cb, seed+i<<32, 32, 50, numDeeds)
	}
}

// TestEndBeforeTheReply: a handler that the reader runs replies after its session was ended, while those who end it look at what
// is left. Only the race detector sees what is wrong.
func TestEndBeforeTheReply(t *testing.T) {
	for range count(200, 20) {
		ca, cb := memnet.Pipe()
		a := session.New(ca, session.Config{Dialer: true})
		b := session.New(cb, session.Config{Accept: func(st *session.Stream) {
			var kill bool
			_ = st.Receive(context.Background(), func(msg []byte) error { kill = len(msg) > 0; return nil })
			if kill {
				st.Session().Abort(errKilled)
			}
			_ = st.Reply(func(b []byte) ([]byte, error) { return b, nil })
			for begin := time.Now(); kill && time.Since(begin) < 300*time.Microsecond; {
				// Neither waits for anything, which would order the goroutines, nor so long that the reading goes on elsewhere.
			}
		}})
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				for range 5 {
					_, _ = call(context.Background(), a, "X", nil)
				}
				if i == 50 {
					_, _ = call(context.Background(), a, "X", []byte("kill"))
				}
			})
		}
		wg.Wait()
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	}
}

// TestToldOfTheEndLate: what tells a handler that its call has failed comes to it when the handler has returned, and the stream might
// be another call's by then. Only the race detector sees what is wrong.
func TestToldOfTheEndLate(t *testing.T) {
	stalled := make(chan struct{})
	p := newRawPeer(t, session.Config{
		Progress: 20 * time.Millisecond,
		OnLimit: func(session.Limit) { // ahead of the end of the context
			close(stalled)
			time.Sleep(100 * time.Millisecond)
		},
		Accept: func(st *session.Stream) {
			_ = st.Context()
			_ = st.Receive(context.Background(), func([]byte) error { <-stalled; return nil })
			st.Finish(nil)
		},
	})
	defer p.close()
	call1 := wire.Call{Stream: 1, Kind: wire.CallUnary, Name: []byte("X"), Data: []byte("x")}
	p.send(wire.AppendCall(nil, wire.FlagEOM, &call1), wire.AppendData(nil, 0, 1, []byte("half a message more")))
	e := p.lastWord(1)
	require.NotNil(t, e)
	require.Equal(t, wire.DeadlineExceeded, e.Code)
	time.Sleep(20 * time.Millisecond) // for the stream to be given back
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := call(context.Background(), p.s, "X", nil)
		assert.NoError(t, err)
	})
	f := p.nextOf(wire.KindCall)
	c, err := wire.ParseCall(f.Payload)
	require.NoError(t, err)
	p.send(wire.AppendData(nil, wire.FlagEOM|wire.FlagEnd, c.Stream, []byte("reply")))
	wg.Wait()
	time.Sleep(100 * time.Millisecond) // without another look at the session, which would order the goroutines
}
