// Package netaddr turns the addresses that users write into what package net
// takes: "host:port", "host" with a default port, or "unix:path".
package netaddr

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

// Default is the address of an endpoint for which none was given.
const Default = ":61000"

// defaultPort is the port of Default.
const defaultPort = "61000"

// Split returns the network and the address that addr means. A missing port is
// that of Default, and a missing host stays empty: every address when
// listening, this machine when dialing.
func Split(addr string) (network, address string) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return "unix", path
	}
	if _, err := netip.ParseAddr(addr); err == nil { // with its colons, an IPv6 address is taken for a host and a port
		return "tcp", net.JoinHostPort(addr, defaultPort)
	}
	host, port, err := net.SplitHostPort(addr)
	switch {
	case addr == "":
		return "tcp", Default
	case err == nil && port == "":
		return "tcp", net.JoinHostPort(host, defaultPort)
	case err != nil && strings.Contains(err.Error(), "missing port"):
		return "tcp", net.JoinHostPort(strings.Trim(addr, "[]"), defaultPort)
	}
	return "tcp", addr
}

// Listen binds addr. The file of a unix socket that nobody answers on any more,
// as a killed process leaves it, is removed first.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	network, address := Split(addr)
	if network == "unix" && address == "" {
		return nil, errors.New("listen unix: the path is empty") // the kernel would make up a name
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, address)
	if network == "unix" && errors.Is(err, syscall.EADDRINUSE) && deserted(ctx, address) {
		if err = os.Remove(address); err == nil {
			l, err = lc.Listen(ctx, network, address)
		}
	}
	return l, err
}

// deserted reports whether there is a socket at path that refuses connections.
// Any other file refuses them just so, and is not to be removed.
func deserted(ctx context.Context, path string) bool {
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close() // somebody lives there
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
