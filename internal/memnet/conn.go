package memnet

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// DefaultBuffer is how many bytes one direction of a connection holds unless it
// is told otherwise: 64 KiB. With 4 KiB two peers that both write before they read
// are found out soon.
const DefaultBuffer = 64 << 10

// A Conn is one end of a connection. Its methods may be called from any
// goroutine. Of concurrent Writes each goes out whole, as on a TCP connection.
//
// Errors other than [io.EOF] are a [*net.OpError]; after Close or Reset of this
// end they hold [net.ErrClosed].
type Conn struct {
	*link
	peer          *Conn
	local, remote Addr
	in, out       *stream // in is the peer's out

	// Guarded by link.mu.
	closed  bool // by this end
	broken  bool // an RST came: nothing more arrives or gets out
	reset   bool // an RST came that no Read or Write has reported yet; a socket does so once
	writing bool // a Write owns out, so that others do not cut into it
	rdl     deadline
	wdl     deadline
}

// A link is what the two ends of a connection share. One lock and one
// condition for both ends cost a spurious wake-up now and then, and leave no
// order of locks to get wrong.
type link struct {
	mu      sync.Mutex
	changed sync.Cond // L is &mu: any state of either end
}

// A stream is one direction of a connection, guarded by its link's mu.
type stream struct {
	buf   bytes.Buffer
	limit int  // of buf, in bytes
	eof   bool // the writer's FIN: nothing follows buf
}

var _ net.Conn = (*Conn)(nil)

// Pipe returns the two ends of a new connection without a listener.
func Pipe() (a, b *Conn) {
	return pipe("pipe:1", "pipe:2", DefaultBuffer)
}

func pipe(aAddr, bAddr Addr, buffer int) (a, b *Conn) {
	l := new(link)
	l.changed.L = &l.mu
	ab, ba := &stream{limit: buffer}, &stream{limit: buffer}
	a = &Conn{link: l, local: aAddr, remote: bAddr, in: ba, out: ab}
	b = &Conn{link: l, local: bAddr, remote: aAddr, in: ab, out: ba, peer: a}
	a.peer = b
	return a, b
}

// Read waits for bytes and returns what there is. Once the peer has closed its
// side and all it wrote is read, it returns [io.EOF]; if the peer closed without
// having read everything, or reset the connection, one Read or Write reports
// [syscall.ECONNRESET] first. At the deadline the error is
// [os.ErrDeadlineExceeded], even if bytes are there.
func (c *Conn) Read(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case len(p) == 0:
			return 0, nil
		case c.rdl.passed():
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case c.in.buf.Len() > 0:
			n, err = c.in.buf.Read(p)
			c.changed.Broadcast()
			return n, err
		case c.reset:
			c.reset = false
			return 0, c.opError("read", os.NewSyscallError("read", syscall.ECONNRESET))
		case c.in.eof:
			return 0, io.EOF
		}
		c.changed.Wait()
	}
}

// Write puts p into the buffer and waits while that is full; n says how many
// bytes went in before an error. At the deadline the error is
// [os.ErrDeadlineExceeded]; after CloseWrite it is [syscall.EPIPE].
//
// To a peer that has closed, the first Write succeeds, up to a buffer's worth,
// and its bytes are lost: only the answer tells a TCP sender that nobody is
// there. Later ones fail with [syscall.EPIPE], or the first with
// [syscall.ECONNRESET] if the peer closed without having read everything, or
// by Reset.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	owner := false
	defer func() {
		if owner {
			c.writing = false
			c.changed.Broadcast()
		}
	}()
	for {
		if err := c.writeErr(); err != nil {
			return n, c.opError("write", err)
		}
		if owner || !c.writing {
			owner, c.writing = true, true
			n += c.send(p[n:])
			if n == len(p) {
				return n, nil
			}
			if c.broken {
				continue
			}
		}
		c.changed.Wait()
	}
}

// writeErr returns why nothing can be written, or nil. A reset counts as
// reported.
func (c *Conn) writeErr() error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.wdl.passed():
		return os.ErrDeadlineExceeded
	case c.reset:
		c.reset = false
		return os.NewSyscallError("write", syscall.ECONNRESET)
	case c.out.eof, c.broken:
		return os.NewSyscallError("write", syscall.EPIPE)
	}
	return nil
}

