package session_test

import (
	"fmt"
	"math"
	"runtime"
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

// Each test here is named after a row of the catalogue of attacks and failures that the design was made against.

// count is n in full and a part of it in CI.
func count(full, short int) int {
	if *long {
		return full
	}
	return short
}

// TestRow09RapidReset: calls that are canceled at once. A handler counts until it has returned, so no more run than are
// allowed, and the session goes on.
func TestRow09RapidReset(t *testing.T) {
	in(t, func(t *testing.T) {
		var running, most atomic.Int64
		p := newRawPeer(t, session.Config{Calls: 100, Accept: func(st *session.Stream) {
			n := running.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-st.Context().Done()
			time.Sleep(time.Millisecond) // it takes its time to notice
			running.Add(-1)
			st.Finish(nil)
		}})
		defer p.close()
		base := runtime.NumGoroutine()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for p.next().Kind != 0 {
			}
		}()
		for i := range count(100_000, 3_000) {
			id := uint64(2*i + 1)
			p.send(unary(id, "WAIT", ""), wire.AppendCancel(nil, id))
			if i%500 == 0 {
				require.Less(t, runtime.NumGoroutine(), base+110)
				time.Sleep(100 * time.Microsecond)
			}
		}
		time.Sleep(time.Second)
		require.NoError(t, p.s.Err())
		require.LessOrEqual(t, most.Load(), int64(100))
		require.Zero(t, p.s.Stats().Serving)
		p.conn.Close()
		<-done
		p.close()
	})
}

// TestRow10MadeYouReset: a peer that makes this side end its streams. While it reads the answers nothing is kept of them;
// when it does not, 1,024 are owed at most.
func TestRow10MadeYouReset(t *testing.T) {
	provoke := map[string]func(id uint64) []byte{
		"kind": func(id uint64) []byte {
			return wire.AppendCall(nil, 0, &wire.Call{Stream: id, Kind: 9, Name: []byte("X")})
		},
		"name":    func(id uint64) []byte { return wire.AppendCall(nil, 0, &wire.Call{Stream: id, Kind: 1}) },
		"message": func(id uint64) []byte { return unary(id, "ECHO", strings.Repeat("x", 101)) },
		"half": func(id uint64) []byte {
			return wire.AppendCall(nil, wire.FlagEnd, &wire.Call{Stream: id, Kind: 1, Name: []byte("ECHO"), Data: []byte("x")})
		},
		"cancel": func(id uint64) []byte {
			return wire.AppendCancel(wire.AppendCall(nil, 0, &wire.Call{Stream: id, Kind: 1, Name: []byte("ECHO"), Data: []byte("x")}), id)
		},
		"header": func(id uint64) []byte {
			return wire.AppendCall(nil, 0, &wire.Call{Stream: id, Kind: 1, Name: []byte("X"), Pairs: wire.MakePairs([]string{"k", strings.Repeat("v", 8<<10)})})
		},
	}
	for name, frame := range provoke {
		t.Run(name+", read", func(t *testing.T) {
			in(t, func(t *testing.T) {
				budget := session.NewBudget(1<<20, nil)
				p := newRawPeer(t, session.Config{Accept: echo, Message: 100, Budget: budget})
				defer p.close()
				n := count(20_000, 1_000)
				for i := range n {
					p.send(frame(uint64(2*i + 1)))
					if i%50 == 49 {
						e := p.lastWord(uint64(2*i + 1))
						require.Equal(t, wire.OutcomeNotRun, e.Outcome)
						clear(p.last)
						require.Zero(t, budget.Used())
						require.Zero(t, p.s.Stats().Serving)
					}
				}
				require.EqualValues(t, n, p.s.Stats().Refused)
				p.requireAlive()
			})
		})
		t.Run(name+", unread", func(t *testing.T) {
			in(t, func(t *testing.T) {
				p := newRawPeer(t, session.Config{Accept: echo, Message: 100})
				defer p.close()
				for i := range 20_000 {
					p.send(frame(uint64(2*i + 1)))
				}
				<-p.s.Done()
				stats := p.s.Stats()
				require.Less(t, stats.Refused, uint64(10_000)) // what fits into the connection and two buffers, and 1,024
				require.EqualValues(t, 1, stats.Limits[session.LimitControl]+stats.Limits[session.LimitWrite], "%+v", stats)
			})
		})
	}
}

