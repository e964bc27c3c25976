package endpoint_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// against opens a Conn to a server that f plays. It is waited for.
func against(t *testing.T, limits endpoint.Limits, f func(c *client)) *endpoint.Conn {
	a, b := memnet.Pipe()
	d := &endpoint.Dialer{Limits: limits, NetDial: func(context.Context, string, string) (net.Conn, error) { return a, nil }}
	c, err := d.Open(t.Context(), "")
	require.NoError(t, err)
	wait := together(func() {
		f(newClient(t, b))
		_ = b.Close()
	})
	t.Cleanup(func() {
		_ = c.Close()
		wait()
	})
	return c
}

func TestConnCommand(t *testing.T) {
	bubble(t, "bad names", func(t *testing.T) {
		c := against(t, endpoint.Limits{}, func(c *client) { assert.Empty(t, c.end(), "nothing is written") })
		for name, text := range map[string]string{
			"": "empty", "A B": "printable ASCII", "A\nB": "printable ASCII", "A\r": "printable ASCII", strings.Repeat("x", 65): "longer than 64 bytes", "\u00fc": "printable ASCII",
		} {
			err := c.Command(name)
			assert.ErrorIs(t, err, endpoint.InvalidArgument, name)
			assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
			assert.ErrorContains(t, err, text)
		}
		require.NoError(t, c.Flush())
	})
	bubble(t, "nothing goes out before Flush", func(t *testing.T) {
		got := ""
		c := against(t, endpoint.Limits{}, func(c *client) {
			b := make([]byte, 100)
			n, _ := c.Read(b)
			got = string(b[:n])
			_, _ = c.Write([]byte("x\n"))
		})
		require.NoError(t, c.Command("ONE"))
		require.NoError(t, c.Command("TWO"))
		time.Sleep(time.Hour)
		assert.Empty(t, got)
		reply, err := c.Reply() // flushes
		require.NoError(t, err)
		assert.Equal(t, "x", reply)
		assert.Equal(t, "ONE\nTWO\n", got)
	})
	bubble(t, "a lost connection", func(t *testing.T) {
		c := against(t, endpoint.Limits{}, func(*client) {})
		synctest.Wait()
		var err error
		for err == nil { // until it comes out of the buffer
			err = c.Command(strings.Repeat("x", 64))
		}
		assert.True(t, ended(err), "%v", err)
		_, err = c.Reply()
		assert.True(t, ended(err), "%v", err)
		assert.True(t, ended(c.CloseWrite()))
	})
}

func TestConnReply(t *testing.T) {
	for name, tt := range map[string]struct {
		sent, want string
		err        error
		text       string
	}{
		"line":              {"hello\n", "hello", nil, ""},
		"CRLF":              {"hello\r\n", "hello", nil, ""},
		"CRs":               {"hello\r\r\n", "hello\r", nil, ""},
		"empty":             {"\n", "", nil, ""},
		"longer than 4 KiB": {strings.Repeat("x", 8191) + "\n", strings.Repeat("x", 8191), nil, ""},
		"too long":          {strings.Repeat("x", 8192) + "\n", "", endpoint.ResourceExhausted, "longer than 8192 bytes"},
		"endless":           {strings.Repeat("x", 60000), "", endpoint.ResourceExhausted, "longer than 8192 bytes"},
		"ERR":               {"ERR not_found failed no such order\n", "", endpoint.NotFound, "no such order (not_found, failed)"},
		"ERR, CRLF":         {"ERR aborted unknown x\r\n", "", endpoint.Aborted, "x (aborted, unknown)"},
		"ERR of its own":    {"ERR 17\n", "ERR 17", nil, ""},
		"nothing":           {"", "", io.EOF, ""},
		"half a line":       {"hel", "", io.ErrUnexpectedEOF, ""},
	} {
		bubble(t, name, func(t *testing.T) {
			c := against(t, endpoint.Limits{}, func(c *client) { _, _ = c.Write([]byte(tt.sent)) })
			got, err := c.Reply()
			assert.Equal(t, tt.want, got)
			if tt.err == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, tt.err)
			assert.ErrorContains(t, err, tt.text)
		})
	}
	bubble(t, "limit by configuration, then none", func(t *testing.T) {
		serve := func(c *client) { _, _ = c.Write([]byte(strings.Repeat("x", 20000) + "\n")) }
		_, err := against(t, endpoint.Limits{Line: 100}, serve).Reply()
		assert.ErrorContains(t, err, "longer than 100 bytes")
		reply, err := against(t, endpoint.Limits{Line: -1}, serve).Reply()
		require.NoError(t, err)
		assert.Len(t, reply, 20000)
	})
}

