package session_test

import (
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"

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
