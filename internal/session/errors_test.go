package session_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// corrupt returns frame with its checksum broken.
func corrupt(frame []byte) []byte {
	frame[len(frame)-1] ^= 1
	return frame
}

// badPayload is a frame of a kind with a payload that is none of its kind's.
func badPayload(k wire.Kind, payload ...byte) []byte { return wire.AppendFrame(nil, k, 0, payload) }

// TestFramesThatEndTheSession: every frame that is not allowed ends the session with a GOAWAY that says why, one line in the
// log and one more on the counter. The peer has a stream open, number 1, which waits; its CREDIT is 256 KiB.
func TestFramesThatEndTheSession(t *testing.T) {
	one := binary.BigEndian.AppendUint64(nil, 1)
	for _, c := range []struct {
		name  string
		frame []byte
		code  wire.Code
		limit session.Limit
	}{
		{"a bad checksum", corrupt(unary(3, "ECHO", "x")), wire.FailedPrecondition, session.LimitProtocol},
		{"an impossible length", []byte{3, 0, 0, 1, 0, 1}, wire.FailedPrecondition, session.LimitProtocol},
		{"an impossible length of 4 GiB", []byte{3, 0, 255, 255, 255, 255}, wire.FailedPrecondition, session.LimitProtocol},
		{"an unknown kind", badPayload(10), wire.FailedPrecondition, session.LimitProtocol},
		{"kind 0", badPayload(0), wire.FailedPrecondition, session.LimitProtocol},
		{"an unknown flag", wire.AppendFrame(nil, wire.KindData, 4, append(one, 1)), wire.FailedPrecondition, session.LimitProtocol},
		{"END on CANCEL", wire.AppendFrame(nil, wire.KindCancel, wire.FlagEnd, one), wire.FailedPrecondition, session.LimitProtocol},
		{"a second HELLO", wire.AppendHello(nil, &wire.Hello{}), wire.FailedPrecondition, session.LimitProtocol},
		{"a malformed CALL", badPayload(wire.KindCall, append(one, 1, 0, 200, 1)...), wire.FailedPrecondition, session.LimitProtocol},
		{"a CALL of this side's stream", unary(2, "ECHO", ""), wire.FailedPrecondition, session.LimitProtocol},
		{"a CALL of stream 0", badPayload(wire.KindCall, make([]byte, 12)...), wire.FailedPrecondition, session.LimitProtocol},
		{"a CALL with a number that was used", unary(1, "ECHO", ""), wire.FailedPrecondition, session.LimitProtocol},
		{"DATA of nothing", wire.AppendData(nil, 0, 1, nil), wire.FailedPrecondition, session.LimitProtocol},
		{"DATA for a stream never opened", wire.AppendData(nil, 0, 3, []byte("x")), wire.ResourceExhausted, session.LimitNeverOpened},
		{"DATA for a stream of this side never opened", wire.AppendData(nil, 0, 2, []byte("x")), wire.ResourceExhausted, session.LimitNeverOpened},
		{"CANCEL for a stream never opened", wire.AppendCancel(nil, 3), wire.ResourceExhausted, session.LimitNeverOpened},
		{"CREDIT for a stream never opened", wire.AppendCredit(nil, 5, 1), wire.ResourceExhausted, session.LimitNeverOpened},
		{"ERROR for a stream never opened", wire.AppendError(nil, &wire.Failure{Stream: 2}), wire.ResourceExhausted, session.LimitNeverOpened},
		{"ERROR from the caller", wire.AppendError(nil, &wire.Failure{Stream: 1}), wire.FailedPrecondition, session.LimitProtocol},
		{"a malformed ERROR", badPayload(wire.KindError, append(one, 1, 1, 0, 0, 0)...), wire.FailedPrecondition, session.LimitProtocol},
		{"ERROR with 8 KiB of pairs", wire.AppendError(nil, &wire.Failure{Stream: 2, Pairs: wire.MakePairs([]string{"k", strings.Repeat("v", 8<<10)})}), wire.ResourceExhausted, session.LimitHeader},
		{"CANCEL from the side that serves", wire.AppendCancel(nil, 2), wire.FailedPrecondition, session.LimitProtocol},
		{"CREDIT of nothing", badPayload(wire.KindCredit, append(one, 0, 0, 0, 0)...), wire.FailedPrecondition, session.LimitProtocol},
		{"CREDIT over 2 GiB", wire.AppendCredit(nil, 1, math.MaxInt32), wire.ResourceExhausted, session.LimitCredit},
		{"CREDIT over 4 GiB", wire.AppendCredit(nil, 1, math.MaxUint32), wire.ResourceExhausted, session.LimitCredit},
		{"PONG to no PING", wire.AppendPing(nil, wire.KindPong, 1), wire.FailedPrecondition, session.LimitProtocol},
		{"a malformed GOAWAY", badPayload(wire.KindGoAway, append(one, 0, 1)...), wire.FailedPrecondition, session.LimitProtocol},
		{"GOAWAY that takes streams back", bytes.Join([][]byte{wire.AppendGoAway(nil, &wire.GoAway{Last: 2}), wire.AppendGoAway(nil, &wire.GoAway{Last: 4})}, nil), wire.FailedPrecondition, session.LimitProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				hooked := make(chan session.Limit, 10)
				p := newRawPeer(t, session.Config{Accept: echo, OnLimit: func(l session.Limit) { hooked <- l }})
				defer p.close()
				p.send(streamCall(1, "WAIT"))
				synctest.Wait()
				p.send(c.frame, wire.AppendPing(nil, wire.KindPing, 1))
				p.requireEnd(c.code, c.limit)
				require.Len(t, hooked, 1)
				require.Equal(t, c.limit, <-hooked)
			})
		})
	}
}

