package endpoint_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"

	pkgerrors "github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type next = func(context.Context) error

// interceptedNode has RUN, which answers "ran <value of ctx>" and fails with
// fail if that is not nil.
func interceptedNode(t *testing.T, fail error, chain ...endpoint.Interceptor) *node {
	return memNode(t, func(e *endpoint.Endpoint) {
		e.Interceptors = chain
		e.Handle("RUN", endpoint.ServeFunc(func(ctx context.Context, rw *bufio.ReadWriter) error {
			_, _ = fmt.Fprintln(rw, "ran", ctx.Value(ctxKey{}))
			return fail
		}))
	})
}

type ctxKey struct{}

func TestInterceptorOrder(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		var order []string
		step := func(name string) endpoint.Interceptor {
			return func(ctx context.Context, info *endpoint.Info, next next) error {
				order = append(order, name+" in "+info.Command)
				was, _ := ctx.Value(ctxKey{}).(string)
				err := next(context.WithValue(ctx, ctxKey{}, was+name))
				order = append(order, name+" out")
				return err
			}
		}
		n := interceptedNode(t, nil, step("a"), step("b"), step("c"))
		c := n.dial(t)
		c.send("RUN\n")
		c.expect("ran abc\n") // the derived context reaches the handler
		assert.Equal(t, []string{"a in RUN", "b in RUN", "c in RUN", "c out", "b out", "a out"}, order)
		order = nil
		c.send("NONESUCH\n")
		assert.Contains(t, c.end(), "ERR unimplemented not_run ")
		assert.Empty(t, order, "no command, no interceptor")
	})
}

func TestInterceptorRefuses(t *testing.T) {
	var nobody *endpoint.Error
	for name, tt := range map[string]struct {
		err  error
		line string // "": nothing is answered
		logs []string
	}{
		"Error":           {endpoint.Errorf(endpoint.PermissionDenied, "not you"), "ERR permission_denied not_run not you\n", []string{"level=INFO", "refused", "code=permission_denied", `why="not you"`}},
		"wrapped Error":   {pkgerrors.Wrap(endpoint.Errorf(endpoint.Unauthenticated, "who?"), "at the door"), "ERR unauthenticated not_run at the door: who?\n", []string{"refused", "code=unauthenticated"}},
		"its outcome":     {&endpoint.Error{Code: endpoint.Aborted, Outcome: endpoint.OutcomeFailed, Message: "m"}, "ERR aborted not_run m\n", []string{"refused"}},
		"plain error":     {errors.New("because"), "ERR unknown not_run because\n", []string{"refused", "why=because"}},
		"Code":            {endpoint.ResourceExhausted, "ERR resource_exhausted not_run resource_exhausted\n", []string{"refused"}},
		"deadline":        {context.DeadlineExceeded, "ERR deadline_exceeded not_run context deadline exceeded\n", []string{"refused"}},
		"no code":         {&endpoint.Error{Message: "zero"}, "ERR unknown not_run zero\n", []string{"refused", "code=unknown"}},
		"code OK":         {endpoint.OK, "ERR unknown not_run ok\n", []string{"refused"}},
		"impossible code": {&endpoint.Error{Code: 99, Message: "m"}, "ERR unknown not_run m\n", []string{"refused"}},
		"nil *Error":      {nobody, "ERR internal not_run internal error\n", []string{"level=ERROR", "*endpoint.Error, of which the methods panic", "stack="}},
		"two lines":       {errors.New("one\nERR two"), "ERR unknown not_run one ERR two\n", []string{"refused"}},
		"nil":             {nil, "ERR internal not_run internal error\n", []string{"level=ERROR", "without having called next", "stack="}},
		"ErrAbort":        {endpoint.ErrAbort, "", nil},
	} {
		bubble(t, name, func(t *testing.T) {
			n := interceptedNode(t, nil, pass, func(context.Context, *endpoint.Info, next) error { return tt.err }, pass)
			c := n.dial(t)
			c.send("RUN and data\nPING\n")
			assert.Equal(t, tt.line, c.end())
			_ = c.Close()
			synctest.Wait()
			if tt.logs == nil {
				assert.Empty(t, n.all())
				return
			}
			n.only(t, append(tt.logs, c.local())...)
			// The peer's library understands what it is told.
			e, ok := endpoint.ParseErrLine(tt.line)
			require.True(t, ok)
			assert.Equal(t, endpoint.OutcomeNotRun, e.Outcome)
		})
	}
}

