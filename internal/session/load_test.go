package session_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/memnet"
	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// TestCallersAreBackByTheirDeadlines: the peer reads nothing; a thousand callers, with requests of all sizes, are back at
// their deadlines. So are senders on streams and those who wait for a place.
func TestCallersAreBackByTheirDeadlines(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Heartbeat: 2 * time.Minute, Progress: time.Hour})
		defer p.close()
		r := newRand(t)
		var wg sync.WaitGroup
		for i := range 1000 {
			d, size := time.Duration(1+r.IntN(9000))*time.Millisecond, r.IntN(200_000)
			wg.Go(func() {
				ctx, cancel := contextIn(t, d)
				defer cancel()
				start := time.Now()
				var err error
				if i%3 == 0 {
					var st *session.Stream
					st, err = p.s.Open(ctx, &session.CallSpec{Name: "S", Kind: wire.CallStream})
					for err == nil {
						err = st.Send(ctx, make([]byte, size))
					}
					if st != nil {
						st.Cancel()
					}
				} else {
					_, err = call(ctx, p.s, "X", make([]byte, size))
				}
				assert.ErrorAs(t, err, new(*session.Error))
				assert.Equal(t, d, time.Since(start), "%v", err) // the design allows 50 ms; no time passes in memory
			})
		}
		wg.Wait()
		assert.NoError(t, p.s.Err())
	})
}

// TestManyCallersBothWays: a thousand goroutines a side call each other's commands and unknown ones over buffers of 4 KiB.
// Every one of them makes progress.
func TestManyCallersBothWays(t *testing.T) {
	in(t, func(t *testing.T) {
		p := smallPair(session.Config{Accept: echo}, session.Config{Accept: echo})
		defer p.close()
		var calls atomic.Int64
		var wg sync.WaitGroup
		for _, s := range []*session.Session{p.a, p.b} {
			for i := range 1000 {
				wg.Go(func() {
					msg := make([]byte, i)
					for range count(200, 3) {
						if i%2 == 0 {
							_, err := call(t.Context(), s, "FAIL", msg)
							requireError(t, err, wire.Internal, wire.OutcomeFailed)
						} else {
							got, err := call(t.Context(), s, "ECHO", msg)
							assert.NoError(t, err)
							assert.Len(t, got, i)
						}
						calls.Add(1)
					}
				})
			}
		}
		wg.Wait()
		t.Logf("%d calls", calls.Load())
	})
}

// TestManyCallersBothWaysOverSockets is the same over sockets with buffers of 4 KiB, for 10 s, with progress in every second.
// They are unix sockets: TCP over the loopback, whose segments are of 64 KiB, moves 87 kB/s with such a receive buffer
// whatever is above it.
func TestManyCallersBothWaysOverSockets(t *testing.T) {
	small := func(c net.Conn) net.Conn {
		require.NoError(t, c.(*net.UnixConn).SetReadBuffer(4<<10))
		require.NoError(t, c.(*net.UnixConn).SetWriteBuffer(4<<10))
		return c
	}
	ca, cb := socketsOf(t, "unix", t.TempDir()+"/s")
	a := session.New(small(ca), session.Config{Dialer: true, Accept: echo})
	b := session.New(small(cb), session.Config{Accept: echo})
	defer b.Close()
	defer a.Close()
	var calls atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, s := range []*session.Session{a, b} {
		for i := range 1000 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if got, err := call(t.Context(), s, "ECHO", make([]byte, i)); err != nil || len(got) != i {
						t.Error(len(got), err)
						return
					}
					calls.Add(1)
				}
			})
		}
	}
	for range count(10, 2) {
		before := calls.Load()
		time.Sleep(time.Second)
		assert.Greater(t, calls.Load(), before)
	}
	close(stop)
	wg.Wait()
	t.Logf("%d calls, %d + %d writes", calls.Load(), a.Stats().Writes, b.Stats().Writes)
}

// TestStreamsAtOnce: a hundred streams with 2,000 messages each way at once, in order and whole, one of them never read.
func TestStreamsAtOnce(t *testing.T) {
	in(t, func(t *testing.T) {
		n := count(2000, 200)
		number := func(stream, i int) []byte { // of 8 bytes to 8 KiB
			return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(make([]byte, 0, 8<<10), uint32(stream)), uint32(i))[:8+(stream*i)%1000]
		}
		p := newPair(session.Config{}, session.Config{Accept: echoUnordered(n, number)})
		defer p.close()
		var wg sync.WaitGroup
		unread, err := p.a.Open(t.Context(), &session.CallSpec{Name: "S", Kind: wire.CallStream})
		require.NoError(t, err)
		for id := range 99 {
			st, err := p.a.Open(t.Context(), &session.CallSpec{Name: "S", Kind: wire.CallStream})
			require.NoError(t, err)
			wg.Go(func() {
				for i := range n {
					if !assert.NoError(t, st.Send(t.Context(), number(id, i))) {
						return
					}
				}
				assert.NoError(t, st.CloseSend())
			})
			wg.Go(func() {
				for i := range n {
					if !assert.NoError(t, st.Receive(t.Context(), func(b []byte) error {
						assert.Equal(t, number(7, i), b)
						return nil
					})) {
						return
					}
				}
				assert.Equal(t, io.EOF, st.Receive(t.Context(), nil))
			})
		}
		wg.Wait()
		unread.Cancel()
	})
}

