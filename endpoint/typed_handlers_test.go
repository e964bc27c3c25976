package endpoint_test

import (
	"context"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"gobnode/endpoint"

	"github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// misbehave does what its request says; the name is looked for in stacks.
func misbehave(_ context.Context, req text) (text, error) {
	switch req.S {
	case "panic":
		panic("a secret")
	case "panic error":
		panic(errors.New("a secret"))
	case "panic nil":
		panic(nil) //nolint:govet // the case
	case "panic nil error":
		var err *nilReceiver
		panic(err)
	case "nil pointer":
		var p *text
		return *p, nil //nolint:govet // the case
	case "goexit":
		runtime.Goexit()
	case "abort":
		panic(endpoint.ErrAbort)
	case "abort wrapped":
		panic(fmt.Errorf("so: %w", endpoint.ErrAbort))
	}
	return req, nil
}

var incidentID = regexp.MustCompile(`incident ([0-9a-f]{8})$`)

// TestCallPanics: the answer has an incident id and no detail, the log has the
// id, the panic and the stack.
func TestCallPanics(t *testing.T) {
	register := func(e *endpoint.Endpoint) { fail.Handle(e, misbehave) }
	callers(t, register, func(t *testing.T, n *node, open func() endpoint.Caller) {
		to := open()
		for how, logged := range map[string]string{
			"panic": "panic: a secret", "panic error": "panic: a secret", "panic nil": "panic called with nil argument",
			"panic nil error": "panic: ", "nil pointer": "nil pointer dereference",
		} {
			_, err := fail.Call(t.Context(), to, text{how})
			assertFailed(t, err, endpoint.Internal, endpoint.OutcomeFailed, "incident")
			assert.NotContains(t, err.Error(), "secret")
			assert.NotContains(t, err.Error(), "nil")
			id := incidentID.FindStringSubmatch(failure(t, err).Message)
			require.NotNil(t, id, "%v", err)
			assert.Len(t, n.with(id[1], logged, "command=", "FAIL", "endpoint_test.misbehave"), 1, "%s: %q", how, n.all())
			// The answer came once: what the Caller reads next belongs to the next call.
			reply, err := fail.Call(t.Context(), to, text{"fine"})
			require.NoError(t, err)
			assert.Equal(t, "fine", reply.S)
		}
		_, err := fail.Call(t.Context(), to, text{"goexit"})
		assertFailed(t, err, endpoint.Internal, endpoint.OutcomeFailed, "incident")
		assert.Len(t, n.with("runtime.Goexit", "endpoint_test.misbehave"), 1, "%q", n.all())
		assertReleased(t, n)
	})
}

// TestGoexitAnswersOnce: its goroutine is the connection's, which ends behind
// the answer; what was sent meanwhile does not take the answer away.
func TestGoexitAnswersOnce(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) { fail.Handle(e, misbehave) })
	for range 20 {
		c := n.dial(t)
		c.send(`FAIL {"S":"goexit"}` + "\n" + strings.Repeat("PING\n", 10_000))
		assert.Regexp(t, `^ERR internal failed internal error; the log of the answering side has it as incident [0-9a-f]{8}\n$`, c.end())
		_ = c.Close()
	}
	assertReleased(t, n)
}

// TestEndIsNoSuccess: what is called at the end of a command that panicked or
// ended its goroutine is told so, and no one of them keeps another from it.
func TestEndIsNoSuccess(t *testing.T) {
	told := make(chan error, 2)
	register := func(e *endpoint.Endpoint) {
		fail.Handle(e, func(ctx context.Context, r text) (text, error) {
			info := endpoint.InfoFrom(ctx)
			info.OnEnd(func(err error) { told <- err })
			if r.S == "fine" {
				info.OnEnd(func(error) { panic("at the end") })
			}
			info.OnEnd(func(err error) { told <- err })
			return misbehave(ctx, r)
		})
	}
	callers(t, register, func(t *testing.T, n *node, open func() endpoint.Caller) {
		for _, how := range []string{"panic", "goexit", "abort"} {
			_, err := fail.Call(t.Context(), open(), text{how})
			require.Error(t, err)
			for range 2 {
				soon(t, told, how, assert.Error)
			}
		}
		_, err := fail.Call(t.Context(), open(), text{"fine"})
		assertFailed(t, err, endpoint.Internal, endpoint.OutcomeFailed, "incident")
		soon(t, told, "fine", assert.NoError)
		soon(t, told, "the one that panicked has made a failure of it", assert.Error)
	})
}

