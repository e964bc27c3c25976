package main_test

import (
	"context"
	"crypto/tls"
	"flag"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/types"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The restart matrix. Each test is a cell: a node is taken from under a Client
// that makes calls at a steady rate, and brought back. What the callers were told
// is compared with what the node wrote down. That a node which is away for 30 s is
// found within 200 ms is TestHealServerBack of package endpoint, under fake time.

var long = flag.Bool("long", false, "restart two nodes 50 times, not 5")

// plenty is the time of calls that are to succeed however busy the machine is.
const plenty = time.Minute

var quiet = slog.New(slog.DiscardHandler)

// TestRestartKilled: SIGKILL.
func TestRestartKilled(t *testing.T) {
	t.Parallel()
	c, addr := newCell(t), fixedAddr(t)
	p := c.start(t, addr)
	stop := c.load(c.dial(t, endpoint.Dialer{}, addr), 500, plenty)
	for range 3 {
		time.Sleep(200 * time.Millisecond)
		kill(t, p)
		time.Sleep(200 * time.Millisecond)
		p = c.start(t, addr)
	}
	time.Sleep(200 * time.Millisecond)
	stop()
	s := c.judge(t)
	assert.Zero(t, s.notRun, "those that waited found the node")
	s.returned(t)
}

// TestRestartTerminated: SIGTERM. What the node has taken it finishes, what it has
// not waits for its successor: no call fails.
func TestRestartTerminated(t *testing.T) {
	t.Parallel()
	c, addr := newCell(t), fixedAddr(t)
	p := c.start(t, addr)
	stop := c.load(c.dial(t, endpoint.Dialer{}, addr), 500, plenty)
	for range 3 {
		time.Sleep(200 * time.Millisecond)
		p.signal(t, syscall.SIGTERM)
		require.Zero(t, p.wait(t), &p.stderr)
		p = c.start(t, addr)
	}
	time.Sleep(200 * time.Millisecond)
	stop()
	s := c.judge(t)
	assert.Equal(t, s.calls, s.succeeded)
	s.returned(t)
}

// TestRestartStopped: SIGSTOP for 3 s. The node's kernel goes on to take what it is
// sent; nothing is known of a call before the node goes on itself.
func TestRestartStopped(t *testing.T) {
	t.Parallel()
	c, addr := newCell(t), fixedAddr(t)
	p := c.start(t, addr)
	client := c.dial(t, endpoint.Dialer{}, addr)
	stop := c.load(client, 100, 500*time.Millisecond)
	time.Sleep(200 * time.Millisecond)
	p.signal(t, syscall.SIGSTOP)
	time.Sleep(3 * time.Second)
	p.signal(t, syscall.SIGCONT)
	c.back = time.Now()
	c.call(client, plenty)
	stop()
	s := c.judge(t)
	assert.NotZero(t, s.unknown)
	assert.Equal(t, s.calls-s.succeeded, s.errors["deadline_exceeded"])
	assert.Zero(t, client.Stats().Nodes[0].Reconnects, "3 s are no reason to give a connection up")
	s.returned(t)
}

// TestRestartRefused: nobody listens for longer than callers wait. They are told
// why, and that nothing ran.
func TestRestartRefused(t *testing.T) {
	t.Parallel()
	c, addr := newCell(t), fixedAddr(t)
	p := c.start(t, addr)
	client := c.dial(t, endpoint.Dialer{}, addr)
	c.call(client, time.Minute)
	kill(t, p)
	stop := c.load(client, 100, 300*time.Millisecond)
	time.Sleep(time.Second)
	patient := make(chan struct{})
	go func() {
		defer close(patient)
		c.call(client, plenty)
	}()
	time.Sleep(500 * time.Millisecond)
	c.start(t, addr)
	<-patient
	stop()
	s := c.judge(t)
	refused := 0
	for _, m := range c.calls {
		if m.err != nil && m.ended.Before(c.back) && assert.ErrorContains(t, m.err, "no connection: "+addr+": cannot connect to") {
			refused++
		}
	}
	assert.Greater(t, refused, 10)
	s.returned(t)
}

// TestRestartNames: a name stands for an address that refuses, one that answers
// nothing, one that takes connections and says nothing, and one that lives; then for
// another that lives.
func TestRestartNames(t *testing.T) {
	t.Parallel()
	c, addr := newCell(t), fixedAddr(t)
	p := c.start(t, addr)
	dead := []string{refusing(t), fixedAddr(t), fake(t, nil)}
	deaf(t, dead[1])
	var addrs atomic.Pointer[[]string]
	with := func(living ...string) {
		all := slices.Concat(dead, living)
		addrs.Store(&all)
	}
	with(addr)
	client := c.dial(t, endpoint.Dialer{Resolve: func(_ context.Context, name string) ([]string, error) {
		assert.Equal(t, "service", name)
		return *addrs.Load(), nil
	}}, "service")
	stop := c.load(client, 300, plenty)
	time.Sleep(300 * time.Millisecond)
	second := fixedAddr(t)
	c.start(t, second)
	with(addr, second)
	p.signal(t, syscall.SIGTERM) // the names are asked for again, a second later at most
	require.Zero(t, p.wait(t), &p.stderr)
	time.Sleep(1200 * time.Millisecond)
	stop()
	s := c.judge(t)
	assert.Equal(t, s.calls, s.succeeded)
}

// TestRestartWrongKind: in the node's place there is, for a while, something else.
// Nothing runs there, callers are told what it is, and those with time find the
// node when it returns.
func TestRestartWrongKind(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]struct {
		serve func(t *testing.T, l net.Listener)
		says  string
	}{
		"HTTP":    {serveHTTP, "it does not speak SESSION 1"},
		"TLS":     {serveTLS, "no session with"},
		"echo":    {serveEcho, "it does not speak SESSION 1"},
		"silence": {serveNothing, "still connecting"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, addr := newCell(t), fixedAddr(t)
			p := c.start(t, addr)
			client := c.dial(t, endpoint.Dialer{}, addr)
			c.call(client, time.Minute)
			kill(t, p)
			l, err := net.Listen("tcp", addr)
			require.NoError(t, err)
			conns := &tracked{Listener: l}
			kind.serve(t, conns)
			impatient := c.load(client, 50, 300*time.Millisecond)
			time.Sleep(500 * time.Millisecond)
			enough := busy
			if name == "silence" {
				enough = 500 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), enough)
			defer cancel()
			_, err = (&endpoint.Dialer{Logger: quiet}).Dial(ctx, addr)
			assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
			assert.ErrorContains(t, err, kind.says)
			t.Log(err)
			impatient()
			patient := c.load(client, 50, plenty)
			time.Sleep(200 * time.Millisecond)
			conns.closeAll()
			c.start(t, addr)
			time.Sleep(200 * time.Millisecond)
			patient()
			s := c.judge(t)
			assert.NotZero(t, s.notRun)
			last := c.calls[len(c.calls)-1]
			assert.NoError(t, last.err)
			s.returned(t)
		})
	}
}

