package endpoint

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"gobnode/internal/netaddr"

	"github.com/pkg/errors"
)

// dialTimeout is how long connecting may take, TLS apart.
const dialTimeout = 5 * time.Second

// A Dialer connects to endpoints. The zero value is ready; it may be used by
// many goroutines, and is not changed while in use.
type Dialer struct {
	// TLS, if set, makes connections TLS from the first byte. The least version
	// is 1.3 unless MinVersion says otherwise; an empty ServerName is taken from
	// the address, and "localhost" where that has none. The configuration is cloned.
	TLS *tls.Config

	// Limits: Handshake bounds the TLS handshake, Line a reply read by
	// Conn.Reply and an ERR line, Message and Decoded the reply to a typed call,
	// Message its request too.
	Limits Limits

	// Interceptors run around every call of a Client; the first is outermost.
	Interceptors []Interceptor

	// Logger takes what cannot be returned to anybody; nil: slog.Default().
	Logger *slog.Logger

	// Heartbeat is as of an Endpoint, for sessions.
	Heartbeat time.Duration

	// Spin is as of an Endpoint, for the replies to a Client.
	Spin time.Duration

	// Endpoint, if set, is what the other end of a session may call back. It
	// need not listen. Its Limits bound what such calls hold: Calls for each
	// session, InFlight together with those of its other connections. Its
	// Shutdown and Close end what it serves on sessions; later calls of the other
	// end's did not run, and the Client's own go on.
	Endpoint *Endpoint

	// Backoff is between the attempts of a Client to connect.
	Backoff Backoff

	// Resolve, if set, returns the addresses that a name given to Dial stands
	// for, as Open takes them. It is asked again every 30 s and, once a second at
	// most, when a connection fails; ctx ends after 5 s. While it fails or returns
	// none, those it returned last stay in use.
	Resolve func(ctx context.Context, name string) ([]string, error)

	// Breaker, if set, returns the circuit breaker of the node at addr.
	Breaker func(addr string) Breaker

	// NetDial, if set, makes the connection in place of a net.Dialer. network
	// is "tcp" or "unix".
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Open connects to the endpoint at addr with the zero Dialer.
func Open(addr string) (*Conn, error) {
	return new(Dialer).Open(context.Background(), addr)
}

// Open connects to the endpoint at addr, "host:port" or "unix:path", in line
// mode. A missing port is that of DefaultAddr, a missing host this machine. It
// gives up after 5 s, or when ctx ends; ctx has no effect on the Conn later.
// Failures are not_run: no command has been sent.
func (d *Dialer) Open(ctx context.Context, addr string) (*Conn, error) {
	c, stream, err := d.connect(ctx, addr, new(net.Dialer), nil)
	if err != nil {
		return nil, err
	}
	setUserTimeout(c) // a session does so itself
	return newConn(c, stream, d.Limits.withDefaults()), nil
}

// sessionSocket makes connections for sessions, whose heartbeat finds out sooner
// than keep-alive probes that a peer is gone: they are four system calls.
var sessionSocket = net.Dialer{KeepAlive: -1}

// connect returns a connection of the network, made by how unless there is a
// NetDial, and what is spoken on: the same, or TLS over it. hurried, if not nil,
// reports whether a call waits for it.
func (d *Dialer) connect(ctx context.Context, addr string, how *net.Dialer, hurried func() bool) (c, stream net.Conn, err error) {
	if c, err = d.dial(ctx, addr, how, hurried); err != nil {
		return nil, nil, errors.WithStack(err)
	}
	if d.TLS == nil {
		return c, c, nil
	}
	if stream, err = d.handshake(ctx, c, addr); err != nil {
		_ = c.Close()
		return nil, nil, errors.WithStack(err)
	}
	return c, stream, nil
}

func (d *Dialer) dial(ctx context.Context, addr string, how *net.Dialer, hurried func() bool) (net.Conn, error) {
	network, address := netaddr.Split(addr)
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, errSlowDial)
	defer cancel()
	attempts, addresses := race{dial: d.NetDial, network: network, hurried: hurried}, []string{address}
	var err error
	if d.NetDial == nil {
		attempts.dial = how.DialContext
		if network == "tcp" {
			addresses, err = hosts(ctx, net.DefaultResolver.LookupHost, address)
		}
	}
	if err == nil {
		var c net.Conn
		if c, err = attempts.run(ctx, addresses); err == nil {
			return c, nil
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, &Error{Code: CodeOf(ctx.Err()), Outcome: OutcomeNotRun, Message: "cannot connect to " + address + ": " + cause.Error(), cause: cause}
	}
	code, text := whyNoConnection(err)
	return nil, &Error{Code: code, Outcome: OutcomeNotRun, Message: "cannot connect to " + address + ": " + text, cause: err}
}

// errSlowDial is an os.ErrDeadlineExceeded by way of limitError.
var errSlowDial = error(&limitError{after: dialTimeout, what: "no answer"})

// whyNoConnection returns the code of an error of dialing and its text, without
// what net says in front of it, which the caller says itself, and with what to
// try.
func whyNoConnection(err error) (Code, string) {
	var address *net.AddrError
	var dns *net.DNSError
	var errno syscall.Errno
	switch {
	case errors.As(err, &address):
		return InvalidArgument, address.Err
	case errors.As(err, &dns) && dns.Err == "unknown port":
		return InvalidArgument, dns.Err
	case errors.As(err, &dns) && dns.IsNotFound:
		return Unavailable, "no such host: is the name right?"
	case errors.As(err, &dns):
		return Unavailable, "no answer from DNS: " + dns.Err + ": is the name right, and the network up?"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		_ = errors.As(err, &errno)
		return Unavailable, errno.Error() + ": is an endpoint listening there?"
	case errors.As(err, &errno):
		return Unavailable, errno.Error()
	}
	return Unavailable, err.Error()
}

// handshake makes TLS of c. It closes nothing.
func (d *Dialer) handshake(ctx context.Context, c net.Conn, addr string) (net.Conn, error) {
	config := d.TLS.Clone()
	if config.MinVersion == 0 {
		config.MinVersion = tls.VersionTLS13
	}
	network, address := netaddr.Split(addr)
	if config.ServerName == "" && network == "tcp" {
		config.ServerName, _, _ = net.SplitHostPort(address)
	}
	if config.ServerName == "" {
		config.ServerName = "localhost" // what an empty host dials, and where a unix socket is
	}
	if limit := d.Limits.withDefaults().Handshake; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, &limitError{limit: "Handshake", after: limit, what: "not finished"})
		defer cancel()
	}
	tc := tls.Client(c, config)
	err := tc.HandshakeContext(ctx)
	if err == nil {
		return tc, nil
	}
	e := &Error{Code: Unavailable, Outcome: OutcomeNotRun, Message: "TLS with " + address + ": " + err.Error(), cause: err}
	var plain tls.RecordHeaderError
	if cause := context.Cause(ctx); cause != nil {
		e.Code, e.Message, e.cause = CodeOf(ctx.Err()), "TLS with "+address+": "+cause.Error(), cause
	} else if errors.As(err, &plain) {
		e.Code = FailedPrecondition
		e.Message = "TLS with " + address + ": the peer does not speak TLS: connect without it"
	} else if unverified := new(tls.CertificateVerificationError); errors.As(err, &unverified) {
		e.Code = Unauthenticated
		e.Message = "TLS with " + address + ": the peer's certificate is not to be trusted: " + strings.TrimPrefix(unverified.Err.Error(), "x509: ")
	}
	return nil, e
}