// soon requires that something is told, and asserts what.
func soon(t *testing.T, told <-chan error, how string, as assert.ErrorAssertionFunc) {
	t.Helper()
	select {
	case err := <-told:
		as(t, err, how)
	case <-time.After(patience):
		require.Fail(t, "nothing is told", how)
	}
}

// TestCallAbort: over a connection nothing is answered, and the connection
// ends. In process, what is known is said.
func TestCallAbort(t *testing.T) {
	register := func(e *endpoint.Endpoint) { fail.Handle(e, misbehave) }
	callers(t, register, func(t *testing.T, n *node, open func() endpoint.Caller) {
		for _, how := range []string{"abort", "abort wrapped"} {
			to := open()
			_, err := fail.Call(t.Context(), to, text{how})
			if _, ok := to.(*endpoint.Conn); ok {
				assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeUnknown, "closed the connection")
				_, err = fail.Call(t.Context(), to, text{"fine"})
				assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, "broke at an earlier call")
			} else {
				assertFailed(t, err, endpoint.Aborted, endpoint.OutcomeFailed, "aborted")
			}
		}
		assertReleased(t, n)
		assert.Empty(t, n.with("level=ERROR"), "%q", n.all())
	})
}

type contextKey struct{}

// TestCallContext: a caller's deadline and cancel, and what the handler sees of
// its context.
func TestTypedCallContext(t *testing.T) {
	release := make(chan struct{})
	seen := make(chan context.Context, 100)
	register := func(e *endpoint.Endpoint) {
		fail.Handle(e, func(ctx context.Context, _ text) (text, error) {
			until := release
			seen <- ctx
			<-until // whatever ctx says
			return text{}, ctx.Err()
		})
	}
	callers(t, register, func(t *testing.T, n *node, open func() endpoint.Caller) {
		defer func() { // before the node closes, which waits for the handlers
			close(release)
			assertReleased(t, n)
			release = make(chan struct{})
		}()
		to := open()
		_, local := to.(*endpoint.Endpoint)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := fail.Call(ended, to, text{})
		assertFailed(t, err, endpoint.Canceled, endpoint.OutcomeNotRun, "canceled")
		assert.ErrorIs(t, err, context.Canceled)

		var ctx context.Context
		var begin time.Time
		for left := 20 * time.Millisecond; ; left *= 2 { // until it is enough for the call to be sent
			ctx, cancel = context.WithTimeout(context.WithValue(t.Context(), contextKey{}, "mine"), left)
			defer cancel()
			begin = time.Now()
			if _, err = fail.Call(ctx, to, text{}); endpoint.OutcomeOf(err) != endpoint.OutcomeNotRun {
				break
			}
			to = open()
		}
		assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeUnknown, "deadline exceeded")
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Less(t, time.Since(begin), patience, "it does not wait for the handler")
		handlers := <-seen
		assert.Nil(t, handlers.Value(contextKey{}), "values do not travel")
		if local {
			want, _ := ctx.Deadline()
			got, ok := handlers.Deadline()
			assert.True(t, ok && got.Equal(want))
			<-handlers.Done()
			assert.ErrorIs(t, handlers.Err(), context.DeadlineExceeded)
		}

		ctx, cancel = context.WithCancel(t.Context())
		entered := make(chan context.Context, 1)
		go func() {
			entered <- <-seen
			cancel()
		}()
		_, err = fail.Call(ctx, open(), text{})
		assertFailed(t, err, endpoint.Canceled, endpoint.OutcomeUnknown, "canceled")
		if handlers := <-entered; local {
			<-handlers.Done()
			assert.ErrorIs(t, handlers.Err(), context.Canceled)
		}
		assert.NotZero(t, n.Held(), "the handlers still run")
	})
}

// TestCallInfo: what a handler learns of its call.
func TestCallInfo(t *testing.T) {
	register := func(e *endpoint.Endpoint) {
		fail.Handle(e, func(ctx context.Context, _ text) (text, error) {
			info, peer := endpoint.InfoFrom(ctx), endpoint.PeerFrom(ctx)
			assert.Same(t, info.Peer, peer)
			assert.Same(t, e.Logger, info.Logger)
			assert.Nil(t, peer.TLS())
			return text{fmt.Sprintf("%s %s %s", info.Command, info.Kind, peer)}, nil
		})
	}
	callers(t, register, func(t *testing.T, _ *node, open func() endpoint.Caller) {
		to := open()
		reply, err := fail.Call(t.Context(), to, text{})
		require.NoError(t, err)
		if _, ok := to.(*endpoint.Endpoint); !ok {
			assert.Regexp(t, `^FAIL unary 127\.0\.0\.1:\d+$`, reply.S)
		} else {
			assert.Equal(t, "FAIL unary local", reply.S)
		}
	})
	info := endpoint.InfoFrom(t.Context())
	assert.NotNil(t, info.Logger)
	assert.Nil(t, info.Peer.Addr(), "outside of a call there is a peer, too")
	assert.NoError(t, info.Peer.Close())
}

