package endpoint_test

import (
	"bufio"
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/wire"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A gauge knows how many run now, and how many did at most.
type gauge struct{ now, most atomic.Int64 }

func (g *gauge) enter() {
	n := g.now.Add(1)
	for m := g.most.Load(); n > m && !g.most.CompareAndSwap(m, n); m = g.most.Load() {
	}
}

func (g *gauge) leave() { g.now.Add(-1) }

// cancelable registers handlers of each kind that wait for their context and
// take their time then, and counts them.
func cancelable(e *endpoint.Endpoint, g *gauge) {
	wait := func(ctx context.Context) error {
		g.enter()
		defer g.leave()
		<-ctx.Done()
		time.Sleep(time.Millisecond)
		return ctx.Err()
	}
	fail.Handle(e, func(ctx context.Context, req text) (text, error) { return req, wait(ctx) })
	echoStream.Handle(e, func(ctx context.Context, _ *endpoint.Stream[line, line]) error { return wait(ctx) })
	e.Handle("RAW", endpoint.ServeFunc(func(ctx context.Context, _ *bufio.ReadWriter) error { return wait(ctx) }))
}

// TestRow09CancelFlood: calls that are canceled at once, by a peer that minds no
// place, and typed callers that give up at any moment. A handler counts until it
// has returned, so no more run than Limits.Calls, and others do not notice.
func TestRow09CancelFlood(t *testing.T) {
	const places = 100
	synctest.Test(t, func(t *testing.T) {
		var g gauge
		var w witness
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.Limits.Calls = places
			cancelable(e, &g)
			w.register(e)
		})
		w.start(t, n, 0)
		f := foeOf(t, n)
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			f.drain()
		}()
		request := gobOf(t, text{"x"})
		pairs := longOr(100_000, 3_000)
		for i := range pairs {
			id := uint64(2*i + 1)
			switch i % 3 {
			case 0:
				f.send(foeCall(id, endpoint.KindUnary, "FAIL", request), wire.AppendCancel(nil, id))
			case 1:
				f.send(foeCall(id, endpoint.KindStream, "ECHOSTREAM", ""), wire.AppendCancel(nil, id))
			case 2:
				f.send(foeCall(id, endpoint.KindRaw, "RAW", ""), wire.AppendCancel(nil, id))
			}
			if i%300 == 299 {
				time.Sleep(100 * time.Microsecond)
			}
		}
		time.Sleep(time.Second)
		assert.LessOrEqual(t, g.most.Load(), int64(places))
		assert.Greater(t, g.most.Load(), int64(places/2), "the limit was near")
		assert.Zero(t, g.now.Load())
		assert.Positive(t, n.Counts()["calls"])
		lines := n.with("session limit", "limit=calls ")
		assert.NotEmpty(t, lines)
		assert.Less(t, len(lines), 2+pairs/3_000, "one a second")
		w.end(t)
		assert.Zero(t, n.Held())
		_ = f.conn.Close()
		<-drained
	})
	synctest.Test(t, func(t *testing.T) {
		var g gauge
		var w witness
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.Limits.Calls = places
			cancelable(e, &g)
			w.register(e)
		})
		w.start(t, n, 0)
		c := dialNode(t, n, nil)
		r := seeded(t)
		var wg sync.WaitGroup
		for i := range 3 * places {
			r := rand.New(rand.NewPCG(r.Uint64(), 0))
			wg.Go(func() {
				for range longOr(400, 20) {
					after := time.Duration(r.IntN(3000)) * time.Microsecond
					ctx, cancel := context.WithTimeout(t.Context(), after)
					begin := time.Now()
					var err error
					switch i % 3 {
					case 0:
						_, err = fail.Call(ctx, c, text{"x"})
					case 1:
						var s *endpoint.Stream[line, line]
						if s, err = echoStream.Open(ctx, c); err == nil {
							_, err = s.Recv()
						}
					case 2:
						var conn *endpoint.Conn
						if conn, err = c.Open(ctx, "RAW"); err == nil {
							_, err = conn.ReadByte()
						}
					}
					cancel()
					assert.ErrorIs(t, err, context.DeadlineExceeded)
					assert.Equal(t, after, time.Since(begin))
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Second)
		assert.LessOrEqual(t, g.most.Load(), int64(places))
		assert.Greater(t, g.most.Load(), int64(places/2))
		assert.Zero(t, g.now.Load())
		assert.Empty(t, n.Counts(), "who minds the places reaches no limit")
		w.end(t)
		assert.Zero(t, n.Held())
	})
}

