package endpoint_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"
	"gobnode/internal/session"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain fails when a goroutine or a pooled buffer is left over.
func TestMain(m *testing.M) {
	flag.Parse()
	session.CountBuffers()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		if n := session.BuffersOut(); n != 0 {
			fmt.Fprintln(os.Stderr, n, "pooled buffers of sessions did not come back")
			code = 1
		}
	}
	os.Exit(code)
}

// patience bounds what must happen soon on real sockets. No test is about it.
const patience = 20 * time.Second

// A journal is a log that tests read: one string for each line, as a
// slog.TextHandler formats it.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, string(p))
	return len(p), nil
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.lines...)
}

// with returns the lines that contain all of parts.
func (j *journal) with(parts ...string) []string {
	var found []string
next:
	for _, line := range j.all() {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// only asserts that the log is one line, which contains all of parts.
func (j *journal) only(t *testing.T, parts ...string) {
	t.Helper()
	lines := j.all()
	if assert.Len(t, lines, 1, "%q", lines) {
		for _, part := range parts {
			assert.Contains(t, lines[0], part)
		}
	}
}

// A node is an endpoint that serves, and its log.
type node struct {
	*endpoint.Endpoint
	*journal
	mem *memnet.Listener // of memNode
	net net.Listener     // of tcpNode
}

// newNode returns an endpoint that logs to a journal and has PING, LINE (one
// line of data, answered with it) and those that f, which may be nil, adds.
func newNode(f func(*endpoint.Endpoint)) *node {
	n := &node{Endpoint: endpoint.New(), journal: new(journal)}
	n.Logger = n.logger()
	n.AddHandleFunc("PING", func(rw *bufio.ReadWriter) { _, _ = rw.WriteString("PONG\n") })
	n.AddHandleFunc("LINE", func(rw *bufio.ReadWriter) {
		line, err := rw.ReadString('\n')
		if err == nil {
			_, _ = rw.WriteString("line " + line)
		}
	})
	if f != nil {
		f(n.Endpoint)
	}
	return n
}

// memNode serves a newNode in memory until the test ends.
func memNode(t *testing.T, f func(*endpoint.Endpoint)) *node {
	n := newNode(f)
	n.mem = memnet.Listen()
	n.start(t, n.mem)
	return n
}

// tcpNode serves a newNode on loopback until the test ends.
func tcpNode(t *testing.T, f func(*endpoint.Endpoint)) *node {
	n := newNode(f)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n.net = l
	n.start(t, l)
	return n
}

func (n *node) start(t *testing.T, l net.Listener) {
	served := make(chan error, 1)
	go func() { served <- n.Serve(l) }()
	t.Cleanup(func() {
		assert.NoError(t, n.Close())
		assert.ErrorIs(t, <-served, endpoint.ErrClosed)
	})
}

// dial connects to n. The connection is closed when the test ends.
func (n *node) dial(t *testing.T) *client {
	t.Helper()
	var c net.Conn
	var err error
	if n.mem != nil {
		c, err = n.mem.Dial(t.Context())
	} else {
		c, err = net.Dial(n.net.Addr().Network(), n.net.Addr().String())
	}
	require.NoError(t, err)
	return newClient(t, c)
}

// dialTCP connects to an address on loopback.
func dialTCP(t *testing.T, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	return newClient(t, c)
}

// A client is the other end of a connection, in bytes.
type client struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func newClient(t *testing.T, c net.Conn) *client {
	if _, ok := c.(*memnet.Conn); !ok {
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	}
	t.Cleanup(func() { _ = c.Close() })
	return &client{Conn: c, t: t, r: bufio.NewReader(c)}
}

func (c *client) send(s string) {
	c.t.Helper()
	_, err := io.WriteString(c.Conn, s)
	require.NoError(c.t, err)
}

// expect reads exactly s.
func (c *client) expect(s string) {
	c.t.Helper()
	got := make([]byte, len(s))
	n, err := io.ReadFull(c.r, got)
	require.NoError(c.t, err, "after %q of %q", got[:n], s)
	require.Equal(c.t, s, string(got))
}

// line reads a line, without its end.
func (c *client) line() string {
	c.t.Helper()
	s, err := c.r.ReadString('\n')
	require.NoError(c.t, err)
	return strings.TrimSuffix(s, "\n")
}

// ping shows that the connection serves.
func (c *client) ping() {
	c.t.Helper()
	c.send("PING\n")
	c.expect("PONG\n")
}

// end reads until the peer ends the connection and returns what came before.
func (c *client) end() string {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if err != nil {
		require.True(c.t, ended(err), "%v", err)
	}
	return string(rest)
}

// ended reports whether err says that the peer is gone.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func (c *client) closeWrite() {
	c.t.Helper()
	require.NoError(c.t, c.Conn.(interface{ CloseWrite() error }).CloseWrite())
}

// seeded returns a source of chance and prints its seed, which the environment
// variable SEED repeats.
func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	if s := os.Getenv("SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// seeds are n of them out of r, for as many goroutines.
func seeds(r *rand.Rand, n int) []uint64 {
	list := make([]uint64, n)
	for i := range list {
		list[i] = r.Uint64()
	}
	return list
}

// handle returns a command that takes no data and answers reply.
func handle(reply string) endpoint.HandleFunc {
	return func(rw *bufio.ReadWriter) { _, _ = rw.WriteString(reply) }
}
