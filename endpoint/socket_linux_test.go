package endpoint_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// option reads a socket option of c.
func option(t *testing.T, c net.Conn, level, name int) (value int) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		value, err = syscall.GetsockoptInt(int(fd), level, name)
	}))
	require.NoError(t, err)
	return value
}

// TestSocketOptions: keep-alive is on, and unacknowledged bytes are given up
// after 20 s, on both sides.
func TestSocketOptions(t *testing.T) {
	const userTimeout = 0x12 // TCP_USER_TIMEOUT
	check := func(c net.Conn) {
		assert.Equal(t, 20_000, option(t, c, syscall.IPPROTO_TCP, userTimeout))
		assert.NotZero(t, option(t, c, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE))
	}
	accepted := make(chan net.Conn, 1)
	n := newNode(func(e *endpoint.Endpoint) {
		e.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			accepted <- c
			return ctx
		}
	})
	listen(t, n.Endpoint, "127.0.0.1:0")
	var dialled net.Conn
	d := &endpoint.Dialer{NetDial: func(ctx context.Context, network, address string) (c net.Conn, err error) {
		dialled, err = new(net.Dialer).DialContext(ctx, network, address)
		return dialled, err
	}}
	c, err := d.Open(t.Context(), n.Addr().String())
	require.NoError(t, err)
	check(dialled)
	check(<-accepted)
	require.NoError(t, c.Close())
}

// TestReset: a peer that resets its connection, waiting or in the middle of
// whatever, leaves nothing behind.
func TestReset(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Handle("READ", endpoint.ServeFunc(func(_ context.Context, rw *bufio.ReadWriter) error {
			_, err := rw.ReadString('\n')
			return err
		}))
		e.AddHandleFunc("FLOOD", flood(10<<20, 64<<10))
	})
	for _, state := range []string{"", "PI", "PING\n", "READ\n", "FLOOD\n", "NONESUCH\n", "PING\nPING\nFLOOD\nPI"} {
		for range 5 {
			c := n.dial(t)
			c.send(state)
			if state == "PING\n" {
				c.expect("PONG\n")
			}
			require.NoError(t, c.Conn.(*net.TCPConn).SetLinger(0))
			require.NoError(t, c.Close())
		}
	}
	n.dial(t).ping()
	require.NoError(t, n.Close())
	for _, line := range n.all() {
		assert.NotContains(t, line, "level=ERROR")
	}
}

// TestSettledSockets: bytes that come on a socket about when its waiting
// goroutine hands over are neither lost nor doubled.
func TestSettledSockets(t *testing.T) {
	n := tcpNode(t, nil)
	var wg sync.WaitGroup
	for i := range 200 {
		c := n.dial(t)
		c.ping()
		wg.Go(func() {
			// From 5 ms before to 5 ms behind.
			time.Sleep(endpoint.SettleTime + time.Duration(i-100)*50*time.Microsecond)
			for range 3 {
				if _, err := io.WriteString(c.Conn, "LINE a\nPING\n"); !assert.NoError(t, err) {
					return
				}
				got := make([]byte, len("line a\nPONG\n"))
				_, err := io.ReadFull(c.r, got)
				assert.NoError(t, err)
				assert.Equal(t, "line a\nPONG\n", string(got))
			}
		})
	}
	wg.Wait()
	assert.Empty(t, n.all())
}
