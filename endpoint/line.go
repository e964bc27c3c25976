package endpoint

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"math"
	"net"
	"sync/atomic"
	"time"

	"gobnode/internal/session"

	"github.com/pkg/errors"
)

// A lineConn is one served connection in line mode. Everything in it belongs to
// the one goroutine that serves it at a time, except state and what the
// transport says of itself.
//
// That goroutine waits for the first byte of a command without holding a
// buffer, takes buffers, runs the commands that have come, gives the buffers
// back and waits again.
type lineConn struct {
	e          *Endpoint
	t          *transport
	stream     net.Conn // t, or TLS over it
	peer       Peer
	ctx        context.Context
	cancel     context.CancelCauseFunc
	state      atomic.Int32
	turnedAway bool          // over Limits.Connections: only to be told so
	greeted    bool          // TLS is up and ConnContext was called
	lingered   bool          // linger was called
	grown      bool          // the goroutine's stack has grown, or may have
	inProcess  bool          // a session that this process opens with itself
	done       chan struct{} // closed at the end, if not nil
	session    atomic.Pointer[session.Session]
	uncut      func() bool  // if not nil, takes back that the end of ctx ends the session
	parts      atomic.Int32 // what has to end before c does: the session, and who drains it
	draining   atomic.Bool  // somebody drains the session, or has

	b        *buffers
	received int64              // bytes that went into read buffers
	now      bool               // reads do not wait: they use fd
	fd       uintptr            // during a call of try
	try      func(uintptr) bool // c.tryRead as a value, made once
	tryErr   error

	running  string // the command that runs, or ran last
	failure  error  // of a handler; it ends the connection
	panicked bool   // the failure was a panic or runtime.Goexit
}

// The states of a connection, for Shutdown.
const (
	connIdle   int32 = iota // no command runs
	connBusy                // a command runs
	connClosed              // being closed
)

var (
	errAgain    = errors.New("nothing to read yet")
	errLongLine = errors.New("a command line longer than Limits.Line")
	errCut      = errors.New("connection cut by the endpoint's end")
	errEnded    = errors.New("the connection ended")
)

