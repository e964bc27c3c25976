//go:build unix

package session

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// A rawConn reads and writes a socket without blocking. Its read methods are for the reader alone, tryWrite for whoever has
// the right to write.
type rawConn struct {
	c syscall.RawConn

	// What the functions given to c work on: fields, so that they are made once and not for each call.
	readFunc  func(fd uintptr) bool
	tryFunc   func(fd uintptr)
	read      func(fd int) (int, error) // fills the reader's buffer
	n         int
	err       error
	writeFunc func(fd uintptr)
	out       []byte
	wn        int
	werr      error
}

// newRawConn returns nil unless conn itself is a socket. A type that embeds one is not: its own Read and Write must not be
// passed by.
func newRawConn(conn net.Conn) *rawConn {
	var sc syscall.Conn
	switch c := conn.(type) {
	case *net.TCPConn:
		sc = c
	case *net.UnixConn:
		sc = c
	default:
		return nil
	}
	c, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	r := &rawConn{c: c}
	r.readFunc, r.writeFunc = r.doRead, r.doWrite
	return r
}

// wait waits until the socket can be read and calls read, again if that says EAGAIN. So nobody needs a buffer while there
// is nothing to put into it.
func (r *rawConn) wait(read func(fd int) (int, error)) (int, error) {
	r.read = read
	if err := r.c.Read(r.readFunc); err != nil {
		return 0, err
	}
	if r.err == nil && r.n == 0 {
		return 0, io.EOF
	}
	return r.n, r.err
}

// tryRead is wait without the waiting: the error says EAGAIN where there is nothing to read.
func (r *rawConn) tryRead(read func(fd int) (int, error)) (int, error) {
	r.read = read
	if r.tryFunc == nil { // few sessions spin
		r.tryFunc = r.doTry
	}
	if err := r.c.Control(r.tryFunc); err != nil {
		return 0, err
	}
	return r.n, r.err
}

func (r *rawConn) doTry(fd uintptr) { r.n, r.err = r.read(int(fd)) }

func (r *rawConn) doRead(fd uintptr) bool {
	r.n, r.err = r.read(int(fd))
	return !isAgain(r.err)
}

// readFD is read(2).
func readFD(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		if !errors.Is(err, syscall.EINTR) {
			return max(n, 0), err
		}
	}
}

// tryWrite writes what the socket takes now: 0 bytes of it if it takes none. It uses Control, which unlike RawConn.Write
// neither waits for the lock of a Close nor fails by a deadline that the flusher has left behind.
func (r *rawConn) tryWrite(p []byte) (int, error) {
	r.out, r.wn, r.werr = p, 0, nil
	if err := r.c.Control(r.writeFunc); err != nil {
		return 0, err
	}
	r.out = nil
	return r.wn, r.werr
}

func (r *rawConn) doWrite(fd uintptr) {
	for {
		n, err := syscall.Write(int(fd), r.out)
		switch err {
		case nil:
			r.wn = n
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
		default:
			r.werr = err
		}
		return
	}
}

// isAgain reports whether err says that there is nothing to read now.
func isAgain(err error) bool { return errors.Is(err, syscall.EAGAIN) }
