package endpoint

import (
	"context"
	"net"

	"gobnode/internal/session"

	"github.com/pkg/errors"
)

// sessionCommand turns a connection into a session.
const (
	sessionCommand = "SESSION"
	sessionVersion = "1"
	sessionLine    = sessionCommand + " " + sessionVersion + "\n"
	sessionOK      = "OK\n"
)

// A Client makes calls over one session, any number at once. It is a [Caller],
// and may be used by any number of goroutines. When its connection breaks, the
// calls under way fail with what is known of them, and so does every later one.
type Client struct {
	link  *link
	conn  net.Conn
	chain []Interceptor
}

// Dial connects with the zero Dialer.
func Dial(ctx context.Context, addrs ...string) (*Client, error) {
	return new(Dialer).Dial(ctx, addrs...)
}

// Dial connects to the first of addrs that answers, as Open does, and opens a
// session there. It returns when the peer has greeted, or fails with what the
// last address said. ctx has no effect on the Client later. No address is
// DefaultAddr on this machine.
func (d *Dialer) Dial(ctx context.Context, addrs ...string) (*Client, error) {
	if len(addrs) == 0 {
		addrs = []string{DefaultAddr}
	}
	var failed error
	for _, addr := range addrs {
		c, err := d.dialSession(ctx, addr)
		if err == nil {
			return c, nil
		}
		failed = err
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

func (d *Dialer) dialSession(ctx context.Context, addr string) (*Client, error) {
	conn, stream, err := d.connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	limits := d.Limits.withDefaults()
	l := &link{e: d.Endpoint, limits: &limits, logger: loggerOr(d.Logger), peer: newPeer(conn, stream)}
	config := linkConfig{dialer: true, preface: sessionLine, greeting: sessionOK, heartbeat: d.Heartbeat}
	if d.Endpoint != nil {
		d.Endpoint.init()
		limits.Calls, limits.InFlight = d.Endpoint.limits.Calls, d.Endpoint.limits.InFlight
		config.budget = d.Endpoint.inFlight
	} else {
		config.budget = newBudget(limits.InFlight)
	}
	l.start(stream, config)
	c := &Client{link: l, conn: conn, chain: d.Interceptors}
	s := l.s.Load()
	select {
	case <-s.Ready():
		err = s.Err()
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		_ = s.Close()
		return nil, errors.WithStack(greetingError(addr, err))
	}
	return c, nil
}

// greetingError is why no session came about. Nothing has run on it.
func greetingError(addr string, err error) *Error {
	var other *session.GreetingError
	if errors.As(err, &other) {
		if told, ok := parseErrLine(other.Line); ok {
			told.Outcome = OutcomeNotRun
			return told
		}
		return refusal(FailedPrecondition, "%s answered %s: it does not speak %s %s", addr, quoteName(other.Line), sessionCommand, sessionVersion)
	}
	e := notSent(err)
	e.Outcome = OutcomeNotRun
	e.Message = "no session with " + addr + ": " + e.Message
	return e
}

// Close ends the session at once: calls under way fail, and the contexts of
// their handlers end. It does not wait for what the peer has called here, so
// that such a handler can call it: the Shutdown and Close of the Dialer's
// Endpoint do.
func (c *Client) Close() error {
	s := c.link.s.Load()
	s.Abort(session.ErrClosed)
	s.WaitOwn()
	return nil
}

// Peer returns the other end of the session.
func (c *Client) Peer() *Peer { return &c.link.peer }

// Open opens a raw command over the session: what is written to the Conn is the
// command's data, what is read from it its reply. CloseWrite ends the data. As
// of a StreamCommand's Open, the stream lasts until its end was read, until
// Close, or until ctx ends, whose deadline is the handler's too; one of these
// must come.
func (c *Client) Open(ctx context.Context, name string) (*Conn, error) {
	o, refused := c.open(ctx, name, KindRaw)
	if refused != nil {
		refused.Command = name
		return nil, errors.WithStack(refused)
	}
	rc := newRawStream(ctx, o, c.conn)
	return newConn(rc, rc, *c.link.limits), nil
}

func (c *Client) info(ctx context.Context, name string, kind Kind) *Info {
	return &Info{Command: name, Kind: kind, Peer: &c.link.peer, Logger: c.link.logger, header: headerOf(ctx)}
}

func (c *Client) call(ctx context.Context, name string, x outgoing) *Error {
	if len(c.chain) == 0 {
		return c.link.call(ctx, name, x)
	}
	info, a := c.info(ctx, name, KindUnary), newAttempts()
	refused := a.judge(interceptCall(ctx, c.chain, info, func(ctx context.Context) error {
		return a.note(c.link.call(ctx, name, x))
	}))
	info.end(asError(refused))
	return refused
}

func (c *Client) open(ctx context.Context, name string, kind Kind) (o *opened, _ *Error) {
	if len(c.chain) == 0 {
		return c.link.open(ctx, name, kind)
	}
	info, a := c.info(ctx, name, kind), newAttempts()
	refused := a.judge(interceptCall(ctx, c.chain, info, func(ctx context.Context) error {
		if o != nil {
			o.st.Cancel() // next was called again
		}
		var refused *Error
		o, refused = c.link.open(ctx, name, kind)
		return a.note(refused)
	}))
	if refused != nil {
		if o != nil {
			o.st.Cancel()
		}
		info.end(refused)
		return nil, refused
	}
	o.done = info.end
	return o, nil
}
