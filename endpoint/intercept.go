package endpoint

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
)

// A Kind is how a command's data is shaped.
type Kind uint8

// The kinds. The numbers are those of the wire.
const (
	KindRaw   Kind = iota // bytes that are the handler's affair
	KindUnary             // one typed request, one typed reply
)

// String returns the kind's name, such as "raw".
func (k Kind) String() string {
	switch k {
	case KindRaw:
		return "raw"
	case KindUnary:
		return "unary"
	}
	return "unknown"
}

// Info is what interceptors and handlers know of the call they serve. It is
// valid until the command ends, and is not to be changed.
type Info struct {
	Command string
	Kind    Kind
	Peer    *Peer        // never nil
	Logger  *slog.Logger // the endpoint's; never nil
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
// which Value lets contexts derived from it find, so that context.WithCancel
// starts no goroutine.
type callContext struct {
	context.Context
	info Info

	mu     sync.Mutex
	ending context.Context // derived from Context when first asked for
	cancel context.CancelFunc
	over   bool
}

func (c *callContext) Value(key any) any {
	if key == (infoKey{}) {
		return &c.info
	}
	c.mu.Lock()
	ctx := c.ending
	c.mu.Unlock()
	if ctx == nil {
		ctx = c.Context
	}
	return ctx.Value(key)
}

func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending == nil {
		c.ending, c.cancel = context.WithCancel(c.Context)
		if c.over {
			c.cancel()
		}
	}
	return c.ending.Done()
}

func (c *callContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ending != nil:
		return c.ending.Err()
	case c.over && c.Context.Err() == nil:
		return context.Canceled
	}
	return c.Context.Err()
}

// end ends c; the call is over.
func (c *callContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.cancel != nil {
		c.cancel()
	}
}

// An Interceptor runs around every command. It sees the call's Info, may give
// next a context derived from ctx, and returns next's error or one of its own.
// next runs the command once; a second call of it, or one after the interceptor
// has returned, fails. An error without having called next refuses the command:
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
