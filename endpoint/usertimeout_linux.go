package endpoint

import (
	"net"
	"syscall"
	"time"
)

// userTimeout is how long sent bytes may stay unacknowledged before the kernel
// gives the connection up; without it a vanished peer is noticed after about 15
// minutes (https://www.rfc-editor.org/rfc/rfc5482).
const userTimeout = 20 * time.Second

// setUserTimeout sets TCP_USER_TIMEOUT of a *net.TCPConn, or of all connections
// that a *net.TCPListener will accept, for they take it over. It reports whether it
// did. A failure is of no consequence but a longer wait.
func setUserTimeout(socket any) (done bool) {
	var sc syscall.Conn
	switch socket := socket.(type) {
	case *net.TCPConn:
		sc = socket
	case *net.TCPListener:
		sc = socket
	default:
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	const tcpUserTimeout = 0x12 // from <netinet/tcp.h>; package syscall does not have it
	_ = raw.Control(func(fd uintptr) {
		done = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(userTimeout.Milliseconds())) == nil
	})
	return done
}
