package main_test

import (
	"bufio"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A fakePeer is a plain socket in the place of a node.
type fakePeer struct {
	l     net.Listener
	serve func(c *net.TCPConn, r *bufio.Reader)
	wg    sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	over  chan struct{} // closed at the end of the test
}

// fake starts a peer that calls serve for every connection, and closes it
// then; without serve it takes everything and says nothing. It knows no LIST: such connections are refused before serve sees them.
// Connections end with the test.
func fake(t *testing.T, serve func(c *net.TCPConn, r *bufio.Reader)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f := &fakePeer{l: l, serve: serve, over: make(chan struct{})}
	f.wg.Go(f.accept)
	t.Cleanup(func() {
		_ = l.Close()
		close(f.over)
		f.mu.Lock()
		for _, c := range f.conns {
			_ = c.Close()
		}
		f.mu.Unlock()
		f.wg.Wait()
	})
	return l.Addr().String()
}

// accept ends when the listener is closed.
func (f *fakePeer) accept() {
	for {
		c, err := f.l.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.conns = append(f.conns, c)
		f.mu.Unlock()
		f.wg.Go(func() { f.one(c.(*net.TCPConn)) })
	}
}

// one ends with the connection, or when serve returns.
func (f *fakePeer) one(c *net.TCPConn) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	if p, _ := r.Peek(5); string(p) == "LIST\n" {
		_, _ = io.WriteString(c, "ERR unimplemented not_run unknown command\n")
		_, _ = r.Discard(5)
		return
	}
	if f.serve != nil {
		f.serve(c, r)
		return
	}
	_, _ = io.Copy(io.Discard, r)
	<-f.over
}

// answer is a peer that takes everything, says text, and hangs up.
func answer(text string) func(*net.TCPConn, *bufio.Reader) {
	return func(c *net.TCPConn, r *bufio.Reader) {
		_, _ = io.Copy(io.Discard, r)
		_, _ = io.WriteString(c, text)
	}
}