// TestLimitsOfSessions: each limit that a peer can reach ends what it must, is
// counted under the name that its one line in the log has, and leaves other
// sessions alone.
func TestLimitsOfSessions(t *testing.T) {
	const (
		places    = 3
		message   = 250 << 10
		inFlight  = 2400 << 10 // a quarter of which is a session's
		maxOwed   = 1024
		unclaimed = uint64(4001)
	)
	request := gobOf(t, text{"x"})
	ping := wire.AppendPing(nil, wire.KindPing, 1)
	bad := wire.AppendPing(nil, wire.KindPing, 1)
	bad[8] ^= 1
	long := wire.MakePairs([]string{"k", strings.Repeat("v", 8<<10)})
	type list struct{ L []four }
	for _, test := range []struct {
		limit string
		do    func(f *foe)
		ends  endpoint.Code // of the GOAWAY; OK: the session goes on
		word  endpoint.Code // of the last word of stream 99; OK: it is not looked for
	}{
		{"calls", func(f *foe) {
			for id := uint64(93); id <= 99; id += 2 {
				f.send(foeCall(id, endpoint.KindUnary, "FAIL", request))
			}
		}, endpoint.OK, endpoint.ResourceExhausted},
		{"in_flight", func(f *foe) { // what came, and was not taken yet
			for id := uint64(95); id <= 97; id += 2 {
				f.send(foeCall(id, endpoint.KindStream, "ECHOSTREAM", ""))
				for range 3 {
					f.send(wire.AppendData(nil, wire.FlagEOM, id, make([]byte, 60<<10)))
				}
			}
			f.send(wire.AppendCall(nil, 0, &wire.Call{Stream: 99, Kind: uint8(endpoint.KindUnary), Name: []byte("FAIL"), Data: make([]byte, 60<<10)}))
			for range 3 {
				f.send(wire.AppendData(nil, 0, 99, make([]byte, 60<<10)))
			}
		}, endpoint.OK, endpoint.ResourceExhausted},
		{"in_flight", func(f *foe) { // what it decodes to
			f.send(foeCall(99, endpoint.KindUnary, "LIST", gobOf(f.t, list{make([]four, 50_000)})))
		}, endpoint.OK, endpoint.ResourceExhausted},
		{"header", func(f *foe) {
			f.send(wire.AppendCall(nil, wire.FlagEOM|wire.FlagEnd, &wire.Call{Stream: 99, Kind: 1, Name: []byte("FAIL"), Pairs: long, Data: []byte(request)}))
		}, endpoint.OK, endpoint.ResourceExhausted},
		{"message", func(f *foe) {
			f.send(wire.AppendCall(nil, 0, &wire.Call{Stream: 99, Kind: 1, Name: []byte("FAIL")}))
			for range 5 {
				f.send(wire.AppendData(nil, 0, 99, make([]byte, 60<<10)))
				synctest.Wait() // for the credit
			}
		}, endpoint.OK, endpoint.ResourceExhausted},
		{"progress", func(f *foe) {
			f.send(wire.AppendCall(nil, 0, &wire.Call{Stream: 99, Kind: 1, Name: []byte("FAIL"), Data: []byte(request[:1])}))
			time.Sleep(11 * time.Second)
		}, endpoint.OK, endpoint.DeadlineExceeded},
		{"pings", func(f *foe) {
			for range 20 {
				f.send(ping)
			}
		}, endpoint.ResourceExhausted, endpoint.OK},
		{"never_opened", func(f *foe) { f.send(wire.AppendData(nil, wire.FlagEnd, unclaimed, nil)) }, endpoint.ResourceExhausted, endpoint.OK},
		{"credit", func(f *foe) {
			f.send(foeCall(1, endpoint.KindStream, "ECHOSTREAM", ""), wire.AppendCredit(nil, 1, 1<<31-1))
		}, endpoint.ResourceExhausted, endpoint.OK},
		{"protocol", func(f *foe) { f.send(bad) }, endpoint.FailedPrecondition, endpoint.OK},
		{"frame", func(f *foe) {
			f.send(ping[:5])
			time.Sleep(11 * time.Second)
		}, endpoint.DeadlineExceeded, endpoint.OK},
	} {
		t.Run(test.limit, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var w witness
				var g gauge
				n := memNode(t, func(e *endpoint.Endpoint) {
					e.Limits.Calls, e.Limits.Message, e.Limits.InFlight = places, message, inFlight
					cancelable(e, &g)
					w.register(e)
					handleSize[list](e, "LIST")
				})
				w.start(t, n, 0)
				f := foeOf(t, n)
				test.do(f)
				if test.word != endpoint.OK {
					e := f.lastWord(99)
					require.NotNil(t, e)
					assert.Equal(t, test.word, endpoint.Code(e.Code), "%s", e.Message)
					assert.Equal(t, wire.OutcomeNotRun, e.Outcome)
				}
				if test.ends != endpoint.OK {
					a := f.goAway()
					assert.Equal(t, test.ends, endpoint.Code(a.Code), "%s", a.Message)
					assert.NotEmpty(t, a.Message)
				} else {
					f.send(ping)
					for fr := f.next(); fr.Kind != wire.KindPong; fr = f.next() {
						require.NotZero(t, fr.Kind, "the session ended")
					}
				}
				_ = f.conn.Close()
				time.Sleep(50 * time.Millisecond) // for the handlers, and for the witness
				w.end(t)
				assert.Equal(t, map[string]uint64{test.limit: 1}, n.Counts())
				assert.Len(t, n.with("level=WARN", "limit="+test.limit+" ", "peer=mem"), 1, "%q", n.all())
				assert.Len(t, n.with("limit="), 1)
				assert.Zero(t, n.Held())
			})
		})
	}
	t.Run("control", func(t *testing.T) { // its GOAWAY finds no room
		synctest.Test(t, func(t *testing.T) {
			n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Calls = places })
			f := foeOf(t, n)
			for i := range 20 * maxOwed {
				f.send(wire.AppendCall(nil, 0, &wire.Call{Stream: uint64(2*i + 1), Kind: 9, Name: []byte("X")}))
			}
			time.Sleep(20 * time.Second)
			assert.Equal(t, map[string]uint64{"control": 1}, n.Counts())
			assert.Len(t, n.with("limit=control "), 1)
		})
	})
	t.Run("hello", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := memNode(t, nil)
			c := n.dial(t)
			begin := time.Now()
			c.send("SESSION 1\n")
			_ = c.end()
			assert.Equal(t, 10*time.Second, time.Since(begin))
			assert.Equal(t, map[string]uint64{"hello": 1}, n.Counts())
			assert.Len(t, n.with("limit=hello "), 1)
		})
	})
}

