package memnet_test

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"gobnode/internal/memnet"
)

func TestEchoAndDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		c, err := l.Dial(t.Context())
		require.NoError(t, err)
		s, err := l.Accept()
		require.NoError(t, err)
		go func() {
			io.Copy(s, s)
			s.Close()
		}()
		_, err = c.Write([]byte("hello"))
		require.NoError(t, err)
		require.NoError(t, c.(*memnet.Conn).CloseWrite())
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))

		a, _ := memnet.Pipe()
		start := time.Now()
		require.NoError(t, a.SetReadDeadline(start.Add(time.Hour)))
		_, err = a.Read(make([]byte, 1))
		var ne net.Error
		require.ErrorAs(t, err, &ne)
		require.True(t, ne.Timeout())
		require.Equal(t, time.Hour, time.Since(start))
	})
}
