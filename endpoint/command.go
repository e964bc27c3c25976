package endpoint

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"gobnode/internal/gobcodec"

	"github.com/pkg/errors"
)

// A Command is a typed command: a request to a reply. It is a constant that
// both sides import, so that the compiler checks both:
//
//	const Sum endpoint.Command[SumRequest, SumReply] = "SUM"
//
// Request and reply travel as gobs. Fields match by name: a side may know
// fields that the other does not. Types that reach an interface, a channel or a
// function are refused. A pointer to a zero value arrives as nil.
type Command[Req, Reply any] string

// Handle registers f as the command on e, in place of an earlier command of its
// name. f's context ends when the caller is known to have gone or its deadline
// has passed. Its error reaches the caller as its code and text, with the
// outcome failed.
//
// Handle panics, with the path of the field, if gob cannot carry a type.
func (c Command[Req, Reply]) Handle(e *Endpoint, f func(context.Context, Req) (Reply, error)) {
	k, err := kitFor[Req, Reply]()
	if err != nil {
		panic("endpoint: command " + quoteName(c) + ": " + err.Error()) //nolint:forbidigo // a defect of the program, found when it starts
	}
	if f == nil {
		panic("endpoint: nil function for command " + quoteName(c)) //nolint:forbidigo // a defect of the program, found when it starts
	}
	largest := jsonLargest(reflect.TypeFor[Req](), nil)
	e.register(string(c), entry{kind: KindUnary, unary: &unaryCommand[Req, Reply]{kit: k, f: f, largest: largest}})
	e.warn(string(c), slices.Concat(k.req.Warnings(), k.rep.Warnings()))
}

// Call runs the command on to and returns its reply. The error is an *Error
// with the outcome; see CodeOf and OutcomeOf. Call returns when ctx ends, if
// not before.
func (c Command[Req, Reply]) Call(ctx context.Context, to Caller, request Req) (Reply, error) {
	var zero Reply
	k, err := kitFor[Req, Reply]()
	if err != nil {
		return zero, errors.WithStack(&Error{Code: InvalidArgument, Outcome: OutcomeNotRun, Command: string(c), Message: err.Error(), cause: err})
	}
	call := k.take(request)
	if err := to.call(ctx, string(c), call); err != nil {
		err.Command = string(c)
		return zero, errors.WithStack(err)
	}
	reply := call.reply
	if c, ok := to.(*Client); !ok || len(c.d.Interceptors) == 0 { // one of them may have kept what runs the call
		k.drop(call)
	}
	return reply, nil
}

// A kit is what calls with the same types share. With pools of each command's own, calls that go round 10,000 commands found them
// empty and cost 1.5 times as much as those of one.
type kit[Req, Reply any] struct {
	req    *gobcodec.Codec[Req]
	rep    *gobcodec.Codec[Reply]
	calls  sync.Pool // of *unaryCall, of the caller's side
	served sync.Pool // of *servedCall
}

var kits sync.Map // reflect.Type of a *kit -> the kit; grows with the types of the program

func kitFor[Req, Reply any]() (*kit[Req, Reply], error) {
	rt := reflect.TypeFor[kit[Req, Reply]]()
	if k, ok := kits.Load(rt); ok {
		return k.(*kit[Req, Reply]), nil
	}
	req, rep, err := codecs[Req, Reply]()
	if err != nil {
		return nil, err
	}
	k, _ := kits.LoadOrStore(rt, &kit[Req, Reply]{req: req, rep: rep})
	return k.(*kit[Req, Reply]), nil
}

func (k *kit[Req, Reply]) take(request Req) *unaryCall[Req, Reply] {
	c, ok := k.calls.Get().(*unaryCall[Req, Reply])
	if !ok {
		c = &unaryCall[Req, Reply]{req: k.req, rep: k.rep}
	}
	c.request = request
	return c
}

func (k *kit[Req, Reply]) drop(c *unaryCall[Req, Reply]) {
	c.clear()
	k.calls.Put(c)
}

// A Caller is what commands can be called on: a *Client or a *Peer, over a
// session; a *Conn, one call at a time; an *Endpoint, in process.
type Caller interface {
	call(ctx context.Context, name string, x outgoing) *Error
	open(ctx context.Context, name string, kind Kind) (*opened, *Error)
}

