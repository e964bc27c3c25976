package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/netaddr"
)

// drainTime is how long running commands may take to finish when the node ends.
// Those who supervise processes commonly kill them 30 s after SIGTERM, as
// Kubernetes does (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/).
const drainTime = 25 * time.Second

// serve serves until ctx ends.
func (n *node) serve(ctx context.Context) error {
	config, err := n.serverTLS()
	if err != nil {
		return err
	}
	l, err := netaddr.Listen(ctx, n.listen)
	if err != nil {
		return n.cannotListen(err)
	}
	// Who reads the log may go away; that is no reason for the node to.
	signal.Ignore(syscall.SIGPIPE)
	e := &endpoint.Endpoint{TLS: config, Logger: n.log}
	if n.verbose {
		e.Interceptors = []endpoint.Interceptor{n.logCommand}
	}
	room := n.register(e)
	n.announce(l.Addr())

	drained := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		room.Close() // who is in it would have to be waited for
		drained <- n.drain(ctx, e)
	})
	err = e.Serve(l)
	if stop() { // nobody asked for the end
		_ = e.Close()
		return &failure{code: exitInternal, text: "cannot accept connections on " + l.Addr().String() + " any more: " + rootText(err)}
	}
	return <-drained
}

func (n *node) cannotListen(err error) error {
	text := "cannot listen on " + n.listen + ": " + rootText(err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		text += "; another node may run there: try another -listen, or port 0 for a free one"
	case errors.Is(err, syscall.EACCES):
		text += "; try a port above 1023, or a folder that is yours"
	default:
		text += "; try another -listen"
	}
	return &failure{code: exitInternal, text: text}
}

// drain ends e in order. ctx has ended already.
func (n *node) drain(ctx context.Context, e *endpoint.Endpoint) error {
	n.log.Info("ending: running commands may finish, a second signal ends at once",
		"why", context.Cause(ctx), "within", drainTime)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := e.Shutdown(limit); err != nil {
		return &failure{code: exitInternal, text: err.Error() + ", after " + drainTime.String()}
	}
	n.log.Info("ended in order")
	return nil
}

// announce says where the node listens, what to type to talk to it, and what is
// dangerous about it.
func (n *node) announce(addr net.Addr) {
	secure := n.tlsCert != ""
	n.log.Info("listening; in another terminal, try "+talk(addr, secure, n.tlsClientCA != ""), "addr", addr.String())
	if tcp, ok := addr.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && !secure {
		n.log.Warn("whoever reaches this address can send commands, and nothing is encrypted: "+
			"listen on this machine only with -listen localhost:"+strconv.Itoa(tcp.Port)+
			", or serve TLS with -tls-cert, -tls-key and -tls-client-ca", "addr", addr.String())
	}
}

// talk is what to type to talk to a node that listens on addr.
func talk(addr net.Addr, secure, clientCerts bool) string {
	at, byHand := "unix:"+addr.String(), "nc -U "+addr.String()
	if tcp, ok := addr.(*net.TCPAddr); ok {
		host, port := "localhost", strconv.Itoa(tcp.Port)
		if !tcp.IP.IsUnspecified() {
			host = tcp.IP.String()
		}
		at, byHand = net.JoinHostPort(host, port), "nc "+host+" "+port
	}
	switch {
	case clientCerts:
		return "`node -connect " + at + " -tls -tls-ca FILE -tls-cert FILE -tls-key FILE HELP`"
	case secure:
		return "`node -connect " + at + " -tls -tls-ca FILE HELP`"
	}
	return "`node -connect " + at + " HELP`, or `" + byHand + "` and type HELP"
}

// logCommand is an interceptor that logs every command.
func (n *node) logCommand(ctx context.Context, info *endpoint.Info, next func(context.Context) error) error {
	start := time.Now()
	err := next(ctx)
	attrs := []slog.Attr{slog.String("command", info.Command), slog.Any("peer", info.Peer), slog.Duration("took", time.Since(start))}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	n.log.LogAttrs(ctx, slog.LevelDebug, "command", attrs...)
	return err
}
