package session_test

import (
	"math"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"gobnode/internal/memnet"
	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// rawPeer is the other end of a session, written by hand, which can send anything.
type rawPeer struct {
	t    testing.TB
	conn *memnet.Conn
	buf  []byte
	s    *session.Session // the session under test
	log  *logBook
	last map[uint64]*wire.Failure // last words that were read while waiting for others
}

// newRawPeer starts a session that listens and a peer that dialled it. The peer has sent its HELLO and read the session's.
func newRawPeer(t testing.TB, cfg session.Config) *rawPeer {
	p := dialRaw(t, cfg)
	p.send(wire.AppendHello(nil, &wire.Hello{Message: 4 << 20, Calls: 250, Credit: 256 << 10}))
	require.Equal(t, wire.KindHello, p.next().Kind)
	return p
}

// dialRaw is newRawPeer without the HELLOs.
func dialRaw(t testing.TB, cfg session.Config) *rawPeer {
	p := &rawPeer{t: t, log: new(logBook), last: make(map[uint64]*wire.Failure)}
	var c *memnet.Conn
	p.conn, c = memnet.Pipe()
	if cfg.Logger == nil {
		cfg.Logger = p.log.logger()
	}
	p.s = session.New(c, cfg)
	return p
}

func (p *rawPeer) close() {
	p.conn.Close()
	p.s.Close()
}

// send writes frames. An error is not one of the test: the session may have ended.
func (p *rawPeer) send(frames ...[]byte) {
	for _, f := range frames {
		if _, err := p.conn.Write(f); err != nil {
			return
		}
	}
}

// next returns the next frame, with a kind of 0 at the end of the connection. Its payload is its own.
func (p *rawPeer) next() wire.Frame {
	for {
		f, n, err := wire.Parse(p.buf)
		require.NoError(p.t, err)
		if n > 0 {
			f.Payload = append([]byte{}, f.Payload...)
			p.buf = p.buf[n:]
			return f
		}
		b := make([]byte, 64<<10)
		n, err = p.conn.Read(b)
		if n == 0 && err != nil {
			return wire.Frame{}
		}
		p.buf = append(p.buf, b[:n]...)
	}
}

// nextOf returns the next frame of a kind, skipping others; a kind of 0 if there is none before the end.
func (p *rawPeer) nextOf(k wire.Kind) wire.Frame {
	for {
		if f := p.next(); f.Kind == k || f.Kind == 0 {
			return f
		}
	}
}

// requireEnd requires that the session ends now, with a GOAWAY of this code, one line in the log that names the limit, and
// one more on its counter.
func (p *rawPeer) requireEnd(code wire.Code, limit session.Limit) {
	p.t.Helper()
	start := time.Now()
	f := p.nextOf(wire.KindGoAway)
	require.Equal(p.t, wire.KindGoAway, f.Kind, "no GOAWAY")
	g, err := wire.ParseGoAway(f.Payload)
	require.NoError(p.t, err)
	require.Equal(p.t, code, g.Code, "%s", g.Message)
	require.NotEmpty(p.t, g.Message)
	require.Zero(p.t, p.next().Kind, "something after the GOAWAY")
	<-p.s.Done()
	require.Less(p.t, time.Since(start), 2*time.Second)
	require.Error(p.t, p.s.Err())
	synctest.Wait()
	require.EqualValues(p.t, 1, p.s.Stats().Limits[limit], "counter of %v", limit)
	require.Equal(p.t, 1, p.log.count(limit), "log:\n%s", p.log)
}

// requireAlive requires that the session still answers.
func (p *rawPeer) requireAlive() {
	p.t.Helper()
	p.send(wire.AppendPing(nil, wire.KindPing, math.MaxUint64))
	for {
		f := p.next()
		require.NotZero(p.t, f.Kind, "session ended: %v", p.s.Err())
		if v, err := wire.ParsePing(f.Payload); f.Kind == wire.KindPong && err == nil && v == math.MaxUint64 {
			return
		}
	}
}

// lastWord reads until the last word of a stream that the peer opened: nil for END.
func (p *rawPeer) lastWord(id uint64) *wire.Failure {
	p.t.Helper()
	for {
		if e, ok := p.last[id]; ok {
			delete(p.last, id)
			return e
		}
		f := p.next()
		switch f.Kind {
		case wire.KindData:
			got, _, err := wire.ParseData(f.Payload)
			require.NoError(p.t, err)
			if f.Flags&wire.FlagEnd != 0 {
				p.last[got] = nil
			}
		case wire.KindError:
			e, err := wire.ParseError(f.Payload)
			require.NoError(p.t, err)
			p.last[e.Stream] = &e
		case 0:
			require.Fail(p.t, "session ended before the last word", "stream %d: %v", id, p.s.Err())
		default:
		}
	}
}

// requireRefused requires that the call id is refused without having run.
func (p *rawPeer) requireRefused(id uint64, code wire.Code) {
	p.t.Helper()
	e := p.lastWord(id)
	require.NotNil(p.t, e, "it ran")
	require.Equal(p.t, code, e.Code, "%s", e.Message)
	require.Equal(p.t, wire.OutcomeNotRun, e.Outcome)
}

// unary is the CALL of a call with one message in one frame.
func unary(id uint64, name, msg string) []byte {
	return wire.AppendCall(nil, wire.FlagEOM|wire.FlagEnd, &wire.Call{Stream: id, Kind: wire.CallUnary, Name: []byte(name), Data: []byte(msg)})
}

// streamCall is the CALL of a stream of messages, with nothing in it.
func streamCall(id uint64, name string) []byte {
	return wire.AppendCall(nil, 0, &wire.Call{Stream: id, Kind: wire.CallStream, Name: []byte(name)})
}

var _ net.Conn = (*memnet.Conn)(nil)
