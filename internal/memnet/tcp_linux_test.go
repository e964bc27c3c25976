package memnet_test

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/memnet"
)

// A script plays one situation on a connection and returns what its calls
// returned. For TCP's sake no call in it may depend on how fast a FIN or an RST
// arrives: each waits for what it needs, or its outcome is the same either way.
type script struct {
	name string
	play func(t *testing.T, a, b tcpLike) []string
}

// tcpLike is the part of *net.TCPConn that scripts use.
type tcpLike interface {
	net.Conn
	CloseWrite() error
}

func reset(t *testing.T, c tcpLike) {
	if tcp, ok := c.(*net.TCPConn); ok {
		require.NoError(t, tcp.SetLinger(0))
		require.NoError(t, tcp.Close())
		return
	}
	c.(*memnet.Conn).Reset()
}

func read(c net.Conn) string  { return outcome(c.Read(make([]byte, 64))) }
func write(c net.Conn) string { return outcome(c.Write([]byte("x"))) }

// writeOut writes until that fails.
func writeOut(c net.Conn) string {
	for {
		if _, err := c.Write(make([]byte, 1<<20)); err != nil {
			return errText(err)
		}
	}
}

// leaveUnread makes b hold a byte that it has not read.
func leaveUnread(t *testing.T, a, b net.Conn) {
	_, err := a.Write([]byte("xy"))
	require.NoError(t, err)
	_, err = io.ReadFull(b, make([]byte, 1))
	require.NoError(t, err)
}

var scripts = []script{
	{"peer closes", func(t *testing.T, a, b tcpLike) []string {
		_, err := b.Write([]byte("abc"))
		require.NoError(t, err)
		require.NoError(t, b.Close())
		return []string{read(a), read(a), write(a), writeOut(a), write(a), read(a), errText(a.CloseWrite())}
	}},
	{"peer closes with data unread, reader hears", func(t *testing.T, a, b tcpLike) []string {
		leaveUnread(t, a, b)
		_, err := b.Write([]byte("abc"))
		require.NoError(t, err)
		require.NoError(t, b.Close())
		return []string{read(a), read(a), read(a), write(a), write(a), errText(a.CloseWrite()), read(a)}
	}},
	{"peer closes with data unread, writer hears", func(t *testing.T, a, b tcpLike) []string {
		done := make(chan string)
		go func() { done <- writeOut(a) }()
		_, err := io.ReadFull(b, make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, b.Close())
		return []string{<-done, write(a), read(a), read(a)}
	}},
	{"peer closes its side, then with data unread", func(t *testing.T, a, b tcpLike) []string {
		require.NoError(t, b.CloseWrite())
		eof := read(a)
		leaveUnread(t, a, b)
		require.NoError(t, b.Close())
		return []string{eof, read(a), writeOut(a), read(a), errText(a.CloseWrite())}
	}},
	{"peer resets", func(t *testing.T, a, b tcpLike) []string {
		reset(t, b)
		return []string{read(a), read(a), write(a), read(b), write(b), errText(b.Close())}
	}},
	{"peer resets after its FIN", func(t *testing.T, a, b tcpLike) []string {
		require.NoError(t, b.CloseWrite())
		eof := read(a)
		reset(t, b)
		return []string{eof, writeOut(a), read(a), write(a)}
	}},
	{"half-close", func(t *testing.T, a, b tcpLike) []string {
		_, err := a.Write([]byte("abc"))
		require.NoError(t, err)
		got := []string{errText(a.CloseWrite()), errText(a.CloseWrite()), write(a), read(b), read(b), read(b), write(b), read(a)}
		require.NoError(t, b.Close())
		return append(got, read(a), write(a), errText(a.Close()))
	}},
	{"half-close under a blocked write", func(_ *testing.T, a, _ tcpLike) []string {
		done := make(chan string)
		go func() { done <- writeOut(a) }()
		time.Sleep(50 * time.Millisecond) // the outcome is the same if that is too short
		return []string{errText(a.CloseWrite()), <-done}
	}},
	{"own use after Close", func(t *testing.T, a, _ tcpLike) []string {
		require.NoError(t, a.Close())
		return []string{
			read(a), write(a), outcome(a.Read(nil)), outcome(a.Write(nil)), errText(a.Close()), errText(a.CloseWrite()),
			errText(a.SetDeadline(time.Now())), errText(a.SetReadDeadline(time.Time{})), errText(a.SetWriteDeadline(time.Now())),
		}
	}},
	{"deadlines in the past", func(t *testing.T, a, b tcpLike) []string {
		leaveUnread(t, b, a)
		require.NoError(t, a.SetDeadline(time.Now().Add(-time.Second)))
		return []string{read(a), write(a), outcome(a.Read(nil)), outcome(a.Write(nil)), errText(a.CloseWrite()), read(b)}
	}},
	{"deadlines to come", func(t *testing.T, a, _ tcpLike) []string {
		require.NoError(t, a.SetDeadline(time.Now().Add(20*time.Millisecond)))
		return []string{read(a), read(a), writeOut(a), write(a)}
	}},
	{"nothing to read or write", func(_ *testing.T, a, _ tcpLike) []string {
		return []string{outcome(a.Read(nil)), outcome(a.Write(nil))}
	}},
}

// The same scripts over TCP and over memnet, and the same outcomes: which call
// fails, how, and in which words.
func TestSameAsTCP(t *testing.T) {
	for _, s := range scripts {
		t.Run(s.name, func(t *testing.T) {
			a, b := tcpPair(t)
			want := s.play(t, a, b)
			synctest.Test(t, func(t *testing.T) {
				c, d := connect(t)
				assert.Equal(t, want, s.play(t, c, d))
			})
		})
	}
}

func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l := tcpListen(t)
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	s, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func tcpListen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// The same for listeners.
func TestListenerSameAsTCP(t *testing.T) {
	tcp, mem := tcpListen(t), memnet.Listen()
	want := playListener(t, tcp, func() (net.Conn, error) {
		return new(net.Dialer).DialContext(t.Context(), "tcp", tcp.Addr().String())
	})
	got := playListener(t, mem, func() (net.Conn, error) { return mem.Dial(t.Context()) })
	assert.Equal(t, want, got)
}

func playListener(t *testing.T, l net.Listener, dial func() (net.Conn, error)) []string {
	c, err := dial()
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	got := []string{errText(l.Close()), read(c), read(c), write(c), errText(l.Close())}
	_, err = l.Accept()
	got = append(got, errText(err))
	_, err = dial()
	return append(got, errText(err))
}
