package endpoint

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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

// A Client makes calls to one or several nodes, any number at once, over one
// session with each. It is a [Caller], and may be used by any number of
// goroutines.
//
// It heals: a connection that breaks is made anew, at once and then as
// Dialer.Backoff says, sooner while a call waits. Calls under way on it fail
// with outcome unknown; a call that is known not to have run is sent again, and
// a call that finds no connection waits for one until its context ends, whose
// error then says why there was none. See [Idempotent] for calls that may run
// more than once.
//
// Of several nodes each call goes to the better of two chosen at random, by the
// latency of the last calls and those under way. Nodes that drain, fail or
// refuse are left out meanwhile.
type Client struct {
	d       Dialer // with defaults
	backoff Backoff
	logger  *slog.Logger
	budget  *session.Budget // for what the peers' calls back hold
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // of the nodes, their sessions and keepNames
	nodes   atomic.Pointer[[]*node]
	began   time.Time
	asked   chan struct{} // one token when the names are to be resolved again

	dialed    atomic.Bool  // Dial has returned
	waiting   atomic.Int64 // calls that wait for a connection
	tokens    tokens
	hedging   hedgeTokens
	latencies latencyTable
	resent    atomic.Uint64
	hedges    atomic.Uint64

	mu      sync.Mutex // guards following, and the states of nodes
	closed  bool
	changed bell // rings at each change of state
	usable  bell // rings when a node may take calls that did not before, and at Close
}

// A bell wakes everybody who waits for it. It needs a lock.
type bell struct{ rung chan struct{} }

