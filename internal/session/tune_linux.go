package session

import (
	"net"
	"syscall"
	"time"
)

// Options of TCP sockets that package syscall has no names for (linux/tcp.h).
const (
	tcpUserTimeout  = 18
	tcpNotSentLowat = 25

	userTimeout  = 20 * time.Second // for bytes that nobody acknowledges
	notSentLowat = 128 << 10        // bytes that the kernel takes ahead of what the network takes
)

// tune sets what a session needs of a TCP socket, wrapped by TLS or not: that bytes which nobody acknowledges end the
// connection, and that the kernel hides no long queue of unsent bytes, which control frames could not overtake. A system
// that does not know an option does without it.
func tune(conn net.Conn) {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(userTimeout/time.Millisecond))
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, notSentLowat)
	})
}
