package memnet_test

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/memnet"
)

func TestAcceptInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		var clients []net.Conn
		for range 3 {
			c, err := l.Dial(t.Context())
			require.NoError(t, err)
			clients = append(clients, c)
		}
		for _, c := range clients {
			s, err := l.Accept()
			require.NoError(t, err)
			assert.Equal(t, c.LocalAddr(), s.RemoteAddr())
		}
	})
}

func TestDialWakesAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		accepted := make(chan net.Conn, 1)
		go func() {
			s, err := l.Accept()
			assert.NoError(t, err)
			accepted <- s
		}()
		synctest.Wait()
		assert.Empty(t, accepted)
		c, err := l.Dial(t.Context())
		require.NoError(t, err)
		assert.Equal(t, c.LocalAddr(), (<-accepted).RemoteAddr())
	})
}

func TestListenerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		accepted, err := l.Dial(t.Context())
		require.NoError(t, err)
		server, err := l.Accept()
		require.NoError(t, err)
		waiting := make(chan error, 1)
		go func() {
			_, acceptErr := l.Accept()
			waiting <- acceptErr
		}()
		synctest.Wait()
		assert.Empty(t, waiting)

		require.NoError(t, l.Close())
		assert.ErrorIs(t, <-waiting, net.ErrClosed)
		assert.ErrorIs(t, l.Close(), net.ErrClosed)
		_, err = l.Dial(t.Context())
		assert.ErrorIs(t, err, syscall.ECONNREFUSED)

		assert.Equal(t, "2 ok", outcome(accepted.Write([]byte("hi"))))
		assert.Equal(t, "2 ok", outcome(server.Read(make([]byte, 9))))
	})
}

func TestNobodyListens(t *testing.T) {
	var l memnet.Listener
	_, err := l.Dial(t.Context())
	assert.ErrorIs(t, err, syscall.ECONNREFUSED)
	_, err = l.Accept()
	assert.ErrorIs(t, err, net.ErrClosed)
	assert.ErrorIs(t, l.Close(), net.ErrClosed)
}

func TestDialContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := l.Dial(ended)
		assert.ErrorIs(t, err, context.Canceled)

		l.SetBacklog(1)
		_, err = l.Dial(t.Context())
		require.NoError(t, err)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err = l.Dial(ctx)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		ne, ok := errors.AsType[net.Error](err)
		assert.True(t, ok && ne.Timeout())
		assert.Equal(t, 5*time.Second, time.Since(start))
	})
}

func TestBacklog(t *testing.T) {
	for _, tc := range []struct {
		name string
		free func(l *memnet.Listener) error
		want error
	}{
		{"Accept", func(l *memnet.Listener) error { _, err := l.Accept(); return err }, nil},
		{"SetBacklog", func(l *memnet.Listener) error { l.SetBacklog(0); return nil }, nil},
		{"Close", (*memnet.Listener).Close, syscall.ECONNREFUSED},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := memnet.Listen()
				l.SetBacklog(2)
				dialled := make(chan error, 3)
				for range 3 {
					go func() {
						_, err := l.Dial(t.Context())
						dialled <- err
					}()
				}
				synctest.Wait()
				require.NoError(t, <-dialled)
				require.NoError(t, <-dialled)
				require.Empty(t, dialled)
				require.NoError(t, tc.free(l))
				require.ErrorIs(t, <-dialled, tc.want)
			})
		})
	}
	t.Run("default", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := memnet.Listen()
			for range memnet.DefaultBacklog {
				_, err := l.Dial(t.Context())
				require.NoError(t, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := l.Dial(ctx)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
		})
	})
}

func TestFailAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memnet.Listen()
		emfile := os.NewSyscallError("accept4", syscall.EMFILE)
		waiting := make(chan error, 1)
		go func() {
			_, err := l.Accept()
			waiting <- err
		}()
		synctest.Wait()
		l.FailAccept(emfile, 3)
		err := <-waiting
		assert.Equal(t, "0 accept: accept4: too many open files (*os.SyscallError) timeout=false temporary=true source=false addr=true", outcome(0, err))

		c, err := l.Dial(t.Context())
		require.NoError(t, err)
		for range 2 {
			_, err = l.Accept()
			assert.ErrorIs(t, err, syscall.EMFILE)
		}
		s, err := l.Accept()
		require.NoError(t, err)
		assert.Equal(t, c.LocalAddr(), s.RemoteAddr())

		own := errors.New("own")
		l.FailAccept(emfile, 100)
		l.FailAccept(own, 1)
		_, err = l.Dial(t.Context())
		require.NoError(t, err)
		_, err = l.Accept()
		assert.ErrorIs(t, err, own)
		l.FailAccept(own, 100)
		l.FailAccept(nil, 0)
		_, err = l.Accept()
		require.NoError(t, err)

		l.FailAccept(own, 100)
		require.NoError(t, l.Close())
		_, err = l.Accept()
		assert.ErrorIs(t, err, net.ErrClosed)
	})
}
