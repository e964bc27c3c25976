package endpoint_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"strconv"
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

// TestPeerThatStopsReading: callers of every kind, with requests of all sizes,
// are back at their deadlines, to the moment, whatever the peer stopped doing.
// (The design allows 50 ms; no time passes in memory.) Those whose deadline is
// later than the end of the session are back with that.
func TestPeerThatStopsReading(t *testing.T) {
	for name, peer := range map[string]func(f *foe){
		"reads nothing": func(*foe) {},
		"reads 300 KB": func(f *foe) {
			for read := 0; read < 300_000; {
				read += len(f.next().Payload)
			}
		},
		"grants nothing and answers nothing": func(f *foe) { // but PINGs
			f.drain()
		},
		"grants and answers nothing": func(f *foe) {
			for fr := f.next(); fr.Kind != 0; fr = f.next() {
				switch fr.Kind {
				case wire.KindPing:
					f.send(wire.AppendFrame(nil, wire.KindPong, 0, fr.Payload))
				case wire.KindData:
					time.Sleep(time.Millisecond) // or its senders would not let time pass
					if id, data, err := wire.ParseData(fr.Payload); err == nil && len(data) > 0 {
						f.send(wire.AppendCredit(nil, id, uint32(len(data))))
					}
				default:
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, f := dialFoe(t, endpoint.Dialer{Logger: new(journal).logger()})
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					peer(f)
				}()
				r := seeded(t)
				var wg sync.WaitGroup
				begin := time.Now()
				var onTime, withSession atomic.Int64
				for i := range 300 {
					deadline, size := time.Duration(1+r.IntN(9000))*time.Millisecond, r.IntN(300)
					switch {
					case i%50 == 0:
						size = 3 << 20
					case i%5 == 0:
						size = r.IntN(300_000)
					case i%7 == 0:
						deadline = time.Minute
					}
					wg.Go(func() {
						err := stalledCaller(t, c, i%4, deadline, text{strings.Repeat("x", size)})
						took := time.Since(begin)
						assert.NotEqual(t, endpoint.OutcomeFailed, endpoint.OutcomeOf(err), "%v", err)
						if code := endpoint.CodeOf(err); code != endpoint.DeadlineExceeded {
							withSession.Add(1)
							assert.Equal(t, endpoint.Unavailable, code, "caller %d: %v", i, err)
							assert.Less(t, took, deadline)
							return
						}
						onTime.Add(1)
						if took == 10*time.Second { // of a unary call: a message that gets no credit
							assert.ErrorContains(t, err, "no progress", "caller %d", i)
							return
						}
						assert.Equal(t, deadline, took, "caller %d: %v", i, err)
					})
				}
				wg.Wait()
				t.Logf("%d back at their deadlines, %d with the session", onTime.Load(), withSession.Load())
				assert.GreaterOrEqual(t, onTime.Load(), int64(200))
				begin = time.Now()
				require.NoError(t, c.Close())
				assert.LessOrEqual(t, time.Since(begin), 3*time.Second)
				_ = f.conn.Close()
				<-gone
			})
		})
	}
}

// TestPeerThatStopsReadingOverSockets is the same where the caller itself
// writes, as far as the system takes it. The clock is real, so only the report
// says how late callers were.
func TestPeerThatStopsReadingOverSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	near, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	far, err := l.Accept()
	require.NoError(t, err)
	c, _ := dialFoeOver(t, endpoint.Dialer{Logger: new(journal).logger()}, near, far.(*net.TCPConn))
	r := seeded(t)
	var latest atomic.Int64
	var wg sync.WaitGroup
	for i := range 250 {
		deadline, size := time.Duration(100+r.IntN(400))*time.Millisecond, r.IntN(300_000)
		wg.Go(func() {
			begin := time.Now()
			err := stalledCaller(t, c, i%4, deadline, text{strings.Repeat("x", size)})
			late := time.Since(begin) - deadline
			assert.Equal(t, endpoint.DeadlineExceeded, endpoint.CodeOf(err), "caller %d: %v", i, err)
			assert.Less(t, late, patience)
			for was := latest.Load(); int64(late) > was && !latest.CompareAndSwap(was, int64(late)); was = latest.Load() {
			}
		})
	}
	wg.Wait()
	t.Logf("the latest was %v late", time.Duration(latest.Load()))
}

