package memnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// DefaultBacklog is how many dialled connections wait for Accept before a Dial
// has to wait itself: 4096, as net.core.somaxconn is on Linux since 5.4.
const DefaultBacklog = 4096

// listeners counts the listeners of the process, for their addresses.
var listeners atomic.Int64

// A Listener is a [net.Listener] that [Listener.Dial] connects to. Its methods
// may be called from any goroutine. The zero value is an address where nobody
// listens: to dial it is refused.
type Listener struct {
	addr Addr
	host string

	mu       sync.Mutex
	changed  sync.Cond // L is &mu: any field below
	open     bool
	queue    []*Conn // dialled and not yet accepted
	backlog  int     // of queue
	buffer   int     // of each direction of a new connection
	dialled  int     // connections so far, for their addresses
	failure  error   // what the next failures Accepts return
	failures int
}

var _ net.Listener = (*Listener)(nil)

// Listen returns a new listener with buffers of [DefaultBuffer] and a queue of
// [DefaultBacklog].
func Listen() *Listener {
	host := fmt.Sprintf("mem%d", listeners.Add(1))
	l := &Listener{
		addr: Addr(host + ":1"), host: host,
		open: true, backlog: DefaultBacklog, buffer: DefaultBuffer,
	}
	l.changed.L = &l.mu
	return l
}

// Dial connects to l without waiting for Accept; the net.Conn is a [*Conn].
// While the queue of l is full it waits, at most until ctx ends, with ctx's error. On
// a listener that is closed the error is [syscall.ECONNREFUSED]. Errors are a
// [*net.OpError].
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	stop := context.AfterFunc(ctx, l.wake)
	defer stop()
	for l.open && len(l.queue) >= l.backlog && ctx.Err() == nil {
		l.changed.Wait()
	}
	switch {
	case ctx.Err() != nil:
		return nil, l.opError("dial", ctx.Err())
	case !l.open:
		return nil, l.opError("dial", os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	l.dialled++
	from := Addr(fmt.Sprintf("%s:%d", l.host, 1+l.dialled))
	client, server := pipe(from, l.addr, l.buffer)
	l.queue = append(l.queue, server)
	l.changed.Broadcast()
	return client, nil
}

// Accept waits for the next connection, a [*Conn]. After Close it fails with
// [net.ErrClosed], and so does a call that waits.
func (l *Listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.open && l.failures == 0 && len(l.queue) == 0 {
		l.changed.Wait()
	}
	switch {
	case !l.open:
		return nil, l.opError("accept", net.ErrClosed)
	case l.failures > 0:
		l.failures--
		return nil, l.opError("accept", l.failure)
	}
	c := l.queue[0]
	l.queue = l.queue[1:]
	l.changed.Broadcast()
	return c, nil
}

// FailAccept makes the next n Accepts fail with err in a [*net.OpError], one
// that waits included; connections that are dialled meanwhile stay in the queue. What
// a process out of files sees is os.NewSyscallError("accept4", syscall.EMFILE). A later
// call takes the place of what is left of an earlier one; n below 1 ends it.
func (l *Listener) FailAccept(err error, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failure, l.failures = err, max(0, n)
	l.changed.Broadcast()
}

// Close ends the listener: Accept and Dial fail, those that wait included, and
// connections not yet accepted are reset. Accepted ones go on. A second Close returns
// [net.ErrClosed].
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open {
		return l.opError("close", net.ErrClosed)
	}
	l.open = false
	for _, c := range l.queue {
		c.Reset()
	}
	l.queue = nil
	l.changed.Broadcast()
	return nil
}

// Addr returns the listener's address, an [Addr].
func (l *Listener) Addr() net.Addr { return l.addr }

// SetBuffer sets the size in bytes of both directions of connections dialled
// from now on; n below 1 means [DefaultBuffer]. [Conn.SetBuffer] sets one direction
// of one connection.
func (l *Listener) SetBuffer(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buffer = bufferSize(n)
}

// SetBacklog sets how many connections wait for Accept before Dial blocks; n
// below 1 means [DefaultBacklog]. With 1 and no Accept, the second Dial hangs as one to a
// host that does not answer.
func (l *Listener) SetBacklog(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n < 1 {
		n = DefaultBacklog
	}
	l.backlog = n
	l.changed.Broadcast()
}

// wake makes a Dial that waits look at its context again.
func (l *Listener) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed.Broadcast()
}

func (l *Listener) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: l.addr.Network(), Addr: l.addr, Err: err}
}
