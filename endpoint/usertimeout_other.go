//go:build !linux

package endpoint

import "net"

// setUserTimeout does nothing: only Linux has TCP_USER_TIMEOUT.
func setUserTimeout(net.Conn) {}