// stalledCaller does one of four things until it fails.
func stalledCaller(t *testing.T, c *endpoint.Client, what int, deadline time.Duration, message text) error {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	switch what {
	case 0: // sends on a stream
		s, err := endpoint.StreamCommand[text, text]("S").Open(ctx, c)
		for err == nil {
			err = s.Send(message)
		}
		return err
	case 1: // writes raw bytes
		conn, err := c.Open(ctx, "R")
		for err == nil {
			_, err = conn.Write([]byte(message.S + "x"))
		}
		return err
	case 2: // the same, bounded by SetDeadline
		conn, err := c.Open(ctx, "R")
		if err != nil {
			return err
		}
		defer func() { assert.NoError(t, conn.Close()) }()
		until, _ := ctx.Deadline()
		err = conn.SetDeadline(until)
		for err == nil {
			_, err = conn.Write([]byte(message.S + "x"))
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = endpoint.Errorf(endpoint.DeadlineExceeded, "%w", err)
		}
		return err
	}
	_, err := fail.Call(ctx, c, message)
	return err
}

// TestCallerThatStopsReading: the handlers of every kind that answer a client
// which reads nothing end when it is given up, 10 s after it took the last byte,
// and what they hold until then is bounded. Others do not notice.
func TestCallerThatStopsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const foes, calls, size = 3, 120, 1 << 20
		const inFlight = 64 << 20 // of which the foes get three quarters
		begin := time.Now()
		var running atomic.Int64
		ended := make(chan time.Duration, 2*foes*calls)
		track := func() func() {
			running.Add(1)
			return func() {
				running.Add(-1)
				ended <- time.Since(begin)
			}
		}
		large := strings.Repeat("x", size)
		var w witness
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.Limits.InFlight = inFlight
			w.register(e)
			fail.Handle(e, func(context.Context, text) (text, error) { return text{large}, nil })
			endpoint.StreamCommand[text, text]("S").Handle(e, func(ctx context.Context, s *endpoint.Stream[text, text]) error {
				defer track()()
				for {
					if err := s.Send(text{large[:10_000]}); err != nil {
						<-ctx.Done()
						return err
					}
				}
			})
			e.Handle("R", endpoint.ServeFunc(func(ctx context.Context, rw *bufio.ReadWriter) error {
				defer track()()
				for {
					if _, err := rw.WriteString(large[:10_000]); err != nil {
						<-ctx.Done()
						return err
					}
				}
			}))
		})
		w.start(t, n, 0)
		request := gobOf(t, text{"x"})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range foes {
			f := foeOf(t, n)
			for i := range calls {
				id := uint64(2*i + 1)
				kind := endpoint.Kind(i % 3)
				name := map[endpoint.Kind]string{endpoint.KindRaw: "R", endpoint.KindUnary: "FAIL", endpoint.KindStream: "S"}[kind]
				data := ""
				if kind == endpoint.KindUnary {
					data = request
				}
				f.send(foeCall(id, kind, name, data), wire.AppendCredit(nil, id, 16<<20))
			}
		}
		synctest.Wait()
		assert.Positive(t, running.Load())
		assert.LessOrEqual(t, n.Held(), int64(inFlight)*foes/4)
		time.Sleep(5 * time.Second)
		runtime.GC()
		runtime.GC() // what is in a sync.Pool outlives one
		runtime.ReadMemStats(&after)
		rise := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		t.Logf("%d handlers run, %d bytes are held, heap %+d bytes", running.Load(), n.Held(), rise)
		if !raceEnabled {
			// What is charged, and beside it the handlers themselves with their buffers,
			// a staged buffer and a connection in memory for each foe.
			assert.Less(t, rise, int64(inFlight*3/2))
		}
		time.Sleep(8 * time.Second)
		synctest.Wait()
		assert.Zero(t, running.Load())
		close(ended)
		for at := range ended {
			assert.GreaterOrEqual(t, at, 10*time.Second)
			assert.LessOrEqual(t, at, 12*time.Second)
		}
		assert.Zero(t, n.Held())
		time.Sleep(15 * time.Second)
		synctest.Wait()
		w.end(t)
		assert.EqualValues(t, foes, n.Counts()["write"])
		assert.Len(t, n.with("session limit", "limit=write "), foes, "one line each")
		assert.Positive(t, n.Counts()["in_flight"])
		assert.Len(t, n.with("session limit", "limit=in_flight "), foes, "one line a second each")
	})
}

