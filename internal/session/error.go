package session

import (
	"context"
	"errors"
	"fmt"

	"gobnode/internal/wire"
)

// An Error is how a call, or a session, ended without success.
type Error struct {
	Code    wire.Code
	Outcome wire.Outcome // of a call; of a session it says nothing
	Message string
	Told    bool     // the peer said so in an ERROR; otherwise this side found out
	Pairs   []string // strings two by two: what an ERROR frame carried beside its message
	Cause   error    // what Unwrap returns: a context's error, or how the session ended; nil if the peer said so
}

// Error returns the message and the cause.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// ErrClosed is how a session ended that was closed or drained by this side, or drained by the peer.
var ErrClosed = errors.New("session closed")

// errCanceledByPeer is the cause of a handler's context when the caller sent CANCEL.
var errCanceledByPeer = &Error{Code: wire.Canceled, Message: "canceled by the caller"}

// errStopped is how a stream ended for a handler that gave it up.
var errStopped = &Error{Code: wire.Canceled, Message: "given up by the handler"}

// errTimeOver is the same when the caller's time was over.
var errTimeOver = &Error{Code: wire.DeadlineExceeded, Message: "the caller's time was over", Cause: context.DeadlineExceeded}

// errFinished is the cause of a handler's context once the handler has returned.
var errFinished = errors.New("stream finished")

// ErrSendClosed is returned by writes after CloseSend or Finish, behind a message that was given up halfway, and by one while
// another is under way.
var ErrSendClosed = errors.New("stream is closed for sending")

// errHeader is the error of a call with more than maxHeader bytes of pairs.
var errHeader = notRun(wire.ResourceExhausted, "the header is longer than 8 KiB", nil)

// CheckHeader returns the error of a call with these pairs, strings two by two, nil if a call can carry them.
func CheckHeader(pairs []string) error {
	if p := wire.MakePairs(pairs); p.Size() > maxHeader {
		return errHeader
	}
	return nil
}

// ofContext is the error of a call that ended because the caller's context did.
func ofContext(ctx context.Context, outcome wire.Outcome) *Error {
	e := &Error{Code: wire.Canceled, Outcome: outcome, Message: "call given up", Cause: ctx.Err()}
	if errors.Is(e.Cause, context.DeadlineExceeded) {
		e.Code = wire.DeadlineExceeded
	}
	return e
}

// notRun is the error of a call that this side knows did not run and will not.
func notRun(code wire.Code, message string, cause error) *Error {
	return &Error{Code: code, Outcome: wire.OutcomeNotRun, Message: message, Cause: cause}
}

// A protocolError is something the peer must not send. It ends the session.
type protocolError struct {
	code  wire.Code
	limit Limit // the limit it broke, or LimitProtocol
	text  string
}

func (e *protocolError) Error() string { return e.text }

// forbidden is a frame that ends the session.
func forbidden(format string, args ...any) error {
	return &protocolError{wire.FailedPrecondition, LimitProtocol, fmt.Sprintf(format, args...)}
}

// exceeded is a limit of the session's that the peer went over.
func exceeded(l Limit, format string, args ...any) error {
	return &protocolError{wire.ResourceExhausted, l, fmt.Sprintf(format, args...)}
}