// tracked is a listener whose connections can be closed.
type tracked struct {
	net.Listener
	conns atomic.Pointer[[]net.Conn]
}

func (l *tracked) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		for {
			old := l.conns.Load()
			all := []net.Conn{c}
			if old != nil {
				all = append(slices.Clone(*old), c)
			}
			if l.conns.CompareAndSwap(old, &all) {
				break
			}
		}
	}
	return c, err
}

func (l *tracked) closeAll() {
	_ = l.Close()
	if conns := l.conns.Load(); conns != nil {
		for _, c := range *conns {
			_ = c.Close()
		}
	}
}

func serveHTTP(t *testing.T, l net.Listener) {
	s := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: patience}
	serveUntilClosed(t, func() { _ = s.Serve(l) }, func() { _ = s.Close() })
}

func serveTLS(t *testing.T, l net.Listener) {
	pki := newPKI(t)
	pair, err := tls.LoadX509KeyPair(pki.serverCert, pki.serverKey)
	require.NoError(t, err)
	serveEcho(t, tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}))
}

func serveEcho(t *testing.T, l net.Listener) {
	serveEach(t, l, func(c net.Conn) { _, _ = io.Copy(c, c) })
}

func serveNothing(t *testing.T, l net.Listener) {
	serveEach(t, l, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
}

func serveEach(t *testing.T, l net.Listener, serve func(net.Conn)) {
	serveUntilClosed(t, func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				serve(c)
			}()
		}
	}, func() { _ = l.Close() })
}