const (
	// settleTime is how long a goroutine whose stack has grown waits for the
	// next command before it hands the waiting to a fresh one. A fresh one for
	// every command would grow its stack anew each time, which costs more than
	// the command; a grown stack for every idle connection costs 8 KB or more.
	settleTime = time.Second

	// A connection that is closed with an answer on its way is read from for a
	// little, or until this much has come: the kernel would answer unread bytes
	// with a reset, and a reset may overtake the answer.
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

func newLineConn(ctx context.Context, e *Endpoint, nc net.Conn) *lineConn {
	c := &lineConn{e: e, t: newTransport(nc, &e.limits)}
	c.stream = c.t
	c.peer.conn = nc
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.try = c.tryRead
	return c
}

// start has a worker serve c, until c ends or it hands c to a fresh goroutine.
func (c *lineConn) start() { c.e.workers.Go(c.run) }

// run reports whether its goroutine is of further use: see session.Workers.
func (c *lineConn) run() (again bool) {
	handedOver := false
	defer func() { // deferred for runtime.Goexit in a handler
		if !handedOver {
			c.end()
		}
	}()
	if !c.greeted {
		c.grown = true // by what the goroutine did before
		if !c.greet() {
			return true
		}
	}
	if c.inProcess {
		c.state.Store(connBusy)
		c.converse(nil)
	} else if c.serve() {
		handedOver = true
		return false
	}
	if s := c.session.Load(); s != nil {
		handedOver = true // c ends when s has
		return s.Read()
	}
	return true
}

// end closes c, once nothing of it runs any more.
func (c *lineConn) end() {
	c.report()
	c.cancel(errEnded)
	if c.peer.tls != nil {
		_ = c.peer.tls.CloseWrite() // without it the peer takes the end for a truncation
	}
	_ = c.t.Close()
	if c.failure == nil {
		c.drop()
	}
	c.e.remove(c)
	if c.done != nil {
		close(c.done)
	}
}

// cut ends c at once, from any goroutine.
func (c *lineConn) cut() {
	c.cancel(errCut)
	if s := c.session.Load(); s != nil {
		s.Abort(errCut)
	}
	_ = c.t.Close()
}

// closeIdle makes c close itself, at once if it runs no command, otherwise when
// the command has ended, or its session is drained.
func (c *lineConn) closeIdle() {
	if c.state.CompareAndSwap(connIdle, connClosed) {
		c.t.stop()
	} else if s := c.session.Load(); s != nil {
		c.drainSession(s)
	}
}

// greet makes c ready for its first command.
func (c *lineConn) greet() bool {
	c.greeted = true
	if c.e.tlsConfig != nil && !c.inProcess {
		if !c.handshake() {
			return false
		}
		c.grown = true // a handshake takes about 16 KB of stack
	}
	if c.turnedAway {
		c.refuse(refusal(ResourceExhausted, "this endpoint serves %d connections at once and has them: try again later", c.e.limits.Connections))
		return false
	}
	if f := c.e.ConnContext; f != nil && !c.inProcess {
		err := c.guard(func() error {
			nc := c.peer.conn
			if c.peer.tls != nil {
				nc = c.peer.tls
			}
			ctx := f(c.ctx, nc)
			if ctx == nil {
				return errors.New("ConnContext returned nil")
			}
			c.ctx = ctx
			return nil
		})
		return c.fail(err) == nil
	}
	return true
}

// serve runs c's commands until the end. It returns true if it has handed c to
// another goroutine.
func (c *lineConn) serve() (handedOver bool) {
	for {
		err := c.wait()
		if errors.Is(err, errBound) {
			c.grown = false
			go c.run() // no worker, whose frames make the stack grow beyond its first 2 KB
			return true
		}
		if errors.Is(err, errStopped) {
			c.t.resume()
			c.goodbye()
		}
		if err != nil {
			return false
		}
		for c.b.r.Buffered() > 0 {
			if !c.one() {
				return false
			}
		}
		c.drop()
	}
}

// wait waits for the first byte of a command line and has it in a buffer when
// it returns. A plain socket waits without one.
func (c *lineConn) wait() error {
	if c.grown {
		c.t.boundReads("", settleTime)
		defer c.t.boundReads("", 0)
	}
	return c.await()
}

// await is wait under whatever bounds there are.
func (c *lineConn) await() error {
	if c.t.raw == nil || c.peer.tls != nil {
		c.take()
		_, err := c.b.r.Peek(1)
		return err
	}
	if err := c.t.waitRead(c.try); err != nil {
		return err
	}
	return c.tryErr
}

// tryRead reads into a buffer what is there; if nothing is, it gives the buffer
// back and returns false, unless there is no time to wait.
func (c *lineConn) tryRead(fd uintptr) bool {
	c.take()
	c.now, c.fd = true, fd
	_, c.tryErr = c.b.r.Peek(1)
	c.now = false
	if errors.Is(c.tryErr, errAgain) {
		c.drop()
		return c.t.wait()
	}
	return true
}

// A source is a connection as its read buffer sees it.
type source struct{ c *lineConn }

func (s source) Read(p []byte) (n int, err error) {
	if s.c.now {
		n, err = readNow(s.c.fd, p)
	} else {
		n, err = s.c.stream.Read(p)
	}
	s.c.received += int64(n)
	return n, err
}

// position is how many bytes of the connection have been consumed.
func (c *lineConn) position() int64 { return c.received - int64(c.b.r.Buffered()) }

// one reads one command line from what has come, and more where it is not
// whole, and runs the command. It returns false when the connection is to end.
func (c *lineConn) one() bool {
	name, lineEnd, inline, err := c.readLine()
	if err != nil {
		var refused *Error
		if errors.As(err, &refused) {
			c.refuse(refused)
		} else if errors.Is(err, errStopped) {
			c.t.resume()
			c.goodbye()
		}
		return false
	}
	if len(name) == 0 {
		return true
	}
	if string(name) == sessionCommand {
		c.beginSession(inline)
		return false
	}
	en := c.e.lookup(name)
	if en == nil {
		c.refuse(c.e.unknown(name))
		return false
	}
	if en.kind == KindStream {
		c.refuse(refusal(FailedPrecondition, "%s is a stream of messages: it needs a session", quoteName(en.name)))
		return false
	}
	if !c.state.CompareAndSwap(connIdle, connBusy) { // Shutdown was first
		c.t.resume()
		c.refuse(shuttingDown())
		return false
	}
	run := c.command
	if en.kind == KindUnary {
		run = c.typed
	}
	if !run(en, inline) {
		c.linger()
		return false
	}
	if rest := lineEnd - c.position(); rest > 0 {
		_, _ = c.b.r.Discard(int(rest)) // it is in the buffer: readLine saw the line whole
	}
	if !c.e.closing.Load() {
		c.state.Store(connIdle)
		// Shutdown marks first and looks at the states then, so one of the two sees
		// the other.
		if !c.e.closing.Load() || !c.state.CompareAndSwap(connIdle, connBusy) {
			return true
		}
	}
	c.goodbye()
	return false
}

// goodbyeTime is how long a connection that ends with its endpoint is looked
// after for a command that has come. What a peer sent while the last one ran is
// in the kernel: to close on it would be a reset, which may overtake a reply.
const goodbyeTime = 5 * time.Millisecond

// goodbye tells the command that has come behind the last one why it does not
// run, if there is one.
func (c *lineConn) goodbye() {
	c.t.boundReads("", goodbyeTime)
	if c.b == nil || c.b.r.Buffered() == 0 {
		if c.await() != nil {
			return
		}
	}
	for {
		p, _ := c.b.r.Peek(c.b.r.Buffered())
		name, n, inline, refused := parseName(p)
		half := n == 0 || inline && !bytes.Contains(p[n:], []byte{'\n'})
		switch {
		case refused != nil:
			c.refuse(refused)
			return
		case half && (len(p) >= c.b.r.Size() || c.more(len(p)) != nil):
			return
		case half:
		case len(name) > 0:
			c.refuse(shuttingDown())
			return
		default: // a blank line
			_, _ = c.b.r.Discard(n)
		}
	}
}

func shuttingDown() *Error {
	return refusal(Unavailable, "this endpoint is shutting down: connect again")
}

// readLine reads a command line into the buffer and consumes it up to where the
// data begins, on the same line if it is inline. lineEnd is the position behind
// the line. The name is empty for a blank line, and valid until the next read.
func (c *lineConn) readLine() (name []byte, lineEnd int64, inline bool, err error) {
	limit := c.e.limits.Line
	if limit < 0 {
		limit = math.MaxInt
	}
	for bounded := false; ; {
		p, _ := c.b.r.Peek(c.b.r.Buffered())
		name, n, inline, refused := parseName(p)
		if refused != nil {
			return nil, 0, false, refused
		}
		end := n
		if inline {
			end += bytes.IndexByte(p[n:], '\n') + 1 // n itself if there is none
		}
		if whole := n > 0 && (!inline || end > n); whole && end <= limit {
			if bounded {
				c.t.boundReads("", 0)
			}
			lineEnd = c.position() + int64(end)
			_, err = c.b.r.Discard(n)
			return name, lineEnd, inline, err
		} else if whole || len(p) >= limit {
			refused = refusal(ResourceExhausted, "a command line has at most %d bytes, inline data included: send longer data on the next line", limit)
			refused.cause = errLongLine
			return nil, 0, false, refused
		}
		if !bounded {
			bounded = true
			c.t.boundReads("Progress", c.e.limits.Progress)
		}
		if err := c.more(len(p)); errors.Is(err, io.EOF) && len(bytes.TrimRight(p, " \r")) > 0 {
			return nil, 0, false, refusal(InvalidArgument, "the connection ended within a command line: end it with a newline")
		} else if err != nil {
			return nil, 0, false, err
		}
	}
}

// more reads at least one byte behind the have that are in the buffer, which
// grows if it must: twice the size at a time, so that a peer has to send what
// it makes the buffer hold.
func (c *lineConn) more(have int) error {
	if have == c.b.r.Size() {
		p, _ := c.b.r.Peek(have)
		r := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(p), source{c}), 2*have)
		if _, err := r.Peek(have); err != nil {
			return err
		}
		c.b = &buffers{r: r, w: c.b.w}
	}
	_, err := c.b.r.Peek(have + 1)
	return err
}
