package endpoint_test

import (
	"bufio"
	"net"
	"testing"

	"gobnode/endpoint"

	"github.com/stretchr/testify/require"
)

func TestSmoke(t *testing.T) {
	e := endpoint.New()
	e.AddHandleFunc("PING", func(rw *bufio.ReadWriter) { rw.WriteString("PONG\n") })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go e.Serve(l)
	c, err := endpoint.Open(l.Addr().String())
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, c.Command("PING"))
		s, err := c.Reply()
		require.NoError(t, err)
		require.Equal(t, "PONG", s)
	}
	require.NoError(t, c.Command("PINGG"))
	_, err = c.Reply()
	t.Log(err)
	require.ErrorIs(t, err, endpoint.Unimplemented)
	require.NoError(t, e.Close())
}