// TestRow11PingFlood: one PING a second is fine for ever; a flood ends the session, whether its answers are read or not.
func TestRow11PingFlood(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{})
		defer p.close()
		for range 200 {
			p.send(wire.AppendPing(nil, wire.KindPing, 7))
			time.Sleep(time.Second)
		}
		require.NoError(t, p.s.Err())
	})
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{})
		defer p.close()
		for range 1000 {
			p.send(wire.AppendPing(nil, wire.KindPing, 7))
		}
		<-p.s.Done()
		require.EqualValues(t, 1, p.s.Stats().Limits[session.LimitPings])
		require.Equal(t, 1, p.log.count(session.LimitPings))
		p.requireEnd(wire.ResourceExhausted, session.LimitPings)
	})
}

// TestRow12ControlFloods: a million legal frames that mean little cost no memory and stop nothing.
func TestRow12ControlFloods(t *testing.T) {
	n := count(1_000_000, 20_000)
	for name, frame := range map[string][]byte{
		"CREDIT of 1":     wire.AppendCredit(nil, 1, 1),
		"an unknown kind": wire.AppendFrame(nil, 200, 0, []byte("x")),
		"CANCEL again":    wire.AppendCancel(nil, 1),
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				p := newRawPeer(t, session.Config{Accept: func(st *session.Stream) {
					<-st.Context().Done()
					time.Sleep(time.Hour)
					st.Finish(nil)
				}, Heartbeat: 2 * time.Minute})
				defer p.close()
				p.send(streamCall(1, "X"))
				var many []byte
				for range 100 {
					many = append(many, frame...)
				}
				for range n / 100 {
					p.send(many)
				}
				p.requireAlive()
				require.EqualValues(t, n, p.s.Stats().Frames-3)
				p.conn.Close()
				<-p.s.Done()
			})
		})
	}
}

// TestRow14Slowloris: a frame that is never whole, silent or a byte at a time, ends the session 10 s after its first byte.
func TestRow14Slowloris(t *testing.T) {
	frame := wire.AppendData(nil, 0, 1, make([]byte, 100))
	for _, c := range []struct {
		name    string
		start   int
		trickle bool
	}{{"half a header", 3, false}, {"half a payload", 50, false}, {"a byte a second", 1, true}} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				p := newRawPeer(t, session.Config{Accept: echo})
				defer p.close()
				p.send(streamCall(1, "WAIT"))
				time.Sleep(3 * time.Second)
				start := time.Now()
				p.send(frame[:c.start])
				if c.trickle {
					go func() {
						for i := c.start; i < 10; i++ {
							time.Sleep(time.Second)
							p.send(frame[i : i+1])
						}
					}()
				}
				<-p.s.Done()
				require.Equal(t, 10*time.Second, time.Since(start).Truncate(time.Second))
				p.requireEnd(wire.DeadlineExceeded, session.LimitFrame)
			})
		})
	}
}