func TestFirstFrames(t *testing.T) {
	t.Run("another frame than HELLO", func(t *testing.T) {
		in(t, func(t *testing.T) {
			p := dialRaw(t, session.Config{Accept: echo})
			defer p.close()
			p.send(unary(1, "ECHO", "x"))
			p.requireEnd(wire.FailedPrecondition, session.LimitProtocol)
		})
	})
	t.Run("a malformed HELLO", func(t *testing.T) {
		in(t, func(t *testing.T) {
			p := dialRaw(t, session.Config{Accept: echo})
			defer p.close()
			p.send(badPayload(wire.KindHello, 1, 9))
			p.requireEnd(wire.FailedPrecondition, session.LimitProtocol)
		})
	})
	t.Run("no HELLO in 10 s", func(t *testing.T) {
		in(t, func(t *testing.T) {
			p := dialRaw(t, session.Config{Accept: echo})
			defer p.close()
			start := time.Now()
			p.requireEndAfter(wire.DeadlineExceeded, session.LimitHello)
			require.Equal(t, 10*time.Second, time.Since(start).Truncate(time.Second))
		})
	})
}

// requireEndAfter is requireEnd for what takes its time.
func (p *rawPeer) requireEndAfter(code wire.Code, limit session.Limit) {
	p.t.Helper()
	<-p.s.Done()
	p.requireEnd(code, limit)
}

// TestFramesThatAreIgnored: kinds that are not known from 128 on, and frames for streams that have ended.
func TestFramesThatAreIgnored(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Accept: echo})
		defer p.close()
		p.send(wire.AppendFrame(nil, 128, 0xff, []byte("later")), wire.AppendFrame(nil, 255, 0, nil))
		p.send(unary(1, "ECHO", "x"))
		require.Nil(t, p.lastWord(1))
		p.send(wire.AppendData(nil, wire.FlagEOM, 1, []byte("late")), wire.AppendCancel(nil, 1), wire.AppendCredit(nil, 1, math.MaxUint32))
		p.send(unary(9, "ECHO", "x"))
		require.Nil(t, p.lastWord(9))
		p.send(wire.AppendCancel(nil, 7)) // skipped by the peer: it is taken as one that has ended
		p.requireAlive()
		require.EqualValues(t, 4, p.s.Stats().Dropped)
	})
}

// TestCallsThatAreRefused: what is wrong with one call hurts no other.
func TestCallsThatAreRefused(t *testing.T) {
	call := func(kind uint8, name string, pairs ...string) []byte {
		return wire.AppendCall(nil, wire.FlagEOM|wire.FlagEnd, &wire.Call{Stream: 1, Kind: kind, Name: []byte(name), Pairs: wire.MakePairs(pairs)})
	}
	for _, c := range []struct {
		name  string
		frame []byte
		code  wire.Code
	}{
		{"an unknown kind of call", call(3, "ECHO"), wire.Unimplemented},
		{"no name", call(1, ""), wire.InvalidArgument},
		{"a name of 65 bytes", call(1, strings.Repeat("x", 65)), wire.InvalidArgument},
		{"a name with a space", call(1, "a b"), wire.InvalidArgument},
		{"a name with a newline", call(1, "a\n"), wire.InvalidArgument},
		{"a name that is not ASCII", call(1, "ä"), wire.InvalidArgument},
		{"a header over 8 KiB", call(1, "ECHO", "k", strings.Repeat("v", 8<<10)), wire.ResourceExhausted},
		{"no message", wire.AppendCall(nil, wire.FlagEnd, &wire.Call{Stream: 1, Kind: wire.CallUnary, Name: []byte("ECHO")}), wire.InvalidArgument},
		{"half a message", wire.AppendCall(nil, wire.FlagEnd, &wire.Call{Stream: 1, Kind: wire.CallUnary, Name: []byte("ECHO"), Data: []byte("x")}), wire.InvalidArgument},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				p := newRawPeer(t, session.Config{Accept: echo})
				defer p.close()
				p.send(c.frame)
				p.requireRefused(1, c.code)
				p.send(unary(3, "ECHO", "x"))
				require.Nil(t, p.lastWord(3))
				require.EqualValues(t, 1, p.s.Stats().Refused)
			})
		})
	}
}

