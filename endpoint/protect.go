package endpoint

import (
	"fmt"
	"math/rand/v2"

	"github.com/pkg/errors"
)

// protect calls f, which is a user's. What caught makes of a panic in f, which
// it is given with its stack, is the error. runtime.Goexit goes to caught as
// well, with exiting set: the goroutine is ending then, and protect does not
// return. The methods of f's error have been called when it is returned, so
// that they cannot panic elsewhere.
func protect(f func() error, caught func(err error, exiting bool) error) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		v := recover()
		switch {
		case v == nil:
			err = errors.New("the handler called runtime.Goexit")
		case isAbort(v):
			err = ErrAbort
		default:
			err = errors.Errorf("panic: %v", v)
		}
		err = caught(err, v == nil)
	}()
	if err = f(); err != nil {
		_, _ = CodeOf(err), err.Error() // an error that is not nil with a nil pointer in it, most often
	}
	returned = true
	return err
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