func TestInterceptorNextTwice(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		var second error
		n := interceptedNode(t, nil, func(ctx context.Context, _ *endpoint.Info, next next) error {
			err := next(ctx)
			second = next(ctx)
			return err
		})
		c := n.dial(t)
		c.send("RUN\n")
		c.expect("ran <nil>\n")
		c.send("RUN\n")
		c.expect("ran <nil>\n")
		assert.ErrorIs(t, second, endpoint.Internal)
		assert.ErrorContains(t, second, "RUN")
		assert.Empty(t, n.all())
	})
	bubble(t, "too late", func(t *testing.T) {
		var kept next
		n := interceptedNode(t, nil, func(_ context.Context, _ *endpoint.Info, next next) error {
			kept = next
			return endpoint.Errorf(endpoint.Unavailable, "later")
		})
		c := n.dial(t)
		c.send("RUN\n")
		assert.Equal(t, "ERR unavailable not_run later\n", c.end())
		// The peer was told that it did not run: so it must not.
		assert.ErrorIs(t, kept(t.Context()), endpoint.Internal)
	})
}

// TestInterceptorOfFailures: an interceptor sees the handler's error, may change
// what is logged no more, and cannot save the connection.
func TestInterceptorOfFailures(t *testing.T) {
	failed := errors.New("the handler failed")
	bubble(t, "passed on", func(t *testing.T) {
		var seen error
		n := interceptedNode(t, failed, func(ctx context.Context, _ *endpoint.Info, next next) error {
			seen = next(ctx)
			return seen
		})
		c := n.dial(t)
		c.send("RUN\nPING\n")
		assert.Equal(t, "ran <nil>\n", c.end())
		assert.ErrorIs(t, seen, failed)
		_ = c.Close()
		synctest.Wait()
		n.only(t, "level=ERROR", `error="the handler failed"`, "stack=")
	})
	bubble(t, "swallowed", func(t *testing.T) {
		n := interceptedNode(t, failed, func(ctx context.Context, _ *endpoint.Info, next next) error {
			_ = next(ctx)
			return nil
		})
		c := n.dial(t)
		c.send("RUN\nPING\n")
		assert.Equal(t, "ran <nil>\n", c.end(), "how much of the data was read is unknown all the same")
		_ = c.Close()
		synctest.Wait()
		n.only(t, "level=ERROR", `error="the handler failed"`)
	})
	bubble(t, "replaced", func(t *testing.T) {
		n := interceptedNode(t, failed, func(ctx context.Context, _ *endpoint.Info, next next) error {
			return errors.Join(errors.New("outer"), next(ctx))
		})
		c := n.dial(t)
		c.send("RUN\nPING\n")
		c.end()
		_ = c.Close()
		synctest.Wait()
		n.only(t, "level=ERROR", "the handler failed")
	})
	bubble(t, "of its own, behind a good run", func(t *testing.T) {
		n := interceptedNode(t, nil, func(ctx context.Context, _ *endpoint.Info, next next) error {
			_ = next(ctx)
			return errors.New("the books do not balance")
		})
		c := n.dial(t)
		c.send("RUN\nPING\n")
		assert.Equal(t, "ran <nil>\n", c.end())
		_ = c.Close()
		synctest.Wait()
		n.only(t, "level=ERROR", "the books do not balance", "stack=")
	})
	bubble(t, "panic of the handler seen as an error", func(t *testing.T) {
		var seen error
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.AddHandleFunc("PANIC", func(*bufio.ReadWriter) { panic("in the handler") })
			e.Interceptors = []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next next) error {
				seen = next(ctx)
				return nil
			}}
		})
		c := n.dial(t)
		c.send("PANIC\n")
		assert.Empty(t, c.end())
		assert.ErrorContains(t, seen, "panic: in the handler")
		_ = c.Close()
		synctest.Wait()
		n.only(t, "panic: in the handler", "stack=")
	})
}

func TestInterceptorPanics(t *testing.T) {
	do := map[string]func(){
		"panic":          func() { panic("in the interceptor") },
		"runtime.Goexit": runtime.Goexit,
		"panic(nil)":     func() { panic(nil) }, //nolint:govet // the case
		"runtime.Error":  func() { _ = []int{}[len(t.Name())] },
	}
	for name, f := range do {
		for _, late := range []bool{false, true} {
			bubble(t, fmt.Sprintf("%s,late=%t", name, late), func(t *testing.T) {
				n := interceptedNode(t, nil, pass, func(ctx context.Context, _ *endpoint.Info, next next) error {
					if late {
						_ = next(ctx)
					}
					f()
					return nil
				})
				other := n.dial(t)
				c := n.dial(t)
				c.send("RUN\nPING\n")
				answer := c.end()
				if late || name == "runtime.Goexit" {
					assert.Empty(t, answer)
				} else {
					assert.Equal(t, "ERR internal not_run internal error\n", answer, "and no detail")
				}
				_ = c.Close()
				synctest.Wait()
				n.only(t, "level=ERROR", "stack=", "TestInterceptorPanics", c.local())
				_ = other.Close()
			})
		}
	}
	bubble(t, "panic(ErrAbort)", func(t *testing.T) {
		n := interceptedNode(t, nil, func(context.Context, *endpoint.Info, next) error { panic(endpoint.ErrAbort) })
		c := n.dial(t)
		c.send("RUN\nPING\n")
		assert.Empty(t, c.end())
		assert.Empty(t, n.all())
	})
}

