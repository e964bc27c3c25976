package session_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// A handPeer is a peer on a socket, written by hand, that sends frames in pieces of any size.
type handPeer struct {
	t    testing.TB
	conn net.Conn
	s    *session.Session
	gone chan struct{}
}

// skipWithoutRaw is for tests of frames that land, which they do where sockets are read without blocking.
func skipWithoutRaw(t testing.TB) {
	if !rawSockets {
		t.Skip("sockets are read like other connections here")
	}
}

// newHandPeer starts a session that serves streams with serve. The peer reads nothing that it is sent.
func newHandPeer(t testing.TB, cfg session.Config) *handPeer {
	skipWithoutRaw(t)
	c, served := sockets(t)
	p := &handPeer{t: t, conn: c, gone: make(chan struct{})}
	cfg.Logger = new(logBook).logger()
	p.s = session.New(served, cfg)
	go func() {
		defer close(p.gone)
		b := make([]byte, 64<<10)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	}()
	p.send(wire.AppendHello(nil, &wire.Hello{Message: 4 << 20, Calls: 250, Credit: 256 << 10}))
	return p
}

func (p *handPeer) send(b []byte) { _, _ = p.conn.Write(b) }

func (p *handPeer) close() {
	_ = p.conn.Close()
	<-p.gone
	_ = p.s.Close()
}

// message is message i of stream id.
func message(id uint64, i, n int) []byte {
	b := make([]byte, n)
	fill(b, int(id)*7919+i*104729)
	return b
}

// parts are the frames of one message, most of them as long as they can be.
func parts(r *rand.Rand, id uint64, msg []byte) (frames [][]byte) {
	for {
		n := min(len(msg), wire.MaxData)
		if r.IntN(4) == 0 {
			n = min(n, 1+r.IntN(wire.MaxData))
		}
		if n == len(msg) {
			return append(frames, wire.AppendData(nil, wire.FlagEOM, id, msg))
		}
		frames = append(frames, wire.AppendData(nil, 0, id, msg[:n]))
		msg = msg[n:]
	}
}

// shuffle is frames of streams in any order between the streams, as one row of bytes.
func shuffle(r *rand.Rand, streams [][][]byte) (all []byte) {
	for len(streams) > 0 {
		i := r.IntN(len(streams))
		for n := 1 + r.IntN(4); n > 0 && len(streams[i]) > 0; n-- {
			all = append(all, streams[i][0]...)
			streams[i] = streams[i][1:]
		}
		if len(streams[i]) == 0 {
			streams = append(streams[:i], streams[i+1:]...)
		}
	}
	return all
}

// TestFramesLand: large messages of several streams, cut into frames and writes in any way, arrive as they were sent, beside others that
// their handlers stop in the middle. Nothing is charged in the end, and all buffers come back.
func TestFramesLand(t *testing.T) {
	r := newRand(t)
	var landed uint64
	for range count(40, 10) {
		landed += landOnce(t, r)
	}
	require.NotZero(t, landed, "nothing was read to its place")
}

func landOnce(t *testing.T, r *rand.Rand) uint64 {
	const each = 8 // messages of a stream
	seed := r.Uint64()
	sizes := func(id uint64) (n [each]int) {
		r := randOf(seed + id)
		for i := range n {
			n[i] = []int{r.IntN(1000), 65527 + r.IntN(3), r.IntN(300_000), 1 << 20}[r.IntN(4)]
		}
		return n
	}
	var whole atomic.Int64
	var wg sync.WaitGroup
	budget := session.NewBudget(256<<20, nil)
	streams := 1 + r.IntN(5)
	wg.Add(streams)
	p := newHandPeer(t, session.Config{Credit: 16 << 20, Budget: budget, Accept: func(st *session.Stream) {
		defer wg.Done()
		id := st.Number()
		n := sizes(id)
		if st.Name() == "STOP" { // inside a message, mostly
			time.Sleep(time.Duration(seed+id) % 10 * time.Millisecond)
			if id%4 == 1 {
				st.Stop()
			}
			st.Finish(nil)
			return
		}
		for i := range n {
			err := st.Receive(context.Background(), func(b []byte) error {
				if string(b) != string(message(id, i, n[i])) {
					return errors.New("other bytes than were sent")
				}
				return nil
			})
			if !assert.NoError(t, err, "message %d of stream %d, %d bytes", i, id, n[i]) {
				break
			}
			whole.Add(1)
		}
		st.Finish(nil)
	}})
	defer p.close()
	var frames [][][]byte
	stopped := 0
	for i := range streams {
		id := uint64(2*i + 1)
		name := "TAKE"
		if r.IntN(3) == 0 {
			name = "STOP"
			stopped++
		}
		of := [][]byte{streamCall(id, name)}
		for j, n := range sizes(id) {
			of = append(of, parts(r, id, message(id, j, n))...)
		}
		p.send(of[0])
		frames = append(frames, of[1:])
	}
	all := shuffle(r, frames)
	for len(all) > 0 {
		n := min(len(all), []int{1 + r.IntN(100), 1 + r.IntN(100_000), 1 << 20}[r.IntN(3)])
		p.send(all[:n])
		all = all[n:]
		if r.IntN(8) == 0 {
			time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
		}
	}
	wg.Wait()
	require.EqualValues(t, (streams-stopped)*each, whole.Load())
	require.Eventually(t, func() bool { return budget.Used() <= 2*512<<10 }, 5*time.Second, time.Millisecond)
	landed := p.s.Stats().Landed
	p.close()
	require.Zero(t, budget.Used())
	return landed
}

