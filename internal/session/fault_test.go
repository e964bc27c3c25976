package session_test

import (
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gobnode/internal/memnet"
	"gobnode/internal/session"
)

// seedOf returns the seed of a test, printed, so that a failure can be run again alone: SEED=n go test -run Name.
func seedOf(t testing.TB) uint64 {
	seed := rand.Uint64()
	if v, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = v
	}
	t.Logf("SEED=%d", seed)
	return seed
}

func newRand(t testing.TB) *rand.Rand { return randOf(seedOf(t)) }

func randOf(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)) }

// newPipe returns a connection with buffers of n bytes; 0 is the default.
func newPipe(n int) (a, b *memnet.Conn) {
	a, b = memnet.Pipe()
	a.SetBuffer(n)
	b.SetBuffer(n)
	return a, b
}

// smallPair is newPair over buffers of 4 KiB.
func smallPair(a, b session.Config) *pair {
	p := &pair{logA: new(logBook), logB: new(logBook)}
	p.ca, p.cb = newPipe(4 << 10)
	p.start(a, b)
	return p
}

// A blackhole swallows what is written once it is on.
type blackhole struct {
	net.Conn
	on *atomic.Bool
}

func (c *blackhole) Write(p []byte) (int, error) {
	if c.on.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// Faults say what goes wrong with a connection. A byte offset of 0 is never.
type faults struct {
	pieces  int           // reads and writes are cut into pieces of up to so many bytes; 0: whole
	delay   time.Duration // before a piece, at most
	resetAt int64         // after so many bytes written the connection is reset
	flipAt  int64         // in this byte written one bit is wrong
}

// A faultConn is one end of a connection with faults.
type faultConn struct {
	*memnet.Conn
	f  faults
	mu sync.Mutex // guards following
	r  *rand.Rand
	w  int64 // bytes written
}

func newFaultConn(c *memnet.Conn, f faults, seed uint64) *faultConn {
	return &faultConn{Conn: c, f: f, r: randOf(seed)}
}

// piece returns how much of n bytes to move now, after how long.
func (c *faultConn) piece(n int) (int, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.f.pieces > 0 && n > 1 {
		n = 1 + c.r.IntN(min(n, c.f.pieces))
	}
	if c.f.delay > 0 && c.r.IntN(4) == 0 {
		return n, time.Duration(c.r.Int64N(int64(c.f.delay)))
	}
	return n, 0
}

func (c *faultConn) Read(p []byte) (int, error) {
	n, d := c.piece(len(p))
	if d > 0 {
		time.Sleep(d)
	}
	return c.Conn.Read(p[:n])
}

func (c *faultConn) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, d := c.piece(len(p) - done)
		if d > 0 {
			time.Sleep(d)
		}
		c.mu.Lock()
		from := c.w
		c.mu.Unlock()
		if at := c.f.resetAt; at > 0 && from+int64(n) >= at {
			n = int(at - from)
		}
		b := append([]byte{}, p[done:done+n]...)
		if at := c.f.flipAt - 1; at >= from && at < from+int64(n) {
			b[at-from] ^= 1 << (at % 8)
		}
		n, err := c.Conn.Write(b)
		done += n
		c.mu.Lock()
		c.w += int64(n)
		from = c.w
		c.mu.Unlock()
		if err != nil {
			return done, err
		}
		if at := c.f.resetAt; at > 0 && from >= at {
			c.Reset()
			return done, net.ErrClosed
		}
	}
	return done, nil
}