func TestInterceptorInfo(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		var infos []string
		n := interceptedNode(t, nil, func(ctx context.Context, info *endpoint.Info, next next) error {
			infos = append(infos, fmt.Sprint(info.Command, " ", info.Kind, " ", info.Peer, " ", info.Logger != nil, " ", info == endpoint.InfoFrom(ctx)))
			return next(ctx)
		})
		c := n.dial(t)
		c.send("RUN\n")
		c.expect("ran <nil>\n")
		assert.Equal(t, []string{fmt.Sprintf("RUN raw %v true true", c.LocalAddr())}, infos)
	})
}

func TestKind(t *testing.T) {
	assert.Equal(t, "raw", endpoint.KindRaw.String())
	assert.Equal(t, "unary", endpoint.KindUnary.String())
	assert.Equal(t, "unknown", endpoint.Kind(77).String())
}

// TestOnEnd: whatever a command's kind and its end, what OnEnd was given is
// called once, and a panic in it is the call's and not the process's.
func TestOnEnd(t *testing.T) {
	type end struct {
		command string
		err     error
	}
	ends := make(chan end, 10)
	var explode atomic.Bool
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		rawCommands(e)
		streamCommands(e)
		fail.Handle(e, misbehave)
		e.Interceptors = []endpoint.Interceptor{func(ctx context.Context, info *endpoint.Info, next next) error {
			info.OnEnd(func(err error) {
				ends <- end{info.Command, err}
				if explode.Load() {
					panic("a secret")
				}
			})
			if info.Command == "SLOW" {
				return endpoint.Errorf(endpoint.PermissionDenied, "not you")
			}
			return next(ctx)
		}}
	})
	client := dialNode(t, n, nil)
	line := func(send, want string) func() {
		return func() {
			c := n.dial(t)
			c.send(send)
			c.closeWrite()
			assert.Regexp(t, want, c.end())
		}
	}
	raw := func(name string) func() {
		return func() {
			conn, err := client.Open(t.Context(), name)
			require.NoError(t, err)
			_, _ = io.ReadAll(conn)
			assert.NoError(t, conn.Close())
		}
	}
	unary := func(req string) func() { return func() { _, _ = fail.Call(t.Context(), client, text{req}) } }
	for i, test := range []struct {
		do      func()
		command string
		code    endpoint.Code
	}{
		{line("PING\n", "PONG"), "PING", endpoint.OK},
		{line("ERROR\n", ""), "ERROR", endpoint.NotFound},
		{line("PANIC\n", ""), "PANIC", endpoint.Unknown},
		{line("SLOW\n", "ERR permission_denied not_run not you"), "SLOW", endpoint.PermissionDenied},
		{line(`FAIL {"S":"x"}`+"\n", "^(OK|ERR internal failed)"), "FAIL", endpoint.OK},
		{raw("PING"), "PING", endpoint.OK},
		{raw("ERROR"), "ERROR", endpoint.NotFound},
		{raw("PANIC"), "PANIC", endpoint.Internal},
		{raw("SLOW"), "SLOW", endpoint.PermissionDenied},
		{unary("x"), "FAIL", endpoint.OK},
		{unary("panic"), "FAIL", endpoint.Internal},
	} {
		for _, explodes := range []bool{false, true} {
			explode.Store(explodes)
			test.do()
			select {
			case got := <-ends:
				assert.Equal(t, test.command, got.command, i)
				assert.Equal(t, test.code, endpoint.CodeOf(got.err), "%d: %v", i, got.err)
			case <-time.After(patience):
				t.Fatalf("%d: OnEnd was not called", i)
			}
		}
	}
	explode.Store(true)
	_, err := fail.Call(t.Context(), client, text{"x"})
	assertFailed(t, err, endpoint.Internal, endpoint.OutcomeFailed, "incident")
	assert.NotContains(t, err.Error(), "secret")
	explode.Store(false)
	<-ends
	_, err = fail.Call(t.Context(), client, text{"x"})
	require.NoError(t, err)
	<-ends
	assert.Empty(t, ends)
	assertReleased(t, n)
}