// serveUntilClosed runs serve on a goroutine that ends with the test.
func serveUntilClosed(t *testing.T, serve, end func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve()
	}()
	t.Cleanup(func() {
		end()
		<-done
	})
}

// TestRestartBlackhole: all that is sent to the node is lost, without a word, and so
// is what it sends, until its silence is noticed and for a second more.
func TestRestartBlackhole(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 12 s")
	}
	n, c := newNetwork(t), newCell(t)
	c.start(t, serverAddr, n.through()...)
	client := c.dial(t, endpoint.Dialer{NetDial: n.dial, Heartbeat: time.Second}, serverAddr)
	stop := c.load(client, 50, 500*time.Millisecond)
	time.Sleep(300 * time.Millisecond)
	n.plug(false)
	begin := time.Now()
	for s := range client.States(t.Context()) {
		if s.Phase != endpoint.PhaseReady {
			t.Logf("noticed after %v: %v", time.Since(begin), s)
			break
		}
	}
	assert.Less(t, time.Since(begin), 11*time.Second+busy, "10 s for the answer to a PING, and a second until that is sent")
	patient := make(chan struct{})
	go func() {
		defer close(patient)
		c.call(client, plenty)
	}()
	time.Sleep(time.Second)
	n.plug(true)
	c.back = time.Now()
	<-patient
	stop()
	s := c.judge(t)
	assert.NotZero(t, s.unknown)
	assert.NotZero(t, s.notRun)
	s.returned(t)
}

// TestRestartHalfOpen: the node's machine loses its power, and returns with a new
// node that knows nothing of the connection.
func TestRestartHalfOpen(t *testing.T) {
	t.Parallel()
	n, c := newNetwork(t), newCell(t)
	p := c.start(t, serverAddr, n.through()...)
	client := c.dial(t, endpoint.Dialer{NetDial: n.dial}, serverAddr)
	stop := c.load(client, 100, plenty)
	time.Sleep(300 * time.Millisecond)
	n.plug(false)
	time.Sleep(100 * time.Millisecond)
	kill(t, p)
	n.crash()
	n.boot()
	c.start(t, serverAddr, n.through()...)
	n.plug(true)
	c.back = time.Now()
	time.Sleep(1500 * time.Millisecond)
	stop()
	s := c.judge(t)
	assert.NotZero(t, s.unknown)
	assert.EqualValues(t, 1, client.Stats().Nodes[0].Reconnects)
	s.returned(t)
}

// TestRestartChaos: all of it, at random, to one of two nodes at a time, and calls
// with little time among others.
func TestRestartChaos(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	pause := func(most time.Duration) { time.Sleep(time.Duration(random.Int64N(int64(most)))) }
	c, addrs := newCell(t), []string{fixedAddr(t), fixedAddr(t)}
	nodes := []*process{c.start(t, addrs[0]), c.start(t, addrs[1])}
	client := c.dial(t, endpoint.Dialer{}, addrs...)
	var stops []func()
	for _, limit := range []time.Duration{20 * time.Millisecond, 200 * time.Millisecond, plenty} {
		stops = append(stops, c.load(client, 200, limit))
	}
	during := 2 * time.Second
	if *long {
		during = time.Minute
	}
	restarts := 0
	for begin := time.Now(); time.Since(begin) < during; restarts++ {
		i := random.IntN(2)
		switch random.IntN(3) {
		case 0:
			kill(t, nodes[i])
			pause(200 * time.Millisecond)
			nodes[i] = c.start(t, addrs[i])
		case 1:
			nodes[i].signal(t, syscall.SIGTERM)
			require.Zero(t, nodes[i].wait(t), &nodes[i].stderr)
			nodes[i] = c.start(t, addrs[i])
		case 2:
			nodes[i].signal(t, syscall.SIGSTOP)
			pause(400 * time.Millisecond)
			nodes[i].signal(t, syscall.SIGCONT)
		}
		pause(100 * time.Millisecond)
	}
	for _, stop := range stops {
		stop()
	}
	c.judge(t)
	stats := client.Stats()
	t.Logf("%d times; %d calls sent again; %d and %d connected again", restarts, stats.Resent, stats.Nodes[0].Reconnects, stats.Nodes[1].Reconnects)
	for _, m := range c.calls {
		if m.err != nil && m.limit > time.Second {
			assert.Equal(t, endpoint.Unavailable, endpoint.CodeOf(m.err), "%v", m.err)
			assert.Equal(t, endpoint.OutcomeUnknown, endpoint.OutcomeOf(m.err), "what did not run is sent again: %v", m.err)
		}
	}
}

