package endpoint_test

import (
	"context"
	"encoding/gob"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/types"

	"github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// callers runs f on both kinds of Caller: a Conn over TCP, and the endpoint
// itself. open gives a Caller; of a Conn, a new one each time.
func callers(t *testing.T, register func(*endpoint.Endpoint), f func(t *testing.T, n *node, open func() endpoint.Caller)) {
	t.Run("Conn", func(t *testing.T) {
		n := tcpNode(t, register)
		f(t, n, func() endpoint.Caller { return openConn(t, n, nil) })
	})
	t.Run("Endpoint", func(t *testing.T) {
		n := tcpNode(t, register)
		f(t, n, func() endpoint.Caller { return n.Endpoint })
	})
}

// openConn opens a Conn to n that is closed when the test ends. d may be nil.
func openConn(t *testing.T, n *node, d *endpoint.Dialer) *endpoint.Conn {
	t.Helper()
	if d == nil {
		d = new(endpoint.Dialer)
	}
	if n.mem != nil {
		d.NetDial = func(ctx context.Context, _, _ string) (net.Conn, error) { return n.mem.Dial(ctx) }
	}
	addr := "mem"
	if n.net != nil {
		addr = n.net.Addr().String()
	}
	c, err := d.Open(t.Context(), addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// failure is err as the *Error that all failed calls are.
func failure(t *testing.T, err error) *endpoint.Error {
	t.Helper()
	var e *endpoint.Error
	require.ErrorAs(t, err, &e, "%v", err)
	return e
}

// assertFailed asserts what is known of a failed call.
func assertFailed(t *testing.T, err error, code endpoint.Code, outcome endpoint.Outcome, text string) {
	t.Helper()
	e := failure(t, err)
	assert.Equal(t, code.String(), e.Code.String(), "%v", err)
	assert.Equal(t, outcome.String(), e.Outcome.String(), "%v", err)
	assert.Contains(t, e.Message, text)
	assert.ErrorIs(t, err, code)
	assert.Equal(t, code, endpoint.CodeOf(err))
	assert.Equal(t, outcome, endpoint.OutcomeOf(err))
	assert.Implements(t, (*interface{ StackTrace() errors.StackTrace })(nil), err, "wrapped once where it enters the library")
}

type (
	empty struct{}
	text  struct{ S string }

	// everything has a field of each sort.
	everything struct {
		Bool    bool
		Int8    int8
		Uint64  uint64
		Float   float32
		Complex complex128
		String  string
		Bytes   []byte
		Array   [2]int
		Map     map[string][]int
		Nested  struct{ Deep *text }
		Time    time.Time
		Big     *big.Int
		Next    *everything
	}
)

const (
	copyBack  endpoint.Command[everything, everything] = "COPY"
	nothing   endpoint.Command[empty, empty]           = "NOTHING"
	askText   endpoint.Command[empty, text]            = "ASK"
	tellText  endpoint.Command[text, empty]            = "TELL"
	anonymous endpoint.Command[struct{}, struct{}]     = "ANONYMOUS"
	numbers   endpoint.Command[[]int, int]             = "NUMBERS"
	table     endpoint.Command[map[string]int, string] = "TABLE"
	pointed   endpoint.Command[*text, *text]           = "POINTED"
	moment    endpoint.Command[time.Time, time.Time]   = "MOMENT"
	fail      endpoint.Command[text, text]             = "FAIL"
	rawName   endpoint.Command[text, text]             = "LINE" // newNode's, which is raw
	missing   endpoint.Command[text, text]             = "FIAL"
)

func sample() everything {
	v := everything{
		Bool: true, Int8: -128, Uint64: 1<<64 - 1, Float: 1.5, Complex: 1 - 2i, String: "é\x00\n", Bytes: []byte{0, 255},
		Array: [2]int{1, -1}, Map: map[string][]int{"a": {1, 2}, "": nil}, Time: time.Unix(1_700_000_000, 5).UTC(), Big: new(big.Int).Lsh(big.NewInt(-3), 200),
		Next: &everything{Map: map[string][]int{"inner": {3}}, Bytes: []byte("inner")},
	}
	v.Nested.Deep = &text{S: "deep"}
	return v
}

// TestCallCopies: no part of a value is shared between caller and handler,
// either way.
func TestCallCopies(t *testing.T) {
	var kept, returned everything // the handler's
	register := func(e *endpoint.Endpoint) {
		copyBack.Handle(e, func(_ context.Context, req everything) (everything, error) {
			kept = req
			returned = sample()
			return returned, nil
		})
	}
	callers(t, register, func(t *testing.T, _ *node, open func() endpoint.Caller) {
		request := sample()
		reply, err := copyBack.Call(t.Context(), open(), request)
		require.NoError(t, err)
		want := sample()
		for _, v := range []everything{kept, reply} {
			assert.Equal(t, want, v)
			assert.NotSame(t, request.Next, v.Next)
			assert.NotSame(t, returned.Next, v.Next)
		}
		request.Bytes[0], request.Map["a"][0], request.Next.Bytes[0], request.Nested.Deep.S = 9, 9, 9, "9"
		returned.Bytes[0], returned.Map["a"][0], returned.Next.Map["inner"][0], returned.Nested.Deep.S = 9, 9, 9, "9"
		returned.Big.SetInt64(9)
		assert.Equal(t, want, kept)
		assert.Equal(t, want, reply)
	})
}

func TestCallShapes(t *testing.T) {
	ran := 0
	register := func(e *endpoint.Endpoint) {
		nothing.Handle(e, func(context.Context, empty) (empty, error) { ran++; return empty{}, nil })
		anonymous.Handle(e, func(context.Context, struct{}) (struct{}, error) { ran++; return struct{}{}, nil })
		askText.Handle(e, func(context.Context, empty) (text, error) { return text{"told"}, nil })
		tellText.Handle(e, func(_ context.Context, req text) (empty, error) {
			if req.S != "" {
				ran++
			}
			return empty{}, nil
		})
		numbers.Handle(e, func(_ context.Context, req []int) (int, error) { return len(req), nil })
		table.Handle(e, func(_ context.Context, req map[string]int) (string, error) { return fmt.Sprint(req), nil })
		pointed.Handle(e, func(_ context.Context, req *text) (*text, error) { return &text{req.S + "!"}, nil })
		moment.Handle(e, func(_ context.Context, req time.Time) (time.Time, error) { return req.Add(time.Hour), nil })
	}
	callers(t, register, func(t *testing.T, n *node, open func() endpoint.Caller) {
		ctx, to := t.Context(), open() // one Caller: each reply ends where the next begins
		for range 3 {
			ran = 0
			_, err := nothing.Call(ctx, to, empty{})
			require.NoError(t, err)
			_, err = anonymous.Call(ctx, to, struct{}{})
			require.NoError(t, err)
			_, err = tellText.Call(ctx, to, text{"x"})
			require.NoError(t, err)
			assert.Equal(t, 3, ran)
			_, err = tellText.Call(ctx, to, text{})
			require.NoError(t, err)
			told, err := askText.Call(ctx, to, empty{})
			require.NoError(t, err)
			assert.Equal(t, text{"told"}, told)
			for _, list := range [][]int{nil, {}, {1, 2, 3}} {
				count, err := numbers.Call(ctx, to, list)
				require.NoError(t, err)
				assert.Equal(t, len(list), count)
			}
			words, err := table.Call(ctx, to, map[string]int{"a": 1, "b": -1})
			require.NoError(t, err)
			assert.Equal(t, "map[a:1 b:-1]", words)
			p, err := pointed.Call(ctx, to, &text{"x"})
			require.NoError(t, err)
			assert.Equal(t, &text{"x!"}, p)
			at, err := moment.Call(ctx, to, time.Unix(0, 7).UTC())
			require.NoError(t, err)
			assert.Equal(t, time.Unix(3600, 7).UTC(), at)
		}
		_, err := pointed.Call(ctx, to, nil)
		assertFailed(t, err, endpoint.InvalidArgument, endpoint.OutcomeNotRun, "cannot be encoded")
		assertReleased(t, n)
	})
}

// TestCallEvolution: caller and handler know different versions of the types.
func TestCallEvolution(t *testing.T) {
	type oldRequest struct {
		ID   int32
		Gone string
	}
	type newRequest struct {
		Added []string
		ID    int64
		Inner struct{ X int }
	}
	type oldReply struct{ A, B int }
	type newReply struct {
		B int8
		C map[string]int
	}
	const old, current = endpoint.Command[oldRequest, oldReply]("EVOLVE"), endpoint.Command[newRequest, newReply]("EVOLVE")
	register := func(e *endpoint.Endpoint) {
		current.Handle(e, func(_ context.Context, req newRequest) (newReply, error) {
			if req.ID > 1<<31 {
				return newReply{}, endpoint.Errorf(endpoint.OutOfRange, "too large")
			}
			return newReply{B: int8(req.ID), C: map[string]int{"c": len(req.Added)}}, nil
		})
	}
	callers(t, register, func(t *testing.T, _ *node, open func() endpoint.Caller) {
		to := open()
		reply, err := old.Call(t.Context(), to, oldRequest{ID: 7, Gone: "skipped"})
		require.NoError(t, err)
		assert.Equal(t, oldReply{B: 7}, reply)
		// A field of another sort is refused by whoever decodes.
		const wrong = endpoint.Command[struct{ ID string }, oldReply]("EVOLVE")
		_, err = wrong.Call(t.Context(), to, struct{ ID string }{"7"})
		assertFailed(t, err, endpoint.InvalidArgument, endpoint.OutcomeNotRun, ".ID")
		const narrow = endpoint.Command[oldRequest, struct{ B string }]("EVOLVE")
		_, err = narrow.Call(t.Context(), to, oldRequest{ID: 7})
		assertFailed(t, err, endpoint.InvalidArgument, endpoint.OutcomeUnknown, ".B")
		assert.Contains(t, err.Error(), "the reply cannot be decoded")
	})
}

type nilReceiver struct{ text string }

func (e *nilReceiver) Error() string { return e.text }

// TestCallErrors: whatever error value a handler returns, both callers get the
// same: its code, the text that travels, the outcome failed.
func TestCallErrors(t *testing.T) {
	var nilPath *fs.PathError
	var nilError *endpoint.Error
	var nilOwn *nilReceiver
	elsewhere := &endpoint.Error{Code: endpoint.Unavailable, Outcome: endpoint.OutcomeNotRun, Message: "try again", Command: "OTHER"}
	long := strings.Repeat("é", 1000)
	for _, test := range []struct {
		name string
		err  error
		code endpoint.Code
		text string
	}{
		{"plain", errors.New("no such order"), endpoint.Unknown, "no such order"},
		{"Errorf", endpoint.Errorf(endpoint.NotFound, "no such %s", "order"), endpoint.NotFound, "no such order"},
		{"Errorf wrapping", endpoint.Errorf(endpoint.DataLoss, "read: %w", io.EOF), endpoint.DataLoss, "read: EOF"},
		{"code", endpoint.AlreadyExists, endpoint.AlreadyExists, "already_exists"},
		{"wrapped code", fmt.Errorf("order 7: %w", endpoint.AlreadyExists), endpoint.AlreadyExists, "order 7: already_exists"},
		{"another outcome", elsewhere, endpoint.Unavailable, "try again"},
		{"another outcome, with a stack", errors.WithStack(elsewhere), endpoint.Unavailable, "try again"},
		{"another outcome, wrapped", fmt.Errorf("step 2: %w", elsewhere), endpoint.Unavailable, "step 2: try again"},
		{"deadline", context.DeadlineExceeded, endpoint.DeadlineExceeded, "context deadline exceeded"},
		{"canceled", errors.Wrap(context.Canceled, "query"), endpoint.Canceled, "query: context canceled"},
		{"EOF", io.EOF, endpoint.Unknown, "EOF"},
		{"no text", errors.New(""), endpoint.Unknown, ""},
		{"control bytes", errors.New("a\nOK\r\x00b"), endpoint.Unknown, "a OK  b"},
		{"long", errors.New(long), endpoint.Unknown, long[:1024]},
		{"no code", &endpoint.Error{Message: "forgot the code"}, endpoint.Unknown, "forgot the code"},
		{"code OK", endpoint.Errorf(endpoint.OK, "fine"), endpoint.Unknown, "fine"},
		{"bare OK", endpoint.OK, endpoint.Unknown, "ok"},
		{"code of the future", endpoint.Errorf(200, "who knows"), endpoint.Unknown, "who knows"},
		{"joined", errors.WithMessage(endpoint.Errorf(endpoint.Aborted, "conflict"), "commit"), endpoint.Aborted, "commit: conflict"},
		{"nil *Error", nilError, endpoint.Internal, "incident"},
		{"nil *PathError", nilPath, endpoint.Internal, "incident"},
		{"nil error of its own", nilOwn, endpoint.Internal, "incident"},
		{"ErrAbort returned", endpoint.ErrAbort, endpoint.Unknown, "command aborted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			register := func(e *endpoint.Endpoint) {
				fail.Handle(e, func(context.Context, text) (text, error) { return text{"not to be seen"}, test.err })
				nothing.Handle(e, func(context.Context, empty) (empty, error) { return empty{}, nil })
			}
			callers(t, register, func(t *testing.T, n *node, open func() endpoint.Caller) {
				to := open()
				reply, err := fail.Call(t.Context(), to, text{"x"})
				assert.Zero(t, reply)
				assertFailed(t, err, test.code, endpoint.OutcomeFailed, test.text)
				if test.code != endpoint.Internal {
					assert.Equal(t, test.text, failure(t, err).Message)
				}
				assert.Equal(t, "FAIL", failure(t, err).Command)
				// Only what travels: a program that is developed in process is not to
				// rely on values that a wire does not carry.
				assert.NotErrorIs(t, err, io.EOF)
				assert.NotErrorIs(t, err, elsewhere)
				assert.Equal(t, test.code == endpoint.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded))
				assert.Equal(t, test.code == endpoint.Canceled, errors.Is(err, context.Canceled))
				// After an answer the caller goes on.
				_, err = nothing.Call(t.Context(), to, empty{})
				require.NoError(t, err)
				assertReleased(t, n)
			})
		})
	}
}

