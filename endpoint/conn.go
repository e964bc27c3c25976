package endpoint

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"

	"github.com/pkg/errors"
)

// A Conn is the caller's side of a connection in line mode: the command line is
// written with Command, the data and the reply are written and read as the
// command wants them. Writes are buffered: Flush sends them.
//
//	c, err := endpoint.Open("localhost:61000")
//	...
//	c.Command("STRING")
//	c.WriteString("Additional data.\n")
//	c.Flush()
//	reply, err := c.Reply()
//
// One goroutine may read while another writes; Reply does both. The caller closes a Conn; after
// an error of reading or writing it is of no more use.
//
// A Conn is a [Caller]: typed commands are called on it from any number of
// goroutines, one at a time, the others waiting within their contexts. While
// calls are under way nothing else may use it, and what raw commands answered
// must have been read. After a failed call it is dead, and fails every later one
// with unavailable not_run, unless the endpoint answered with an ERR line behind
// which it does not close.
type Conn struct {
	*bufio.ReadWriter

	conn   net.Conn // of the network
	stream net.Conn // conn, or TLS over it
	limits Limits
	turn   chan struct{} // of capacity 1: held by the call under way
	dead   bool          // guarded by turn

	mu       sync.Mutex // guards following
	deadline time.Time  // of SetDeadline
	ended    bool       // the context of the call under way has ended: its deadline is in force
}

func newConn(c, stream net.Conn, limits Limits) *Conn {
	return &Conn{
		ReadWriter: bufio.NewReadWriter(bufio.NewReader(stream), bufio.NewWriter(stream)),
		conn:       c, stream: stream, limits: limits, turn: make(chan struct{}, 1),
	}
}

// Command writes the command line for name. Data follows on the next line;
// nothing is sent before Flush. It fails, invalid_argument not_run, on a name
// that no command can have, and writes nothing then.
func (c *Conn) Command(name string) error {
	if err := checkName(name); err != nil {
		return errors.WithStack(err)
	}
	if _, err := c.WriteString(name + "\n"); err != nil {
		return errors.WithStack(err)
	}
	return nil
}

// Reply flushes what was written and reads one line, which it returns without
// its end. An ERR line, with which an endpoint refuses a command, comes back as
// an *Error, also when the endpoint closed without having taken all that was
// written. A line longer than Limits.Line is an error, and io.ErrUnexpectedEOF
// one that ends with the connection.
func (c *Conn) Reply() (string, error) {
	if err := c.Flush(); err != nil {
		if e := c.whyRefused(err); e != nil {
			return "", errors.WithStack(e)
		}
		return "", errors.WithStack(err)
	}
	line, err := c.readLine()
	if err != nil {
		return "", errors.WithStack(err)
	}
	text := string(line)
	if e, ok := parseErrLine(text); ok {
		return "", errors.WithStack(e)
	}
	return text, nil
}

// whyRefused returns what the endpoint said before it closed, if that is why a
// write failed with err. There is no waiting for it: the peer is gone.
func (c *Conn) whyRefused(err error) *Error {
	if !gone(err) {
		return nil
	}
	line, err := c.readLine()
	if err != nil {
		return nil
	}
	e, _ := parseErrLine(string(line))
	return e
}

// readLine reads a line, without its end.
func (c *Conn) readLine() ([]byte, error) {
	var line []byte
	for {
		part, err := c.ReadSlice('\n')
		if limit := c.limits.Line; limit > 0 && len(line)+len(part) > limit {
			return nil, Errorf(ResourceExhausted, "the reply's line is longer than %d bytes", limit)
		}
		if err == nil && line == nil {
			return trimLine(part), nil // the usual case: no copy
		}
		line = append(line, part...)
		if err == nil {
			return trimLine(line), nil
		}
		if errors.Is(err, io.EOF) && len(line) > 0 {
			return nil, io.ErrUnexpectedEOF
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

// trimLine takes the LF or CRLF off a line.
func trimLine(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line
}

// SetDeadline bounds all reads and writes from now on, as of net.Conn. A typed
// call ends with its context if that is earlier.
func (c *Conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.ended {
		return nil // release sets it
	}
	return errors.WithStack(c.stream.SetDeadline(t))
}

// CloseWrite flushes what was written and tells the endpoint that no more
// comes. Replies can still be read; the endpoint closes when it has sent them.
func (c *Conn) CloseWrite() error {
	if err := c.Flush(); err != nil {
		return errors.WithStack(err)
	}
	if tc, ok := c.stream.(*tls.Conn); ok {
		return errors.WithStack(tc.CloseWrite())
	}
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		return errors.WithStack(half.CloseWrite())
	}
	return errors.Errorf("%T cannot be closed for writing alone", c.conn)
}

// Close closes the connection. What was not flushed is lost.
func (c *Conn) Close() error { return errors.WithStack(c.stream.Close()) }

// RemoteAddr returns the endpoint's address.
func (c *Conn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }
