package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/netaddr"
)

// A link is a connection to the peer that is closed when its context ends.
type link struct {
	*endpoint.Conn
	addr    string // with its port
	replies replies
	forget  func() bool
}

// connect makes a connection, to the first of the addresses that answers, which
// lives as long as ctx. making bounds the connecting alone. The address that
// answered last comes first: what belongs together goes to one node.
func (n *node) connect(ctx, making context.Context) (*link, error) {
	config, err := n.clientTLS()
	if err != nil {
		return nil, err
	}
	addrs := slices.Clone(n.addrs)
	if i := slices.Index(addrs, n.lastAddr); i > 0 {
		addrs = slices.Insert(slices.Delete(addrs, i, i+1), 0, n.lastAddr)
	}
	conn, addr, failed := first(making, addrs, func(ctx context.Context, addr string) (*endpoint.Conn, error) {
		start := time.Now()
		conn, err := (&endpoint.Dialer{TLS: config}).Open(ctx, addr)
		if err == nil {
			n.log.Debug("connected", "addr", conn.RemoteAddr().String(), "tls", n.tls, "took", time.Since(start))
		}
		return conn, err
	})
	if failed != nil {
		return nil, n.cannotConnect(making, failed)
	}
	n.lastAddr = addr
	return &link{
		Conn: conn, addr: whole(addr),
		replies: replies{r: conn.Reader},
		forget:  context.AfterFunc(ctx, func() { _ = conn.Close() }),
	}, nil
}

// whole is addr with the host and the port that are left out, for people to see.
func whole(addr string) string {
	network, address := netaddr.Split(addr)
	if network == "unix" {
		return addr
	}
	if strings.HasPrefix(address, ":") {
		return "localhost" + address
	}
	return address
}

func (l *link) close() {
	l.forget()
	_ = l.Close()
}

// replies finds the ERR lines in what a peer sends.
type replies struct {
	r       *bufio.Reader
	midLine bool
}

var errPrefix = []byte("ERR ")

// next waits for more and returns what there is, at most to the line's end;
// the bytes are valid until the next call. told is not nil if they are a whole
// line and an ERR line.
func (s *replies) next() (p []byte, told *endpoint.Error, err error) {
	if _, err = s.r.Peek(1); err != nil {
		return nil, nil, err
	}
	for {
		p, _ = s.r.Peek(s.r.Buffered())
		end := bytes.IndexByte(p, '\n') + 1
		if end > 0 {
			p = p[:end]
			break
		}
		// The longest ERR line, of 1 KiB of text, fits the buffer of a Conn.
		if s.midLine || len(p) == s.r.Size() || !bytes.HasPrefix(p, errPrefix[:min(len(p), len(errPrefix))]) {
			break
		}
		if _, err = s.r.Peek(len(p) + 1); err != nil {
			break // it comes again: what there is comes first
		}
	}
	if !s.midLine {
		told = parseERR(p)
	}
	s.midLine = p[len(p)-1] != '\n'
	_, err = s.r.Discard(len(p))
	return p, told, err
}

// parseERR returns what an ERR line says, nil for any other line.
func parseERR(line []byte) *endpoint.Error {
	if !bytes.HasPrefix(line, errPrefix) || line[len(line)-1] != '\n' {
		return nil
	}
	// A Conn of its own around the line: Conn.Reply knows the format.
	c := endpoint.Conn{ReadWriter: bufio.NewReadWriter(bufio.NewReader(bytes.NewReader(line)), bufio.NewWriter(io.Discard))}
	_, err := c.Reply()
	told, _ := asError(err)
	return told
}
