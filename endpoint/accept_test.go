package endpoint_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A timedListener notes when Accept is called.
type timedListener struct {
	*memnet.Listener
	mu    sync.Mutex
	calls []time.Time
}

func (l *timedListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	l.calls = append(l.calls, time.Now())
	l.mu.Unlock()
	return l.Listener.Accept()
}

func (l *timedListener) pauses() []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []time.Duration
	for i := 1; i < len(l.calls); i++ {
		list = append(list, l.calls[i].Sub(l.calls[i-1]))
	}
	return list
}

// A passingError is like those of net that call themselves temporary.
type passingError struct{}

func (passingError) Error() string   { return "not now" }
func (passingError) Temporary() bool { return true }

const ms = time.Millisecond

var growingPauses = []time.Duration{5 * ms, 10 * ms, 20 * ms, 40 * ms, 80 * ms, 160 * ms, 320 * ms, 640 * ms, time.Second, time.Second, time.Second}

func TestAcceptPauses(t *testing.T) {
	for _, failure := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR, passingError{},
	} {
		bubble(t, failure.Error(), func(t *testing.T) {
			l := &timedListener{Listener: memnet.Listen()}
			n := newNode(nil)
			n.mem = l.Listener
			l.FailAccept(failure, len(growingPauses))
			n.start(t, l)
			c := n.dial(t) // it waits in the queue meanwhile
			c.ping()
			assert.Equal(t, growingPauses, l.pauses()[:len(growingPauses)])

			// The first success ends the growing.
			l.FailAccept(failure, 2)
			n.dial(t).ping()
			synctest.Wait() // until Serve accepts again
			pauses := l.pauses()
			assert.Equal(t, []time.Duration{5 * ms, 10 * ms}, pauses[len(pauses)-3:len(pauses)-1])
			c.ping()
		})
	}
}

// TestAcceptLog: failing for hours costs one line a second at the most, and each
// line tells how often it failed.
func TestAcceptLog(t *testing.T) {
	bubble(t, "without a success", func(t *testing.T) {
		l := memnet.Listen()
		l.FailAccept(syscall.EMFILE, 1<<30)
		n := newNode(nil)
		n.start(t, l)
		time.Sleep(10*time.Second + ms)
		lines := n.with("cannot accept", "too many open files")
		assert.LessOrEqual(t, len(lines), 11)
		assert.GreaterOrEqual(t, len(lines), 9)
		assert.Equal(t, lines, n.all())
	})
	bubble(t, "with a success between any two", func(t *testing.T) {
		l := memnet.Listen()
		n := newNode(nil)
		n.mem = l
		n.start(t, l)
		for range 1000 { // of 10 ms
			l.FailAccept(syscall.EMFILE, 1)
			c := n.dial(t)
			c.ping()
			require.NoError(t, c.Close())
			time.Sleep(5 * ms)
		}
		lines := n.with("cannot accept")
		assert.LessOrEqual(t, len(lines), 11)
		assert.GreaterOrEqual(t, len(lines), 9)
		assert.Contains(t, lines[0], "failed=1 ")
		assert.Contains(t, lines[1], "failed=100 ")
	})
}

func TestAcceptFailsForGood(t *testing.T) {
	for _, failure := range []error{syscall.EINVAL, errors.New("the listener broke"), net.ErrClosed} {
		bubble(t, failure.Error(), func(t *testing.T) {
			l := memnet.Listen()
			n := newNode(nil)
			n.mem = l
			served := make(chan error, 1)
			go func() { served <- n.Serve(l) }()
			c := n.dial(t)
			c.ping()
			l.FailAccept(failure, 1)
			err := <-served
			assert.ErrorIs(t, err, failure)
			assert.NotErrorIs(t, err, endpoint.ErrClosed)
			assert.ErrorContains(t, err, "accept")
			assert.Nil(t, n.Addr())
			_, err = l.Dial(t.Context())
			assert.ErrorIs(t, err, syscall.ECONNREFUSED, "Serve closes the listener")
			c.ping() // what was accepted goes on

			// Another listener may take its place.
			n.mem = memnet.Listen()
			n.start(t, n.mem)
			n.dial(t).ping()
		})
	}
}

func TestClosedWhilePausing(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		l := memnet.Listen()
		l.FailAccept(syscall.EMFILE, 1<<30)
		n := newNode(nil)
		served := make(chan error, 1)
		go func() { served <- n.Serve(l) }()
		time.Sleep(10*time.Second + 300*ms) // within a pause of 1 s
		start := time.Now()
		require.NoError(t, n.Shutdown(t.Context()))
		assert.ErrorIs(t, <-served, endpoint.ErrClosed)
		assert.Zero(t, time.Since(start))
	})
}

