//go:build !linux

package session

import "net"

// tune does nothing here: the options it sets elsewhere do not exist, or have other names.
func tune(net.Conn) {}
