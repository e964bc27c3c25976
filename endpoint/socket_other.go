//go:build !unix

package endpoint

import (
	"net"
	"syscall"
)

// rawConn returns nil: there is no reading without waiting on these systems, so
// that waiting connections keep their buffer.
func rawConn(net.Conn) syscall.RawConn { return nil }

func readNow(uintptr, []byte) (int, error) { return 0, errAgain }