func TestCallUnknownCommand(t *testing.T) {
	register := func(e *endpoint.Endpoint) {
		fail.Handle(e, func(context.Context, text) (text, error) { return text{}, nil })
	}
	callers(t, register, func(t *testing.T, _ *node, open func() endpoint.Caller) {
		_, err := missing.Call(t.Context(), open(), text{})
		assertFailed(t, err, endpoint.Unimplemented, endpoint.OutcomeNotRun, "unknown command \"FIAL\"; did you mean FAIL?")
		for _, name := range []endpoint.Command[text, text]{"", "two words", "line\nend", "é", endpoint.Command[text, text](strings.Repeat("x", 65))} {
			_, err := name.Call(t.Context(), open(), text{})
			assertFailed(t, err, endpoint.InvalidArgument, endpoint.OutcomeNotRun, "command name")
		}
	})
}

// TestCallRawCommand: in process the kinds are compared; a Conn sees only that
// the answer is no reply.
func TestCallRawCommand(t *testing.T) {
	n := tcpNode(t, nil)
	_, err := rawName.Call(t.Context(), n.Endpoint, text{"x"})
	assertFailed(t, err, endpoint.FailedPrecondition, endpoint.OutcomeNotRun, "raw")
	_, err = rawName.Call(t.Context(), openConn(t, n, nil), text{"a line, for it has one end:\n"})
	assertFailed(t, err, endpoint.Internal, endpoint.OutcomeUnknown, "is no reply")
}

