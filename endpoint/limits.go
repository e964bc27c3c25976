package endpoint

import (
	"time"

	"gobnode/internal/gobcodec"
)

// Limits bound what a peer can make the process hold. A zero field means the
// default in its comment; a negative one means no limit.
type Limits struct {
	// Connections served at once: 10,000. The next one is told
	// resource_exhausted and closed.
	Connections int

	// Line is the size of a command line in bytes, inline data and the line's
	// end included: 8 KiB. It is also the size of a handler's read buffer.
	Line int

	// Message is the size of one typed message on the wire in bytes: 4 MiB.
	Message int

	// Decoded is how many bytes one message may allocate, gob or JSON: 64 MiB.
	Decoded int

	// Calls is how many calls of its peer's a session serves at once: 250. The
	// peer is told: a call over it waits for a place within its deadline; one that
	// a handler makes fails at once instead, resource_exhausted not_run, so that
	// calls back to back cannot wait for each other for ever.
	Calls int

	// InFlight is how many bytes the calls under way may hold together: 256 MiB
	// for the endpoint, at most a quarter of it for one session. Every typed call is charged its bytes on the wire and
	// what they decode to, at least 8 KiB, until its handler returns. One that
	// does not fit is refused undecoded, resource_exhausted not_run.
	InFlight int

	// Handshake is the time that a TLS handshake may take, and that a session's
	// peer may take to greet: 10 s each.
	Handshake time.Duration

	// Progress is the time in which a peer must get on, 10 s: for a command
	// line from its first byte; for typed data and for writes, renewed by every
	// 64 KiB that moves.
	Progress time.Duration

	// Idle is the time a connection may stay without a byte either way, in a
	// raw handler that waits for data too: 5 min.
	Idle time.Duration
}

const (
	defaultConnections = 10_000
	defaultLine        = 8 << 10
	defaultMessage     = 4 << 20
	defaultDecoded     = 64 << 20
	defaultCalls       = 250
	defaultInFlight    = 256 << 20
	defaultHandshake   = 10 * time.Second
	defaultProgress    = 10 * time.Second
	defaultIdle        = 5 * time.Minute
)

// withDefaults returns l with its zero fields filled in.
func (l Limits) withDefaults() Limits {
	l.Connections = orDefault(l.Connections, defaultConnections)
	l.Line = orDefault(l.Line, defaultLine)
	l.Message = orDefault(l.Message, defaultMessage)
	l.Decoded = orDefault(l.Decoded, defaultDecoded)
	l.Calls = orDefault(l.Calls, defaultCalls)
	l.InFlight = orDefault(l.InFlight, defaultInFlight)
	l.Handshake = orDefault(l.Handshake, defaultHandshake)
	l.Progress = orDefault(l.Progress, defaultProgress)
	l.Idle = orDefault(l.Idle, defaultIdle)
	return l
}

// gob returns those of l that bound one gob; l has its defaults.
func (l *Limits) gob() gobcodec.Limits {
	return gobcodec.Limits{Message: l.Message, Decoded: l.Decoded}
}

func orDefault[T int | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}