// TestRow14StalledMessages: a message that stands still ends its stream after 10 s, the session goes on, and a message that
// moves 64 KiB in each 10 s gets through.
func TestRow14StalledMessages(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Accept: echo})
		defer p.close()
		drain := make(chan map[uint64]*wire.Failure)
		go func() {
			ended := make(map[uint64]*wire.Failure)
			for f := p.next(); f.Kind != 0; f = p.next() {
				if e, err := wire.ParseError(f.Payload); f.Kind == wire.KindError && err == nil {
					ended[e.Stream] = &e
				} else if f.Kind == wire.KindData && f.Flags&wire.FlagEnd != 0 {
					id, _, _ := wire.ParseData(f.Payload)
					ended[id] = nil
				} else if f.Kind == wire.KindPing {
					p.send(wire.AppendFrame(nil, wire.KindPong, 0, f.Payload))
				}
			}
			drain <- ended
		}()
		part := make([]byte, 60<<10)
		p.send(wire.AppendCall(nil, 0, &wire.Call{Stream: 1, Kind: wire.CallUnary, Name: []byte("ECHO")}))                       // nothing of its message
		p.send(wire.AppendCall(nil, 0, &wire.Call{Stream: 3, Kind: wire.CallUnary, Name: []byte("ECHO"), Data: []byte("half")})) // half of it
		p.send(streamCall(5, "CHAT"), wire.AppendData(nil, 0, 5, []byte("half")))
		p.send(wire.AppendCall(nil, 0, &wire.Call{Stream: 7, Kind: wire.CallUnary, Name: []byte("ECHO"), Data: part})) // slow enough
		p.send(streamCall(9, "CHAT"))                                                                                  // idle
		for range 10 {
			time.Sleep(8 * time.Second)
			p.send(wire.AppendData(nil, 0, 7, part), wire.AppendData(nil, 0, 7, make([]byte, 4<<10)))
		}
		require.Equal(t, 2, p.s.Stats().Serving)
		p.send(wire.AppendData(nil, wire.FlagEOM|wire.FlagEnd, 7, nil), wire.AppendCredit(nil, 7, 1<<20), wire.AppendData(nil, wire.FlagEnd, 9, nil))
		time.Sleep(time.Second)
		require.NoError(t, p.s.Err())
		require.EqualValues(t, 3, p.s.Stats().Limits[session.LimitProgress])
		require.Equal(t, 1, p.log.count(session.LimitProgress), "within a second there is one line")
		p.s.Close()
		ended := <-drain
		for _, id := range []uint64{1, 3} {
			require.NotNil(t, ended[id], id)
			require.Equal(t, wire.DeadlineExceeded, ended[id].Code)
			require.Equal(t, wire.OutcomeNotRun, ended[id].Outcome)
		}
		require.Equal(t, wire.OutcomeFailed, ended[5].Outcome)
		for _, id := range []uint64{7, 9} {
			e, ok := ended[id]
			require.True(t, ok)
			require.Nil(t, e)
		}
	})
}

// TestRow16SlowRead: peers that call and never read the replies are cut after 10 to 12 s; another session does not notice.
func TestRow16SlowRead(t *testing.T) {
	in(t, func(t *testing.T) {
		process := session.NewBudget(256<<20, nil)
		reply := make([]byte, 1<<20)
		serve := func(st *session.Stream) {
			_ = st.Reply(func(b []byte) ([]byte, error) { return append(b, reply...), nil })
		}
		good := newPair(session.Config{}, session.Config{Accept: echo})
		defer good.close()
		var wg sync.WaitGroup
		for range count(50, 10) {
			p := newRawPeer(t, session.Config{Accept: serve, Budget: session.NewBudget(64<<20, process)})
			wg.Go(func() {
				defer p.close()
				start := time.Now()
				for i := range 4 {
					p.send(unary(uint64(2*i+1), "BIG", ""), wire.AppendCredit(nil, uint64(2*i+1), 1<<20))
				}
				<-p.s.Done()
				assert.InDelta(t, 11, time.Since(start).Seconds(), 1.01)
				assert.EqualValues(t, 1, p.s.Stats().Limits[session.LimitWrite])
				assert.Equal(t, 1, p.log.count(session.LimitWrite))
			})
		}
		for range 100 {
			start := time.Now()
			_, err := call(t.Context(), good.a, "ECHO", []byte("x"))
			require.NoError(t, err)
			require.Less(t, time.Since(start), 20*time.Millisecond)
			time.Sleep(120 * time.Millisecond)
		}
		wg.Wait()
		require.Zero(t, process.Used())
	})
}

