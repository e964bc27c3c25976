package session_test

import (
	"bytes"
	"context"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// goAway reads the next GOAWAY.
func (p *rawPeer) goAway() wire.GoAway {
	p.t.Helper()
	f := p.nextOf(wire.KindGoAway)
	require.Equal(p.t, wire.KindGoAway, f.Kind)
	g, err := wire.ParseGoAway(f.Payload)
	require.NoError(p.t, err)
	return g
}

// TestRow35GoAwayRace: a call that crosses the first GOAWAY runs; one that comes after the second is dropped; the session ends
// when the last has had its last word, and the peer reads all of it.
func TestRow35GoAwayRace(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Accept: echo})
		defer p.close()
		p.send(streamCall(1, "CHAT"))
		synctest.Wait()
		down := make(chan error)
		go func() { down <- p.s.Shutdown(t.Context()) }()
		g := p.goAway()
		require.Equal(t, wire.OK, g.Code)
		require.EqualValues(t, uint64(math.MaxUint64), g.Last)
		p.send(unary(3, "ECHO", "crossed it"))
		ping := p.next()
		for ping.Kind != wire.KindPing {
			ping = p.next()
		}
		require.Nil(t, p.lastWord(3))
		p.send(wire.AppendFrame(nil, wire.KindPong, 0, ping.Payload))
		require.EqualValues(t, 3, p.goAway().Last)
		p.send(unary(5, "ECHO", "too late"), wire.AppendData(nil, 0, 5, []byte("more")))
		select {
		case err := <-down:
			require.NoError(t, err)
			require.Fail(t, "ended with a stream open")
		case <-time.After(5 * time.Second):
		}
		p.send(wire.AppendCancel(nil, 1))
		p.lastWord(1)
		require.Zero(t, p.next().Kind)
		p.conn.Close()
		require.NoError(t, <-down)
		require.EqualValues(t, 2, p.s.Stats().Served)
	})
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Accept: echo})
		defer p.close()
		p.send(streamCall(1, "CHAT"))
		synctest.Wait()
		down := make(chan error, 1)
		start := time.Now()
		go func() { down <- p.s.Shutdown(t.Context()) }()
		p.goAway()
		require.EqualValues(t, 1, p.goAway().Last) // the PONG does not come: after a second
		require.Equal(t, time.Second, time.Since(start))
		p.send(unary(5, "ECHO", "too late"))
		time.Sleep(time.Second)
		require.Empty(t, down)
		p.send(wire.AppendData(nil, wire.FlagEOM|wire.FlagEnd, 1, []byte("last")))
		f := p.next()
		for f.Kind != wire.KindData {
			f = p.next()
		}
		_, data, _ := wire.ParseData(f.Payload)
		require.Equal(t, "last", string(data))
		require.Nil(t, p.lastWord(1))
		require.Zero(t, p.next().Kind)
		p.conn.Close()
		require.NoError(t, <-down)
		require.Equal(t, session.ErrClosed, p.s.Err())
		require.EqualValues(t, 1, p.s.Stats().Served)
	})
}

// TestRow35CallsCrossingDrains: a client that calls without pause while its servers are drained one after the other. Every
// call succeeds or did not run, and none runs twice.
func TestRow35CallsCrossingDrains(t *testing.T) {
	in(t, func(t *testing.T) {
		for range count(500, 20) {
			var ran atomic.Int64
			p := newPair(session.Config{}, session.Config{Accept: func(st *session.Stream) {
				ran.Add(1)
				time.Sleep(time.Millisecond)
				echo(st)
			}})
			var good, notRun atomic.Int64
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					for {
						_, err := call(t.Context(), p.a, "ECHO", []byte("x"))
						if err != nil {
							requireError(t, err, wire.Unavailable, wire.OutcomeNotRun)
							notRun.Add(1)
							return
						}
						good.Add(1)
					}
				})
			}
			time.Sleep(10 * time.Millisecond)
			require.NoError(t, p.b.Shutdown(t.Context()))
			wg.Wait()
			require.Equal(t, ran.Load(), good.Load())
			require.EqualValues(t, 20, notRun.Load())
			p.close()
			require.Equal(t, session.ErrClosed, p.a.Err())
		}
	})
}

