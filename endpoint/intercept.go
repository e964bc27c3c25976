package endpoint

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gobnode/internal/session"
)

// A Kind is how a command's data is shaped.
type Kind uint8

// The kinds. The numbers are those of the wire.
const (
	KindRaw    Kind = iota // bytes that are the handler's affair
	KindUnary              // one typed request, one typed reply
	KindStream             // typed messages both ways
)

// String returns the kind's name, such as "raw".
func (k Kind) String() string {
	switch k {
	case KindRaw:
		return "raw"
	case KindUnary:
		return "unary"
	case KindStream:
		return "stream"
	}
	return "unknown"
}

// Info is what interceptors and handlers know of the call they serve. It is
// valid until the command ends, and is not to be changed.
type Info struct {
	Command string
	Peer    *Peer        // never nil
	Logger  *slog.Logger // the endpoint's; never nil
	Kind    Kind

	over   bool      // OnEnd's functions are called, or about to be
	header *[]string // pairs; nil: none
	onEnd  *[]func(error)
	mu     sync.Mutex
}

// Header returns the value that the caller gave key with WithHeader, "" if it
// gave none.
func (i *Info) Header(key string) string {
	if i.header == nil {
		return ""
	}
	pairs := *i.header
	for n := len(pairs) - 2; n >= 0; n -= 2 {
		if pairs[n] == key {
			return pairs[n+1]
		}
	}
	return ""
}

// carry is for what Header is to find.
func (i *Info) carry(pairs []string) {
	if len(pairs) > 0 {
		kept := pairs // pairs itself would be allocated for every call
		i.header = &kept
	}
}

// OnEnd has f called when the call has ended, with its error: for a stream that
// is when the stream has ended, long after the interceptors around its opening
// have returned. Functions are called in the order of the calls of OnEnd, on the
// goroutine that ends the call. It may be called until then.
func (i *Info) OnEnd(f func(error)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.onEnd == nil {
		i.onEnd = new([]func(error))
	}
	*i.onEnd = append(*i.onEnd, f)
}

// end calls what OnEnd was given, once.
func (i *Info) end(err error) {
	for _, f := range i.atEnd() {
		f(err)
	}
}

// atEnd returns what end is to call: nothing the second time.
func (i *Info) atEnd() []func(error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.over || i.onEnd == nil {
		i.over = true
		return nil
	}
	i.over = true
	return *i.onEnd
}

type infoKey struct{}

// InfoFrom returns what is known of the call that ctx belongs to, never nil:
// outside of one, as in a test that calls a handler directly, an Info with
// slog.Default and a peer without an address.
func InfoFrom(ctx context.Context) *Info {
	if info, ok := ctx.Value(infoKey{}).(*Info); ok {
		return info
	}
	return &Info{Peer: &Peer{}, Logger: slog.Default()}
}

// callContext is the context of one call: its connection's with an Info, ending
// with the call. It is a type of its own because context.WithValue and
// WithCancel would cost three allocations more on every command, 3 % of a
// round trip. Few handlers ask when it ends; those that do get a cancelCtx made,
// in a session by the stream, which Value lets contexts derived from it find, so
// that context.WithCancel starts no goroutine. A handler may keep it, so one is
// allocated for each call: it is most of what a small call leaves to the
// collector on the serving side beside its values, and what few calls have is
// kept outside of it.
type callContext struct {
	context.Context            // of the connection
	info            Info       // its mu guards what follows too
	deadline        *time.Time // of the stream; nil: none

	st     *session.Stream // whose context it is; nil in line mode and when the call is over
	ending context.Context // ends with the call; made when first asked for
	cancel context.CancelFunc
	over   bool
}

func (c *callContext) Value(key any) any {
	if key == (infoKey{}) {
		return &c.info
	}
	c.info.mu.Lock()
	ctx := c.ending
	c.info.mu.Unlock()
	if ctx == nil {
		ctx = c.Context
	}
	return ctx.Value(key)
}

func (c *callContext) Deadline() (time.Time, bool) {
	t, ok := c.Context.Deadline()
	if c.deadline == nil || ok && t.Before(*c.deadline) {
		return t, ok
	}
	return *c.deadline, true
}

func (c *callContext) Done() <-chan struct{} {
	c.info.mu.Lock()
	defer c.info.mu.Unlock()
	return c.make().Done()
}

// make returns the context that ends with the call.
func (c *callContext) make() context.Context {
	switch {
	case c.ending != nil:
	case c.st != nil:
		c.ending = c.st.Context() // the stream ends it
	default:
		c.ending, c.cancel = context.WithCancel(c.Context)
		if c.over {
			c.cancel()
		}
	}
	return c.ending
}

func (c *callContext) Err() error {
	c.info.mu.Lock()
	defer c.info.mu.Unlock()
	switch {
	case c.ending != nil || c.st != nil:
		return c.make().Err()
	case c.over && c.Context.Err() == nil:
		return context.Canceled
	}
	return c.Context.Err()
}

// finish says the last word of a call in a session that is not over: afterwards
// the stream may be another's, and a handler that an interceptor has not waited
// for must not end that.
func (c *callContext) finish(e *session.Error) {
	c.info.mu.Lock()
	defer c.info.mu.Unlock()
	if c.st != nil {
		c.st.Finish(e)
	}
}

// end ends c; the call is over.
func (c *callContext) end() {
	c.info.mu.Lock()
	defer c.info.mu.Unlock()
	c.over, c.st = true, nil
	if c.cancel != nil {
		c.cancel()
	}
}

// An Interceptor runs around every command, on the side that serves it and, in a
// Dialer, on the side that calls it. It sees the call's Info, may give next a
// context derived from ctx, and returns next's error or one of its own.
//
// Around a call next may be called again, which makes another call; around the
// opening of a stream it returns when the stream is open. Around a handler,
// next runs the command once; a second call of it, or one after the interceptor
// has returned, fails. An interceptor that calls it on another goroutine waits
// until it has returned: what next works on is another call's then. An error without having called next refuses the command:
// the peer is told its code and text. Interceptors are called from many
// goroutines at once.
type Interceptor func(ctx context.Context, info *Info, next func(context.Context) error) error

// intercept runs last inside all of chain, the first outermost.
func intercept(ctx context.Context, chain []Interceptor, info *Info, last func(context.Context) error) error {
	if len(chain) == 0 {
		return last(ctx)
	}
	var called atomic.Bool
	defer called.Store(true) // what is kept of next is of no use
	return chain[0](ctx, info, func(ctx context.Context) error {
		if called.Swap(true) {
			return Errorf(Internal, "an interceptor called next twice, or too late, for %s", info.Command)
		}
		return intercept(ctx, chain[1:], info, last)
	})
}

// interceptCall runs last inside all of chain, around a call: each may call next
// more than once.
func interceptCall(ctx context.Context, chain []Interceptor, info *Info, last func(context.Context) error) error {
	if len(chain) == 0 {
		return last(ctx)
	}
	return chain[0](ctx, info, func(ctx context.Context) error {
		return interceptCall(ctx, chain[1:], info, last)
	})
}