// TestRow16ReplyWithoutCredit: a peer that reads but never grants credit for a long reply gets an error in its place.
func TestRow16ReplyWithoutCredit(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Accept: func(st *session.Stream) {
			_ = st.Reply(func(b []byte) ([]byte, error) { return append(b, make([]byte, 1<<20)...), nil })
		}})
		defer p.close()
		p.send(unary(1, "BIG", ""))
		start := time.Now()
		e := p.lastWord(1)
		require.Equal(t, wire.DeadlineExceeded, e.Code)
		require.Equal(t, wire.OutcomeFailed, e.Outcome)
		require.Equal(t, 10*time.Second, time.Since(start))
		p.requireAlive()
	})
}

// TestRow17StalledStream: one stream whose messages nobody takes, and a hundred calls beside it on the same session.
func TestRow17StalledStream(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newPair(session.Config{}, session.Config{Accept: func(st *session.Stream) {
			if st.Name() == "UNREAD" {
				<-st.Context().Done()
				st.Finish(nil)
				return
			}
			echo(st)
		}})
		defer p.close()
		st, err := p.a.Open(t.Context(), &session.CallSpec{Name: "UNREAD", Kind: wire.CallStream})
		require.NoError(t, err)
		stuck := make(chan int)
		go func() {
			n := 0
			for st.Send(t.Context(), make([]byte, 10<<10)) == nil {
				n++
			}
			stuck <- n
		}()
		for range 100 {
			start := time.Now()
			_, err := call(t.Context(), p.a, "ECHO", make([]byte, 1000))
			require.NoError(t, err)
			require.Less(t, time.Since(start), 20*time.Millisecond)
		}
		time.Sleep(time.Hour) // to stop at the window is no failure
		require.NoError(t, p.a.Err())
		st.Cancel()
		require.Equal(t, 26, <-stuck) // of 10 KiB in 256 KiB, the last of them staged only in part
	})
}

// TestRow18CreditOverflow: credit up to 2 GiB - 1 is taken, one byte more ends the session.
func TestRow18CreditOverflow(t *testing.T) {
	for _, c := range []struct {
		credits []uint32
		ok      bool
	}{
		{[]uint32{math.MaxInt32 - 256<<10}, true},
		{[]uint32{math.MaxInt32 - 256<<10, 1}, false},
		{[]uint32{math.MaxInt32 - 256<<10 + 1}, false},
		{[]uint32{1 << 30, 1 << 30}, false},
		{[]uint32{math.MaxInt32}, false},
		{[]uint32{1 << 31}, false},
		{[]uint32{math.MaxUint32}, false},
	} {
		t.Run(fmt.Sprint(c.credits), func(t *testing.T) {
			in(t, func(t *testing.T) {
				p := newRawPeer(t, session.Config{Accept: echo})
				defer p.close()
				p.send(streamCall(1, "CHAT"))
				for _, n := range c.credits {
					p.send(wire.AppendCredit(nil, 1, n))
				}
				if c.ok {
					p.requireAlive()
				} else {
					p.requireEnd(wire.ResourceExhausted, session.LimitCredit)
				}
			})
		})
	}
}

// TestRow18DataBeyondCredit: the last byte of the credit is taken, one more ends the session, in CALL and in DATA.
func TestRow18DataBeyondCredit(t *testing.T) {
	for _, over := range []int{0, 1} {
		in(t, func(t *testing.T) {
			p := newRawPeer(t, session.Config{Accept: func(st *session.Stream) { <-st.Context().Done() }, Credit: 64 << 10})
			defer p.close()
			data := make([]byte, 32<<10)
			p.send(wire.AppendCall(nil, 0, &wire.Call{Stream: 1, Kind: wire.CallRaw, Name: []byte("X"), Data: data}))
			p.send(wire.AppendData(nil, 0, 1, append(data, make([]byte, over)...)))
			if over == 0 {
				p.requireAlive()
			} else {
				p.requireEnd(wire.ResourceExhausted, session.LimitCredit)
			}
		})
	}
}