// TestCounts: limits of connections, and panics, are counted beside those of
// sessions.
func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.Limits.Connections, e.Limits.InFlight = 2, 2*endpoint.LeastCharge
			rawCommands(e)
			fail.Handle(e, misbehave)
			holding(e)
		})
		assert.Empty(t, n.Counts())
		idle, slow := n.dial(t), n.dial(t)
		idle.ping()
		slow.send("PING")
		synctest.Wait()
		end := func(c *client) string {
			got := c.end()
			time.Sleep(2 * time.Second) // until it is no connection any more
			return got
		}
		assert.Contains(t, end(n.dial(t)), "ERR resource_exhausted")
		_ = end(slow) // at Progress
		long := n.dial(t)
		long.send(strings.Repeat("x", 60) + " " + strings.Repeat("x", 10_000) + "\n")
		_ = end(long)
		for _, command := range []string{"PANIC\n", `FAIL {"S":"panic"}` + "\n"} {
			c := n.dial(t)
			c.send(command)
			c.closeWrite()
			_ = end(c)
		}
		big := n.dial(t)
		big.send("FAIL\n" + gobOf(t, text{strings.Repeat("x", 100_000)}))
		assert.Contains(t, big.line(), "resource_exhausted not_run")
		_ = big.Close()
		synctest.Wait()
		_, err := fail.Call(t.Context(), n.Endpoint, text{strings.Repeat("x", 100_000)})
		assertFailed(t, err, endpoint.ResourceExhausted, endpoint.OutcomeNotRun, "16384 bytes")
		_ = idle.end() // at Idle
		synctest.Wait()
		assert.Equal(t, map[string]uint64{"Connections": 1, "Progress": 1, "Line": 1, "panic": 2, "InFlight": 2, "Idle": 1}, n.Counts())
		assert.Len(t, n.with("limit=InFlight"), 1, "one line a second")
		counts := n.Counts()
		counts["Idle"] = 7
		assert.EqualValues(t, 1, n.Counts()["Idle"], "a copy")
	})
}