// decodeSpy counts the requests that were decoded.
type decodeSpy struct{ S string }

var spied int

func (d decodeSpy) GobEncode() ([]byte, error)    { return []byte(d.S), nil }
func (d *decodeSpy) GobDecode(p []byte) error     { spied++; d.S = string(p); return nil }
func (d *decodeSpy) UnmarshalJSON(p []byte) error { spied++; d.S = string(p); return nil }
func (d decodeSpy) MarshalJSON() ([]byte, error)  { return []byte(d.S), nil }
func interceptedBy(i ...endpoint.Interceptor) func(*endpoint.Endpoint) {
	return func(e *endpoint.Endpoint) {
		e.Interceptors = i
		spyCommand.Handle(e, func(_ context.Context, req struct{ D decodeSpy }) (text, error) {
			switch req.D.S {
			case "fail":
				return text{"not to be seen"}, endpoint.Errorf(endpoint.NotFound, "the handler's")
			case "panic":
				panic("a secret")
			case "abort":
				panic(endpoint.ErrAbort)
			}
			return text{req.D.S}, nil
		})
	}
}

const spyCommand endpoint.Command[struct{ D decodeSpy }, text] = "SPY"

func spyOn(s string) struct{ D decodeSpy } { return struct{ D decodeSpy }{decodeSpy{s}} }

func TestCallInterceptors(t *testing.T) {
	var order []string
	note := func(name string) endpoint.Interceptor {
		return func(ctx context.Context, info *endpoint.Info, next next) error {
			order = append(order, name+" "+info.Command+" "+info.Kind.String())
			err := next(context.WithValue(ctx, contextKey{}, name))
			order = append(order, fmt.Sprint(name, " ", err))
			return err
		}
	}
	for _, test := range []struct {
		name    string
		chain   []endpoint.Interceptor
		request string
		reply   string // "" for a failure:
		code    endpoint.Code
		outcome endpoint.Outcome
		text    string
		decoded int
		order   []string
	}{
		{
			"around, the first outermost",
			[]endpoint.Interceptor{note("a"), note("b")},
			"x", "x", 0, 0, "", 1,
			[]string{"a SPY unary", "b SPY unary", "b <nil>", "a <nil>"},
		},
		{
			"refused before it is decoded",
			[]endpoint.Interceptor{note("a"), func(context.Context, *endpoint.Info, next) error {
				return endpoint.Errorf(endpoint.Unauthenticated, "who are you?")
			}},
			"x", "", endpoint.Unauthenticated, endpoint.OutcomeNotRun, "who are you?", 0,
			[]string{"a SPY unary", "a who are you? (unauthenticated, unknown)"},
		},
		{
			"refused with an outcome that is not its to say", []endpoint.Interceptor{func(context.Context, *endpoint.Info, next) error {
				return &endpoint.Error{Code: endpoint.Aborted, Outcome: endpoint.OutcomeFailed, Message: "no"}
			}}, "x", "", endpoint.Aborted, endpoint.OutcomeNotRun, "no", 0, nil,
		},
		{
			"next twice", []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next next) error {
				if err := next(ctx); err != nil {
					return err
				}
				return next(ctx)
			}}, "x", "", endpoint.Internal, endpoint.OutcomeFailed, "next twice", 1, nil,
		},
		{
			"nil without next",
			[]endpoint.Interceptor{func(context.Context, *endpoint.Info, next) error { return nil }},
			"x", "", endpoint.Internal, endpoint.OutcomeNotRun, "incident", 0, nil,
		},
		{
			"an error after a success", []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next next) error {
				_ = next(ctx)
				return endpoint.DataLoss
			}}, "x", "", endpoint.DataLoss, endpoint.OutcomeFailed, "data_loss", 1, nil,
		},
		{
			"the handler's error replaced", []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next next) error {
				return endpoint.Errorf(endpoint.Unavailable, "not now: %w", next(ctx))
			}}, "fail", "", endpoint.Unavailable, endpoint.OutcomeFailed, "not now: the handler's", 1, nil,
		},
		{
			"the handler's error swallowed", []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next next) error {
				_ = next(ctx)
				return nil
			}}, "fail", "", endpoint.NotFound, endpoint.OutcomeFailed, "the handler's", 1, nil,
		},
		{
			"the handler's panic recovered", []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next next) error {
				defer func() { _ = recover() }()
				return next(ctx)
			}}, "panic", "", endpoint.Internal, endpoint.OutcomeFailed, "incident", 1, nil,
		},
		{
			"the handler's panic seen",
			[]endpoint.Interceptor{note("a")},
			"panic", "", endpoint.Internal, endpoint.OutcomeFailed, "incident", 1,
			[]string{"a SPY unary", "a internal error; the log"},
		},
		{
			"a panic of its own",
			[]endpoint.Interceptor{func(context.Context, *endpoint.Info, next) error { panic("a secret") }},
			"x", "", endpoint.Internal, endpoint.OutcomeNotRun, "incident", 0, nil,
		},
		{
			"a panic of its own afterwards", []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next next) error {
				_ = next(ctx)
				panic("a secret")
			}}, "x", "", endpoint.Internal, endpoint.OutcomeFailed, "incident", 1, nil,
		},
		{
			"runtime.Goexit",
			[]endpoint.Interceptor{func(context.Context, *endpoint.Info, next) error { runtime.Goexit(); return nil }},
			"x", "", endpoint.Internal, endpoint.OutcomeNotRun, "incident", 0, nil,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			callers(t, interceptedBy(test.chain...), func(t *testing.T, n *node, open func() endpoint.Caller) {
				order, spied = nil, 0
				reply, err := spyCommand.Call(t.Context(), open(), spyOn(test.request))
				assertReleased(t, n)
				assert.Equal(t, test.decoded, spied)
				assert.Equal(t, test.reply, reply.S)
				if test.reply == "" {
					assertFailed(t, err, test.code, test.outcome, test.text)
					assert.NotContains(t, err.Error(), "secret")
				} else {
					assert.NoError(t, err)
				}
				for i, want := range test.order {
					if assert.Less(t, i, len(order)) {
						assert.True(t, strings.HasPrefix(order[i], want), "%q", order)
					}
				}
			})
		})
	}
}

