package endpoint_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"
	"gobnode/internal/wire"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// rawCommands has raw commands that end in every way.
func rawCommands(e *endpoint.Endpoint) {
	e.AddHandleFunc("UPPER", func(rw *bufio.ReadWriter) { // never flushes
		for {
			l, err := rw.ReadString('\n')
			_, _ = rw.WriteString(strings.ToUpper(l))
			if err != nil {
				return
			}
		}
	})
	e.AddHandleFunc("COUNT", func(rw *bufio.ReadWriter) {
		n, _ := io.Copy(io.Discard, rw)
		_, _ = rw.WriteString(strings.Repeat("x", int(n)))
	})
	e.AddHandleFunc("PANIC", func(rw *bufio.ReadWriter) {
		_, _ = rw.WriteString("half a re")
		panic("a secret")
	})
	e.AddHandleFunc("ABORT", func(*bufio.ReadWriter) { panic(endpoint.ErrAbort) })
	e.Handle("ERROR", endpoint.ServeFunc(func(context.Context, *bufio.ReadWriter) error {
		return endpoint.Errorf(endpoint.NotFound, "as asked")
	}))
	e.Handle("WAIT", endpoint.ServeFunc(func(ctx context.Context, _ *bufio.ReadWriter) error {
		<-ctx.Done()
		return ctx.Err()
	}))
	e.Handle("SLOW", endpoint.ServeFunc(func(_ context.Context, rw *bufio.ReadWriter) error {
		time.Sleep(time.Hour)
		_, err := io.Copy(rw, rw)
		return err
	}))
}

func TestSessionRaw(t *testing.T) {
	n := tcpNode(t, rawCommands)
	c := dialNode(t, n, nil)
	open := func(name string) *endpoint.Conn {
		conn, err := c.Open(t.Context(), name)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	conn := open("UPPER")
	_, err := conn.WriteString("not flushed by the handler\n")
	require.NoError(t, err)
	require.NoError(t, conn.CloseWrite())
	all, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Equal(t, "NOT FLUSHED BY THE HANDLER\n", string(all))
	assert.NotNil(t, conn.RemoteAddr())
	_, err = conn.WriteString("late")
	require.NoError(t, err)
	assert.Error(t, conn.Flush())

	conn = open("COUNT") // more than the window, in both directions
	_, err = conn.Write(make([]byte, 1<<20))
	require.NoError(t, err)
	require.NoError(t, conn.CloseWrite())
	all, err = io.ReadAll(conn)
	require.NoError(t, err)
	assert.Len(t, all, 1<<20)

	for name, want := range map[string]struct {
		code endpoint.Code
		text string
	}{
		"PANIC": {endpoint.Internal, "incident"}, "ABORT": {endpoint.Aborted, "aborted"}, "ERROR": {endpoint.NotFound, "as asked"},
	} {
		all, err := io.ReadAll(open(name))
		assert.Empty(t, all, "what a panic left is not sent")
		require.ErrorIs(t, err, want.code, name)
		assert.Equal(t, endpoint.OutcomeFailed, endpoint.OutcomeOf(err), name)
		assert.Contains(t, err.Error(), want.text)
		assert.NotContains(t, err.Error(), "secret")
	}
	_, err = io.ReadAll(open("NOPE"))
	require.ErrorIs(t, err, endpoint.Unimplemented)
	assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
	_, err = c.Open(t.Context(), "two words")
	assertFailed(t, err, endpoint.InvalidArgument, endpoint.OutcomeNotRun, "command name")
	conn = open("UPPER")
	_, err = fail.Call(t.Context(), conn, text{})
	assertFailed(t, err, endpoint.FailedPrecondition, endpoint.OutcomeNotRun, "call on the Client")
	require.NoError(t, conn.Close())
	assertReleased(t, n)
}

// TestSessionKinds: a command called as what it is not does not run.
func TestSessionKinds(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		rawCommands(e)
		streamCommands(e)
		fail.Handle(e, misbehave)
	})
	c := dialNode(t, n, nil)
	for _, name := range []string{"COUNT", "ECHOSTREAM", "FAIL"} {
		if name != "FAIL" {
			_, err := endpoint.Command[text, text](name).Call(t.Context(), c, text{})
			assertFailed(t, err, endpoint.FailedPrecondition, endpoint.OutcomeNotRun, "unary")
		}
		if name != "ECHOSTREAM" {
			s, err := endpoint.StreamCommand[text, text](name).Open(t.Context(), c)
			require.NoError(t, err)
			_, err = s.Recv()
			assertFailed(t, err, endpoint.FailedPrecondition, endpoint.OutcomeNotRun, "stream")
		}
		if name != "COUNT" {
			conn, err := c.Open(t.Context(), name)
			require.NoError(t, err)
			_, err = io.ReadAll(conn)
			require.ErrorIs(t, err, endpoint.FailedPrecondition)
			assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
		}
	}
}

