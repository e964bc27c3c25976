package memnet_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/memnet"
)

// modelEnd is one end as TCP's rules have it: what it has received and not read, and what
// it knows of FIN and RST. It has no time and no concurrency: of a call that
// would block it says so.
type modelEnd struct {
	peer     *modelEnd
	received []byte
	window   int // what received may hold
	fin, rst bool
	told     bool // of the RST
	sentFin  bool
	closed   bool
}

var errBlocks = errors.New("would block")

func (m *modelEnd) read(n int) ([]byte, error) {
	n = min(n, len(m.received))
	switch {
	case m.closed:
		return nil, net.ErrClosed
	case n > 0:
		p := slices.Clone(m.received[:n])
		m.received = m.received[n:]
		return p, nil
	case m.rst && !m.told:
		m.told = true
		return nil, syscall.ECONNRESET
	case m.rst || m.fin:
		return nil, io.EOF
	}
	return nil, errBlocks
}

func (m *modelEnd) write(p []byte) (int, error) {
	switch {
	case m.closed:
		return 0, net.ErrClosed
	case m.rst && !m.told:
		m.told = true
		return 0, syscall.ECONNRESET
	case m.rst || m.sentFin:
		return 0, syscall.EPIPE
	}
	n := min(len(p), max(0, m.peer.window-len(m.peer.received)))
	var err error
	if n < len(p) {
		err = errBlocks
	}
	if m.peer.closed && n > 0 { // the answer is an RST, after the FIN that came before
		m.rst, m.told = true, true
		if n < len(p) {
			err = syscall.EPIPE
		}
		return n, err
	}
	m.peer.received = append(m.peer.received, p[:n]...)
	return n, err
}

func (m *modelEnd) closeWrite() error {
	switch {
	case m.closed:
		return net.ErrClosed
	case m.rst:
		return syscall.ENOTCONN
	}
	m.sentFin, m.peer.fin = true, true
	return nil
}

func (m *modelEnd) close(reset bool) error {
	if m.closed {
		return net.ErrClosed
	}
	if reset {
		m.peer.received = nil
	}
	if (reset || len(m.received) > 0) && !m.peer.rst {
		m.peer.rst, m.peer.told = true, m.peer.fin
	}
	m.closed, m.received = true, nil
	m.sentFin, m.peer.fin = true, true
	return nil
}

// TestAgainstModel runs random calls on both ends of many connections, one call at a
// time, and compares each with the model: bytes, count, error and fake time taken.
// A call that the model says would block has to end at exactly its deadline.
func TestAgainstModel(t *testing.T) {
	rnd := seeded(t)
	ended := make(map[string]int) // how often each kind of outcome was seen
	for range 500 {
		synctest.Test(t, func(t *testing.T) {
			c, s := connect(t)
			m, w := new(modelEnd), new(modelEnd)
			m.peer, w.peer = w, m
			m.window, w.window = memnet.DefaultBuffer, memnet.DefaultBuffer
			for i := range 100 {
				conn, model := c, m
				if rnd.IntN(2) == 0 {
					conn, model = s, w
				}
				step(t, rnd, conn, model, ended)
				if t.Failed() {
					t.Fatalf("step %d", i)
				}
			}
		})
	}
	t.Log(ended)
	for _, want := range []string{
		"read: EOF", "read: would block", "read: connection reset by peer", "read: use of closed network connection",
		"write: would block", "write: connection reset by peer", "write: broken pipe", "write: use of closed network connection",
		"read: <nil>", "write: <nil>",
	} {
		assert.Positive(t, ended[want], "%q was never reached", want)
	}
}

// step makes one random call on conn and on the model.
func step(t *testing.T, rnd *rand.Rand, conn *memnet.Conn, m *modelEnd, ended map[string]int) {
	var op string
	var got, want error
	start, limit := time.Now(), time.Duration(rnd.IntN(3)*rnd.IntN(1e9))
	_ = conn.SetDeadline(start.Add(limit + 1))
	switch k := rnd.IntN(100); {
	case k < 45:
		op = "write"
		p := randomBytes(rnd, 1+rnd.IntN(40))
		var n, wantN int
		n, got = conn.Write(p)
		wantN, want = m.write(p)
		assert.Equal(t, wantN, n, "written")
	case k < 90:
		op = "read"
		p := make([]byte, 1+rnd.IntN(40))
		var n int
		var wantP []byte
		n, got = conn.Read(p)
		wantP, want = m.read(len(p))
		assert.True(t, bytes.Equal(wantP, p[:n]), "read % x, not % x", p[:n], wantP)
	case k < 95:
		op = "SetBuffer"
		m.peer.window = 1 + rnd.IntN(60)
		conn.SetBuffer(m.peer.window)
	case k < 97:
		op = "CloseWrite"
		got, want = conn.CloseWrite(), m.closeWrite()
	case k < 99:
		op = "Close"
		got, want = conn.Close(), m.close(false)
	default:
		op = "Reset"
		conn.Reset()
		_ = m.close(true)
	}
	ended[fmt.Sprintf("%s: %v", op, want)]++
	took := time.Duration(0)
	if want == errBlocks { //nolint:errorlint // the model's own
		want, took = os.ErrDeadlineExceeded, limit+1
	}
	assert.ErrorIs(t, got, want, op)
	assert.Equal(t, took, time.Since(start), op)
}

