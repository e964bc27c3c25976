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

// setUserTimeout sets TCP_USER_TIMEOUT. A failure is of no consequence but a
// longer wait.
func setUserTimeout(c net.Conn) {
	tc, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tc.SyscallConn()
	if err != nil {
		return
	}
	const tcpUserTimeout = 0x12 // from <netinet/tcp.h>; package syscall does not have it
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(userTimeout.Milliseconds()))
	})
}