// TestSessionRawDeadlines: SetDeadline is that of a net.Conn: it can be set,
// moved and taken away while reads and writes wait.
func TestSessionRawDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memNode(t, rawCommands)
		c := dialNode(t, n, nil)
		conn, err := c.Open(t.Context(), "WAIT")
		require.NoError(t, err)
		begin := time.Now()
		require.NoError(t, conn.SetDeadline(begin.Add(time.Minute)))
		_, err = conn.ReadByte()
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(begin))
		require.NoError(t, conn.SetDeadline(time.Time{}))
		time.AfterFunc(time.Minute, func() { assert.NoError(t, conn.SetDeadline(time.Unix(1, 0))) })
		begin = time.Now()
		_, err = conn.ReadByte()
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(begin))
		require.NoError(t, conn.Close())
		_, err = conn.ReadByte()
		require.ErrorIs(t, err, endpoint.Canceled)

		conn, err = c.Open(t.Context(), "SLOW")
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		time.AfterFunc(30*time.Second, func() { assert.NoError(t, conn.SetDeadline(time.Now().Add(2*time.Hour))) })
		data := strings.Repeat("0123456789", 1<<20/10)
		wrote := make(chan error, 1)
		go func() {
			_, err := conn.Write([]byte(data))
			wrote <- errors.Join(err, conn.CloseWrite())
		}()
		all, err := io.ReadAll(conn)
		require.NoError(t, err)
		require.NoError(t, <-wrote)
		assert.True(t, string(all) == data, "every byte once")
		require.NoError(t, conn.Close())

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		conn, err = c.Open(ctx, "WAIT")
		require.NoError(t, err)
		begin = time.Now()
		_, err = io.ReadAll(conn)
		require.ErrorIs(t, err, context.DeadlineExceeded, "the handler's, whose context has the deadline of Open's")
		assert.Equal(t, time.Minute, time.Since(begin))
		require.NoError(t, conn.Close())
	})
}

// TestSessionLine: the command line that begins a session, and what stands
// around it.
func TestSessionLine(t *testing.T) {
	hello := string(wire.AppendHello(nil, &wire.Hello{}))
	ping := string(wire.AppendPing(nil, wire.KindPing, 1))
	n := tcpNode(t, nil)
	for _, test := range []struct{ name, send, want string }{
		{"alone", "SESSION 1\n", ""},
		{"with what follows in the same write", "SESSION 1\n" + hello + ping, "pong"},
		{"with spaces and a CR", "SESSION 1  \r\n" + hello + ping, "pong"},
		{"behind other commands", "PING\n\nPING\nSESSION 1\n" + hello + ping, "pong"},
		{"another version", "SESSION 2\n" + hello, "ERR failed_precondition not_run this endpoint speaks SESSION 1, not version \"2\"\n"},
		{"no version", "SESSION\n" + hello, "ERR failed_precondition not_run this endpoint speaks SESSION 1, not version \"\"\n"},
		{"more than a version", "SESSION 1 please\n", "ERR failed_precondition not_run this endpoint speaks SESSION 1, not version \"1 please\"\n"},
		{"lower case", "session 1\n", "ERR unimplemented not_run unknown command \"session\""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := n.dial(t)
			p.send(test.send)
			for range strings.Count(test.send, "PING\n") {
				p.expect("PONG\n")
			}
			if test.want != "" && test.want != "pong" {
				assert.True(t, strings.HasPrefix(p.end(), test.want))
				return
			}
			p.expect("OK\n")
			if f := readFrame(t, p.r); assert.Equal(t, wire.KindHello, f.Kind) {
				h, err := wire.ParseHello(f.Payload)
				require.NoError(t, err)
				assert.Equal(t, uint64(250), h.Calls)
				assert.Equal(t, uint64(4<<20), h.Message)
			}
			if test.want == "pong" {
				assert.Equal(t, wire.KindPong, readFrame(t, p.r).Kind)
			}
		})
	}
}

