package endpoint

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strings"

	"gobnode/internal/gobcodec"

	"github.com/pkg/errors"
)

// An invocation is one call on its way to a handler, however it came.
type invocation struct {
	e        *Endpoint
	en       *entry
	ctx      *callContext
	call     incoming                    // of a unary command
	handle   func(context.Context) error // the handler of another
	charge   charge
	entered  bool         // the handler was called
	panicked bool         // something of the user's did
	exited   func(*Error) // told once what to answer when the goroutine is ending, by runtime.Goexit
	left     *Error       // ... and what that was
}

// errAborted stands for ErrAbort: nothing is answered.
var errAborted = &Error{Code: Aborted, Message: ErrAbort.Error()}

// run runs the interceptors and, inside of them, decode, if not nil, and the
// handler. Its
// error says what to answer. Interceptors may change an error, but none makes a
// success of a call that failed.
func (v *invocation) run(decode func() *Error) (answer *Error) {
	defer func() {
		if answer == nil {
			answer = v.left // nothing was returned
		}
		for _, f := range v.ctx.info.atEnd() {
			if err := v.guard(func() error { f(asError(answer)); return nil }); err != nil && answer == nil {
				answer = ownOf(err)
			}
		}
	}()
	if len(v.e.Interceptors) == 0 { // without the closures of inside, which are allocated
		return v.answer(v.enter(v.ctx, decode))
	}
	return v.answer(v.inside(decode))
}

// ownOf returns the *Error in err. It is apart from run so that what it finds
// is allocated only there.
func ownOf(err error) *Error {
	var e *Error
	_ = errors.As(err, &e)
	return e
}

// inside runs the interceptors and, inside of them, decode and the handler.
func (v *invocation) inside(decode func() *Error) error {
	var inner error
	called := false
	err := v.guard(func() error {
		return intercept(v.ctx, v.e.Interceptors, &v.ctx.info, func(ctx context.Context) error {
			called = true
			inner = v.enter(ctx, decode)
			return inner
		})
	})
	switch {
	case errors.Is(inner, errAborted):
		return errAborted
	case err == nil && !called:
		return v.defect(errors.New("an interceptor returned nil without having called next"))
	case err == nil:
		return inner
	}
	return err
}

// enter runs decode, if not nil, and the handler.
func (v *invocation) enter(ctx context.Context, decode func() *Error) error {
	return v.guard(func() error {
		if decode != nil {
			if err := decode(); err != nil {
				return err
			}
		}
		v.entered = true
		if v.call != nil {
			return v.call.run(ctx)
		}
		return v.handle(ctx)
	})
}

// answer is what to answer to err.
func (v *invocation) answer(err error) *Error {
	if err == nil {
		return nil
	}
	if errors.Is(err, errAborted) {
		return errAborted
	}
	return &Error{Code: CodeOf(err), Outcome: v.outcome(), Message: errText(err), cause: err}
}

// unlessAborted is what to answer over a session, which says so when a handler
// has aborted.
func (v *invocation) unlessAborted(answer *Error) *Error {
	if answer == errAborted {
		return &Error{Code: Aborted, Outcome: v.outcome(), Message: v.en.name + " aborted"}
	}
	return answer
}

// outcome is that of a failure at this moment.
func (v *invocation) outcome() Outcome {
	if v.entered {
		return OutcomeFailed
	}
	return OutcomeNotRun
}

// guard calls f, which is a user's, and makes an *Error of a panic in it.
func (v *invocation) guard(f func() error) error {
	return protect(f, func(err error, exiting bool) error {
		v.panicked = true
		if v.left != nil { // from a guard inside of this one
			return nil
		}
		answer := v.defect(err)
		if exiting {
			v.left = answer
			v.exited(answer)
		}
		return answer
	})
}

// defect makes the answer of a panic, or of what else no caller is to see: it
// is logged with its stack, and answered without details but an id.
func (v *invocation) defect(err error) *Error {
	if errors.Is(err, ErrAbort) {
		return errAborted
	}
	v.e.tally.add(countPanic)
	id, stack := incident(), fmt.Sprintf("%+v", err)
	if p := panickedIn(err); p != nil {
		stack = string(p.Stack)
	}
	v.ctx.info.Logger.LogAttrs(v.ctx, slog.LevelError, "command panicked", slog.String("command", quoteName(v.en.name)), slog.String("incident", id),
		slog.String("error", err.Error()), slog.String("peer", v.ctx.info.Peer.String()), slog.String("stack", stack))
	return &Error{Code: Internal, Outcome: v.outcome(), Message: "internal error; the log of the answering side has it as incident " + id}
}

// panickedIn returns the panic of a value's own encoding method in err, if that
// is what err is.
func panickedIn(err error) *gobcodec.PanicError {
	var p *gobcodec.PanicError
	_ = errors.As(err, &p)
	return p
}