// unary is a unaryCommand without its types.
type unary interface {
	newCall() incoming
	served() *sync.Pool  // of *servedCall, whose calls are of any command with the same types
	adopt(call incoming) // makes it one of this command's
	largestJSON() int64  // the most that one element of a request as JSON can take, see jsonCost
	describe() (request, reply, example string)
}

// incoming is the handler's side of a unary call.
type incoming interface {
	noRequest() bool // the request is an empty struct
	clear()          // the values, before another call uses it
	decodeRequest(src []byte, limits gobcodec.Limits) (int, error)
	decodeRequestJSON(src []byte) error
	run(ctx context.Context) error
	appendReply(dst []byte) ([]byte, error)
	appendReplyJSON(dst []byte) ([]byte, error)
}

// outgoing is the caller's side of a unary call.
type outgoing interface {
	appendRequest(dst []byte) ([]byte, error)
	noReply() bool // the reply is an empty struct
	decodeReply(src []byte, limits gobcodec.Limits) (int, error)
}

type unaryCommand[Req, Reply any] struct {
	kit       *kit[Req, Reply]
	f         func(context.Context, Req) (Reply, error)
	largest   int64
	described atomic.Pointer[[3]string] // nil until describe has come to its end
}

func (u *unaryCommand[Req, Reply]) newCall() incoming {
	return &unaryCall[Req, Reply]{req: u.kit.req, rep: u.kit.rep, f: u.f}
}

func (u *unaryCommand[Req, Reply]) served() *sync.Pool { return &u.kit.served }

func (u *unaryCommand[Req, Reply]) adopt(call incoming) { call.(*unaryCall[Req, Reply]).f = u.f }

func (u *unaryCommand[Req, Reply]) largestJSON() int64 { return u.largest }

func (u *unaryCommand[Req, Reply]) describe() (request, reply, example string) {
	d := u.described.Load()
	if d == nil {
		example, settled := jsonExample[Req]()
		d = &[3]string{goText[Req](), goText[Reply](), example}
		if settled {
			u.described.Store(d)
		}
	}
	return d[0], d[1], d[2]
}

// A unaryCall holds both values of one call, for either side.
type unaryCall[Req, Reply any] struct {
	req     *gobcodec.Codec[Req]
	rep     *gobcodec.Codec[Reply]
	f       func(context.Context, Req) (Reply, error) // of the handler's side
	request Req
	reply   Reply
}

func (c *unaryCall[Req, Reply]) clear() {
	var request Req
	var reply Reply
	c.f, c.request, c.reply = nil, request, reply
}

func (c *unaryCall[Req, Reply]) noRequest() bool { return c.req.Empty() }
func (c *unaryCall[Req, Reply]) noReply() bool   { return c.rep.Empty() }

func (c *unaryCall[Req, Reply]) run(ctx context.Context) (err error) {
	c.reply, err = c.f(ctx, c.request)
	return err
}

func (c *unaryCall[Req, Reply]) appendRequest(dst []byte) ([]byte, error) {
	return c.req.Append(dst, &c.request)
}

func (c *unaryCall[Req, Reply]) appendReply(dst []byte) ([]byte, error) {
	return c.rep.Append(dst, &c.reply)
}

func (c *unaryCall[Req, Reply]) decodeRequest(src []byte, limits gobcodec.Limits) (int, error) {
	var zero Req // what a first try with a lower limit left behind
	c.request = zero
	return c.req.Decode(src, &c.request, limits)
}

func (c *unaryCall[Req, Reply]) decodeReply(src []byte, limits gobcodec.Limits) (int, error) {
	var zero Reply // what the reply to an earlier call of an interceptor left
	c.reply = zero
	return c.rep.Decode(src, &c.reply, limits)
}

func (c *unaryCall[Req, Reply]) decodeRequestJSON(src []byte) error {
	return decodeJSON(src, &c.request)
}

func (c *unaryCall[Req, Reply]) appendReplyJSON(dst []byte) ([]byte, error) {
	b, err := json.Marshal(&c.reply)
	return append(dst, b...), err
}
