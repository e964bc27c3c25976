package endpoint

import (
	"context"
	"errors"
	"net"
	"time"
)

// What the black-box tests need of the inside.

// A Transport is what holds a peer to the limits of time.
type Transport struct{ *transport }

// NewTransport returns a transport over c.
func NewTransport(c net.Conn, l Limits) Transport {
	l = l.withDefaults()
	return Transport{newTransport(c, &l)}
}

// BoundReads bounds reads as the endpoint does.
func (t Transport) BoundReads(limit string, d time.Duration) { t.boundReads(limit, d) }

// ErrBound is what a read returns at a bound without a name.
var ErrBound = errBound

// LimitOf returns the name of the limit behind err, or "".
func LimitOf(err error) string {
	if l, ok := errors.AsType[*limitError](err); ok {
		return l.limit
	}
	return ""
}

// BuffersMade has count called whenever the endpoint makes buffers because the
// pool has none.
func BuffersMade(e *Endpoint, count func()) {
	e.buffers.New = func() any {
		count()
		return (*buffers)(nil)
	}
}

// ParseName is parseName.
func ParseName(p []byte) (name []byte, n int, inline bool, refused *Error) { return parseName(p) }

// AppendErrLine and ParseErrLine are the two sides of an ERR line.
func AppendErrLine(dst []byte, e *Error) []byte    { return appendErrLine(dst, e) }
func ParseErrLine(line string) (e *Error, ok bool) { return parseErrLine(line) }

// Near is the table's search for a similar name.
func (e *Endpoint) Near(name string) string { return e.near(name) }

// Distance is the edit distance behind Near.
func Distance(a, b string) int { return distance(a, b) }

// SettleTime is after which time a waiting goroutine hands over.
const SettleTime = settleTime

// LingerTime is how long a closing connection is read from at most.
const LingerTime = lingerTime

// Held is how many bytes of Limits.InFlight the calls under way hold.
func (e *Endpoint) Held() int64 { e.init(); return e.inFlight.Used() }

// HeldByReadGob is how many bytes all calls of ReadGob hold.
func HeldByReadGob() int64 { return beingRead.Used() }

// The bounds on what a call is charged for.
const (
	LeastCharge    = leastCharge
	FirstAllowance = firstAllowance
)

// CutConnections closes the connections of a Client's nodes that take calls.
func (c *Client) CutConnections() {
	for _, n := range *c.nodes.Load() {
		if l := n.link.Load(); l != nil {
			_ = l.peer.Close()
		}
	}
}

// BackoffDelay is how long b waits after so many failures.
func BackoffDelay(b Backoff, failures int) time.Duration { return b.withDefaults().delay(failures) }

// Latencies are those of one command.
type Latencies struct{ of latencies }

func (l *Latencies) Add(d time.Duration) { l.of.add(d) }
func (l *Latencies) P95() time.Duration  { return time.Duration(l.of.p95.Load()) }

// Race and Hosts are the two halves of dialing a name.
func Race(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), hurried func() bool, addrs []string) (net.Conn, error) {
	r := race{dial: dial, network: "tcp", hurried: hurried}
	return r.run(ctx, addrs)
}

func Hosts(ctx context.Context, lookup func(context.Context, string) ([]string, error), addr string) ([]string, error) {
	return hosts(ctx, lookup, addr)
}

// BackoffHurried is how long b waits at least while a call does.
func BackoffHurried(b Backoff) time.Duration { return b.withDefaults().hurried() }

var manyNames latencyTable

// CountLatencies counts a call of a command and returns how many commands' calls
// are counted.
func CountLatencies(name string) int {
	if l := manyNames.get(name); l != nil {
		l.add(time.Millisecond)
	}
	return len(manyNames.of)
}

// OpenRaw opens a raw command on any Caller that has sessions.
func OpenRaw(ctx context.Context, to Caller, name string) (*Conn, error) {
	o, refused := to.open(ctx, name, KindRaw)
	if refused != nil {
		return nil, refused
	}
	rc := newRawStream(ctx, o, o.link.peer.conn)
	return newConn(rc, rc, *o.link.limits), nil
}
