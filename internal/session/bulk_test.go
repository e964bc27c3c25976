package session_test

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
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

// credits reads what there is to read and returns the credit in it for a stream.
func (p *rawPeer) credits(stream uint64) (n int64) {
	p.t.Helper()
	time.Sleep(time.Second) // a PING a second is allowed
	p.send(wire.AppendPing(nil, wire.KindPing, 1))
	for f := p.next(); f.Kind != wire.KindPong; f = p.next() {
		require.NotZero(p.t, f.Kind, "session ended: %v", p.s.Err())
		if id, c, err := wire.ParseCredit(f.Payload); f.Kind == wire.KindCredit && err == nil && id == stream {
			n += int64(c)
		}
	}
	return n
}

// TestWindowGrowsWithWhatIsTaken: the window of a stream that is alone becomes eight times what it was, but never for what nobody takes,
// beside another stream, or when half of the budget is taken.
func TestWindowGrowsWithWhatIsTaken(t *testing.T) {
	const window = 64 << 10
	for name, c := range map[string]struct {
		unread, beside, calls, full bool
		most                        int64
	}{
		"alone":          {most: 8 * window},
		"unread":         {unread: true, most: window},
		"beside another": {beside: true, most: window},
		"beside calls":   {calls: true, most: window},
		"budget in use":  {full: true, most: window},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				around := session.NewBudget(1<<20, nil)
				if c.full {
					require.True(t, around.Take(513<<10))
				}
				p := newRawPeer(t, session.Config{Credit: window, Budget: session.NewBudget(2<<20, around), Accept: func(st *session.Stream) {
					if st.Kind() == wire.CallUnary {
						return
					}
					if c.unread || st.Name() == "OTHER" {
						<-st.Context().Done()
					}
					for st.Receive(st.Context(), func([]byte) error { return nil }) == nil {
					}
					st.Finish(nil)
				}})
				defer p.close()
				p.send(wire.AppendCall(nil, 0, &wire.Call{Stream: 1, Kind: wire.CallStream, Name: []byte("TAKE")}))
				if c.beside {
					p.send(wire.AppendCall(nil, 0, &wire.Call{Stream: 3, Kind: wire.CallStream, Name: []byte("OTHER")}))
				}
				message := make([]byte, 16<<10)
				credit, most := int64(window), int64(0)
				for i := range 100 {
					if c.calls && i%3 == 0 {
						p.send(unary(uint64(2*i+3), "SMALL", ""))
					}
					if credit >= int64(len(message)) {
						credit -= int64(len(message))
						p.send(wire.AppendData(nil, wire.FlagEOM, 1, message))
					}
					synctest.Wait()
					credit += p.credits(1)
					most = max(most, credit)
				}
				require.Equal(t, c.most, max(most, window))
			})
		})
	}
}

// TestWindowShrinksBesideAnother: what was granted to a stream that was alone is not granted again once another one is there.
func TestWindowShrinksBesideAnother(t *testing.T) {
	const window = 64 << 10
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Credit: window, Accept: func(st *session.Stream) {
			for st.Receive(st.Context(), func([]byte) error { return nil }) == nil {
			}
			st.Finish(nil)
		}})
		defer p.close()
		p.send(wire.AppendCall(nil, 0, &wire.Call{Stream: 1, Kind: wire.CallStream, Name: []byte("TAKE")}))
		message := make([]byte, 32<<10)
		credit := int64(window)
		push := func(n int) {
			for range n {
				require.GreaterOrEqual(t, credit, int64(len(message)))
				credit -= int64(len(message))
				p.send(wire.AppendData(nil, wire.FlagEOM, 1, message))
				synctest.Wait()
				credit += p.credits(1)
			}
		}
		push(64)
		require.Equal(t, int64(8*window), credit)
		p.send(wire.AppendCall(nil, 0, &wire.Call{Stream: 3, Kind: wire.CallStream, Name: []byte("OTHER")}))
		push(64)
		require.LessOrEqual(t, credit, int64(window))
	})
}

// pourer is a peer over a socket, written by hand, to which a session sends one stream of messages.
type pourer struct {
	conn    net.Conn
	buf     []byte
	message []byte
}

// newPourer starts a session that has been told of a lot of credit.
func newPourer(t *testing.T, cfg session.Config) (*session.Session, *pourer) {
	ca, cb := sockets(t)
	require.NoError(t, cb.(*net.TCPConn).SetReadBuffer(64<<10))
	cfg.Dialer = true
	s := session.New(ca, cfg)
	_, err := cb.Write(wire.AppendHello(nil, &wire.Hello{Message: 4 << 20, Calls: 250, Credit: 1 << 30}))
	require.NoError(t, err)
	<-s.Ready()
	return s, &pourer{conn: cb}
}