// TestRow13EndlessHeader: the largest header that is allowed passes, one byte more does not, and it is counted.
func TestRow13EndlessHeader(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Accept: echo})
		defer p.close()
		for i, size := range []int{8<<10 - 4, 8<<10 - 3} { // a key of 1, two lengths of 1 and 2
			pairs := wire.MakePairs([]string{"k", strings.Repeat("v", size)})
			require.Equal(t, 8<<10+i, pairs.Size())
			p.send(wire.AppendCall(nil, wire.FlagEOM|wire.FlagEnd, &wire.Call{Stream: uint64(1 + 2*i), Kind: 1, Name: []byte("ECHO"), Pairs: pairs}))
		}
		require.Nil(t, p.lastWord(1))
		p.requireRefused(3, wire.ResourceExhausted)
		synctest.Wait()
		require.EqualValues(t, 1, p.s.Stats().Limits[session.LimitHeader])
		require.Equal(t, 1, p.log.count(session.LimitHeader))
		err := p.s.Call(t.Context(), &session.CallSpec{Name: "X", Header: []string{"k", strings.Repeat("v", 8<<10)}},
			func(b []byte) ([]byte, error) { return b, nil }, nil)
		requireError(t, err, wire.ResourceExhausted, wire.OutcomeNotRun)
	})
}

// TestCallsOverTheLimit: a call beyond the limit is refused, not run; the caller waits for a place by itself, in order and
// within its deadline; a handler's call does not wait.
func TestCallsOverTheLimit(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Accept: echo, Calls: 2})
		defer p.close()
		p.send(unary(1, "WAIT", ""), unary(3, "WAIT", ""), unary(5, "ECHO", ""))
		p.requireRefused(5, wire.ResourceExhausted)
		synctest.Wait()
		require.EqualValues(t, 1, p.s.Stats().Limits[session.LimitCalls])
		require.Equal(t, 1, p.log.count(session.LimitCalls))
		p.send(wire.AppendCancel(nil, 1))
		p.lastWord(1)
		p.send(unary(7, "ECHO", ""))
		require.Nil(t, p.lastWord(7))
	})
	in(t, func(t *testing.T) {
		order := make(chan string, 3)
		p := newPair(session.Config{}, session.Config{Calls: 1, Accept: func(st *session.Stream) {
			if st.Name() < "A" {
				order <- st.Name()
			}
			echo(st)
		}})
		defer p.close()
		_, err := call(t.Context(), p.a, "ECHO", nil)
		require.NoError(t, err)
		st, err := p.a.Open(t.Context(), &session.CallSpec{Name: "CHAT", Kind: wire.CallStream})
		require.NoError(t, err)
		for _, name := range []string{"1", "2", "3"} {
			go func() { _, _ = call(t.Context(), p.a, name, nil) }()
			synctest.Wait()
		}
		require.Equal(t, 3, p.a.Stats().Waiting)
		err = p.a.Call(t.Context(), &session.CallSpec{Name: "ECHO", NoWait: true}, func(b []byte) ([]byte, error) { return b, nil }, nil)
		requireError(t, err, wire.ResourceExhausted, wire.OutcomeNotRun)
		ctx, cancel := contextIn(t, time.Second)
		defer cancel()
		start := time.Now()
		_, err = call(ctx, p.a, "ECHO", nil)
		requireError(t, err, wire.DeadlineExceeded, wire.OutcomeNotRun)
		require.Equal(t, time.Second, time.Since(start))
		_, err = p.a.Open(ctx, &session.CallSpec{Name: "X", Kind: wire.CallRaw})
		requireError(t, err, wire.DeadlineExceeded, wire.OutcomeNotRun)
		st.Cancel()
		for _, name := range []string{"1", "2", "3"} {
			assert.Equal(t, name, <-order)
		}
		require.EqualValues(t, 0, p.b.Stats().Refused)
	})
}