// TestRow19HeadOfLine: while a message of 4 MiB is being sent, a small call and a PONG go out after a few frames of it.
func TestRow19HeadOfLine(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{})
		defer p.close()
		go func() { _, _ = call(t.Context(), p.s, "BIG", make([]byte, 4<<20)) }()
		synctest.Wait()
		p.send(wire.AppendCredit(nil, 2, 8<<20)) // for all of it
		synctest.Wait()                          // the connection and the session's buffer are full of it
		go func() { _, _ = call(t.Context(), p.s, "SMALL", nil) }()
		p.send(wire.AppendPing(nil, wire.KindPing, 1))
		synctest.Wait()
		big, small, pong := 0, -1, -1
		for big < 20 {
			f := p.next()
			switch f.Kind {
			case wire.KindPong:
				pong = big
			case wire.KindCall:
				if c, err := wire.ParseCall(f.Payload); err == nil && string(c.Name) == "SMALL" {
					small = big
					continue
				}
				big++
			case wire.KindData:
				big++
			default:
			}
		}
		// 64 KiB are in the connection, a buffer of up to 128 KiB is being written, another is staged.
		require.Positive(t, small)
		require.LessOrEqual(t, small, 7)
		require.Positive(t, pong)
		require.LessOrEqual(t, pong, 5)
	})
}

// TestRow20WriteDeadlock: both sides send messages of 1 MiB at once over buffers of 4 KiB.
func TestRow20WriteDeadlock(t *testing.T) {
	in(t, func(t *testing.T) {
		p := smallPair(session.Config{Accept: echo}, session.Config{Accept: echo})
		defer p.close()
		var wg sync.WaitGroup
		for _, s := range []*session.Session{p.a, p.b} {
			for i := range 8 {
				wg.Go(func() {
					msg := make([]byte, 1<<20)
					for range count(100, 3) {
						msg[0] = byte(i)
						got, err := call(t.Context(), s, "ECHO", msg)
						assert.NoError(t, err)
						assert.Equal(t, len(msg), len(got))
					}
				})
			}
		}
		wg.Wait()
	})
}

// TestRow21CloseOnFullSocket: Close returns within 6 s although nothing can be written, every time.
func TestRow21CloseOnFullSocket(t *testing.T) {
	for range 100 {
		in(t, func(t *testing.T) {
			p := newRawPeer(t, session.Config{})
			defer p.conn.Close()
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					_, err := call(t.Context(), p.s, "X", make([]byte, 60<<10))
					assert.Error(t, err)
				})
			}
			time.Sleep(time.Second)
			start := time.Now()
			p.s.Close()
			require.Less(t, time.Since(start), 6*time.Second)
			wg.Wait()
		})
	}
}