// TestRollingRestarts: two nodes are restarted in turn, at 1,000 calls a second: no
// call fails.
func TestRollingRestarts(t *testing.T) {
	t.Parallel()
	c, addrs := newCell(t), []string{fixedAddr(t), fixedAddr(t)}
	nodes := []*process{c.start(t, addrs[0]), c.start(t, addrs[1])}
	client := c.dial(t, endpoint.Dialer{}, addrs...)
	stop := c.load(client, 1000, plenty)
	restarts := 5
	if *long {
		restarts = 50
	}
	for i := range restarts {
		nodes[i%2].signal(t, syscall.SIGTERM)
		require.Zero(t, nodes[i%2].wait(t), &nodes[i%2].stderr)
		nodes[i%2] = c.start(t, addrs[i%2])
		for stats := range client.Watch(t.Context()) {
			if s := stats.Nodes[i%2]; s.State.Phase == endpoint.PhaseReady && s.Reconnects >= uint64(i/2+1) {
				break
			}
		}
	}
	stop()
	s, stats := c.judge(t), client.Stats()
	t.Logf("%d restarts; %d calls sent again", restarts, stats.Resent)
	assert.Equal(t, s.calls, s.succeeded)
}

// TestDrainUnderLoad sends SIGTERM to one of two nodes of the stock kind, at 1,000
// calls a second and with a command under way that takes its time: that is
// finished, calls go to the other node, and none fails.
func TestDrainUnderLoad(t *testing.T) {
	t.Parallel()
	server, addr := startServer(t)
	client := newCell(t).dial(t, endpoint.Dialer{}, addr)
	echo, err := client.Open(t.Context(), types.EchoCommand)
	require.NoError(t, err)
	defer func() { _ = echo.Close() }()
	say := func(text string) {
		_, err := echo.WriteString(text + "\n")
		require.NoError(t, err)
		reply, err := echo.Reply()
		require.NoError(t, err)
		require.Equal(t, "Message received: "+text, reply)
	}
	say("before")
	_, other := startServer(t)
	both := newCell(t).dial(t, endpoint.Dialer{}, addr, other)
	for s := range both.Watch(t.Context()) {
		if s.Nodes[0].State.Phase == endpoint.PhaseReady && s.Nodes[1].State.Phase == endpoint.PhaseReady {
			break
		}
	}
	var calls, failed atomic.Int64
	over := make(chan struct{})
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-tick.C:
			case <-over:
				tick.Stop()
				return
			}
			calls.Add(1)
			ctx, cancel := context.WithTimeout(t.Context(), plenty)
			reply, err := types.Sum.Call(ctx, both, types.SumRequest{Numbers: []float64{1, 2}})
			cancel()
			if err != nil || reply.Total != 3 {
				failed.Add(1)
				t.Log(err)
			}
		}
	}()
	time.Sleep(200 * time.Millisecond)
	server.signal(t, syscall.SIGTERM)
	server.stderr.await(t, "ending: running commands may finish")
	time.Sleep(200 * time.Millisecond)
	say("while it drains")
	select {
	case <-server.ended:
		require.Fail(t, "ended with a command that runs")
	default:
	}
	require.NoError(t, echo.CloseWrite())
	require.Zero(t, server.wait(t), &server.stderr)
	require.Contains(t, server.stderr.String(), `msg="ended in order"`)
	close(over)
	<-loaded
	t.Logf("%d calls", calls.Load())
	assert.Zero(t, failed.Load())
	assert.NotZero(t, both.Stats().Nodes[0].Succeeded)
	assert.NotZero(t, both.Stats().Nodes[1].Succeeded)
}