// TestInFlightBudget: calls hold what the budget has; what is over it is refused, and all of it comes back.
func TestInFlightBudget(t *testing.T) {
	in(t, func(t *testing.T) {
		whole := session.NewBudget(1<<20, nil)
		budget := session.NewBudget(64<<10, whole)
		p := newRawPeer(t, session.Config{Accept: echo, Budget: budget})
		defer p.close()
		for id := uint64(1); id < 17; id += 2 {
			p.send(unary(id, "WAIT", ""))
		}
		synctest.Wait()
		require.EqualValues(t, 64<<10, budget.Used())
		require.EqualValues(t, 64<<10, whole.Used())
		p.send(unary(17, "ECHO", "x"))
		p.requireRefused(17, wire.ResourceExhausted)
		synctest.Wait()
		require.EqualValues(t, 1, p.s.Stats().Limits[session.LimitInFlight])
		require.Equal(t, 1, p.log.count(session.LimitInFlight))
		p.send(wire.AppendCancel(nil, 1))
		p.lastWord(1)
		// Of one call's message, no more than is there.
		p.send(wire.AppendCall(nil, 0, &wire.Call{Stream: 19, Kind: wire.CallUnary, Name: []byte("ECHO"), Data: make([]byte, 60<<10)}))
		p.requireRefused(19, wire.ResourceExhausted)
		p.close()
		require.Zero(t, whole.Used())
	})
}

// TestChargeOfAHandler: what a handler charges is held until it is done.
func TestChargeOfAHandler(t *testing.T) {
	in(t, func(t *testing.T) {
		budget := session.NewBudget(100<<10, nil)
		got := make(chan error, 2)
		p := newPair(session.Config{}, session.Config{Budget: budget, Accept: func(st *session.Stream) {
			got <- st.Charge(90 << 10)
			got <- st.Charge(90 << 10)
			st.Finish(nil)
		}})
		defer p.close()
		_, _ = call(t.Context(), p.a, "X", nil)
		require.NoError(t, <-got)
		requireError(t, <-got, wire.ResourceExhausted, wire.OutcomeNotRun)
		require.Zero(t, budget.Used())
	})
}

// TestMessageLimit: a message one byte over the limit ends its stream, and nothing else.
func TestMessageLimit(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Accept: echo, Message: 1000})
		defer p.close()
		p.send(unary(1, "ECHO", strings.Repeat("x", 1000)))
		require.Nil(t, p.lastWord(1))
		p.send(unary(3, "ECHO", strings.Repeat("x", 1001)))
		p.requireRefused(3, wire.ResourceExhausted)
		p.send(streamCall(5, "CHAT"), wire.AppendData(nil, 0, 5, make([]byte, 600)), wire.AppendData(nil, 0, 5, make([]byte, 600)))
		e := p.lastWord(5)
		require.Equal(t, wire.ResourceExhausted, e.Code)
		require.Equal(t, wire.OutcomeFailed, e.Outcome) // its handler had begun
		require.EqualValues(t, 2, p.s.Stats().Limits[session.LimitMessage])
		p.requireAlive()
	})
	t.Run("of a reply", func(t *testing.T) {
		in(t, func(t *testing.T) {
			p := newRawPeer(t, session.Config{Message: 1000})
			defer p.close()
			result := make(chan error)
			go func() {
				_, err := call(t.Context(), p.s, "X", nil)
				result <- err
			}()
			require.Equal(t, wire.KindCall, p.next().Kind)
			p.send(wire.AppendData(nil, 0, 2, make([]byte, 1001)))
			requireError(t, <-result, wire.ResourceExhausted, wire.OutcomeUnknown)
			require.Equal(t, wire.KindCancel, p.next().Kind)
			require.Equal(t, 1, p.s.Stats().Open, "the place is free before the last word")
			p.send(wire.AppendData(nil, wire.FlagEnd, 2, nil))
			p.requireAlive()
			require.Zero(t, p.s.Stats().Open)
		})
	})
}

// TestCancelIsSentOnce: a stream that the session gave up by itself, and whose owner cancels it again and again, costs one
// CANCEL.
func TestCancelIsSentOnce(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Message: 1000})
		defer p.close()
		st, err := p.s.Open(t.Context(), &session.CallSpec{Name: "S", Kind: wire.CallStream})
		require.NoError(t, err)
		require.Equal(t, wire.KindCall, p.next().Kind)
		p.send(wire.AppendData(nil, 0, 2, make([]byte, 1001)))
		requireError(t, st.Receive(t.Context(), nil), wire.ResourceExhausted, wire.OutcomeUnknown)
		require.Equal(t, wire.KindCancel, p.next().Kind)
		st.Cancel()
		st.Cancel()
		synctest.Wait()
		p.send(wire.AppendPing(nil, wire.KindPing, 1))
		require.Equal(t, wire.KindPong, p.next().Kind)
	})
}