// read reads at most n bytes, and returns a message when it is whole.
func (p *pourer) read(n int) ([]byte, error) {
	b := make([]byte, n)
	n, err := p.conn.Read(b)
	if err != nil {
		return nil, err
	}
	p.buf = append(p.buf, b[:n]...)
	for {
		f, n, err := wire.Parse(p.buf)
		if err != nil || n == 0 {
			return nil, err
		}
		p.buf = p.buf[n:]
		if f.Kind != wire.KindData {
			continue
		}
		_, data, err := wire.ParseData(f.Payload)
		if err != nil {
			return nil, err
		}
		p.message = append(p.message, data...)
		if f.Flags&wire.FlagEOM != 0 {
			whole := p.message
			p.message = nil
			return whole, nil
		}
	}
}

// numberedMessage is n bytes that say where they are.
func numberedMessage(dst []byte, message uint32, n int) []byte {
	for i := range n / 8 {
		dst = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, message), uint32(i))
	}
	return dst
}

// TestLongWritesArriveWhole: a peer that takes all it can, then a few bytes at a time, then nothing for a while, then all again gets every
// byte in its place; and what the long writes take from the budget is back when they are over.
func TestLongWritesArriveWhole(t *testing.T) {
	const messages, size = 24, 600_000
	budget := session.NewBudget(8<<20, nil)
	s, p := newPourer(t, session.Config{Budget: budget})
	defer s.Close()
	defer p.conn.Close()
	var most int64
	var wg sync.WaitGroup
	wg.Go(func() {
		st, err := s.Open(t.Context(), &session.CallSpec{Name: "POUR", Kind: wire.CallStream})
		if !assert.NoError(t, err) {
			return
		}
		for i := range messages {
			err := st.SendBy(t.Context(), func(b []byte) ([]byte, error) { return numberedMessage(b, uint32(i), size), nil })
			if !assert.NoError(t, err) {
				break
			}
			most = max(most, budget.Used())
		}
	})
	read := 0
	for i := uint32(0); i < messages; {
		n := 256 << 10
		if i == 8 && read < 200 {
			n, read = 300, read+1 // some of it a few bytes at a time
		}
		if i == 12 && read == 200 {
			time.Sleep(100 * time.Millisecond)
			read++
		}
		m, err := p.read(n)
		require.NoError(t, err)
		if m != nil {
			require.Equal(t, numberedMessage(nil, i, size), m)
			i++
		}
	}
	wg.Wait()
	require.LessOrEqual(t, most, int64(512<<10))
	require.Eventually(t, func() bool { return budget.Used() == 0 }, 10*time.Second, time.Millisecond)
}

// TestLongWritesAreCharged: while a connection takes long writes the budget knows of their buffers; if half of it is taken there are none.
func TestLongWritesAreCharged(t *testing.T) {
	for _, half := range []bool{false, true} {
		budget := session.NewBudget(8<<20, nil)
		taken := int64(0)
		if half {
			taken = 4<<20 + 1
			require.True(t, budget.Take(taken))
		}
		s, p := newPourer(t, session.Config{Budget: budget})
		stop, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(io.Discard, p.conn) })
		wg.Go(func() {
			defer p.conn.Close()
			st, err := s.Open(stop, &session.CallSpec{Name: "POUR", Kind: wire.CallStream})
			for err == nil {
				err = st.Send(stop, make([]byte, 1<<20))
			}
		})
		if half {
			for range 200 {
				time.Sleep(time.Millisecond)
				require.Equal(t, taken, budget.Used())
			}
		} else {
			require.Eventually(t, func() bool { return budget.Used() == 512<<10 }, 10*time.Second, 10*time.Microsecond)
		}
		cancel()
		wg.Wait()
		s.Close()
		require.Equal(t, taken, budget.Used())
	}
}

// TestLongWritesKeepTheirTime: a peer that takes everything and then nothing is given up as any other.
func TestLongWritesKeepTheirTime(t *testing.T) {
	log := new(logBook)
	s, p := newPourer(t, session.Config{Progress: 100 * time.Millisecond, Logger: log.logger()})
	defer s.Close()
	defer p.conn.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		st, err := s.Open(t.Context(), &session.CallSpec{Name: "POUR", Kind: wire.CallStream})
		for err == nil {
			err = st.Send(t.Context(), make([]byte, 1<<20))
		}
	})
	for messages := 0; messages < 20; {
		m, err := p.read(1 << 20)
		require.NoError(t, err)
		if m != nil {
			messages++
		}
	}
	<-s.Done()
	wg.Wait()
	require.EqualValues(t, 1, s.Stats().Limits[session.LimitWrite], "log:\n%s", log)
}

