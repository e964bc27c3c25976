package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"slices"
	"time"

	"gobnode/endpoint"
)

// answerTime is how long an address may take to answer before the next one is
// tried beside it.
const answerTime = 300 * time.Millisecond

// A link is a connection to the peer that is closed when its context ends.
type link struct {
	*endpoint.Conn
	addr    string // as the user gave it
	replies replies
	forget  func() bool
}

// connect makes a connection, to the first of the addresses that answers, which
// lives as long as ctx. making bounds the connecting alone. The address that
// answered last comes first: what belongs together goes to one node.
func (n *node) connect(ctx, making context.Context) (*link, error) {
	addrs := slices.Clone(n.addrs)
	if i := slices.Index(addrs, n.lastAddr); i > 0 {
		addrs = slices.Insert(slices.Delete(addrs, i, i+1), 0, n.lastAddr)
	}
	config, err := n.clientTLS()
	if err != nil {
		return nil, err
	}
	making, cancel := context.WithCancel(making)
	defer cancel()
	made, over := make(chan attempt), make(chan struct{})
	defer close(over)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var failed []string
	for next := 0; ; {
		select {
		case <-timer.C:
			go n.attempt(making, config, addrs[next], made, over)
			if next++; next < len(addrs) {
				timer.Reset(answerTime)
			}
		case a := <-made:
			if a.err == nil {
				n.lastAddr = a.addr
				return newLink(ctx, a), nil
			}
			if failed = append(failed, whyNot(a.addr, a.err)); len(failed) == len(addrs) {
				return nil, n.cannotConnect(making, failed)
			}
			if next < len(addrs) {
				timer.Reset(0)
			}
		}
	}
}

// An attempt is what became of connecting to one address.
type attempt struct {
	addr string
	conn *endpoint.Conn
	err  error
}

// attempt connects to addr. It ends with the attempt, which ctx bounds; a
// connection that comes when all is over is closed.
func (n *node) attempt(ctx context.Context, config *tls.Config, addr string, made chan<- attempt, over <-chan struct{}) {
	a := attempt{addr: addr}
	start := time.Now()
	if a.conn, a.err = (&endpoint.Dialer{TLS: config}).Open(ctx, addr); a.err == nil {
		n.log.Debug("connected", "addr", a.conn.RemoteAddr().String(), "tls", n.tls, "took", time.Since(start))
	}
	select {
	case made <- a:
	case <-over:
		if a.conn != nil {
			_ = a.conn.Close()
		}
	}
}

func newLink(ctx context.Context, a attempt) *link {
	return &link{
		Conn: a.conn, addr: a.addr,
		replies: replies{r: a.conn.Reader},
		forget:  context.AfterFunc(ctx, func() { _ = a.conn.Close() }),
	}
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
