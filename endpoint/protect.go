package endpoint

import (
	"fmt"
	"math/rand/v2"

	"github.com/pkg/errors"
)

// protect calls f, which is a user's. What caught makes of a panic in f, which
// it is given with its stack, is the error; an error of which the methods panic
// counts as one. runtime.Goexit goes to caught as
// well, with exiting set: the goroutine is ending then, and protect does not
// return.
func protect(f func() error, caught func(err error, exiting bool) error) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		v := recover()
		switch {
		case v == nil:
			err = errors.New("runtime.Goexit was called")
		case isAbort(v):
			err = ErrAbort
		default:
			err = errors.Errorf("panic: %v", v)
		}
		err = caught(err, v == nil)
	}()
	err = f()
	returned = true
	if bad := unusable(err); bad != nil {
		return caught(bad, false)
	}
	return err
}

// unusable returns an error in place of err if err's methods panic: those of a
// nil pointer do, once it has become an error that is not nil.
func unusable(err error) (bad error) {
	if err == nil {
		return nil
	}
	defer func() {
		if recover() != nil {
			bad = errors.Errorf("a %T, of which the methods panic", err)
		}
	}()
	_, _, _ = err.Error(), CodeOf(err), errors.Is(err, ErrAbort)
	return nil
}

// isAbort reports whether v, of a panic, is ErrAbort or wraps it.
func isAbort(v any) bool {
	defer func() { _ = recover() }() // of v's methods
	err, ok := v.(error)
	return ok && errors.Is(err, ErrAbort)
}

// withStack gives err a stack, unless it has one of its own.
func withStack(err error) error {
	var has interface{ StackTrace() errors.StackTrace }
	if errors.As(err, &has) {
		return err
	}
	return errors.WithStack(err)
}

// incident returns an id by which an answer without details can be found in the
// log.
func incident() string { return fmt.Sprintf("%08x", rand.Uint32()) }