// errText is the text that travels: err's, in which the text of an *Error is its
// message, since code and outcome travel beside it.
func errText(err error) string {
	text := err.Error()
	var e *Error
	if !errors.As(err, &e) {
		return text
	}
	before, ok := strings.CutSuffix(text, e.Error())
	if !ok {
		return text
	}
	return before + e.Message
}

// A message is expected to decode to firstAllowance bytes for each of its own, a
// large one to largeAllowance for each and largeMore: 30 of 64 KiB at a time
// would be all that a session may hold otherwise. Most take less; one that takes
// more is decoded anew with nextAllowance times as much, up to Limits.Decoded. Without this, every small call would have to be
// charged Limits.Decoded while it decodes, and three at a time would be all. A
// large message is content with less where so much is not to be had: most
// decode to about what they are on the wire.
const (
	firstAllowance = 32
	largeAllowance = 2
	largeMore      = 64 << 10
	nextAllowance  = 4

	// No first try takes more than this part of what all calls may hold: what they
	// hold while they decode is missing where others reply.
	largeShare = 8
)

// decodeGob decodes a request whose bytes are charged for already.
func (v *invocation) decodeGob(src []byte) *Error {
	err := v.charge.decode(src, v.e.limits.gob(), v.call.decodeRequest)
	if err != nil && panickedIn(err) != nil {
		return v.defect(err)
	}
	return err
}

// decode decodes src, within limits, holding what that may take before it is
// taken and what it took at the end.
func (c *charge) decode(src []byte, limits gobcodec.Limits, decode func([]byte, gobcodec.Limits) (int, error)) *Error {
	wire, whole := int64(len(src)), int64(limits.Decoded)
	if whole < 0 {
		whole = math.MaxInt
	}
	if c.limit >= 0 {
		whole = max(1, min(whole, c.limit-wire)) // more could not be held
	}
	least, allowed := leastCharge+wire, leastCharge+min(firstAllowance*wire, largeMore+largeAllowance*wire)
	if c.limit >= 0 {
		allowed = min(allowed, max(least, c.limit/largeShare))
	}
	for {
		least, allowed = min(least, whole), min(allowed, whole)
		held, refused := c.holdAbout(wire+least, wire+allowed)
		if refused != nil {
			return refused
		}
		allowed = held - wire
		limits.Decoded = int(allowed)
		n, err := decode(src, limits)
		if err == nil {
			return c.hold(wire + int64(n))
		}
		var bound *gobcodec.BoundError
		if !errors.As(err, &bound) || bound.Bound != gobcodec.BoundDecoded || allowed == whole {
			return badData(err)
		}
		least, allowed = 2*allowed, nextAllowance*allowed // not less, or there would be no end of tries
	}
}

// decodeJSON decodes a request that was typed by hand.
func (v *invocation) decodeJSON(src []byte) *Error {
	if jsonDepth(src) > maxDepth {
		return refusal(InvalidArgument, "JSON nested more than %d deep", maxDepth)
	}
	cost, limit := jsonCost(src, v.en.unary.largestJSON()), int64(v.e.limits.Decoded)
	if limit >= 0 && cost > limit {
		return refusal(ResourceExhausted, "JSON that may take %d bytes decoded, more than %d: send a gob", cost, limit)
	}
	if err := v.charge.hold(cost); err != nil {
		return err
	}
	if err := v.call.decodeRequestJSON(src); err != nil {
		return refusal(InvalidArgument, "%s", strings.TrimPrefix(errText(err), "json: "))
	}
	return nil
}

// badData is the answer to data that cannot be decoded: too much of it, or
// wrong.
func badData(err error) *Error {
	code := InvalidArgument
	var bound *gobcodec.BoundError
	if errors.As(err, &bound) && bound.Bound != gobcodec.BoundCount { // a count beyond the bytes left is just wrong
		code = ResourceExhausted
	}
	return &Error{Code: code, Outcome: OutcomeNotRun, Message: err.Error(), cause: err}
}

// reply encodes the reply behind dst, by encode, and checks its size.
func (v *invocation) reply(dst []byte, encode func([]byte) ([]byte, error)) ([]byte, *Error) {
	var out []byte
	err := v.guard(func() (err error) {
		out, err = encode(dst)
		return err
	})
	if err != nil {
		return dst, v.unencodable(err)
	}
	if limit := v.e.limits.Message; limit >= 0 && len(out)-len(dst) > limit {
		return dst, &Error{Code: ResourceExhausted, Outcome: OutcomeFailed, Message: fmt.Sprintf("a reply of %d bytes, more than %d", len(out)-len(dst), limit)}
	}
	return out, nil
}

// unencodable is the answer when the reply could not be encoded.
func (v *invocation) unencodable(err error) *Error {
	if panickedIn(err) != nil {
		err = v.defect(err)
	}
	var told *Error
	if errors.As(err, &told) {
		return told
	}
	return &Error{Code: Internal, Outcome: OutcomeFailed, Message: "the reply cannot be encoded: " + err.Error(), cause: err}
}
