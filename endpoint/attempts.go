package endpoint

// attempts is what is known of the calls behind one of a Client's: its
// interceptors may make none, or several in turn.
type attempts struct {
	outcome Outcome // of all of them, as one
	last    *Error  // nil after a success
	made    bool
}

func newAttempts() attempts { return attempts{outcome: OutcomeNotRun} }

// note adds one and returns its error as the interceptors see it.
func (a *attempts) note(refused *Error) error {
	a.made, a.last = true, refused
	switch {
	case refused == nil:
		a.outcome = OutcomeUnknown // should an interceptor call it a failure
		return nil
	case refused.Outcome == OutcomeUnknown:
		a.outcome = OutcomeUnknown
	case refused.Outcome == OutcomeFailed && a.outcome == OutcomeNotRun:
		a.outcome = OutcomeFailed
	}
	return refused
}

// judge makes of err, which the interceptors returned, what the caller is told.
// They may change a failure's code and text, not what is known of the run; none
// makes a success of a call that failed.
func (a *attempts) judge(err error) *Error {
	switch {
	case err == nil && !a.made:
		return refusal(Internal, "an interceptor returned nil without having called next")
	case err == nil && a.last == nil:
		return nil
	case err == nil:
		err = a.last
	}
	if e, ok := err.(*Error); ok && e == a.last { //nolint:errorlint // the very error, not one around it
		e.Outcome = a.outcome
		return e
	}
	return &Error{Code: CodeOf(err), Outcome: a.outcome, Message: errText(err), cause: err}
}

// asError is e as an error, which is nil if e is.
func asError(e *Error) error {
	if e == nil {
		return nil
	}
	return e
}

// errClosedHere is what OnEnd is told of a stream that was closed before its end.
var errClosedHere = Errorf(Canceled, "closed by the caller")