// TestDamagedBulk: one wrong bit in the middle of a long transfer ends the session, and the message it was in is never seen.
func TestDamagedBulk(t *testing.T) {
	ca, cb := sockets(t)
	taken := make(chan int, 64)
	s := session.New(cb, session.Config{Logger: new(logBook).logger(), Accept: func(st *session.Stream) {
		defer close(taken)
		for st.Receive(st.Context(), func(b []byte) error { taken <- len(b); return nil }) == nil {
		}
		st.Finish(nil)
	}})
	defer s.Close()
	defer ca.Close()
	b := wire.AppendHello(nil, &wire.Hello{Credit: 1 << 20})
	b = wire.AppendCall(b, 0, &wire.Call{Stream: 1, Kind: wire.CallStream, Name: []byte("X")})
	for range 3 {
		b = wire.AppendData(b, wire.FlagEOM, 1, make([]byte, 60<<10))
	}
	b[len(b)-1000] ^= 4
	_, err := ca.Write(b)
	require.NoError(t, err)
	n := 0
	for l := range taken {
		require.Equal(t, 60<<10, l)
		n++
	}
	<-s.Done()
	require.Equal(t, 2, n)
	require.EqualValues(t, 1, s.Stats().Limits[session.LimitProtocol])
}

// TestWindowNeverOverCredit: a window does not grow beyond the credit that there can be, for which the peer would end the session.
func TestWindowNeverOverCredit(t *testing.T) {
	require.EqualValues(t, math.MaxInt32, session.Widened(1<<29, 1<<40))
	require.EqualValues(t, math.MaxInt32, session.Widened(math.MaxInt32, math.MaxInt64))
	require.EqualValues(t, 2<<20, session.Widened(256<<10, 1<<40))
}

// TestSpeedRefusesNoCall: what is taken from the budget for long writes and reads leaves half of it to calls.
func TestSpeedRefusesNoCall(t *testing.T) {
	for _, limit := range []int64{768 << 10, 2 << 20} {
		budget := session.NewBudget(limit, nil)
		ca, cb := sockets(t)
		var most atomic.Int64
		look := func() { most.Store(max(most.Load(), budget.Used())) }
		a := session.New(ca, session.Config{Dialer: true})
		b := session.New(cb, session.Config{Budget: session.NewBudget(limit, budget), Accept: func(st *session.Stream) {
			st.Finish(asError(pour(st, 256<<10, look)))
		}})
		st, err := a.Open(t.Context(), &session.CallSpec{Name: "POUR", Kind: wire.CallStream})
		require.NoError(t, err)
		for range 200 {
			require.NoError(t, st.Receive(t.Context(), func([]byte) error { return nil }))
		}
		st.Cancel()
		a.Close()
		b.Close()
		require.LessOrEqual(t, most.Load(), limit/2+16<<10)
		require.Zero(t, budget.Used())
	}
}

// pour sends messages of n bytes until it cannot, and calls look between them.
func pour(st *session.Stream, n int, look func()) error {
	for {
		if err := st.Send(st.Context(), make([]byte, n)); err != nil {
			return err
		}
		look()
	}
}

// TestLongReadsAreCharged: the buffers for long reads are in the budget while they are filled, and out of it when there is nothing to read.
func TestLongReadsAreCharged(t *testing.T) {
	budget := session.NewBudget(8<<20, nil)
	ca, cb := sockets(t)
	a := session.New(ca, session.Config{Dialer: true, Budget: budget})
	defer a.Close()
	b := session.New(cb, session.Config{Accept: func(st *session.Stream) { st.Finish(asError(pour(st, 32<<10, func() {}))) }})
	defer b.Close()
	st, err := a.Open(t.Context(), &session.CallSpec{Name: "POUR", Kind: wire.CallStream})
	require.NoError(t, err)
	require.Eventually(t, func() bool { // what arrives on a stream that was opened here is not charged
		assert.NoError(t, st.Receive(t.Context(), func([]byte) error { return nil }))
		used := budget.Used()
		assert.Contains(t, []int64{0, 512 << 10}, used)
		return used > 0
	}, 10*time.Second, 10*time.Microsecond)
	st.Cancel()
	require.Eventually(t, func() bool { return budget.Used() == 0 }, 10*time.Second, time.Millisecond)
}