// TestRow22CanceledCallsLeaveNothing cancels calls at random points. TestMain sees to what is left.
func TestRow22CanceledCallsLeaveNothing(t *testing.T) {
	in(t, func(t *testing.T) {
		r := newRand(t)
		p := newPair(session.Config{}, session.Config{Accept: func(st *session.Stream) {
			time.Sleep(time.Duration(len(st.Name())) * time.Microsecond)
			echo(st)
		}})
		defer p.close()
		var wg sync.WaitGroup
		for range 20 {
			seed := r.Uint64()
			wg.Go(func() {
				r := randOf(seed)
				for range count(5_000, 100) {
					ctx, cancel := contextIn(t, time.Duration(r.IntN(100))*time.Microsecond)
					_, _ = call(ctx, p.a, strings.Repeat("N", 1+r.IntN(60)), make([]byte, r.IntN(10_000)))
					cancel()
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Second)
		require.Zero(t, p.a.Stats().Open)
		require.Zero(t, p.b.Stats().Serving)
	})
}

// TestRow23HalfOpen: a peer that is gone without a word, or frozen, is noticed 10 s after the heartbeat or a little earlier when nothing is
// under way, and within 20 s when something is, however rare the heartbeat.
func TestRow23HalfOpen(t *testing.T) {
	for _, beat := range []time.Duration{time.Second, 15 * time.Second, 2 * time.Minute} {
		in(t, func(t *testing.T) {
			p := newRawPeer(t, session.Config{Heartbeat: beat})
			defer p.close()
			start := time.Now()
			<-p.s.Done()
			took := time.Since(start)
			require.LessOrEqual(t, took, beat+10*time.Second+lastWords)
			require.GreaterOrEqual(t, took, max(beat*7/8, time.Second)+10*time.Second)
			require.EqualValues(t, 1, p.s.Stats().Limits[session.LimitHeartbeat])
			require.Equal(t, 1, p.log.count(session.LimitHeartbeat))
		})
		in(t, func(t *testing.T) {
			p := newRawPeer(t, session.Config{Heartbeat: beat})
			defer p.close()
			time.Sleep(beat / 2)
			start := time.Now()
			_, err := call(t.Context(), p.s, "X", nil)
			requireError(t, err, wire.Unavailable, wire.OutcomeUnknown)
			require.LessOrEqual(t, time.Since(start), 20*time.Second+lastWords)
		})
	}
}

// lastWords is how long a session that ends may take for its GOAWAY.
const lastWords = time.Second

// TestHeartbeatKeepsIdleSessions: two healthy ends that say nothing stay together, at the larger of both wishes.
func TestHeartbeatKeepsIdleSessions(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newPair(session.Config{Heartbeat: time.Second}, session.Config{Heartbeat: 30 * time.Second})
		defer p.close()
		time.Sleep(time.Hour)
		require.NoError(t, p.a.Err())
		require.NoError(t, p.b.Err())
		// The side that dialled sends a PING every 22.5 to 26.25 s, before the other one does, and learns how long the answer takes.
		frames := p.a.Stats().Frames                   // PONGs and the HELLO
		require.GreaterOrEqual(t, frames, uint64(137)) // 3,600 / 26.25
		require.LessOrEqual(t, frames, uint64(161))
		require.Equal(t, p.b.Stats().Frames, frames)
		require.Equal(t, time.Duration(0), p.a.Stats().RTT, "no time passes in memory")
	})
}

// TestRow27RepliesFindTheirCalls: half of the calls are given up at random; every reply that is delivered is its call's own.
func TestRow27RepliesFindTheirCalls(t *testing.T) {
	in(t, func(t *testing.T) {
		r := newRand(t)
		p := newPair(session.Config{}, session.Config{Accept: func(st *session.Stream) {
			var msg string
			_ = st.Receive(st.Context(), func(b []byte) error { msg = string(b); return nil })
			if len(msg)%2 == 0 {
				time.Sleep(time.Duration(len(msg)) * time.Microsecond)
			}
			_ = st.Reply(func(b []byte) ([]byte, error) { return append(b, "re:"+msg...), nil })
		}})
		defer p.close()
		var wg sync.WaitGroup
		var good, lost atomic.Int64
		for g := range 100 {
			seed := r.Uint64()
			wg.Go(func() {
				r := randOf(seed)
				for i := range count(10_000, 200) {
					msg := fmt.Sprintf("%d/%d/%x", g, i, r.Uint64())
					ctx, cancel := contextIn(t, time.Duration(r.IntN(40))*time.Microsecond)
					got, err := call(ctx, p.a, "ECHO", []byte(msg))
					cancel()
					if err == nil {
						good.Add(1)
						if string(got) != "re:"+msg {
							t.Errorf("%q got %q", msg, got)
						}
					} else {
						lost.Add(1)
					}
				}
			})
		}
		wg.Wait()
		require.Positive(t, good.Load())
		require.Positive(t, lost.Load())
		t.Logf("%d replies, %d given up", good.Load(), lost.Load())
	})
}

// TestRow28IdExhaustion: a peer may use the last number there is.
func TestRow28IdExhaustion(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Accept: echo})
		defer p.close()
		p.send(unary(math.MaxUint64, "ECHO", "x"))
		require.Nil(t, p.lastWord(math.MaxUint64))
		p.requireAlive()
		p.send(unary(math.MaxUint64, "ECHO", "x"))
		p.requireEnd(wire.FailedPrecondition, session.LimitProtocol)
	})
}

