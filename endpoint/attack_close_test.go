package endpoint_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/endpoint"
	"gobnode/internal/memnet"
	"gobnode/internal/wire"
)

// TestCloseOnDeafNodes: peers that take no bytes any more hold up a Close for as long as one of them would, and another Close
// as long as the first.
func TestCloseOnDeafNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var addrs []string
		for i := range 8 {
			addrs = append(addrs, fmt.Sprintf("node%d:1", i))
		}
		var far []net.Conn
		d := endpoint.Dialer{
			Endpoint: endpoint.New(), // so that the peer is told what of its calls did not run
			NetDial: func(context.Context, string, string) (net.Conn, error) {
				a, b := net.Pipe()
				far = append(far, b)
				go func() {
					_, _ = b.Read(make([]byte, 4<<10))
					_, _ = b.Write(wire.AppendHello([]byte("OK\n"), &wire.Hello{Message: 1 << 20, Calls: 100, Credit: 64 << 10, Heartbeat: 60_000}))
				}()
				return a, nil
			},
		}
		c, err := d.Dial(t.Context(), addrs[0])
		require.NoError(t, err)
		begin := time.Now()
		require.NoError(t, c.Close())
		one := time.Since(begin)
		assert.Positive(t, one)

		d.NetDial = sequential(d.NetDial)
		c, err = d.Dial(t.Context(), addrs...)
		require.NoError(t, err)
		synctest.Wait()
		for _, n := range c.Stats().Nodes {
			require.Equal(t, endpoint.PhaseReady, n.State.Phase)
		}
		begin = time.Now()
		done := make(chan time.Duration)
		for range 2 {
			go func() {
				assert.NoError(t, c.Close())
				done <- time.Since(begin)
			}()
		}
		assert.Equal(t, one, <-done)
		assert.Equal(t, one, <-done)
		for _, b := range far {
			_ = b.Close()
		}
	})
}

// sequential is dial for one caller at a time.
func sequential(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	turn := make(chan bool, 1)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		turn <- true
		defer func() { <-turn }()
		return dial(ctx, network, addr)
	}
}

// TestDrainOfLastingPeer: a peer that goes on when its session is drained holds nobody up, over TLS neither.
func TestDrainOfLastingPeer(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS=%v", secure), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := endpoint.New()
				if secure {
					withTLS(e)
				}
				a, b := memnet.Pipe()
				go e.ServeConn(context.Background(), b)
				var c net.Conn = a
				if secure {
					c = tls.Client(a, clientTLS())
				}
				_, err := c.Write(wire.AppendHello([]byte("SESSION 1\n"), &wire.Hello{Message: 1 << 20, Calls: 100, Credit: 64 << 10, Heartbeat: 60_000}))
				require.NoError(t, err)
				go func() { _, _ = io.Copy(io.Discard, c) }()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				begin := time.Now()
				assert.NoError(t, e.Shutdown(ctx))
				assert.Less(t, time.Since(begin), time.Minute)
				_ = a.Close()
			})
		})
	}
}
