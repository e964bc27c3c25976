// Package endpoint lets two Go programs talk to each other in Go types: no IDL,
// no code generator, no broker.
//
// A program owns an [Endpoint]: a listener and a table of named commands. A peer
// sends a command's name and its data; the endpoint hands the data to the
// command's handler.
//
// # Serving
//
// The zero Endpoint is ready. Commands are registered before or while it serves:
//
//	e := endpoint.New()
//	types.Sum.Handle(e, func(ctx context.Context, req types.SumRequest) (types.SumReply, error) { ... })
//	err := e.Listen(":61000")
//
// # Two kinds of command
//
// A typed command, [Command], is a constant that both sides import; request and
// reply are Go types that travel as gobs. A raw command, [HandleFunc] or
// [Handler], reads and writes its bytes itself.
//
// # Calling
//
// [Open] and [Dialer.Open] give a [Conn], on which typed commands are called, one
// at a time, and raw ones are spoken. [Dial] and [Dialer.Dial] give a [Client]:
// a session, on which any number of calls run at once, both ways. It also carries
// streams, [StreamCommand], and lets deadlines, cancels and headers reach the
// handler, which may call its caller back with [PeerFrom]. An *Endpoint is a
// [Caller] too: in process, with the same semantics. Connections can be typed at
// by hand:
//
//	$ printf 'SUM {"Numbers":[1,2,3]}\n' | nc -N localhost 61000
//	OK {"Total":6}
//
// The bytes are in PROTOCOL.md.
//
// # Errors
//
// A failed call is an [*Error]. Its [Code] says what kind of failure it is, and
// its [Outcome] what is known of the run: OutcomeNotRun (safe to send again),
// OutcomeFailed (it ran and said so), OutcomeUnknown. Errors are wrapped with
// github.com/pkg/errors where they enter the library: %+v shows where.
// errors.Is and errors.As work through them:
//
//	if errors.Is(err, endpoint.NotFound) { ... }
//
// # Connections that break
//
// A [Client] connects again by itself, and sends again what did not run; it keeps
// sessions with several nodes if given them. Calls wait for a connection until
// their context ends: give them deadlines. What may run twice is called under
// [Idempotent].
//
// # What a peer can do
//
// Whatever a peer sends, memory is bounded by [Limits] and the process stays up:
// sizes are checked before they are used, a panic in a handler ends a call or a
// connection and not the process, and a connection that does not get on is
// closed. A limit that was reached is logged and counted: [Endpoint.Counts]. A
// peer can use up its connections' share of the processor.
//
// # Ending
//
// [Endpoint.Shutdown] lets running commands finish, [Endpoint.Close] does not;
// both wait for every goroutine of the endpoint.
package endpoint
