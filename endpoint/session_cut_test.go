package endpoint_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSessionCutIsNoEnd: a stream whose connection ends in the middle has not
// come to its end, for neither side, however it is read.
func TestSessionCutIsNoEnd(t *testing.T) {
	for _, raw := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			serverSaw, gone := make(chan error, 1), make(chan error, 1)
			e := endpoint.New()
			echoStream.Handle(e, func(_ context.Context, s *endpoint.Stream[line, line]) (err error) {
				for l, e := range s.All() {
					if err = e; e == nil {
						err = s.Send(l)
					}
				}
				serverSaw <- err
				return err
			})
			e.Handle("CAT", endpoint.ServeFunc(func(_ context.Context, rw *bufio.ReadWriter) error {
				_, err := io.Copy(struct{ io.Writer }{rw}, rw)
				serverSaw <- err
				return err
			}))
			l := memnet.Listen()
			go func() { gone <- e.Serve(l) }()
			var conn net.Conn
			quiet := slog.New(slog.DiscardHandler)
			e.Logger = quiet
			d := endpoint.Dialer{Logger: quiet, NetDial: func(ctx context.Context, _, _ string) (_ net.Conn, err error) {
				conn, err = l.Dial(ctx)
				return conn, err
			}}
			c, err := d.Dial(t.Context(), "a:1")
			require.NoError(t, err)
			first := conn
			if raw {
				rc, err := c.Open(t.Context(), "CAT")
				require.NoError(t, err)
				_, err = rc.WriteString("the first half of ")
				require.NoError(t, err)
				require.NoError(t, rc.Flush())
				synctest.Wait()
				// An end of file in order, as of a process that was killed.
				require.NoError(t, first.(*memnet.Conn).CloseWrite())
				cut(t, errorOf(io.ReadAll(rc)))
				_, err = rc.WriteString("more")
				require.NoError(t, err)
				cut(t, rc.Flush())
			} else {
				s, err := echoStream.Open(t.Context(), c)
				require.NoError(t, err)
				require.NoError(t, s.Send(line{"the first half"}))
				_, err = s.Recv()
				require.NoError(t, err)
				require.NoError(t, first.(*memnet.Conn).CloseWrite())
				var saw error
				for _, err := range s.All() {
					saw = err
				}
				cut(t, saw)
			}
			cut(t, <-serverSaw)
			require.NoError(t, c.Close())
			require.NoError(t, e.Close())
			assert.ErrorIs(t, <-gone, endpoint.ErrClosed)
		})
	}
}

// cut requires that err says what happened, and cannot be taken for the end.
func cut(t *testing.T, err error) {
	t.Helper()
	require.ErrorContains(t, err, "connection lost")
	assert.Equal(t, endpoint.OutcomeUnknown, endpoint.OutcomeOf(err))
	assert.NotErrorIs(t, err, io.EOF)
}

func errorOf[T any](_ T, err error) error { return err }
