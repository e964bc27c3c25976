package endpoint_test

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"gobnode/endpoint"

	"github.com/stretchr/testify/require"
)

const meet endpoint.Command[empty, empty] = "MEET"

// dialNode opens a session with n that is closed when the test ends. d may be
// nil.
func dialNode(t testing.TB, n *node, d *endpoint.Dialer) *endpoint.Client {
	t.Helper()
	if d == nil {
		d = new(endpoint.Dialer)
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler) // n's journal is the server's
	}
	addr := "mem"
	if n.mem != nil {
		d.NetDial = func(ctx context.Context, _, _ string) (net.Conn, error) { return n.mem.Dial(ctx) }
	} else {
		addr = n.net.Addr().String()
	}
	c, err := d.Dial(t.Context(), addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// peerServing returns the Peer whose commands are those of n: n's end of the
// session is the one that dialed.
func peerServing(t *testing.T, n *node) *endpoint.Peer {
	t.Helper()
	met := make(chan *endpoint.Peer, 1)
	hub := tcpNode(t, func(e *endpoint.Endpoint) {
		meet.Handle(e, func(ctx context.Context, _ empty) (empty, error) {
			met <- endpoint.PeerFrom(ctx)
			return empty{}, nil
		})
	})
	c := dialNode(t, hub, &endpoint.Dialer{Endpoint: n.Endpoint, Limits: n.Limits, Logger: n.Logger})
	_, err := meet.Call(t.Context(), c, empty{})
	require.NoError(t, err)
	return <-met
}