// wait returns a channel that is closed at the next ring.
func (b *bell) wait() <-chan struct{} {
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

func (b *bell) ring() {
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}

// Dial connects with the zero Dialer.
func Dial(ctx context.Context, addrs ...string) (*Client, error) {
	return new(Dialer).Dial(ctx, addrs...)
}

// Dial opens sessions with the nodes at addrs, each an address as of Open; with
// Resolve they are names, each of which stands for any number of nodes. Dial
// returns when the first has greeted; the others are connected to meanwhile and
// from then on. It fails when none of them could be connected to, with what each
// said. ctx has no effect on the Client later. No address is DefaultAddr on this
// machine.
func (d *Dialer) Dial(ctx context.Context, addrs ...string) (*Client, error) {
	if len(addrs) == 0 {
		addrs = []string{DefaultAddr}
	}
	c := d.newClient()
	var names []string
	if d.Resolve != nil {
		names = slices.Clone(addrs)
		var err error
		if addrs, err = c.resolve(ctx, names); err != nil {
			c.cancel()
			return nil, errors.WithStack(err)
		}
	}
	if err := c.begin(ctx, names, addrs); err != nil {
		_ = c.Close()
		return nil, errors.WithStack(err)
	}
	c.dialed.Store(true)
	return c, nil
}

// begin connects to the nodes at addrs, which names stand for.
func (c *Client) begin(ctx context.Context, names, addrs []string) error {
	if c.d.Resolve == nil && len(addrs) == 1 {
		// On this goroutine: another one, and to wake this, is a tenth of the time
		// that connecting takes the processor.
		n := newNode(c, addrs[0])
		c.nodes.Store(&[]*node{n})
		return n.first(ctx)
	}
	c.setNodes(addrs)
	if c.d.Resolve != nil {
		c.wg.Go(func() { c.keepNames(names) })
	}
	return c.greeted(ctx)
}

func (d *Dialer) newClient() *Client {
	c := &Client{d: *d, backoff: d.Backoff.withDefaults(), logger: loggerOr(d.Logger), began: time.Now(), asked: make(chan struct{}, 1)}
	c.d.Limits = d.Limits.withDefaults()
	if e := d.Endpoint; e != nil {
		e.init()
		c.d.Limits.Calls, c.d.Limits.InFlight = e.limits.Calls, e.limits.InFlight
		c.budget = e.inFlight
	} else {
		c.budget = newBudget(c.d.Limits.InFlight)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.nodes.Store(new([]*node))
	return c
}

// now is the time in ns since the Client was made, on the monotonic clock and
// small enough for an atomic; never 0.
func (c *Client) now() int64 { return int64(time.Since(c.began)) + 1 }

// greeted waits until a node is ready, or the first attempt of each has failed.
func (c *Client) greeted(ctx context.Context) error {
	for {
		var failed error
		pending, ready := false, false
		c.mu.Lock()
		changed := c.changed.wait()
		for _, n := range *c.nodes.Load() {
			ready = ready || n.connected > 0
			pending = pending || !n.tried
			if failed == nil {
				failed = n.err
			}
		}
		c.mu.Unlock()
		if ready {
			return nil
		}
		if !pending {
			return c.unreachable(failed)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return c.noRoute(ctx)
		}
	}
}

// unreachable is the error of a Dial whose nodes could not be connected to.
func (c *Client) unreachable(failed error) error {
	if len(*c.nodes.Load()) == 1 {
		return failed
	}
	return &Error{Code: CodeOf(failed), Outcome: OutcomeNotRun, Message: "cannot connect to any node: " + c.reasons(), cause: failed}
}

// dialSession connects to n and opens a session there, within the limits of
// time. hurried reports whether a call waits for it.
func (d *Dialer) dialSession(ctx context.Context, n *node, hurried func() bool) (*link, error) {
	conn, stream, err := d.connect(ctx, n.addr, &sessionSocket, hurried)
	if err != nil {
		return nil, err
	}
	l := &link{e: d.Endpoint, limits: &d.Limits, logger: loggerOr(d.Logger), peer: newPeer(conn, stream)}
	l.start(stream, linkConfig{
		dialer: true, preface: sessionLine, greeting: sessionOK, heartbeat: d.Heartbeat, spin: d.Spin, budget: n.c.budget,
		going: func() { n.goingAway(l) },
	})
	if err = l.s.Greet(ctx); err != nil {
		l.s.Abort(session.ErrClosed)
		<-l.s.Done()
		return nil, errors.WithStack(greetingError(n.addr, err))
	}
	return l, nil
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
	code := CodeOf(err)
	if code == Unknown {
		code = Unavailable
	}
	return &Error{Code: code, Outcome: OutcomeNotRun, Message: "no session with " + addr + ": " + errText(err), cause: err}
}

// Close ends all sessions at once: calls under way fail, and the contexts of
// their handlers end. It does not wait for what the peers have called here, so
// that such a handler can call it: the Shutdown and Close of the Dialer's
// Endpoint do.
func (c *Client) Close() error {
	type end struct {
		n *node
		l *link
	}
	var room [1]end
	ends := room[:0]
	c.mu.Lock()
	c.closed = true
	c.cancel()
	for _, n := range *c.nodes.Load() {
		if n.current != nil {
			ends = append(ends, end{n, n.current})
			n.current = nil
		}
	}
	c.wg.Add(len(ends)) // here, so that another Close waits for them
	c.changed.ring()
	c.usable.ring()
	c.mu.Unlock()
	for i, e := range ends {
		if i < len(ends)-1 {
			go e.n.close(e.l) // each may have to wait for a peer that takes nothing
		} else {
			e.n.close(e.l)
		}
	}
	c.wg.Wait()
	return nil
}

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
	rc := newRawStream(ctx, o, o.link.peer.conn)
	return newConn(rc, rc, *o.link.limits), nil
}

func (c *Client) info(ctx context.Context, name string, kind Kind) *Info {
	info := &Info{Command: name, Kind: kind, Peer: new(Peer), Logger: c.logger}
	info.carry(headerOf(ctx))
	return info
}

func (c *Client) call(ctx context.Context, name string, x outgoing) *Error {
	if len(c.d.Interceptors) == 0 {
		return c.send(ctx, nil, name, x)
	}
	info, a := c.info(ctx, name, KindUnary), newAttempts()
	refused := a.judge(interceptCall(ctx, c.d.Interceptors, info, func(ctx context.Context) error {
		return a.note(c.send(ctx, info, name, x))
	}))
	info.end(asError(refused))
	return refused
}

// send makes a call, again where that is safe.
func (c *Client) send(ctx context.Context, info *Info, name string, x outgoing) *Error {
	if err := checkName(name); err != nil {
		return notSent(err)
	}
	if c.several() && idempotent(ctx) {
		return c.sendHedged(ctx, info, name, x)
	}
	// This is attempt, written out: a function to run would cost two allocations
	// for each call.
	a := resending{c: c}
	for {
		r, refused := c.route(ctx, a.tried)
		if refused != nil {
			return a.judge(refused)
		}
		if info != nil {
			info.Peer = &r.l.peer
		}
		if refused = r.call(ctx, name, x); refused == nil {
			c.tokens.earn()
			return nil
		}
		if !a.again(ctx, &r, refused) {
			return a.judge(refused)
		}
	}
}

// sendHedged is send for a call that may run more than once.
func (c *Client) sendHedged(ctx context.Context, info *Info, name string, x outgoing) *Error {
	request, err := x.appendRequest(nil)
	if err != nil {
		return badRequest(err)
	}
	var reply []byte
	refused := c.attempt(ctx, info, func(r *route) (refused *Error) {
		reply, refused = c.hedged(ctx, r, name, request)
		return refused
	})
	if refused != nil {
		return refused
	}
	if _, err := x.decodeReply(reply, c.d.Limits.gob()); err != nil {
		return badReply(err)
	}
	return nil
}

func (c *Client) open(ctx context.Context, name string, kind Kind) (o *opened, _ *Error) {
	if len(c.d.Interceptors) == 0 {
		return c.openOnce(ctx, nil, name, kind)
	}
	info, a := c.info(ctx, name, kind), newAttempts()
	refused := a.judge(interceptCall(ctx, c.d.Interceptors, info, func(ctx context.Context) error {
		if o != nil {
			o.end(errClosedHere) // next was called again
		}
		var refused *Error
		o, refused = c.openOnce(ctx, info, name, kind)
		return a.note(refused)
	}))
	if refused != nil {
		if o != nil {
			o.end(errClosedHere)
		}
		info.end(refused)
		return nil, refused
	}
	counted := o.done
	o.done = func(err error) { counted(err); info.end(err) }
	return o, nil
}

// openOnce opens a stream. A failure to open is not the stream's: what did not
// get through is sent again.
func (c *Client) openOnce(ctx context.Context, info *Info, name string, kind Kind) (o *opened, _ *Error) {
	if err := checkName(name); err != nil {
		return nil, notSent(err)
	}
	refused := c.attempt(ctx, info, func(r *route) (refused *Error) {
		r.n.started.Add(1)
		if o, refused = r.l.open(ctx, name, kind); refused != nil {
			r.end(refused)
			return refused
		}
		way, once := *r, sync.Once{}
		o.done = func(err error) {
			once.Do(func() {
				if err == nil {
					way.end(nil)
				} else {
					way.end(fromSession(err))
				}
			})
		}
		return nil
	})
	if refused != nil {
		return nil, refused
	}
	return o, nil
}