type (
	withInterface struct{ Items []struct{ Value any } }
	brokenGob     struct{ how string }
	holder        struct{ B brokenGob }
)

func (b brokenGob) GobEncode() ([]byte, error) {
	switch b.how {
	case "error":
		return nil, errors.New("will not")
	case "panic":
		panic("secret of the encoder")
	case "goexit":
		runtime.Goexit()
	}
	return []byte(b.how), nil
}

func (b *brokenGob) GobDecode(p []byte) error {
	if string(p) == "bad" {
		return errors.New("will not be decoded")
	}
	if string(p) == "worse" {
		panic("secret of the decoder")
	}
	b.how = string(p)
	return nil
}

func TestCallRefusedTypes(t *testing.T) {
	callers(t, nil, func(t *testing.T, _ *node, open func() endpoint.Caller) {
		_, err := endpoint.Command[withInterface, text]("X").Call(t.Context(), open(), withInterface{})
		assertFailed(t, err, endpoint.InvalidArgument, endpoint.OutcomeNotRun, "endpoint_test.withInterface.Items[].Value: interface")
		_, err = endpoint.Command[text, chan int]("X").Call(t.Context(), open(), text{})
		assertFailed(t, err, endpoint.InvalidArgument, endpoint.OutcomeNotRun, "chan")
	})
}