// TestRow37DrainFinishesCalls: calls that were accepted finish, the drain ends with the slowest of them; with one that
// does not end it is cut off at its limit, and the caller does not know.
func TestRow37DrainFinishesCalls(t *testing.T) {
	slow := func(st *session.Stream) {
		if st.Name() == "STUCK" {
			<-st.Context().Done()
			st.Finish(nil)
			return
		}
		time.Sleep(time.Duration(len(st.Name())) * 100 * time.Millisecond)
		echo(st)
	}
	in(t, func(t *testing.T) {
		p := newPair(session.Config{}, session.Config{Accept: slow})
		defer p.close()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				_, err := call(t.Context(), p.a, string(make50(i%50+1)), nil)
				assert.NoError(t, err)
			})
		}
		synctest.Wait()
		start := time.Now()
		require.NoError(t, p.b.Shutdown(t.Context()))
		require.Equal(t, 5*time.Second, time.Since(start))
		wg.Wait()
	})
	in(t, func(t *testing.T) {
		p := newPair(session.Config{}, session.Config{Accept: slow})
		defer p.close()
		result := make(chan error)
		go func() {
			_, err := call(t.Context(), p.a, "STUCK", nil)
			result <- err
		}()
		synctest.Wait()
		start := time.Now()
		ctx, cancel := contextIn(t, 25*time.Second)
		defer cancel()
		require.ErrorIs(t, p.b.Shutdown(ctx), context.DeadlineExceeded)
		require.LessOrEqual(t, time.Since(start), 26*time.Second)
		requireError(t, <-result, wire.Unavailable, wire.OutcomeUnknown)
	})
}

// make50 is a name of n bytes.
func make50(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'N'
	}
	return b
}

// TestDrainAllowsCallsBack: a handler of a session that is being drained may still call its caller; others may not.
func TestDrainAllowsCallsBack(t *testing.T) {
	in(t, func(t *testing.T) {
		begin := make(chan struct{})
		p := newPair(session.Config{Accept: echo}, session.Config{Accept: func(st *session.Stream) {
			<-begin
			if _, err := call(st.Context(), st.Session(), "ECHO", []byte("back")); err != nil {
				st.Finish(asError(err))
				return
			}
			echo(st)
		}})
		defer p.close()
		result := make(chan error)
		go func() {
			_, err := call(t.Context(), p.a, "X", nil)
			result <- err
		}()
		synctest.Wait()
		down := make(chan error)
		go func() { down <- p.b.Shutdown(t.Context()) }()
		synctest.Wait()
		time.Sleep(5 * time.Second)
		_, err := call(t.Context(), p.a, "ECHO", nil)
		requireError(t, err, wire.Unavailable, wire.OutcomeNotRun)
		select {
		case <-p.a.GoingAway():
		default:
			require.Fail(t, "the caller does not know")
		}
		close(begin)
		require.NoError(t, <-result)
		require.NoError(t, <-down)
		_, err = call(t.Context(), p.b, "ECHO", nil)
		requireError(t, err, wire.Unavailable, wire.OutcomeNotRun)
	})
}

// TestBothSidesDrain at once, with nothing under way and with calls both ways.
func TestBothSidesDrain(t *testing.T) {
	in(t, func(t *testing.T) {
		slow := func(st *session.Stream) { time.Sleep(time.Second); echo(st) }
		for _, calls := range []int{0, 5} {
			p := newPair(session.Config{Accept: slow}, session.Config{Accept: slow})
			var wg sync.WaitGroup
			for range calls {
				for _, s := range []*session.Session{p.a, p.b} {
					wg.Go(func() {
						_, err := call(t.Context(), s, "ECHO", nil)
						assert.NoError(t, err)
					})
				}
			}
			synctest.Wait()
			wg.Go(func() { assert.NoError(t, p.a.Shutdown(t.Context())) })
			wg.Go(func() { assert.NoError(t, p.b.Shutdown(t.Context())) })
			wg.Wait()
			p.close()
		}
	})
}