// TestRow41NamesInLogs: whatever a peer puts into names, headers and reasons, the
// log is one line of printable ASCII for each event.
func TestRow41NamesInLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { fail.Handle(e, misbehave) })
		f := foeOf(t, n)
		names := []string{"", "a\rb", "\x1b[2J", "a\u2028b", "a b", "\x00", "\xff\xfe", strings.Repeat("x", 65), strings.Repeat("x", 60_000), "<nobody>%s%n"}
		for i, name := range names {
			f.send(foeCall(uint64(2*i+1), endpoint.KindUnary, name, ""))
			e := f.lastWord(uint64(2*i + 1))
			require.NotNil(t, e)
			assert.Equal(t, wire.OutcomeNotRun, e.Outcome)
			assert.Less(t, len(e.Message), 300)
			for _, b := range e.Message {
				assert.True(t, ' ' <= b && b <= '~', "%q", e.Message)
			}
		}
		f.send(foeCall(101, endpoint.KindUnary, "FAIL", gobOf(t, text{"panic"})))
		require.NotNil(t, f.lastWord(101))
		for range 10 {
			f.send(wire.AppendGoAway(nil, &wire.GoAway{Code: wire.Internal, Message: []byte(strings.Repeat("\x1b[2J\r\nlevel=ERROR", 1000))}))
		}
		synctest.Wait()
		_ = f.conn.Close()
		synctest.Wait()
		lines := n.all()
		assert.Len(t, lines, 2, "the panic and the reason: %q", lines)
		for _, line := range lines {
			assert.Equal(t, len(line)-1, strings.IndexFunc(line, func(c rune) bool { return c < ' ' || c > '~' }), "%q", line)
		}
		assert.Less(t, len(n.with("ended by the peer")[0]), 600)
	})
}

// TestRow26And07DamagedFrames: bits that are wrong anywhere in a session's
// bytes, and lengths that cannot be: no handler runs with what was damaged, and
// the endpoint serves on.
func TestRow26And07DamagedFrames(t *testing.T) {
	var ran atomic.Int64
	var w witness
	n := memNode(t, func(e *endpoint.Endpoint) {
		w.register(e)
		fail.Handle(e, func(_ context.Context, req text) (text, error) {
			if req.S != "whole" {
				t.Errorf("ran with %q", req.S)
			}
			ran.Add(1)
			return req, nil
		})
	})
	w.start(t, n, patience)
	frame := foeCall(1, endpoint.KindUnary, "FAIL", gobOf(t, text{"whole"}))
	for bit := range 8 * len(frame) {
		f := foeOf(t, n)
		damaged := append([]byte{}, frame...)
		damaged[bit/8] ^= 1 << (bit % 8)
		f.send(damaged)
		_ = f.conn.CloseWrite() // a length that is too large waits for more
		for fr := f.next(); fr.Kind != 0; fr = f.next() {
			assert.Contains(t, []wire.Kind{wire.KindGoAway, wire.KindPing}, fr.Kind, "bit %d", bit)
		}
	}
	for shift := 7; shift <= 32; shift++ {
		for _, length := range []uint64{1<<shift - 1, 1 << shift, 1<<shift + 1} {
			if length > 1<<32-1 {
				continue
			}
			f := foeOf(t, n)
			head := []byte{byte(wire.KindData), 0, byte(length >> 24), byte(length >> 16), byte(length >> 8), byte(length)}
			f.send(head, make([]byte, 100))
			_ = f.conn.CloseWrite() // unless the endpoint has hung up
			for fr := f.next(); fr.Kind != 0; fr = f.next() {
				assert.Equal(t, wire.KindGoAway, fr.Kind, "length %d", length)
			}
		}
	}
	assert.Zero(t, ran.Load())
	f := foeOf(t, n)
	f.send(frame)
	require.Nil(t, f.lastWord(1))
	assert.EqualValues(t, 1, ran.Load())
	w.end(t)
	assertReleased(t, n)
}