// halfLanded opens a stream and sends a message's first frame and half of the second, which is returned, and waits until that is on its
// way to its place.
func halfLanded(p *handPeer, id uint64) (rest []byte) {
	p.t.Helper()
	msg := message(id, 0, 2*wire.MaxData)
	p.send(streamCall(id, "TAKE"))
	p.send(wire.AppendData(nil, 0, id, msg[:wire.MaxData]))
	second := wire.AppendData(nil, wire.FlagEOM, id, msg[wire.MaxData:])
	p.send(second[:30_000])
	require.Eventually(p.t, func() bool { return p.s.Landing() }, 5*time.Second, time.Millisecond)
	return second[30_000:]
}

// TestLandingChecked: a frame that is read to its place is checked like any other before anybody sees it.
func TestLandingChecked(t *testing.T) {
	got := make(chan error, 1)
	p := newHandPeer(t, session.Config{Accept: func(st *session.Stream) {
		got <- st.Receive(context.Background(), func([]byte) error { return nil })
		st.Finish(nil)
	}})
	defer p.close()
	rest := halfLanded(p, 1)
	rest[10_000] ^= 1
	p.send(rest)
	require.Error(t, <-got)
	<-p.s.Done()
	require.ErrorContains(t, p.s.Err(), wire.ErrCRC.Error())
	require.Zero(t, p.s.Stats().Landed)
}

// TestLandingStandsStill: a frame on its way to its place has to become whole in time like any other.
func TestLandingStandsStill(t *testing.T) {
	p := newHandPeer(t, session.Config{Progress: 200 * time.Millisecond, Accept: func(st *session.Stream) {
		_ = st.Receive(context.Background(), func([]byte) error { return nil })
		st.Finish(nil)
	}})
	defer p.close()
	halfLanded(p, 1)
	select {
	case <-p.s.Done():
	case <-time.After(5 * time.Second):
		require.Fail(t, "it may stand still for ever")
	}
	limits := p.s.Stats().Limits // the frame's time and that of its message are over at once
	require.Positive(t, limits[session.LimitFrame]+limits[session.LimitProgress])
}

// TestLandingGivenUp: what a stream holds may be dropped while more is read into it. What is read then is nobody's, and never another's
// who has got the memory meanwhile.
func TestLandingGivenUp(t *testing.T) {
	for name, give := range map[string]func(p *handPeer, st *session.Stream){
		"stopped":  func(_ *handPeer, st *session.Stream) { st.Stop() },
		"finished": func(_ *handPeer, st *session.Stream) { st.Finish(nil) },
		"ended":    func(p *handPeer, _ *session.Stream) { p.s.Abort(session.ErrClosed) },
		"hung up":  func(p *handPeer, _ *session.Stream) { _ = p.conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			served := make(chan *session.Stream)
			finish := make(chan struct{})
			budget := session.NewBudget(64<<20, nil)
			p := newHandPeer(t, session.Config{Budget: budget, Accept: func(st *session.Stream) {
				served <- st
				<-finish
				st.Finish(nil)
			}})
			defer p.close()
			defer close(finish)
			rest := make(chan []byte, 1)
			go func() { rest <- halfLanded(p, 1) }()
			st := <-served
			second := <-rest
			give(p, st)
			if name == "finished" {
				require.Eventually(t, func() bool { return budget.Used() == 128<<10 }, 5*time.Second, time.Millisecond, "the reader's chunk alone")
			}
			held := session.TakeBuffers(128<<10, 64) // what was dropped would be among them
			p.send(second)
			if name == "stopped" || name == "finished" {
				require.Eventually(t, func() bool { return p.s.Stats().Landed == 1 }, 5*time.Second, time.Millisecond)
			} else {
				<-p.s.Done()
			}
			require.True(t, held(), "memory of somebody else was written to")
			if name == "finished" {
				require.Eventually(t, func() bool { return budget.Used() == 0 }, 5*time.Second, time.Millisecond)
			}
		})
	}
}