func TestServeAfterClose(t *testing.T) {
	for name, closing := range map[string]func(e *endpoint.Endpoint) error{
		"Close":    func(e *endpoint.Endpoint) error { return e.Close() },
		"Shutdown": func(e *endpoint.Endpoint) error { return e.Shutdown(context.Background()) },
	} {
		bubble(t, name, func(t *testing.T) {
			e := endpoint.New()
			require.NoError(t, closing(e))
			l := memnet.Listen()
			assert.ErrorIs(t, e.Serve(l), endpoint.ErrClosed)
			_, err := l.Dial(t.Context())
			assert.Error(t, err, "Serve closes the listener")
			a, b := memnet.Pipe()
			e.ServeConn(t.Context(), b)
			assert.Empty(t, newClient(t, a).end())
			assert.Nil(t, e.Addr())
			assert.NoError(t, e.Close())
			assert.NoError(t, e.Shutdown(t.Context()))
		})
	}
	assert.ErrorIs(t, func() error {
		e := endpoint.New()
		require.NoError(t, e.Close())
		return e.Listen("127.0.0.1:0")
	}(), endpoint.ErrClosed)
}

func TestListenErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	for addr, want := range map[string]string{
		l.Addr().String():          "address already in use",
		"127.0.0.1:99999":          "invalid port",
		"127.0.0.1:no-such-port":   "unknown port",
		"a:b:c":                    "too many colons",
		"unix:/no/such/dir/socket": "no such file or directory",
		"unix:" + t.TempDir():      "address already in use",
		"203.0.113.1:0":            "cannot assign requested address",
	} {
		err := endpoint.New().Listen(addr)
		assert.ErrorContains(t, err, want, addr)
		assert.NotErrorIs(t, err, endpoint.ErrClosed)
	}
}

// listen has e listen on addr until the test ends and returns where.
func listen(t *testing.T, e *endpoint.Endpoint, addr string) net.Addr {
	listened := make(chan error, 1)
	go func() { listened <- e.Listen(addr) }()
	t.Cleanup(func() {
		assert.NoError(t, e.Close())
		assert.ErrorIs(t, <-listened, endpoint.ErrClosed)
	})
	require.Eventually(t, func() bool { return e.Addr() != nil }, patience, ms)
	return e.Addr()
}

func TestListen(t *testing.T) {
	n := newNode(nil)
	addr := listen(t, n.Endpoint, "localhost:0")
	assert.NotContains(t, addr.String(), ":0")
	c, err := endpoint.Open(addr.String())
	require.NoError(t, err)
	require.NoError(t, c.Command("PING"))
	reply, err := c.Reply()
	require.NoError(t, err)
	assert.Equal(t, "PONG", reply)
	assert.Equal(t, addr.String(), c.RemoteAddr().String())
	require.NoError(t, c.Close())
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	n := newNode(func(e *endpoint.Endpoint) {
		e.Handle("PEER", endpoint.ServeFunc(func(ctx context.Context, rw *bufio.ReadWriter) error {
			_, err := fmt.Fprintln(rw, endpoint.PeerFrom(ctx))
			return err
		}))
	})
	addr := listen(t, n.Endpoint, "unix:"+path)
	assert.Equal(t, path, addr.String())
	c, err := endpoint.Open("unix:" + path)
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, c.Command("PEER"))
		reply, err := c.Reply()
		require.NoError(t, err)
		assert.Equal(t, "unix:"+path, reply, "the peer has no name of its own")
	}
	require.NoError(t, c.CloseWrite())
	_, err = c.Reply()
	assert.True(t, ended(err), "%v", err)
	require.NoError(t, c.Close())

	err = endpoint.New().Listen("unix:" + path)
	assert.ErrorContains(t, err, "address already in use", "somebody listens there")
	require.NoError(t, n.Close())
	_, err = os.Lstat(path)
	assert.ErrorIs(t, err, os.ErrNotExist, "the file goes with the listener")
}

// TestDesertedSocket: the file that a killed process leaves is taken over; any
// other file is left alone.
func TestDesertedSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	n := newNode(nil)
	listen(t, n.Endpoint, "unix:"+path)
	c, err := endpoint.Open("unix:" + path)
	require.NoError(t, err)
	require.NoError(t, c.Close())

	file := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(file, []byte("data"), 0o600))
	assert.ErrorContains(t, endpoint.New().Listen("unix:"+file), "address already in use")
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "data", string(data))
}

