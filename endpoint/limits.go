package endpoint

import "time"

// Limits bound what a peer can make the process hold. A zero field means the
// default in its comment; a negative one means no limit.
type Limits struct {
	// Connections served at once: 10,000. The next one is told
	// resource_exhausted and closed.
	Connections int

	// Line is the size of a command line in bytes, inline data and the line's
	// end included: 8 KiB. It is also the size of a handler's read buffer.
	Line int

	// Handshake is the time a TLS handshake may take: 10 s.
	Handshake time.Duration

	// Progress is the time in which a peer must get on, 10 s: for a command
	// line from its first byte, for writes renewed by every 64 KiB that moves.
	Progress time.Duration

	// Idle is the time a connection may stay without a byte either way, in a
	// raw handler that waits for data too: 5 min.
	Idle time.Duration
}

const (
	defaultConnections = 10_000
	defaultLine        = 8 << 10
	defaultHandshake   = 10 * time.Second
	defaultProgress    = 10 * time.Second
	defaultIdle        = 5 * time.Minute
)

// withDefaults returns l with its zero fields filled in.
func (l Limits) withDefaults() Limits {
	l.Connections = orDefault(l.Connections, defaultConnections)
	l.Line = orDefault(l.Line, defaultLine)
	l.Handshake = orDefault(l.Handshake, defaultHandshake)
	l.Progress = orDefault(l.Progress, defaultProgress)
	l.Idle = orDefault(l.Idle, defaultIdle)
	return l
}

func orDefault[T int | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}