// TestCallUnencodable: values whose own methods fail, on either side.
func TestCallUnencodable(t *testing.T) {
	const (
		send    endpoint.Command[holder, text]           = "SEND"
		receive endpoint.Command[text, holder]           = "RECEIVE"
		cycle   endpoint.Command[types.ComplexData, int] = "CYCLE"
	)
	register := func(e *endpoint.Endpoint) {
		send.Handle(e, func(_ context.Context, req holder) (text, error) { return text{req.B.how}, nil })
		receive.Handle(e, func(_ context.Context, req text) (holder, error) { return holder{brokenGob{req.S}}, nil })
		cycle.Handle(e, func(context.Context, types.ComplexData) (int, error) { return 0, nil })
	}
	callers(t, register, func(t *testing.T, n *node, open func() endpoint.Caller) {
		to := open()
		for _, how := range []string{"error", "panic"} {
			_, err := send.Call(t.Context(), to, holder{brokenGob{how}})
			assertFailed(t, err, endpoint.InvalidArgument, endpoint.OutcomeNotRun, "the request cannot be encoded")
			_, err = receive.Call(t.Context(), to, text{how})
			assertFailed(t, err, endpoint.Internal, endpoint.OutcomeFailed, "")
			assert.NotContains(t, err.Error(), "secret")
		}
		require.Len(t, n.with("RECEIVE", "incident", "secret of the encoder", "brokenGob.GobEncode"), 1, "%q", n.all())
		_, err := send.Call(t.Context(), to, holder{brokenGob{"bad"}})
		assertFailed(t, err, endpoint.InvalidArgument, endpoint.OutcomeNotRun, "holder.B")
		_, err = send.Call(t.Context(), to, holder{brokenGob{"worse"}})
		assertFailed(t, err, endpoint.Internal, endpoint.OutcomeNotRun, "incident")
		require.Len(t, n.with("SEND", "incident", "secret of the decoder", "brokenGob).GobDecode"), 1, "%q", n.all())
		var loop types.ComplexData
		loop.C = &loop
		_, err = cycle.Call(t.Context(), to, loop)
		assertFailed(t, err, endpoint.InvalidArgument, endpoint.OutcomeNotRun, "depth")
		reply, err := send.Call(t.Context(), to, holder{brokenGob{"fine"}})
		require.NoError(t, err, "the caller goes on")
		assert.Equal(t, text{"fine"}, reply)
		// What cannot be decoded here ends a Conn: see TestConnUndecodableReply.
		_, err = receive.Call(t.Context(), to, text{"bad"})
		assertFailed(t, err, endpoint.InvalidArgument, endpoint.OutcomeUnknown, "the reply cannot be decoded")
		// runtime.Goexit while the reply is encoded is no success, and no hang.
		_, err = receive.Call(t.Context(), open(), text{"goexit"})
		assertFailed(t, err, endpoint.Internal, endpoint.OutcomeFailed, "incident")
		assertReleased(t, n)
	})
}

