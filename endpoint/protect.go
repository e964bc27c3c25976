package endpoint

import (
	"fmt"
	"math/rand/v2"

	"github.com/pkg/errors"
)

// protect calls f, which is a user's. A panic in f becomes the error, with its
// stack. panicked, if not nil, is told of it as well, which is the only way to
// learn of runtime.Goexit: the goroutine is ending then, and protect does not
// return.
func protect(f func() error, panicked func(error)) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		v := recover()
		if e, ok := v.(error); ok && errors.Is(usable(e), ErrAbort) {
			err = ErrAbort
		} else if v == nil {
			err = errors.New("runtime.Goexit was called")
		} else {
			err = errors.Errorf("panic: %v", v)
		}
		if panicked != nil {
			panicked(err)
		}
	}()
	err = f()
	returned = true
	return usable(err)
}

// usable returns err, or another in its place if its methods panic: those of a
// nil pointer do, once it has become an error that is not nil.
func usable(err error) (e error) {
	if err == nil {
		return nil
	}
	defer func() {
		if recover() != nil {
			e = errors.Errorf("a %T, of which the methods panic", err)
		}
	}()
	_, _, _ = err.Error(), CodeOf(err), errors.Is(err, ErrAbort)
	return err
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