// echoUnordered serves a stream by sending n messages of its own while it receives the caller's.
func echoUnordered(n int, number func(stream, i int) []byte) func(*session.Stream) {
	return func(st *session.Stream) {
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range n {
				if st.Send(st.Context(), number(7, i)) != nil {
					return
				}
			}
		})
		i := uint32(0)
		var bad *session.Error
		for {
			err := st.Receive(st.Context(), func(b []byte) error {
				if len(b) < 8 || binary.BigEndian.Uint32(b[4:]) != i {
					return errors.New("out of order")
				}
				i++
				return nil
			})
			if err != nil {
				bad = asError(err)
				break
			}
		}
		wg.Wait()
		st.Finish(bad)
	}
}

// TestCallsBack: 250 callers at once, each call calls back, 20 deep. Every one ends, with a reply or with resource_exhausted
// that did not run.
func TestCallsBack(t *testing.T) {
	in(t, func(t *testing.T) {
		deep := func(st *session.Stream) {
			var depth byte
			if err := st.Receive(st.Context(), func(b []byte) error { depth = b[0]; return nil }); err != nil {
				st.Finish(asError(err))
				return
			}
			if depth > 0 {
				err := st.Session().Call(st.Context(), &session.CallSpec{Name: "DEEP", NoWait: true},
					func(b []byte) ([]byte, error) { return append(b, depth-1), nil }, func([]byte) error { return nil })
				if err != nil {
					e := new(session.Error)
					require.ErrorAs(t, err, &e)
					st.Finish(e)
					return
				}
			}
			_ = st.Reply(func(b []byte) ([]byte, error) { return append(b, depth), nil })
		}
		p := newPair(session.Config{Accept: deep}, session.Config{Accept: deep})
		defer p.close()
		var wg sync.WaitGroup
		var good, refused atomic.Int64
		for i := range 250 {
			wg.Go(func() {
				time.Sleep(time.Duration(i%5) * time.Millisecond)
				if _, err := call(t.Context(), p.a, "DEEP", []byte{20}); err != nil {
					requireError(t, err, wire.ResourceExhausted, wire.OutcomeNotRun)
					refused.Add(1)
				} else {
					good.Add(1)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		require.EqualValues(t, 250, good.Load()+refused.Load())
		require.Positive(t, good.Load())
		require.Zero(t, p.a.Stats().Serving+p.b.Stats().Serving)
		t.Logf("%d replies, %d refused", good.Load(), refused.Load())
	})
}

// TestRow24PartialWrites: the connection fails after every number of bytes that a call and its reply take. A call that is
// said not to have run has not; the session is not used again.
func TestRow24PartialWrites(t *testing.T) {
	for side := range 2 {
		for at := int64(1); at < 200; at++ {
			in(t, func(t *testing.T) {
				var ran atomic.Int64
				ca, cb := newPipe(0)
				var fa, fb memnet.Faults
				if side == 0 {
					fa.ResetAt = at
				} else {
					fb.ResetAt = at
				}
				log := new(logBook)
				a := session.New(memnet.NewFaultConn(ca, fa, 1), session.Config{Dialer: true, Logger: log.logger()})
				b := session.New(memnet.NewFaultConn(cb, fb, 2), session.Config{Logger: log.logger(), Accept: func(st *session.Stream) {
					ran.Add(1)
					echo(st)
				}})
				_, err := call(t.Context(), a, "ECHO", []byte("0123456789"))
				if err != nil {
					<-a.Done()
					_, again := call(t.Context(), a, "ECHO", nil)
					requireError(t, again, wire.Unavailable, wire.OutcomeNotRun)
				}
				a.Close()
				b.Close()
				var e *session.Error
				switch {
				case err == nil:
					require.EqualValues(t, 1, ran.Load())
				case errors.As(err, &e) && e.Outcome == wire.OutcomeNotRun:
					require.Zero(t, ran.Load(), "at %d", at)
				default:
					require.Equal(t, wire.OutcomeUnknown, e.Outcome)
				}
			})
		}
	}
}

// TestNotRunOverSockets: over a socket this side knows how many bytes left it: a call whose frame was not complete when the
// connection broke did not run.
func TestNotRunOverSockets(t *testing.T) {
	ca, cb := sockets(t)
	s := session.New(ca, session.Config{Dialer: true})
	defer s.Close()
	require.NoError(t, cb.(*net.TCPConn).SetReadBuffer(4<<10))
	var notRun, unknown atomic.Int64
	var wg sync.WaitGroup
	for range 90 {
		wg.Go(func() {
			_, err := call(t.Context(), s, "X", make([]byte, 60<<10))
			var e *session.Error
			if assert.ErrorAs(t, err, &e); e.Outcome == wire.OutcomeNotRun {
				notRun.Add(1)
			} else {
				unknown.Add(1)
			}
		})
	}
	// The peer reads nothing: what the system takes, and a little more, is all that leaves.
	for sent := uint64(0); ; {
		time.Sleep(50 * time.Millisecond)
		now := s.Stats().Sent
		if now > 0 && now == sent {
			break
		}
		sent = now
	}
	sent := s.Stats().Sent
	s.Abort(errors.New("enough"))
	wg.Wait()
	cb.Close()
	require.Positive(t, notRun.Load())
	require.LessOrEqual(t, unknown.Load(), int64(sent/(60<<10)+4)) // and the last buffer, which the GOAWAY may have followed
}

// sockets returns the ends of a connection over the loopback.
func sockets(tb testing.TB) (dialed, accepted net.Conn) {
	return socketsOf(tb, "tcp", "127.0.0.1:0")
}

func socketsOf(tb testing.TB, network, addr string) (dialed, accepted net.Conn) {
	tb.Helper()
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), network, addr)
	require.NoError(tb, err)
	defer l.Close()
	conns := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			conns <- c
		}
		close(conns)
	}()
	dialed, err = (&net.Dialer{}).DialContext(tb.Context(), network, l.Addr().String())
	require.NoError(tb, err)
	return dialed, <-conns
}
