package endpoint

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"syscall"

	"github.com/pkg/errors"
)

// command runs one command and flushes what it wrote. It returns false when the
// connection is to end.
func (c *lineConn) command(en *entry, _ bool) bool {
	c.grown = true
	c.running = en.name
	c.b.rw = bufio.ReadWriter{Reader: c.b.r, Writer: c.b.w}
	ctx := &callContext{Context: c.ctx, info: Info{Command: en.name, Kind: en.kind, Peer: &c.peer, Logger: c.e.logger()}}
	defer ctx.end()
	var refused *Error
	defer func() { c.endInfo(&ctx.info, refused) }() // deferred for runtime.Goexit
	if chain := c.e.Interceptors; len(chain) == 0 {
		_ = c.handle(ctx, en) // kept in c.failure
	} else if refused = c.handleInside(ctx, chain, en); refused != nil {
		if refused != errAborted {
			c.refuse(refused)
		}
		return false
	}
	if c.panicked {
		return false // what a panic left in the buffer is not to be trusted
	}
	return c.b.w.Flush() == nil && c.failure == nil && c.t.broken.Load() == nil
}

// handle calls the command's handler.
func (c *lineConn) handle(ctx context.Context, en *entry) error {
	rw := &c.b.rw
	return c.fail(c.guard(func() error { return en.handler.ServeCommand(ctx, rw) }))
}

// endInfo calls what OnEnd was given for a command that was refused, or has run.
func (c *lineConn) endInfo(info *Info, end *Error) {
	if err := c.failure; end == nil && err != nil {
		end = &Error{Code: CodeOf(err), Outcome: OutcomeFailed, Message: errText(err), cause: err}
	}
	_ = c.guard(func() error { info.end(asError(end)); return nil }) // kept in c.failure
}

// handleInside calls the command's handler inside the interceptors. It returns
// what to tell the peer, or errAborted, when they did not let the command run.
func (c *lineConn) handleInside(ctx *callContext, chain []Interceptor, en *entry) *Error {
	entered := false
	err := c.guard(func() error {
		return intercept(ctx, chain, &ctx.info, func(ctx context.Context) error {
			entered = true
			return c.handle(ctx, en)
		})
	})
	if entered {
		_ = c.fail(err)
		return nil
	}
	switch {
	case errors.Is(err, ErrAbort):
		return errAborted
	case c.panicked:
		return refusal(Internal, "internal error")
	case err == nil:
		_ = c.fail(errors.New("an interceptor returned nil without having called next"))
		return refusal(Internal, "internal error")
	}
	return refusal(CodeOf(err), "%s", errText(err))
}

// fail keeps the first error that ends the connection, with a stack, and
// returns err.
func (c *lineConn) fail(err error) error {
	if err != nil && c.failure == nil {
		c.failure = withStack(err)
	}
	return err
}

// guard calls f, which is a user's, and makes an error of a panic in it, which
// it keeps for report. After runtime.Goexit it does not return: run's deferred
// part is next.
func (c *lineConn) guard(f func() error) error {
	return protect(f, func(err error, _ bool) error {
		c.panicked = true
		if !errors.Is(err, ErrAbort) {
			c.e.tally.add(countPanic)
		}
		return c.fail(err)
	})
}

// refuse tells the peer why the connection ends. It is logged, unless another
// line says so.
func (c *lineConn) refuse(e *Error) {
	if !c.turnedAway && c.failure == nil {
		attrs := []any{"code", e.Code.String(), "why", e.Message, "peer", &c.peer}
		if errors.Is(e, errLongLine) {
			attrs = append(attrs, "limit", "Line", "value", c.e.limits.Line)
			c.e.tally.add("Line")
		}
		c.e.logger().Info("refused", attrs...)
	}
	_, _ = c.stream.Write(appendErrLine(nil, e))
	c.linger()
}

// linger says that no more will come and reads on for a little, so that what
// was written arrives.
func (c *lineConn) linger() {
	if c.lingered || c.t.broken.Load() != nil {
		return
	}
	c.lingered = true
	if c.peer.tls != nil {
		_ = c.peer.tls.CloseWrite()
	}
	if half, ok := c.peer.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	d := lingerTime
	if idle := c.e.limits.Idle; idle > 0 {
		d = min(d, idle) // the end of the linger is not to be logged as a limit
	}
	c.t.boundReads("", d)
	_, _ = io.CopyN(io.Discard, c.t, lingerBytes)
}

// handshake makes c a TLS connection. A peer that speaks something else is told
// so in plain text.
func (c *lineConn) handshake() bool {
	tc := tls.Server(c.t, c.e.tlsConfig)
	c.t.boundReads("Handshake", c.e.limits.Handshake)
	// crypto/tls looks at a record when it has five bytes: for a shorter command it
	// would wait until the limit.
	if first, err := c.t.peek(); err == nil && first != tlsHandshake {
		c.refuse(notTLS())
		return false
	}
	// Without the cancellation, which would cost a goroutine: cut closes the
	// transport under the handshake.
	err := c.guard(func() error { return tc.HandshakeContext(context.WithoutCancel(c.ctx)) })
	c.t.boundReads("", 0)
	if err == nil {
		c.stream, c.peer.tls = tc, tc
		return true
	}
	var plain tls.RecordHeaderError
	switch {
	case c.panicked || c.t.broken.Load() != nil:
	case errors.As(err, &plain) && plain.Conn != nil:
		c.refuse(notTLS())
	case !gone(err):
		c.e.logger().Info("TLS handshake failed", "error", err, "peer", &c.peer)
	}
	return false
}

func notTLS() *Error {
	return refusal(FailedPrecondition, "this port speaks TLS, and this does not look like it: connect with TLS")
}

// gone reports whether err only says that the connection is no more.
func gone(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, errStopped} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// report logs why c ends, if that is of interest: one line for the limit that
// was reached, or one with a stack for the handler that failed.
func (c *lineConn) report() {
	log := c.e.logger()
	if l := c.t.broken.Load(); l != nil {
		c.e.tally.add(l.limit)
		level := slog.LevelWarn
		if l.limit == "Idle" {
			level = slog.LevelInfo // in the nature of things
		}
		log.Log(c.ctx, level, "connection closed at a limit", "limit", l.limit, "value", l.after, "why", l.what, "peer", &c.peer)
		if !c.panicked {
			return // what the handler made of it is a consequence
		}
	}
	if c.failure == nil || errors.Is(c.failure, ErrAbort) {
		return
	}
	level := slog.LevelError
	if gone(c.failure) && !c.panicked {
		level = slog.LevelInfo
	}
	attrs := []any{"error", c.failure.Error(), "peer", &c.peer, "stack", fmt.Sprintf("%+v", c.failure)}
	if c.running == "" {
		log.Log(c.ctx, level, "connection closed: ConnContext or a callback of TLS failed", attrs...)
		return
	}
	log.Log(c.ctx, level, "connection closed: command failed", append(attrs, "command", quoteName(c.running))...)
}