// send moves what fits of p into the buffer and returns how much that is. A
// closed peer takes as much, and answers with an RST.
func (c *Conn) send(p []byte) int {
	p = p[:min(len(p), max(0, c.out.limit-c.out.buf.Len()))]
	switch {
	case len(p) == 0:
	case c.peer.closed:
		c.broken = true // nobody waits: the reader has its EOF, the buffer is empty
	default:
		c.out.buf.Write(p)
		c.changed.Broadcast()
	}
	return len(p)
}

// Close ends both directions. The peer reads what was written before, then
// [io.EOF]. If this end has bytes that it did not read, the peer is sent an RST in
// place of the FIN. Blocked calls of this end return.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	if c.in.buf.Len() > 0 {
		c.peer.receiveReset()
	}
	c.close()
	return nil
}

// Reset closes this end with an RST, as a connection ends whose process was
// killed with data unread. Bytes in either direction that are not yet read are lost: TCP
// may deliver them or not. It does nothing after Close.
func (c *Conn) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.out.buf.Reset()
	c.peer.receiveReset()
	c.close()
}

// close makes this end unusable; c.mu is held.
func (c *Conn) close() {
	c.closed = true
	c.out.eof = true
	c.in.buf = bytes.Buffer{}
	c.rdl.set(time.Time{}, nil)
	c.wdl.set(time.Time{}, nil)
	c.changed.Broadcast()
}

// receiveReset takes the RST of a peer about to close. An end that has seen its
// FIN before is told of EOF and EPIPE only.
func (c *Conn) receiveReset() {
	c.reset = !c.in.eof
	c.broken = true
}

// CloseWrite ends this end's direction: the peer reads what was written
// before, then [io.EOF], and may go on writing. A blocked Write of this end fails. On a
// connection that was reset it fails with [syscall.ENOTCONN].
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return c.opError("close", net.ErrClosed)
	case c.broken:
		return c.opError("close", os.NewSyscallError("shutdown", syscall.ENOTCONN))
	}
	c.out.eof = true
	c.changed.Broadcast()
	return nil
}

// SetBuffer sets how many bytes this end can write before the peer reads; n
// below 1 means [DefaultBuffer]. What is already buffered stays, even if it is more.
func (c *Conn) SetBuffer(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.limit = bufferSize(n)
	c.changed.Broadcast()
}

func bufferSize(n int) int {
	if n < 1 {
		return DefaultBuffer
	}
	return n
}

// LocalAddr returns this end's address, an [Addr].
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the peer's address, an [Addr].
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadline(t, &c.rdl, &c.wdl) }

// SetReadDeadline sets the time from which on Reads fail, the blocked ones
// included; the zero time means never.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, &c.rdl) }

// SetWriteDeadline sets the time from which on Writes fail, the blocked ones
// included; the zero time means never.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, &c.wdl) }

func (c *Conn) setDeadline(t time.Time, ds ...*deadline) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return &net.OpError{Op: "set", Net: c.local.Network(), Addr: c.local, Err: net.ErrClosed}
	}
	for _, d := range ds {
		d.set(t, c.wake)
	}
	c.changed.Broadcast()
	return nil
}

// wake makes blocked calls look at the time again. It takes the lock because a
// broadcast between a call's look and its wait would be lost.
func (c *Conn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed.Broadcast()
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.local.Network(), Source: c.local, Addr: c.remote, Err: err}
}

// A deadline is a time and the timer that wakes those who wait for it. The
// time alone decides: a timer that was stopped too late wakes for nothing.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(t time.Time, wake func()) {
	if d.timer != nil {
		d.timer.Stop()
	}
	*d = deadline{}
	if t.IsZero() {
		return
	}
	// With the monotonic reading that t may lack, at cannot be before or behind the
	// timer when the wall clock is set.
	now := time.Now()
	left := t.Sub(now)
	d.at = now.Add(left)
	if left > 0 {
		d.timer = time.AfterFunc(left, wake)
	}
}

func (d *deadline) passed() bool {
	return !d.at.IsZero() && !time.Now().Before(d.at)
}
