package memnet

import (
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Faults say what goes wrong with what one end of a connection writes, and how
// slowly it moves. The zero value is a sound connection.
type Faults struct {
	Pieces  int           // reads and writes move at most so many bytes at a time, by chance; 0: whole
	Delay   time.Duration // a quarter of the pieces wait for less than this
	ResetAt int64         // after so many bytes written the connection is reset; 0: never
	FlipAt  int64         // in this byte written, counted from 1, one bit is wrong; 0: in none
}

// A FaultConn is one end of a connection with faults. One goroutine reads and
// one writes, as of what is under test; what chance does depends on the seed.
type FaultConn struct {
	*Conn
	f Faults

	mu      sync.Mutex // guards following
	r       *rand.Rand
	written int64
}

// NewFaultConn returns c with faults.
func NewFaultConn(c *Conn, f Faults, seed uint64) *FaultConn {
	return &FaultConn{Conn: c, f: f, r: rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15))}
}

// piece returns how much of n bytes to move now, and after how long.
func (c *FaultConn) piece(n int) (int, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.f.Pieces > 0 && n > 1 {
		n = 1 + c.r.IntN(min(n, c.f.Pieces))
	}
	if c.f.Delay > 0 && c.r.IntN(4) == 0 {
		return n, time.Duration(c.r.Int64N(int64(c.f.Delay)))
	}
	return n, 0
}

// Read is that of the Conn, in pieces.
func (c *FaultConn) Read(p []byte) (int, error) {
	n, d := c.piece(len(p))
	if d > 0 {
		time.Sleep(d)
	}
	return c.Conn.Read(p[:n])
}

// Write is that of the Conn, in pieces and with the faults. A write that the
// reset falls into fails with [net.ErrClosed] and says what went out before.
func (c *FaultConn) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, d := c.piece(len(p) - done)
		if d > 0 {
			time.Sleep(d)
		}
		c.mu.Lock()
		from := c.written
		c.mu.Unlock()
		if at := c.f.ResetAt; at > 0 && from+int64(n) >= at {
			n = int(at - from)
		}
		b := append([]byte{}, p[done:done+n]...)
		if at := c.f.FlipAt - 1; at >= from && at < from+int64(n) {
			b[at-from] ^= 1 << (at % 8)
		}
		n, err := c.Conn.Write(b)
		done += n
		c.mu.Lock()
		c.written += int64(n)
		from = c.written
		c.mu.Unlock()
		if err != nil {
			return done, err
		}
		if at := c.f.ResetAt; at > 0 && from >= at {
			c.Reset()
			return done, net.ErrClosed
		}
	}
	return done, nil
}
