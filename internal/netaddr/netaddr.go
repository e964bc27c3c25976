// Package netaddr turns the addresses that users write into what package net
// takes: "host:port", "host" with a default port, or "unix:path".
package netaddr

import (
	"context"
	"errors"
	"net"
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
	if addr == "" {
		return "tcp", Default
	}
	if _, _, err := net.SplitHostPort(addr); err != nil && strings.Contains(err.Error(), "missing port") {
		addr = net.JoinHostPort(strings.Trim(addr, "[]"), defaultPort)
	} else if err != nil && net.ParseIP(addr) != nil {
		addr = net.JoinHostPort(addr, defaultPort) // a bare IPv6 address
	}
	return "tcp", addr
}

// Listen binds addr. The file of a unix socket that nobody answers on any more,
// as a killed process leaves it, is removed first.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	network, address := Split(addr)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, address)
	if network == "unix" && errors.Is(err, syscall.EADDRINUSE) && deserted(ctx, address) {
		if err = os.Remove(address); err == nil {
			l, err = lc.Listen(ctx, network, address)
		}
	}
	return l, err
}

// deserted reports whether the socket at path refuses connections.
func deserted(ctx context.Context, path string) bool {
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close() // somebody lives there
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