// TestCallInterceptorSwallowsABadRequest: the request was not decoded, so it
// cannot have run.
func TestCallInterceptorSwallowsABadRequest(t *testing.T) {
	register := func(e *endpoint.Endpoint) {
		e.Interceptors = []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next next) error {
			_ = next(ctx)
			return nil
		}}
		numbers.Handle(e, func(context.Context, []int) (int, error) { return 1, nil })
	}
	callers(t, register, func(t *testing.T, _ *node, open func() endpoint.Caller) {
		_, err := endpoint.Command[string, int]("NUMBERS").Call(t.Context(), open(), "no list")
		assertFailed(t, err, endpoint.InvalidArgument, endpoint.OutcomeNotRun, "[]int")
	})
}

// TestCallInterceptorContext: what an interceptor puts into the context
// reaches the handler.
func TestCallInterceptorContext(t *testing.T) {
	register := func(e *endpoint.Endpoint) {
		e.Interceptors = []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next next) error {
			return next(context.WithValue(ctx, contextKey{}, "from the interceptor"))
		}}
		askText.Handle(e, func(ctx context.Context, _ empty) (text, error) { return text{ctx.Value(contextKey{}).(string)}, nil })
	}
	callers(t, register, func(t *testing.T, _ *node, open func() endpoint.Caller) {
		reply, err := askText.Call(t.Context(), open(), empty{})
		require.NoError(t, err)
		assert.Equal(t, "from the interceptor", reply.S)
	})
}

// TestCallReplaced: calls under way end as they began.
func TestCallReplaced(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	register := func(e *endpoint.Endpoint) {
		askText.Handle(e, func(context.Context, empty) (text, error) { return text{"first"}, nil })
	}
	callers(t, register, func(t *testing.T, n *node, open func() endpoint.Caller) {
		askText.Handle(n.Endpoint, func(context.Context, empty) (text, error) {
			entered <- struct{}{}
			<-release
			return text{"second"}, nil
		})
		got := make(chan text, 1)
		go func() {
			reply, err := askText.Call(t.Context(), open(), empty{})
			assert.NoError(t, err)
			got <- reply
		}()
		<-entered
		askText.Handle(n.Endpoint, func(context.Context, empty) (text, error) { return text{"third"}, nil })
		reply, err := askText.Call(t.Context(), open(), empty{})
		require.NoError(t, err)
		assert.Equal(t, "third", reply.S)
		release <- struct{}{}
		assert.Equal(t, "second", (<-got).S)
	})
}