// TestRow29StreamNumbers: numbers of the wrong side, used before, or below one that was, end the session, from either side.
func TestRow29StreamNumbers(t *testing.T) {
	for _, c := range []struct {
		dialer bool
		calls  []uint64
		ok     bool
	}{
		{false, []uint64{1, 3, 5}, true},
		{false, []uint64{7, 101, math.MaxUint64}, true},
		{false, []uint64{2}, false},
		{false, []uint64{1, 1}, false},
		{false, []uint64{5, 3}, false},
		{false, []uint64{1, math.MaxUint64 - 1}, false},
		{false, []uint64{0}, false},
		{true, []uint64{2, 4, 6}, true},
		{true, []uint64{2, math.MaxUint64 - 1}, true},
		{true, []uint64{1}, false},
		{true, []uint64{2, 2}, false},
		{true, []uint64{4, 2}, false},
		{true, []uint64{2, math.MaxUint64}, false},
		{true, []uint64{0}, false},
	} {
		t.Run(fmt.Sprint(c.dialer, c.calls), func(t *testing.T) {
			in(t, func(t *testing.T) {
				var ran atomic.Int64
				p := newRawPeer(t, session.Config{Dialer: c.dialer, Accept: func(st *session.Stream) { ran.Add(1); echo(st) }})
				defer p.close()
				for _, id := range c.calls {
					p.send(unary(id, "ECHO", ""))
				}
				if c.ok {
					for _, id := range c.calls {
						require.Nil(t, p.lastWord(id))
					}
					return
				}
				p.requireEnd(wire.FailedPrecondition, session.LimitProtocol)
				require.Less(t, ran.Load(), int64(len(c.calls)))
			})
		})
	}
}

// TestRow39HandlersThatDoNotFinish: one that returns without a last word, and one that leaves by Goexit, are failures.
func TestRow39HandlersThatDoNotFinish(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newPair(session.Config{}, session.Config{Accept: func(st *session.Stream) {
			if st.Name() == "EXIT" {
				runtime.Goexit()
			}
		}})
		defer p.close()
		for range 1000 {
			for _, name := range []string{"EXIT", "RETURN"} {
				_, err := call(t.Context(), p.a, name, nil)
				requireError(t, err, wire.Internal, wire.OutcomeFailed)
			}
		}
		require.Zero(t, p.b.Stats().Serving)
	})
}

// TestRow51Deadlines: what is past is never sent; what is absurd is no problem.
func TestRow51Deadlines(t *testing.T) {
	in(t, func(t *testing.T) {
		left := make(chan time.Duration, 1)
		p := newPair(session.Config{}, session.Config{Accept: func(st *session.Stream) {
			d, ok := st.Deadline()
			if ok {
				left <- time.Until(d)
			} else {
				left <- 0
			}
			_ = st.Reply(func(b []byte) ([]byte, error) { return b, nil })
		}})
		defer p.close()
		for _, d := range []time.Duration{0, -1, -time.Hour, math.MinInt64} {
			ctx, cancel := contextIn(t, d)
			_, err := call(ctx, p.a, "X", nil)
			requireError(t, err, wire.DeadlineExceeded, wire.OutcomeNotRun)
			cancel()
		}
		require.Zero(t, p.b.Stats().Served)
		for _, d := range []time.Duration{time.Microsecond, time.Second, 100 * 365 * 24 * time.Hour, math.MaxInt64} {
			ctx, cancel := contextIn(t, d)
			_, err := call(ctx, p.a, "X", nil)
			require.NoError(t, err)
			got := <-left
			require.Less(t, (d - got).Abs(), 10*time.Microsecond, "%v became %v", d, got)
			cancel()
		}
		_, err := call(t.Context(), p.a, "X", nil)
		require.NoError(t, err)
		require.Zero(t, <-left)
	})
}