func TestSeveralListeners(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		n := newNode(nil)
		assert.Nil(t, n.Addr())
		var listeners []*memnet.Listener
		for range 3 {
			l := memnet.Listen()
			n.start(t, l)
			synctest.Wait()
			listeners = append(listeners, l)
		}
		assert.Equal(t, listeners[0].Addr(), n.Addr())
		var clients []*client
		for range 3 {
			for _, l := range listeners {
				c, err := l.Dial(t.Context())
				require.NoError(t, err)
				clients = append(clients, newClient(t, c))
			}
		}
		a, b := memnet.Pipe()
		go n.ServeConn(context.Background(), b)
		clients = append(clients, newClient(t, a))
		for _, c := range clients {
			c.ping()
		}
		require.NoError(t, n.Shutdown(t.Context()))
		for _, c := range clients {
			assert.Empty(t, c.end())
		}
		assert.Nil(t, n.Addr())
	})
}

func TestServeConn(t *testing.T) {
	bubble(t, "until the peer ends it", func(t *testing.T) {
		n := newNode(nil)
		a, b := memnet.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.ServeConn(context.Background(), b)
		}()
		c := newClient(t, a)
		c.ping()
		time.Sleep(time.Minute)
		c.ping()
		select {
		case <-done:
			t.Error("returned too early")
		default:
		}
		require.NoError(t, c.Close())
		<-done
		require.NoError(t, n.Close())
		assert.Empty(t, n.all())
	})
	type key struct{}
	for name, state := range map[string]string{"idle": "", "half a line": "PI", "in a handler": "WAIT\n", "in a handler that reads": "LINE\n"} {
		bubble(t, "context cancelled, "+name, func(t *testing.T) {
			var cause error
			n := newNode(func(e *endpoint.Endpoint) {
				e.Handle("WAIT", endpoint.ServeFunc(func(ctx context.Context, _ *bufio.ReadWriter) error {
					assert.Equal(t, "value", ctx.Value(key{}))
					<-ctx.Done()
					cause = context.Cause(ctx)
					return nil
				}))
			})
			ctx, cancel := context.WithCancelCause(context.WithValue(context.Background(), key{}, "value"))
			a, b := memnet.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				n.ServeConn(ctx, b)
			}()
			c := newClient(t, a)
			c.ping()
			c.send(state)
			synctest.Wait()
			start := time.Now()
			reason := errors.New("enough")
			cancel(reason)
			<-done
			assert.Zero(t, time.Since(start))
			c.end()
			if strings.HasPrefix(state, "WAIT") {
				assert.Equal(t, reason, cause)
			}
			require.NoError(t, n.Close())
		})
	}
	bubble(t, "context cancelled before", func(t *testing.T) {
		n := newNode(nil)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		a, b := memnet.Pipe()
		n.ServeConn(ctx, b)
		assert.Empty(t, newClient(t, a).end())
		require.NoError(t, n.Close())
	})
	bubble(t, "one too many", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Connections = 1 })
		n.dial(t).ping()
		a, b := memnet.Pipe()
		go n.ServeConn(context.Background(), b)
		assert.Contains(t, newClient(t, a).end(), "ERR resource_exhausted not_run ")
	})
	bubble(t, "runtime.Goexit", func(t *testing.T) {
		n := newNode(func(e *endpoint.Endpoint) { e.AddHandleFunc("EXIT", func(*bufio.ReadWriter) { runtime.Goexit() }) })
		a, b := memnet.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.ServeConn(context.Background(), b)
		}()
		c := newClient(t, a)
		c.send("EXIT\n")
		assert.Empty(t, c.end())
		require.NoError(t, c.Close())
		<-done
		require.NoError(t, n.Close())
	})
}

// An oddListener is a listener that cannot be compared: it holds a slice.
type oddListener struct {
	net.Listener
	_ []int
}

func TestOddListener(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		n := newNode(nil)
		for range 2 {
			n.start(t, oddListener{Listener: memnet.Listen()})
		}
		synctest.Wait()
	})
}

// TestPlainPipe: a net.Conn that can neither half-close nor buffer is served
// too.
func TestPlainPipe(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		n := newNode(nil)
		a, b := net.Pipe()
		go n.ServeConn(context.Background(), b)
		c := newClient(t, a)
		go c.send("PING\nLINE x\nNONESUCH\n")
		c.expect("PONG\nline x\nERR unimplemented not_run unknown command \"NONESUCH\"\n")
		start := time.Now()
		assert.Empty(t, c.end())
		assert.Equal(t, endpoint.LingerTime, time.Since(start))
		n.only(t, "refused", "peer=pipe")
		require.NoError(t, n.Close())
	})
}
