//go:build !unix

package session

import "net"

// A rawConn does not exist here: sockets are read and written as other connections are.
type rawConn struct{}

func newRawConn(net.Conn) *rawConn { return nil }

func (*rawConn) wait(func(int) (int, error)) (int, error) { return 0, net.ErrClosed }

func (*rawConn) tryRead(func(int) (int, error)) (int, error) { return 0, net.ErrClosed }

func (*rawConn) tryWrite([]byte) (int, error) { return 0, net.ErrClosed }

func readFD(int, []byte) (int, error) { return 0, net.ErrClosed }

func isAgain(error) bool { return false }
