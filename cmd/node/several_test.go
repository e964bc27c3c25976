package main_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	node "gobnode/cmd/node"
	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// refusing is an address where nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// TestFirstThatAnswers gives every form a list of addresses.
func TestFirstThatAnswers(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	list := refusing(t) + ", " + addr + "," + refusing(t)
	assert.Equal(t, result{stdout: "PONG\n"}, run(t, nil, "-connect", list, "PING"))
	assert.Equal(t, result{stdout: "{\"Total\":6}\n"}, run(t, nil, "-connect", list, "SUM", `{"Numbers":[1,2,3]}`))
	assert.Equal(t, result{stdout: "PONG\n"}, run(t, strings.NewReader("PING\n"), "-connect", list, "-i"))
	assert.Equal(t, result{stdout: "* nobody else is here\n"}, run(t, strings.NewReader(""), "-connect", list, "-chat", "ann", "-q"))
	join := run(t, nil, "-connect", list)
	assert.Zero(t, join.code)
	assert.Equal(t, "Thank you.\n", join.stdout)
	assert.Contains(t, join.stderr, "peer="+addr)
}

// TestNoneAnswers checks that every address is named with what is wrong there.
func TestNoneAnswers(t *testing.T) {
	t.Parallel()
	a, b := refusing(t), refusing(t)
	refused := func(addr string) string {
		return "cannot connect to " + addr + ": connection refused: is an endpoint listening there? Try: node -listen " + addr + " there"
	}
	for _, form := range [][]string{nil, {"PING"}, {"-i"}, {"-chat", "ann"}} {
		r := run(t, strings.NewReader(""), append([]string{"-connect", a + "," + b}, form...)...)
		assert.Equal(t, result{3, "", "node: no node answers: " + refused(a) + "; " + refused(b) + "\n"}, r)
	}
	r := run(t, nil, "-connect", a+","+b, "-watch")
	assert.Equal(t, 3, r.code)
	assert.Contains(t, r.stderr, "cannot connect to any node: "+a+": ")
	assert.Contains(t, r.stderr, "; "+b+": ")
	assert.Equal(t, result{3, "", "node: " + refused(a) + "\n"}, run(t, nil, "-connect", a, "-watch"))
}

// TestOneNode checks that the connections of one command go to one node, also
// when an address before it in the list begins to answer between them.
func TestOneNode(t *testing.T) {
	t.Parallel()
	first := refusing(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	served := make(chan struct{})
	go func() {
		defer close(served)
		list, _ := l.Accept()
		other, err := net.Listen("tcp", first)
		if err == nil {
			defer func() { _ = other.Close() }()
		}
		_, _ = io.WriteString(list, "ERR unimplemented not_run no such command\n")
		_ = list.Close()
		ping, _ := l.Accept()
		line, _ := bufio.NewReader(ping).ReadString('\n')
		_, _ = io.WriteString(ping, line)
		_ = ping.Close()
	}()
	r := run(t, nil, "-connect", first+","+l.Addr().String(), "PING")
	assert.Equal(t, result{stdout: "PING\n"}, r)
	<-served
}

// TestWatch watches two nodes, of which one is killed and returns.
func TestWatch(t *testing.T) {
	t.Parallel()
	skipWithoutSignals(t)
	_, a := startServer(t)
	server, b := startServer(t)
	w := start(t, "-connect", a+","+b, "-watch")
	const at = `(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\S+ `
	w.stdout.await(t, at+a+` ready, rtt \S+s$`)
	w.stdout.await(t, at+b+` ready, rtt \S+s$`)
	kill(t, server)
	w.stdout.await(t, at+b+` (connecting|backing off): the connection broke: .+$`)
	w.stdout.await(t, at+b+` backing off: cannot connect to `+b+`: connection refused$`)
	time.Sleep(500 * time.Millisecond) // several attempts, of which nothing is told
	server, _ = startServer(t, "-listen", b)
	w.stdout.await(t, at+b+` ready again after \S+s, rtt \S+s$`)
	server.signal(t, syscall.SIGTERM)
	w.stdout.await(t, at+b+` (draining|connecting|backing off): the peer is being drained$`)
	assert.LessOrEqual(t, strings.Count(w.stdout.String(), "connection refused"), 2)
	assert.LessOrEqual(t, strings.Count(w.stdout.String(), a), 2) // connecting, at first
	w.signal(t, syscall.SIGINT)
	require.Zero(t, w.wait(t))
	require.Empty(t, w.stderr.String())
}

// TestWatchVerbose checks that -v tells every attempt.
func TestWatchVerbose(t *testing.T) {
	t.Parallel()
	_, a := startServer(t)
	b := refusing(t)
	w := start(t, "-connect", a+","+b, "-watch", "-v")
	w.stdout.await(t, `(?s)`+b+` backing off .*`+b+` connecting: .*`+b+` backing off `)
	w.stderr.await(t, `msg="cannot connect" addr=`+b)
}

// TestWatchMeasures checks that a round-trip time is told when it is measured
// anew: every second with a node that wishes so.
func TestWatchMeasures(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	e := &endpoint.Endpoint{Heartbeat: time.Second}
	served := make(chan error, 1)
	go func() { served <- e.Serve(l) }()
	ctx, cancel := context.WithCancel(t.Context())
	var stdout transcript
	code := make(chan int)
	go func() {
		code <- node.Run(ctx, []string{"-connect", l.Addr().String(), "-watch"}, nil, &stdout, io.Discard)
	}()
	stdout.await(t, ` ready, rtt \S+s\n\S+ `+l.Addr().String()+` rtt \S+s\n`)
	cancel()
	require.Zero(t, <-code)
	require.NoError(t, e.Close())
	require.ErrorIs(t, <-served, endpoint.ErrClosed)
}