func readFrame(t *testing.T, r *bufio.Reader) wire.Frame {
	t.Helper()
	var b []byte
	for {
		c, err := r.ReadByte()
		require.NoError(t, err)
		b = append(b, c)
		f, n, err := wire.Parse(b)
		require.NoError(t, err)
		if n > 0 {
			return f
		}
	}
}

// TestSessionRefused: what Dial says where no session comes about.
func TestSessionRefused(t *testing.T) {
	dial := func(n *node, config *tls.Config) error {
		_, err := (&endpoint.Dialer{TLS: config, Logger: n.Logger}).Dial(t.Context(), n.net.Addr().String())
		return err
	}
	full := tcpNode(t, func(e *endpoint.Endpoint) { e.Limits.Connections = 1 })
	full.dial(t).ping()
	assertFailed(t, dial(full, nil), endpoint.ResourceExhausted, endpoint.OutcomeNotRun, "1 connections at once")

	serverTLS, clientTLS := testTLS(t)
	secret := tcpNode(t, func(e *endpoint.Endpoint) {
		e.TLS = serverTLS
		fail.Handle(e, func(ctx context.Context, _ text) (text, error) {
			return text{tls.VersionName(endpoint.PeerFrom(ctx).TLS().Version)}, nil
		})
		streamCommands(e)
	})
	assertFailed(t, dial(secret, nil), endpoint.FailedPrecondition, endpoint.OutcomeNotRun, "speaks TLS")
	assertFailed(t, dial(tcpNode(t, nil), clientTLS), endpoint.FailedPrecondition, endpoint.OutcomeNotRun, "does not speak TLS")

	var peer *endpoint.Peer
	c := dialNode(t, secret, &endpoint.Dialer{TLS: clientTLS, Interceptors: []endpoint.Interceptor{
		func(ctx context.Context, info *endpoint.Info, next func(context.Context) error) error {
			defer func() { peer = info.Peer }()
			return next(ctx)
		},
	}})
	reply, err := fail.Call(t.Context(), c, text{})
	require.NoError(t, err)
	assert.Equal(t, "TLS 1.3", reply.S)
	assert.NotNil(t, peer.TLS())
	require.NoError(t, exchange(t.Context(), c, 1, 20, 100_000))
	require.NoError(t, exchange(t.Context(), secret.Endpoint, 1, 3, 1000))

	for answer, want := range map[string]string{
		"ERR unimplemented not_run unknown command \"SESSION\"\n": "unknown command",
		"ERR internal unknown whatever\n":                         "whatever",
		"HTTP/1.1 400 Bad Request\r\n\r\n":                        "does not speak SESSION 1",
		"OKAY\n":                                                  "does not speak SESSION 1",
		"":                                                        "no session with",
	} {
		f := newFarEndDial(t, answer)
		_, err := f.Dial(t.Context(), "x")
		e := failure(t, err)
		assert.Equal(t, endpoint.OutcomeNotRun, e.Outcome)
		assert.Contains(t, e.Message, want)
	}
}

// newFarEndDial returns a Dialer whose peer answers the command line with
// answer and then ends its half.
func newFarEndDial(t *testing.T, answer string) *endpoint.Dialer {
	t.Helper()
	near, far := memnet.Pipe()
	t.Cleanup(func() { _ = far.Close() })
	_, err := io.WriteString(far, answer)
	require.NoError(t, err)
	require.NoError(t, far.CloseWrite())
	return &endpoint.Dialer{NetDial: func(context.Context, string, string) (net.Conn, error) { return near, nil }}
}

// testTLS returns the configurations of both sides, with a certificate made
// for this run.
func testTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: pool}
}