// TestRow53TinyFrames: a window full of messages of one byte, and a million of none, held by a handler that does not read.
// They take a few times what they are, and are all delivered.
func TestRow53TinyFrames(t *testing.T) {
	in(t, func(t *testing.T) {
		budget := session.NewBudget(64<<20, nil)
		read := make(chan struct{})
		total := make(chan [2]int)
		p := newRawPeer(t, session.Config{Budget: budget, Heartbeat: 2 * time.Minute, Accept: func(st *session.Stream) {
			<-read
			var n [2]int
			for st.Receive(st.Context(), func(b []byte) error { n[len(b)]++; return nil }) == nil {
			}
			total <- n
			st.Finish(nil)
		}})
		defer p.close()
		go func() {
			for p.next().Kind != 0 {
			}
		}()
		p.send(streamCall(1, "X"))
		empty, tiny := wire.AppendData(nil, wire.FlagEOM, 1, nil), wire.AppendData(nil, wire.FlagEOM, 1, []byte("x"))
		n := count(1_000_000, 50_000)
		for range n {
			p.send(empty)
		}
		synctest.Wait()
		require.EqualValues(t, 8<<10, budget.Used())
		for range 256 << 10 {
			p.send(tiny)
		}
		p.send(empty, wire.AppendData(nil, wire.FlagEnd, 1, nil))
		synctest.Wait()
		require.NoError(t, p.s.Err())
		require.Less(t, budget.Used(), int64(4*256<<10))
		close(read)
		require.Equal(t, [2]int{n + 1, 256 << 10}, <-total)
		synctest.Wait()
		require.Zero(t, budget.Used())
	})
}

// TestRow54RefusedCallsLeaveNothing refuses calls without end.
func TestRow54RefusedCallsLeaveNothing(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Accept: echo})
		defer p.close()
		go func() {
			for p.next().Kind != 0 {
			}
		}()
		var before, after runtime.MemStats
		batch := func(from, n int) {
			for i := from; i < from+n; i++ {
				p.send(wire.AppendCall(nil, 0, &wire.Call{Stream: uint64(2*i + 1), Kind: 1, Name: []byte("no name")}))
				if i%500 == 0 {
					synctest.Wait() // more than 1,024 at once would end the session
				}
			}
			synctest.Wait()
			runtime.GC()
		}
		batch(0, 10_000)
		runtime.ReadMemStats(&before)
		n := count(10_000_000, 50_000)
		batch(10_000, n)
		runtime.ReadMemStats(&after)
		require.NoError(t, p.s.Err())
		require.EqualValues(t, n+10_000, p.s.Stats().Refused)
		require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(1<<20))
	})
}

// TestRow55UnsolicitedFrames: data for calls that have ended is dropped and counted, as much as there is of it.
func TestRow55UnsolicitedFrames(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Accept: echo})
		defer p.close()
		p.send(unary(1, "ECHO", "x"))
		require.Nil(t, p.lastWord(1))
		n := count(1_000_000, 20_000)
		for range n {
			p.send(wire.AppendData(nil, wire.FlagEOM, 1, []byte("more")))
		}
		p.requireAlive()
		require.EqualValues(t, n, p.s.Stats().Dropped)
	})
}

// TestRow57AsymmetricPartition: when only one direction is dead both ends notice.
func TestRow57AsymmetricPartition(t *testing.T) {
	in(t, func(t *testing.T) {
		hole := new(atomic.Bool)
		p := &pair{logA: new(logBook), logB: new(logBook)}
		p.ca, p.cb = newPipe(0)
		a := session.New(&blackhole{Conn: p.ca, on: hole}, session.Config{Dialer: true, Logger: p.logA.logger()})
		b := session.New(p.cb, session.Config{Accept: echo, Logger: p.logB.logger()})
		_, err := call(t.Context(), a, "ECHO", nil)
		require.NoError(t, err)
		hole.Store(true)
		start := time.Now()
		<-b.Done()
		<-a.Done()
		require.LessOrEqual(t, time.Since(start), 41*time.Second)
		a.Close()
		b.Close()
	})
}