// TestConnToldInTheMiddle: an endpoint that refuses a command does not read its
// data. The caller, whose writes fail, is told why all the same.
func TestConnToldInTheMiddle(t *testing.T) {
	t.Run("tcp", func(t *testing.T) {
		n := tcpNode(t, nil)
		told := 0
		for range 20 {
			c, err := endpoint.Open(n.net.Addr().String())
			require.NoError(t, err)
			require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
			require.NoError(t, c.Command("NONESUCH"))
			for range 1000 {
				if _, err = c.Write(make([]byte, 4<<10)); err != nil {
					break
				}
			}
			_, err = c.Reply()
			if errors.Is(err, endpoint.Unimplemented) {
				assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
				told++
			} else {
				assert.True(t, ended(err), "%v", err)
			}
			_ = c.Close()
		}
		t.Logf("told %d of 20", told)
		assert.NotZero(t, told, "a reset may take the line along, but not each time")
	})
	bubble(t, "memory", func(t *testing.T) {
		c := against(t, endpoint.Limits{}, func(c *client) {
			c.expect("NONESUCH\n")
			_, _ = c.Write([]byte("ERR unimplemented not_run unknown command\n"))
		})
		require.NoError(t, c.Command("NONESUCH"))
		require.NoError(t, c.Flush())
		synctest.Wait()
		var err error
		for err == nil {
			_, err = c.Write(make([]byte, 4<<10))
		}
		_, err = c.Reply()
		assert.ErrorIs(t, err, endpoint.Unimplemented)
		assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
	})
}

func TestConnDeadlineAndClose(t *testing.T) {
	bubble(t, "deadline", func(t *testing.T) {
		n := memNode(t, nil)
		c, err := n.dialer(nil).Open(t.Context(), "localhost")
		require.NoError(t, err)
		start := time.Now()
		require.NoError(t, c.SetDeadline(start.Add(time.Minute)))
		_, err = c.Reply()
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, endpoint.DeadlineExceeded, endpoint.CodeOf(err))
		assert.Equal(t, time.Minute, time.Since(start))
		require.NoError(t, c.Close())
		assert.ErrorIs(t, c.Command("PING"), nil, "into the buffer")
		assert.ErrorIs(t, c.Flush(), net.ErrClosed)
		assert.Error(t, c.Close())
		assert.ErrorIs(t, c.SetDeadline(time.Time{}), net.ErrClosed)
	})
	for _, secure := range []bool{false, true} {
		name := map[bool]string{false: "CloseWrite", true: "CloseWrite under TLS"}[secure]
		bubble(t, name, func(t *testing.T) {
			config := clientTLS()
			n := memNode(t, withTLS)
			if !secure {
				n, config = memNode(t, nil), nil
			}
			c, err := n.dialer(config).Open(t.Context(), "localhost")
			require.NoError(t, err)
			require.NoError(t, c.Command("PING"))
			require.NoError(t, c.CloseWrite())
			reply, err := c.Reply()
			require.NoError(t, err)
			assert.Equal(t, "PONG", reply)
			_, err = c.Reply()
			assert.ErrorIs(t, err, io.EOF)
			require.NoError(t, c.Close())
		})
	}
	bubble(t, "CloseWrite of what has no halves", func(t *testing.T) {
		a, b := net.Pipe()
		d := &endpoint.Dialer{NetDial: func(context.Context, string, string) (net.Conn, error) { return a, nil }}
		c, err := d.Open(t.Context(), "")
		require.NoError(t, err)
		assert.ErrorContains(t, c.CloseWrite(), "*net.pipe cannot be closed for writing alone")
		require.NoError(t, c.Close())
		_ = b.Close()
	})
}

func TestDialerErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	gone := l.Addr().String()
	require.NoError(t, l.Close())
	missing := filepath.Join(t.TempDir(), "s")
	for addr, tt := range map[string]struct {
		code  endpoint.Code
		is    error
		texts []string
	}{
		gone:                     {endpoint.Unavailable, syscall.ECONNREFUSED, []string{"cannot connect to " + gone, "connection refused", "is an endpoint listening there?"}},
		"unix:" + missing:        {endpoint.Unavailable, syscall.ENOENT, []string{"cannot connect to " + missing, "no such file", "is an endpoint listening there?"}},
		"no-such-host.invalid":   {endpoint.Unavailable, nil, []string{"cannot connect to no-such-host.invalid:61000", "no-such-host.invalid", "is the name right?"}},
		"localhost:no-such-port": {endpoint.InvalidArgument, nil, []string{"cannot connect to localhost:no-such-port", "unknown port"}},
		"localhost:99999":        {endpoint.InvalidArgument, nil, []string{"invalid port"}},
		"a:b:c":                  {endpoint.InvalidArgument, nil, []string{"cannot connect to a:b:c: too many colons in address"}},
		"unix:" + t.TempDir():    {endpoint.Unavailable, nil, []string{"cannot connect to "}},
	} {
		_, err := endpoint.Open(addr)
		require.Error(t, err, addr)
		assert.Equal(t, tt.code, endpoint.CodeOf(err), "%s: %v", addr, err)
		assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err), addr)
		if tt.is != nil {
			assert.ErrorIs(t, err, tt.is, addr)
		}
		for _, text := range tt.texts {
			assert.ErrorContains(t, err, text, addr)
		}
		assert.NotContains(t, err.Error(), "dial tcp", addr)
		assert.NotContains(t, err.Error(), "\n", addr)
	}
}

func TestDialerTime(t *testing.T) {
	blocked := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	bubble(t, "5 s", func(t *testing.T) {
		start := time.Now()
		_, err := (&endpoint.Dialer{NetDial: blocked}).Open(t.Context(), "far-away")
		assert.Equal(t, 5*time.Second, time.Since(start))
		assert.ErrorIs(t, err, endpoint.DeadlineExceeded)
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
		assert.ErrorContains(t, err, "cannot connect to far-away:61000: no answer for 5s")
	})
	bubble(t, "the context's deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := (&endpoint.Dialer{NetDial: blocked}).Open(ctx, "far-away")
		assert.Equal(t, time.Second, time.Since(start))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, endpoint.DeadlineExceeded, endpoint.CodeOf(err))
	})
	bubble(t, "cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		reason := errors.New("not wanted any more")
		time.AfterFunc(time.Second, func() { cancel(reason) })
		start := time.Now()
		_, err := (&endpoint.Dialer{NetDial: blocked}).Open(ctx, "far-away")
		assert.Equal(t, time.Second, time.Since(start))
		assert.ErrorIs(t, err, endpoint.Canceled)
		assert.ErrorIs(t, err, reason)
	})
	bubble(t, "the context has no effect later", func(t *testing.T) {
		n := memNode(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		c, err := n.dialer(nil).Open(ctx, "localhost")
		require.NoError(t, err)
		cancel()
		synctest.Wait()
		require.NoError(t, c.Command("PING"))
		reply, err := c.Reply()
		require.NoError(t, err)
		assert.Equal(t, "PONG", reply)
		require.NoError(t, c.Close())
	})
	bubble(t, "what NetDial is given", func(t *testing.T) {
		for addr, want := range map[string]string{"": "tcp :61000", "h": "tcp h:61000", "h:1": "tcp h:1", "unix:p": "unix p", "::1": "tcp [::1]:61000"} {
			got := ""
			d := &endpoint.Dialer{NetDial: func(_ context.Context, network, address string) (net.Conn, error) {
				got = network + " " + address
				return nil, io.ErrClosedPipe
			}}
			_, err := d.Open(t.Context(), addr)
			assert.ErrorIs(t, err, io.ErrClosedPipe)
			assert.Equal(t, want, got)
		}
	})
}

// TestUserTimeout and keep-alive are set where the system has them: shown on the
// sockets of both sides in socket_linux_test.go.

// TestPeerAddresses: how peers are called in logs.
func TestPeerAddresses(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Handle("PEER", endpoint.ServeFunc(func(ctx context.Context, rw *bufio.ReadWriter) error {
			p := endpoint.PeerFrom(ctx)
			_, err := rw.WriteString(p.String() + " " + p.Addr().String() + "\n")
			return err
		}))
	})
	c := n.dial(t)
	c.send("PEER\n")
	local := c.LocalAddr().String()
	assert.Equal(t, local+" "+local, c.line())
}
