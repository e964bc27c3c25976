package endpoint

import (
	"context"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pkg/errors"
)

// ErrClosed is what Serve and Listen return after Shutdown or Close.
var ErrClosed = errors.New("endpoint closed")

// ErrAbort ends the connection without a log line, as the value of a panic or
// as the error of a [Handler] or an [Interceptor]. A [HandleFunc], which has no
// error to return, uses it when the rest of its data cannot be trusted.
var ErrAbort = errors.New("command aborted")

// A Code says what kind of failure an error is. Names, numbers and meanings are
// those of gRPC (https://grpc.io/docs/guides/status-codes/), so that they need
// no table of their own. A Code is an error: errors.Is(err, endpoint.NotFound).
type Code uint8

// The codes. On the wire they go by name, in lower case with underscores.
const (
	OK                 Code = iota // no error; never inside one
	Canceled                       // the caller gave up
	Unknown                        // an error that carried no code
	InvalidArgument                // the request is wrong whatever the state
	DeadlineExceeded               // time ran out
	NotFound                       // what was asked for does not exist
	AlreadyExists                  // what was to be made exists
	PermissionDenied               // the caller is known and may not
	ResourceExhausted              // a limit was reached
	FailedPrecondition             // the state does not allow it
	Aborted                        // a conflict: try the whole again
	OutOfRange                     // past the end
	Unimplemented                  // no such command here
	Internal                       // a defect on the answering side
	Unavailable                    // not now: try again later
	DataLoss                       // data is damaged for good
	Unauthenticated                // the caller has not said who it is
)

var codeNames = [...]string{
	OK: "ok", Canceled: "canceled", Unknown: "unknown", InvalidArgument: "invalid_argument",
	DeadlineExceeded: "deadline_exceeded", NotFound: "not_found", AlreadyExists: "already_exists",
	PermissionDenied: "permission_denied", ResourceExhausted: "resource_exhausted",
	FailedPrecondition: "failed_precondition", Aborted: "aborted", OutOfRange: "out_of_range",
	Unimplemented: "unimplemented", Internal: "internal", Unavailable: "unavailable",
	DataLoss: "data_loss", Unauthenticated: "unauthenticated",
}

// String returns the name that travels, such as "not_found".
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code_%d", uint8(c))
}

// ofFailure returns c, or Unknown if it is not the code of a failure: nobody who
// reads an ERR line would take it for one.
func (c Code) ofFailure() Code {
	if c == OK || int(c) >= len(codeNames) {
		return Unknown
	}
	return c
}

// Error makes a Code a target for errors.Is.
func (c Code) Error() string { return c.String() }

// An Outcome says what is known of the run behind a failed call.
type Outcome uint8

// The outcomes. Only the library sets them, by what it knows.
const (
	OutcomeUnknown Outcome = iota // it may have run
	OutcomeNotRun                 // it did not run and will not: safe to send again
	OutcomeFailed                 // it ran, and said that it failed
)

var outcomeNames = [...]string{"unknown", "not_run", "failed"}

// String returns the name that travels, such as "not_run".
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome_%d", uint8(o))
}

// An Error is a failed call: what kind of failure, whether the command ran, and
// a text for people. errors.Is matches it with its Code, and with
// context.DeadlineExceeded and context.Canceled where the code is theirs.
type Error struct {
	Code    Code
	Outcome Outcome
	Message string
	Command string // empty where no command was involved

	cause error
}

// Error returns the command, the message, the code and the outcome.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Command != "" {
		b.WriteString(e.Command + ": ")
	}
	b.WriteString(e.Message)
	b.WriteString(" (" + e.Code.String() + ", " + e.Outcome.String() + ")")
	return b.String()
}

// Unwrap returns what the error was made from on this side, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is e's Code, or the context error of that code.
func (e *Error) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return e.Code == DeadlineExceeded
	case context.Canceled:
		return e.Code == Canceled
	}
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Errorf returns an *Error with code and a text as of fmt.Errorf, %w included.
// Its outcome is set when it leaves a handler. Code and text are all that
// reaches the peer: keep secrets out of them.
func Errorf(code Code, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	e := &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
	if _, several := err.(interface{ Unwrap() []error }); several {
		e.cause = err
	}
	return e
}

// CodeOf returns the code that err carries: that of the *Error or Code inside
// it, DeadlineExceeded or Canceled for the errors of contexts and deadlines, OK
// for nil and only for nil, and Unknown for anything else.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		if e == nil {
			return Unknown
		}
		return e.Code.ofFailure()
	}
	var c Code
	switch {
	case errors.As(err, &c):
		return c.ofFailure()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Unknown
}

// OutcomeOf returns the outcome of the *Error inside err, or OutcomeUnknown.
func OutcomeOf(err error) Outcome {
	var e *Error
	if errors.As(err, &e) && e != nil {
		return e.Outcome
	}
	return OutcomeUnknown
}

// refusal is an error of the library itself for a command that did not run.
func refusal(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Outcome: OutcomeNotRun, Message: fmt.Sprintf(format, args...)}
}

// maxErrText bounds the text of an ERR line, in bytes.
const maxErrText = 1 << 10

// appendErrLine appends the line that tells a peer of e. Control characters of
// the text become spaces, so that the line is one line and harmless on a
// terminal, and it is cut at maxErrText.
func appendErrLine(dst []byte, e *Error) []byte {
	dst = append(dst, "ERR "+e.Code.String()+" "+e.Outcome.String()+" "...)
	end := len(dst) + maxErrText
	for _, r := range e.Message {
		if unicode.IsControl(r) || r == utf8.RuneError || r == '\u2028' || r == '\u2029' {
			r = ' '
		}
		if len(dst)+utf8.RuneLen(r) > end {
			break
		}
		dst = utf8.AppendRune(dst, r)
	}
	return append(dst, '\n')
}

// parseErrLine is the reverse; ok is false for any other line. line may end in
// LF or CRLF.
func parseErrLine(line string) (e *Error, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "ERR ")
	if !ok {
		return nil, false
	}
	codeName, rest, _ := strings.Cut(rest, " ")
	outcomeName, text, _ := strings.Cut(rest, " ")
	code, okCode := indexOf(codeNames[:], codeName)
	outcome, okOutcome := indexOf(outcomeNames[:], outcomeName)
	if !okCode || !okOutcome || Code(code) == OK {
		return nil, false
	}
	return &Error{Code: Code(code), Outcome: Outcome(outcome), Message: text}, true
}

// told returns what reaches the peer of e, whose code and outcome have names.
// Callers in process get no more than that.
func (e *Error) told() *Error {
	t, _ := parseErrLine(string(appendErrLine(nil, e)))
	return t
}

func indexOf(names []string, name string) (uint8, bool) {
	for i, n := range names {
		if n == name {
			return uint8(i), true
		}
	}
	return 0, false
}