// TestRow23FrozenPeers: a peer that is frozen or vanished is noticed at both
// ends: calls under way fail, unknown, within 20 s, handlers hear of it, and
// idle sessions end 10 s after the heartbeat.
func TestRow23FrozenPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the endpoint is
		c, _ := dialFoe(t, endpoint.Dialer{Logger: new(journal).logger()})
		begin := time.Now()
		_, err := fail.Call(t.Context(), c, text{})
		assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeUnknown, "")
		assert.LessOrEqual(t, time.Since(begin), 21*time.Second, "20, and one for the last words")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = fail.Call(ctx, c, text{})
		assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeNotRun, "no connection")

		idle, _ := dialFoe(t, endpoint.Dialer{Logger: new(journal).logger()})
		time.Sleep(27 * time.Second) // 15 + 10, and a little
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = fail.Call(ctx, idle, text{})
		assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeNotRun, "no connection")
	})
	synctest.Test(t, func(t *testing.T) { // the callers are
		ended := make(chan error, 3)
		n := memNode(t, func(e *endpoint.Endpoint) {
			waitCall.Handle(e, func(ctx context.Context, _ line) (line, error) {
				<-ctx.Done()
				ended <- context.Cause(ctx)
				return line{}, ctx.Err()
			})
			echoStream.Handle(e, func(_ context.Context, s *endpoint.Stream[line, line]) error {
				_, err := s.Recv()
				ended <- err
				return err
			})
			e.Handle("RAW", endpoint.ServeFunc(func(_ context.Context, rw *bufio.ReadWriter) error {
				_, err := rw.ReadByte()
				ended <- err
				return err
			}))
		})
		f := foeOf(t, n)
		begin := time.Now()
		f.send(foeCall(1, endpoint.KindUnary, "WAIT", gobOf(t, line{})), foeCall(3, endpoint.KindStream, "ECHOSTREAM", ""), foeCall(5, endpoint.KindRaw, "RAW", ""))
		for range 3 {
			assert.Error(t, <-ended)
			assert.LessOrEqual(t, time.Since(begin), 21*time.Second)
		}
		synctest.Wait()
		assert.EqualValues(t, 1, n.Counts()["heartbeat"])
		assert.Len(t, n.with("session limit", "limit=heartbeat"), 1, "%q", n.all())
		assert.Zero(t, n.Held())
	})
}

// TestRow17StalledStreamsOnTheSameSession: streams that stand still in both
// directions, and calls beside them that take no time.
func TestRow17StalledStreamsOnTheSameSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			streamCommands(e)
			rawCommands(e)
			fail.Handle(e, misbehave)
		})
		c := dialNode(t, n, nil)
		for range 10 {
			s, err := stall.Open(t.Context(), c) // not received from here, nor there
			require.NoError(t, err)
			go func() { assert.Error(t, sendBlocks(s, 0, 10_000, 1000)) }()
			defer func() { assert.NoError(t, s.Close()) }()
			conn, err := c.Open(t.Context(), "SLOW") // reads nothing for an hour
			require.NoError(t, err)
			go func() {
				_, err := conn.Write(make([]byte, 1<<20))
				assert.Error(t, err)
			}()
			defer func() { assert.NoError(t, conn.Close()) }()
		}
		synctest.Wait()
		for i := range 100 {
			begin := time.Now()
			got, err := fail.Call(t.Context(), c, text{strconv.Itoa(i)})
			require.NoError(t, err)
			assert.Equal(t, strconv.Itoa(i), got.S)
			assert.Zero(t, time.Since(begin))
			time.Sleep(10 * time.Second) // past every limit of time
		}
		assert.Empty(t, n.Counts())
	})
}