func randomBytes(rnd *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rnd.Uint32())
	}
	return p
}

// TestConcurrentStreams sends random bytes both ways at once over random buffers,
// in random pieces, with pauses and deadlines that pass under way. They arrive
// whole and in order, and no deadline passes early or late.
func TestConcurrentStreams(t *testing.T) {
	rnd := seeded(t)
	timeouts := 0
	for range 30 {
		synctest.Test(t, func(t *testing.T) {
			a, b := connect(t)
			var ends []<-chan result
			for _, dir := range [][2]*memnet.Conn{{a, b}, {b, a}} {
				buffer := 1 + rnd.IntN(1<<rnd.IntN(17))
				dir[0].SetBuffer(buffer)
				data := randomBytes(rnd, rnd.IntN(min(200_000, 100*buffer)))
				x := transfer{data: data, seed: rnd.Uint64()}
				ends = append(ends, x.send(dir[0]), x.receive(dir[1]))
			}
			for _, end := range ends {
				r := <-end
				require.NoError(t, r.err)
				timeouts += r.timeouts
			}
		})
	}
	t.Log("deadlines passed:", timeouts)
	assert.Positive(t, timeouts)
}

// A transfer is one direction of TestConcurrentStreams.
type transfer struct {
	data []byte
	seed uint64
}

type result struct {
	timeouts int
	err      error
}

// send writes the data in a goroutine, which ends when all is written.
func (x transfer) send(c *memnet.Conn) <-chan result {
	done := make(chan result, 1)
	go func() {
		p := &pacer{rnd: rand.New(rand.NewPCG(x.seed, 1)), set: c.SetWriteDeadline}
		for rest := x.data; len(rest) > 0 && p.err == nil; {
			piece := rest[:min(len(rest), 1+p.rnd.IntN(20_000))]
			n := p.call(func() (int, error) { return c.Write(piece) })
			rest = rest[n:]
		}
		done <- result{p.timeouts, errors.Join(p.err, c.CloseWrite())}
	}()
	return done
}

// receive reads in a goroutine, which ends at EOF, and compares.
func (x transfer) receive(c *memnet.Conn) <-chan result {
	done := make(chan result, 1)
	go func() {
		p := &pacer{rnd: rand.New(rand.NewPCG(x.seed, 2)), set: c.SetReadDeadline}
		var got []byte
		buf := make([]byte, 20_000)
		for p.err == nil {
			n := p.call(func() (int, error) { return c.Read(buf[:1+p.rnd.IntN(len(buf))]) })
			got = append(got, buf[:n]...)
		}
		switch {
		case p.err != io.EOF: //nolint:errorlint // exactly EOF
		case !bytes.Equal(got, x.data):
			p.err = fmt.Errorf("%d bytes arrived, not the %d that were sent", len(got), len(x.data))
		default:
			p.err = nil
		}
		done <- result{p.timeouts, p.err}
	}()
	return done
}

// A pacer makes calls with random pauses and deadlines between them.
type pacer struct {
	rnd      *rand.Rand
	set      func(time.Time) error
	timeouts int
	err      error
}

// call makes f's call under a deadline and checks when it ends.
func (p *pacer) call(f func() (int, error)) int {
	if p.rnd.IntN(3) == 0 {
		time.Sleep(time.Duration(p.rnd.IntN(1000)))
	}
	deadline := time.Now().Add(time.Duration(1 + p.rnd.IntN(500)))
	if p.err = p.set(deadline); p.err != nil {
		return 0
	}
	n, err := f()
	now := time.Now()
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		p.err = err
		if !now.Before(deadline) {
			p.err = fmt.Errorf("returned %d, %w at %v after its deadline", n, err, now.Sub(deadline))
		}
	case !now.Equal(deadline):
		p.err = fmt.Errorf("timed out %v after the deadline", now.Sub(deadline))
	default:
		p.timeouts++
	}
	return n
}
