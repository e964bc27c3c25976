package endpoint

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
)

// A Peer is the other end of a connection. Its methods may be called from any
// goroutine. In a session it is a [Caller]: a handler calls its caller back on
// it. In line mode such calls fail, failed_precondition not_run.
type Peer struct {
	conn net.Conn // nil for a peer that is no connection
	tls  *tls.Conn
	link *link // nil without a session
}

func newPeer(conn, stream net.Conn) Peer {
	tc, _ := stream.(*tls.Conn)
	return Peer{conn: conn, tls: tc}
}

var errNoSession = refusal(FailedPrecondition, "the caller is not connected by a session and cannot be called back")

func (p *Peer) call(ctx context.Context, name string, x outgoing) *Error {
	if p.link == nil {
		refused := *errNoSession
		return &refused
	}
	return p.link.call(ctx, name, x)
}

func (p *Peer) open(ctx context.Context, name string, kind Kind) (*opened, *Error) {
	if p.link == nil {
		refused := *errNoSession
		return nil, &refused
	}
	return p.link.open(ctx, name, kind)
}

// PeerFrom returns the caller's end of the call that ctx belongs to, never nil:
// outside of a call, a Peer without an address.
func PeerFrom(ctx context.Context) *Peer { return InfoFrom(ctx).Peer }

// Addr returns the peer's address, nil where there is none.
func (p *Peer) Addr() net.Addr {
	if p.conn == nil {
		return nil
	}
	return p.conn.RemoteAddr()
}

// String returns the address as text. The nameless end of a unix socket goes
// by the name of the socket.
func (p *Peer) String() string {
	a := p.Addr()
	if a == nil {
		return "local"
	}
	if s := a.String(); s != "" && s != "@" {
		return s
	}
	return a.Network() + ":" + p.conn.LocalAddr().String()
}

// LogValue makes a Peer an attribute of a log line that costs nothing where the
// line is not written.
func (p *Peer) LogValue() slog.Value { return slog.StringValue(p.String()) }

// TLS returns the state of the TLS connection, nil on a plain one.
func (p *Peer) TLS() *tls.ConnectionState {
	if p.tls == nil {
		return nil
	}
	s := p.tls.ConnectionState()
	return &s
}

// Close cuts the connection at once. A handler that runs on it sees its reads
// and writes fail.
func (p *Peer) Close() error {
	if p.conn == nil {
		return nil
	}
	return p.conn.Close()
}
