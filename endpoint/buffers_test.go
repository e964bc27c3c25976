package endpoint_test

import (
	"bufio"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestWaitingHoldsNoBuffer counts the buffers that are made. Were they held by
// waiting connections, there would be one for each. (Under the race detector a
// sync.Pool forgets a quarter of what it is given.)
func TestWaitingHoldsNoBuffer(t *testing.T) {
	const conns = 400
	var made atomic.Int64
	n := newNode(nil)
	endpoint.BuffersMade(n.Endpoint, func() { made.Add(1) })
	listen(t, n.Endpoint, "127.0.0.1:0")
	var clients []*client
	for range conns {
		c := dialTCP(t, n.Addr().String())
		c.ping()
		clients = append(clients, c)
	}
	for range 3 {
		for _, c := range clients {
			c.send("LINE " + strings.Repeat("x", 5000) + "\n")
			c.line()
		}
	}
	// A garbage collection empties the pool. Where that happens all the time,
	// this says nothing.
	assert.Less(t, made.Load(), int64(3*conns), "buffers for %d connections and %d commands", conns, 4*conns)

	// Held buffers would show in the heap: 12 KiB for each connection.
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // the first moves what is pooled aside, the second drops it
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	held := heap()
	for _, c := range clients {
		_ = c.Close()
	}
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() < conns/2 }, patience, 10*ms)
	released := held - min(held, heap())
	assert.Less(t, released, uint64(conns*8<<10), "both ends of %d connections", conns)
}

// TestSettledStacks: a connection that has run a command and waits gets back to
// a small stack.
func TestSettledStacks(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes stacks larger")
	}
	const conns = 400
	n := newNode(nil)
	listen(t, n.Endpoint, "127.0.0.1:0")
	stacks := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.StackInuse
	}
	before := stacks()
	for range conns {
		dialTCP(t, n.Addr().String()).ping()
	}
	assert.Eventually(t, func() bool { return stacks() < before+conns*3<<10 }, patience, endpoint.SettleTime/4)
}

// TestLongLineIsNotKept: a buffer that grew for one long line is not kept for
// the next.
func TestLongLineIsNotKept(t *testing.T) {
	n := newNode(func(e *endpoint.Endpoint) {
		e.Limits.Line = 1 << 20
		e.AddHandleFunc("SIZE", func(rw *bufio.ReadWriter) {
			_, _ = fmt.Fprintln(rw, rw.Reader.Size())
		})
	})
	listen(t, n.Endpoint, "127.0.0.1:0")
	c := dialTCP(t, n.Addr().String())
	for _, length := range []int{0, 1000_000, 0, 8 << 10, 8<<10 - 6, 100_000, 0} {
		c.send("SIZE " + strings.Repeat("x", length) + "\n")
		size, err := strconv.Atoi(c.line())
		require.NoError(t, err)
		assert.GreaterOrEqual(t, size, max(length+6, 8<<10))
		assert.LessOrEqual(t, size, max(2*(length+6), 8<<10), "%d", length)
		time.Sleep(10 * ms) // so that the connection waits
	}
}