// TestCallMessageLimit: a request is measured by both sides and a reply by
// both, without the command's name.
func TestCallMessageLimit(t *testing.T) {
	const limit = 1000
	register := func(e *endpoint.Endpoint) {
		e.Limits.Message = limit
		tellText.Handle(e, func(context.Context, text) (empty, error) { return empty{}, nil })
		fail.Handle(e, func(_ context.Context, req text) (text, error) { return text{strings.Repeat("x", len(req.S)*2)}, nil })
	}
	var counted countingWriter
	require.NoError(t, gob.NewEncoder(&counted).Encode(text{strings.Repeat("x", 500)}))
	most := limit - (int(counted) - 500)
	t.Logf("a text of %d bytes makes a gob of %d", most, limit)
	callers(t, register, func(t *testing.T, n *node, open func() endpoint.Caller) {
		for _, message := range []int{limit, limit + 5} { // the caller's own
			to := open()
			if _, ok := to.(*endpoint.Conn); ok {
				to = openConn(t, n, &endpoint.Dialer{Limits: endpoint.Limits{Message: message}})
			}
			for range 2 {
				_, err := tellText.Call(t.Context(), to, text{strings.Repeat("x", most)})
				require.NoError(t, err)
				reply, err := fail.Call(t.Context(), to, text{strings.Repeat("x", most/2)})
				require.NoError(t, err)
				assert.Len(t, reply.S, most/2*2)
				_, err = fail.Call(t.Context(), to, text{strings.Repeat("x", most/2+1)})
				assertFailed(t, err, endpoint.ResourceExhausted, endpoint.OutcomeFailed, "a reply of 100")
			}
			_, err := tellText.Call(t.Context(), to, text{strings.Repeat("x", most+1)})
			assertFailed(t, err, endpoint.ResourceExhausted, endpoint.OutcomeNotRun, "more than 1000")
		}
		assertReleased(t, n)
	})
}

type countingWriter int

func (w *countingWriter) Write(p []byte) (int, error) {
	*w += countingWriter(len(p))
	return len(p), nil
}

// assertReleased waits until no call holds memory: a charge ends just after the
// answer is out.
func assertReleased(t *testing.T, n *node) {
	t.Helper()
	assert.Eventually(t, func() bool { return n.Held() == 0 }, patience, time.Millisecond, "%d bytes are held", n.Held())
}