// TestGoAwayFromThePeer: calls above the last stream did not run, those up to it go on.
func TestGoAwayFromThePeer(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{})
		defer p.close()
		results := make([]error, 3)
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() { _, results[i] = call(t.Context(), p.s, "X", nil) })
			synctest.Wait() // streams 2, 4, 6
		}
		p.send(wire.AppendGoAway(nil, &wire.GoAway{Last: 4, Code: wire.Internal, Message: []byte("trouble")}))
		synctest.Wait()
		p.send(wire.AppendData(nil, wire.FlagEOM|wire.FlagEnd, 2, []byte("reply")))
		require.NoError(t, p.conn.CloseWrite())
		wg.Wait()
		require.NoError(t, results[0])
		requireError(t, results[1], wire.Unavailable, wire.OutcomeUnknown)
		e := asCall(t, results[2], wire.Unavailable, wire.OutcomeNotRun)
		require.Contains(t, e.Message, "trouble")
		_, err := call(t.Context(), p.s, "X", nil)
		requireError(t, err, wire.Unavailable, wire.OutcomeNotRun)
	})
}

// TestGreeting: what comes in place of the greeting decides what is known of calls that were sent ahead of it.
func TestGreeting(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		outcome      wire.Outcome
		ok           bool
	}{
		{"the greeting", "OK\n", 0, true},
		{"an error", "ERR unimplemented not_run unknown command SESSION\n", wire.OutcomeNotRun, false},
		{"half an error", "ERR unimpl", wire.OutcomeNotRun, false},
		{"half the greeting", "O", wire.OutcomeUnknown, false},
		{"nothing", "", wire.OutcomeUnknown, false},
		{"binary", "\x01\x00\x00\x00\x00\x00", wire.OutcomeNotRun, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				ca, cb := newPipe(0)
				log := new(logBook)
				s := session.New(ca, session.Config{Dialer: true, Preface: "SESSION 1\n", Greeting: "OK\n", Logger: log.logger()})
				defer s.Close()
				result := make(chan error)
				go func() {
					_, err := call(t.Context(), s, "ECHO", nil)
					result <- err
				}()
				synctest.Wait()
				line := make([]byte, 10)
				_, err := cb.Read(line)
				require.NoError(t, err)
				require.Equal(t, "SESSION 1\n", string(line))
				for i := range c.answer {
					_, _ = cb.Write([]byte{c.answer[i]})
					time.Sleep(time.Millisecond)
				}
				if !c.ok {
					cb.Close()
					requireError(t, <-result, wire.Unavailable, c.outcome)
					return
				}
				peer := session.New(cb, session.Config{Accept: echo, Logger: log.logger()})
				require.NoError(t, <-result)
				peer.Close()
			})
		})
	}
}

// TestGoAwayReasons: a peer that says at length, in control characters and again and again why it goes away fills no log.
func TestGoAwayReasons(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{})
		defer p.close()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := call(t.Context(), p.s, "X", nil)
			e := asCall(t, err, wire.Unavailable, wire.OutcomeNotRun)
			assert.Less(t, len(e.Message), 400)
			assert.Equal(t, -1, strings.IndexFunc(e.Message, func(c rune) bool { return c < ' ' || c > '~' }), "%q", e.Message)
		})
		synctest.Wait()
		for range 100 {
			p.send(wire.AppendGoAway(nil, &wire.GoAway{Code: wire.Internal, Message: bytes.Repeat([]byte("\x1b[2J\n"), 10_000)}))
		}
		wg.Wait()
		synctest.Wait()
		require.Equal(t, 1, strings.Count(p.log.String(), "session ended by the peer"))
		require.Less(t, len(p.log.String()), 600)
	})
}
