package endpoint_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"
	"gobnode/internal/session"
	"gobnode/internal/wire"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A foe is a peer of a session that sends whatever frames a test wants and reads
// what the test wants.
type foe struct {
	t    *testing.T
	conn halfConn
	buf  []byte
}

// A halfConn is a connection of which one half can be closed.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// foeOf enters session mode at n and greets.
func foeOf(t *testing.T, n *node) *foe {
	t.Helper()
	conn, err := n.mem.Dial(t.Context())
	require.NoError(t, err)
	f := &foe{t: t, conn: conn.(halfConn)}
	t.Cleanup(func() { _ = f.conn.Close() })
	f.send([]byte("SESSION 1\n"), foeHello())
	ok := make([]byte, len("OK\n"))
	_, err = io.ReadFull(f.conn, ok)
	require.NoError(t, err)
	require.Equal(t, "OK\n", string(ok))
	require.Equal(t, wire.KindHello, f.next().Kind)
	return f
}

// dialFoe returns a Client whose peer is a foe that has greeted.
func dialFoe(t *testing.T, d endpoint.Dialer) (*endpoint.Client, *foe) {
	t.Helper()
	near, far := memnet.Pipe()
	return dialFoeOver(t, d, near, far)
}

// dialFoeOver is dialFoe over any connection.
func dialFoeOver(t *testing.T, d endpoint.Dialer, near net.Conn, far halfConn) (*endpoint.Client, *foe) {
	t.Helper()
	f := &foe{t: t, conn: far}
	t.Cleanup(func() { _ = far.Close() })
	f.send([]byte("OK\n"), foeHello())
	d.NetDial = func(context.Context, string, string) (net.Conn, error) { return near, nil }
	c, err := d.Dial(t.Context(), "foe")
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	line := make([]byte, len("SESSION 1\n"))
	_, err = io.ReadFull(far, line)
	require.NoError(t, err)
	require.Equal(t, wire.KindHello, f.next().Kind)
	return c, f
}

func foeHello() []byte {
	return wire.AppendHello(nil, &wire.Hello{Message: 4 << 20, Calls: 250, Credit: 256 << 10})
}

// send writes frames. That the other side has ended is no error of the test.
func (f *foe) send(frames ...[]byte) {
	for _, b := range frames {
		if _, err := f.conn.Write(b); err != nil {
			return
		}
	}
}

// next returns the next frame, of kind 0 at the end of the connection.
func (f *foe) next() wire.Frame {
	for {
		fr, n, err := wire.Parse(f.buf)
		require.NoError(f.t, err)
		if n > 0 {
			fr.Payload = append([]byte{}, fr.Payload...)
			f.buf = f.buf[n:]
			return fr
		}
		b := make([]byte, 64<<10)
		if n, err = f.conn.Read(b); n == 0 && err != nil {
			return wire.Frame{}
		}
		f.buf = append(f.buf, b[:n]...)
	}
}

// lastWord reads until the last word of a stream: nil for END.
func (f *foe) lastWord(id uint64) *wire.Failure {
	f.t.Helper()
	for {
		switch fr := f.next(); fr.Kind {
		case wire.KindData:
			if got, _, err := wire.ParseData(fr.Payload); err == nil && got == id && fr.Flags&wire.FlagEnd != 0 {
				return nil
			}
		case wire.KindError:
			if e, err := wire.ParseError(fr.Payload); err == nil && e.Stream == id {
				return &e
			}
		case 0:
			require.Fail(f.t, "the session ended before the last word")
		default:
		}
	}
}

// goAway reads up to the GOAWAY and requires the end behind it.
func (f *foe) goAway() wire.GoAway {
	f.t.Helper()
	for {
		fr := f.next()
		require.NotZero(f.t, fr.Kind, "no GOAWAY")
		if fr.Kind == wire.KindGoAway {
			g, err := wire.ParseGoAway(fr.Payload)
			require.NoError(f.t, err)
			require.Zero(f.t, f.next().Kind, "something behind the GOAWAY")
			return g
		}
	}
}

// drain reads all that comes, answering PINGs, until the end.
func (f *foe) drain() {
	for fr := f.next(); fr.Kind != 0; fr = f.next() {
		if fr.Kind == wire.KindPing {
			f.send(wire.AppendFrame(nil, wire.KindPong, 0, fr.Payload))
		}
	}
}

// call is a CALL with all of its data.
func foeCall(id uint64, kind endpoint.Kind, name, data string) []byte {
	flags := wire.Flags(0)
	if kind == endpoint.KindUnary {
		flags = wire.FlagEOM | wire.FlagEnd
	}
	return wire.AppendCall(nil, flags, &wire.Call{Stream: id, Kind: uint8(kind), Name: []byte(name), Data: []byte(data)})
}

// rawSession is a session with n whose messages are whatever bytes a test
// wants, and which is well-behaved otherwise.
func rawSession(t *testing.T, n *node) *session.Session {
	t.Helper()
	var conn net.Conn
	var err error
	if n.mem != nil {
		conn, err = n.mem.Dial(t.Context())
	} else {
		conn, err = net.Dial(n.net.Addr().Network(), n.net.Addr().String())
	}
	require.NoError(t, err)
	s := session.New(conn, session.Config{Dialer: true, Preface: "SESSION 1\n", Greeting: "OK\n", Logger: n.logger()})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// rawCall makes a unary call with any bytes as its message.
func rawCall(ctx context.Context, s *session.Session, name, data string) (reply []byte, err error) {
	err = s.Call(ctx, &session.CallSpec{Name: name},
		func(b []byte) ([]byte, error) { return append(b, data...), nil },
		func(b []byte) error { reply = append(reply, b...); return nil })
	return reply, err
}

// A witness is a well-behaved caller on a session of its own. It calls
// throughout, and nothing that happens beside it may fail a call of its or, with
// time that stands still, make one take any.
type witness struct {
	stop  func() // once or more
	wg    sync.WaitGroup
	calls int
}

const witnessed endpoint.Command[text, text] = "WITNESS"

func (w *witness) register(e *endpoint.Endpoint) {
	witnessed.Handle(e, func(_ context.Context, req text) (text, error) { return req, nil })
}

// start begins 100 calls a second, each of which is to be done within most.
func (w *witness) start(t *testing.T, n *node, most time.Duration) {
	c := dialNode(t, n, nil)
	stopped := make(chan struct{})
	w.stop = sync.OnceFunc(func() { close(stopped) })
	t.Cleanup(func() { // of a test that failed
		w.stop()
		w.wg.Wait()
	})
	w.wg.Go(func() {
		for {
			select {
			case <-stopped:
				return
			case <-time.After(10 * time.Millisecond):
			}
			begin := time.Now()
			got, err := witnessed.Call(t.Context(), c, text{"alive"})
			assert.NoError(t, err)
			assert.Equal(t, "alive", got.S)
			assert.LessOrEqual(t, time.Since(begin), most)
			w.calls++
		}
	})
}

// end requires that it made calls.
func (w *witness) end(t *testing.T) {
	w.stop()
	w.wg.Wait()
	assert.Positive(t, w.calls)
}
