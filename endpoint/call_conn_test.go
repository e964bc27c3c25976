package endpoint_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A farEnd is an endpoint played by a test, and a Conn to it.
type farEnd struct {
	*memnet.Conn
	near *memnet.Conn // below conn
	conn *endpoint.Conn
}

func newFarEnd(t *testing.T, limits endpoint.Limits) *farEnd {
	t.Helper()
	near, far := memnet.Pipe()
	d := endpoint.Dialer{Limits: limits, NetDial: func(context.Context, string, string) (net.Conn, error) { return near, nil }}
	c, err := d.Open(t.Context(), "anywhere")
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close(); _ = far.Close() })
	return &farEnd{far, near, c}
}

func (f *farEnd) send(t *testing.T, s string) {
	t.Helper()
	_, err := io.WriteString(f.Conn, s)
	require.NoError(t, err)
}

func (f *farEnd) expect(t *testing.T, s string) {
	t.Helper()
	got := make([]byte, len(s))
	_, err := io.ReadFull(f.Conn, got)
	require.NoError(t, err)
	require.Equal(t, s, string(got))
}

// gobOf is v as a plain encoding/gob Encoder writes it.
func gobOf(t testing.TB, v any) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, gob.NewEncoder(&b).Encode(v))
	return b.String()
}

// assertDead: c takes no more calls, and says that nothing of them was sent.
func assertDead(t *testing.T, c *endpoint.Conn) {
	t.Helper()
	_, err := askText.Call(t.Context(), c, empty{})
	assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeNotRun, "broke at an earlier call")
}

// TestConnBytes: what a call writes, and the reply as plain encoding/gob writes
// it, with the command line of the next in the same packet or in pieces.
func TestConnBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarEnd(t, endpoint.Limits{})
		go func() {
			f.expect(t, "FAIL\n"+gobOf(t, text{"request"}))
			reply := "OK\n" + gobOf(t, text{"reply"})
			for i := range reply {
				f.send(t, reply[i:i+1])
				time.Sleep(time.Second)
			}
			f.expect(t, "NOTHING\n")
			f.send(t, "OK\r\n")
			f.expect(t, "NOTHING\n")
			f.send(t, "ERR not_found failed no such thing\n")
			f.expect(t, "NOTHING\n")
			f.send(t, "OK\n")
		}()
		reply, err := fail.Call(t.Context(), f.conn, text{"request"})
		require.NoError(t, err)
		assert.Equal(t, "reply", reply.S)
		_, err = nothing.Call(t.Context(), f.conn, empty{})
		require.NoError(t, err)
		_, err = nothing.Call(t.Context(), f.conn, empty{})
		assertFailed(t, err, endpoint.NotFound, endpoint.OutcomeFailed, "no such thing")
		_, err = nothing.Call(t.Context(), f.conn, empty{})
		require.NoError(t, err, "an ERR line is an answer")
	})
}

// TestConnNonsense: peers that answer no reply. The call is unknown, the Conn
// dead.
func TestConnNonsense(t *testing.T) {
	good := gobOf(t, text{"x"})
	for name, test := range map[string]struct {
		answer string // then the end
		code   endpoint.Code
		text   string
	}{
		"nothing":             {"", endpoint.Unavailable, "before the reply was whole"},
		"half an OK":          {"O", endpoint.Unavailable, "before the reply was whole"},
		"OK without a gob":    {"OK\n", endpoint.Unavailable, "before the reply was whole"},
		"half a gob":          {"OK\n" + good[:len(good)-1], endpoint.Unavailable, "before the reply was whole"},
		"OK with JSON":        {"OK {}\n", endpoint.Internal, "is no reply"},
		"ok":                  {"ok\n", endpoint.Internal, "is no reply"},
		"a blank line":        {"\n", endpoint.Internal, "is no reply"},
		"an old friend":       {"Thank you.\n", endpoint.Internal, `"Thank you.", which is no reply`},
		"HTTP":                {"HTTP/1.1 400 Bad Request\r\n\r\n", endpoint.Internal, "is no reply"},
		"a code of its own":   {"ERR teapot failed short and stout\n", endpoint.Internal, "is no reply"},
		"an outcome":          {"ERR not_found perhaps x\n", endpoint.Internal, "is no reply"},
		"ERR ok":              {"ERR ok failed x\n", endpoint.Internal, "is no reply"},
		"control bytes":       {"\x00\x1b[31m\n", endpoint.Internal, `"\x00\x1b[31m"`},
		"a long line":         {strings.Repeat("x", 9000), endpoint.ResourceExhausted, "longer than 8192 bytes"},
		"a gob of zero":       {"OK\n\x00", endpoint.InvalidArgument, "cannot be decoded"},
		"a gob of 2^62":       {"OK\n\xf8\x40\x00\x00\x00\x00\x00\x00\x00", endpoint.ResourceExhausted, "message bytes: 46116860184273879"},
		"a gob of 5 MiB":      {"OK\n\xfd\x50\x00\x00", endpoint.ResourceExhausted, "message bytes"},
		"another type":        {"OK\n" + gobOf(t, []int{1}), endpoint.InvalidArgument, "cannot be decoded"},
		"a map that explodes": {"OK\n" + unhex(t, attackMap24), endpoint.InvalidArgument, "cannot be decoded"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFarEnd(t, endpoint.Limits{})
				go func() {
					f.expect(t, "ASK\n")
					f.send(t, test.answer)
					_ = f.CloseWrite()
				}()
				var err error
				if strings.Contains(name, "map") {
					_, err = endpoint.Command[empty, struct{ M map[string]int }]("ASK").Call(t.Context(), f.conn, empty{})
				} else {
					_, err = askText.Call(t.Context(), f.conn, empty{})
				}
				assertFailed(t, err, test.code, endpoint.OutcomeUnknown, test.text)
				assertDead(t, f.conn)
			})
		})
	}
}

// TestConnLeftovers: bytes behind a reply are no reply to the next call.
func TestConnLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarEnd(t, endpoint.Limits{})
		go func() {
			f.expect(t, "ASK\n")
			f.send(t, strings.Repeat("OK\n"+gobOf(t, text{"mine"}), 2))
		}()
		reply, err := askText.Call(t.Context(), f.conn, empty{})
		require.NoError(t, err)
		assert.Equal(t, "mine", reply.S)
		_, err = askText.Call(t.Context(), f.conn, empty{})
		assertFailed(t, err, endpoint.FailedPrecondition, endpoint.OutcomeNotRun, "belong to no call")
		assertDead(t, f.conn)
	})
}

// TestConnPhases ends a call's context in each of its phases, by a deadline and
// by a cancel, and at exactly that moment.
func TestConnPhases(t *testing.T) {
	const after = 3 * time.Second
	big := strings.Repeat("x", 1<<20)
	reply := "OK\n" + gobOf(t, text{"late"})
	for name, test := range map[string]struct {
		call    func(ctx context.Context, t *testing.T, f *farEnd) error
		outcome endpoint.Outcome
	}{
		"before": {func(ctx context.Context, t *testing.T, f *farEnd) error {
			time.Sleep(after)
			synctest.Wait()
			_, err := fail.Call(ctx, f.conn, text{})
			require.NoError(t, f.SetReadDeadline(time.Now()))
			n, _ := f.Read(make([]byte, 1))
			assert.Zero(t, n, "nothing was sent")
			f.send(t, reply) // so that the Conn, which is alive, has an answer
			_, err2 := fail.Call(t.Context(), f.conn, text{})
			assert.NoError(t, err2)
			return err
		}, endpoint.OutcomeNotRun},
		"waiting for the turn": {func(ctx context.Context, t *testing.T, f *farEnd) error {
			first := make(chan error, 1)
			go func() {
				reply, err := fail.Call(t.Context(), f.conn, text{"first"})
				assert.Equal(t, "late", reply.S)
				first <- err
			}()
			synctest.Wait()
			_, err := fail.Call(ctx, f.conn, text{"second"})
			f.send(t, reply)
			require.NoError(t, <-first, "the first is not disturbed")
			f.expect(t, "FAIL\n"+gobOf(t, text{"first"}))
			return err
		}, endpoint.OutcomeNotRun},
		"flushing what was written before": {func(ctx context.Context, t *testing.T, f *farEnd) error {
			f.near.SetBuffer(1 << 10)
			_, err := io.WriteString(f.conn, big[:4000])
			require.NoError(t, err)
			_, err = fail.Call(ctx, f.conn, text{})
			assertDead(t, f.conn)
			return err
		}, endpoint.OutcomeNotRun},
		"writing, the buffer full from the first byte": {func(ctx context.Context, t *testing.T, f *farEnd) error {
			f.near.SetBuffer(1 << 10)
			room := strings.Repeat("\n", 1<<10)
			_, err := io.WriteString(f.conn, room)
			require.NoError(t, err)
			require.NoError(t, f.conn.Flush())
			_, err = fail.Call(ctx, f.conn, text{"x"})
			assertDead(t, f.conn)
			return err
		}, endpoint.OutcomeNotRun},
		"writing": {func(ctx context.Context, t *testing.T, f *farEnd) error {
			_, err := fail.Call(ctx, f.conn, text{big})
			assertDead(t, f.conn)
			return err
		}, endpoint.OutcomeUnknown},
		"waiting for the reply": {func(ctx context.Context, t *testing.T, f *farEnd) error {
			_, err := fail.Call(ctx, f.conn, text{"x"})
			f.send(t, reply)
			assertDead(t, f.conn)
			return err
		}, endpoint.OutcomeUnknown},
		"within OK": {func(ctx context.Context, t *testing.T, f *farEnd) error {
			f.send(t, "O")
			_, err := fail.Call(ctx, f.conn, text{"x"})
			f.send(t, reply[1:])
			assertDead(t, f.conn)
			return err
		}, endpoint.OutcomeUnknown},
		"within the reply": {func(ctx context.Context, t *testing.T, f *farEnd) error {
			f.send(t, reply[:len(reply)-1])
			_, err := fail.Call(ctx, f.conn, text{"x"})
			f.send(t, reply[len(reply)-1:])
			assertDead(t, f.conn)
			return err
		}, endpoint.OutcomeUnknown},
		"within an ERR line": {func(ctx context.Context, t *testing.T, f *farEnd) error {
			f.send(t, "ERR not_found failed no su")
			_, err := fail.Call(ctx, f.conn, text{"x"})
			assertDead(t, f.conn)
			return err
		}, endpoint.OutcomeUnknown},
	} {
		for _, by := range []string{"deadline", "cancel"} {
			t.Run(name+", "+by, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFarEnd(t, endpoint.Limits{})
					ctx, cancel := context.WithCancel(t.Context())
					code, is := endpoint.Canceled, context.Canceled
					if by == "deadline" {
						ctx, cancel = context.WithTimeout(t.Context(), after)
						code, is = endpoint.DeadlineExceeded, context.DeadlineExceeded
					} else {
						time.AfterFunc(after, cancel)
					}
					defer cancel()
					begin := time.Now()
					err := test.call(ctx, t, f)
					assert.Equal(t, after, time.Since(begin))
					assertFailed(t, err, code, test.outcome, is.Error())
					assert.ErrorIs(t, err, is)
				})
			})
		}
	}
}

// TestConnBothAtOnce: the reply comes at the moment at which the context ends.
// Whichever wins, the next call gets its own reply or is refused, unsent.
func TestConnBothAtOnce(t *testing.T) {
	outcomes := map[string]int{}
	for i := range 300 {
		synctest.Test(t, func(t *testing.T) {
			f := newFarEnd(t, endpoint.Limits{})
			answer := "OK\n" + gobOf(t, text{"first"})
			if i%2 == 1 {
				answer = "ERR not_found failed first\n"
			}
			second := "OK\n" + gobOf(t, text{"second"})
			go func() {
				var b [64]byte
				for _, reply := range []string{answer, second} {
					if n, _ := f.Read(b[:]); string(b[:n]) != "ASK\n" {
						return
					}
					time.Sleep(time.Second)
					_, _ = io.WriteString(f, reply) // the Conn may be closed
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			first, err := askText.Call(ctx, f.conn, empty{})
			next, err2 := askText.Call(t.Context(), f.conn, empty{})
			if endpoint.CodeOf(err) == endpoint.DeadlineExceeded {
				assert.Equal(t, endpoint.OutcomeUnknown, endpoint.OutcomeOf(err))
				assertFailed(t, err2, endpoint.Unavailable, endpoint.OutcomeNotRun, "")
				outcomes["too late"]++
				return
			}
			if i%2 == 1 {
				assertFailed(t, err, endpoint.NotFound, endpoint.OutcomeFailed, "first")
			} else {
				require.NoError(t, err)
				assert.Equal(t, "first", first.S)
			}
			require.NoError(t, err2, "an answer in time leaves the Conn alive")
			assert.Equal(t, "second", next.S)
			outcomes["in time"]++
		})
	}
	t.Log(outcomes)
}

// TestConnDeadlines: SetDeadline holds during calls, and is back in force after
// one that a context cut short at its very end.
func TestConnDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarEnd(t, endpoint.Limits{})
		require.NoError(t, f.conn.SetDeadline(time.Now().Add(time.Second)))
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := askText.Call(ctx, f.conn, empty{})
		assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeUnknown, "SetDeadline")
		assert.Equal(t, time.Second, time.Since(begin))
		assertDead(t, f.conn)
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFarEnd(t, endpoint.Limits{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { // someone prolongs the deadline while the context ends
			for range 3 {
				time.Sleep(time.Second / 2)
				_ = f.conn.SetDeadline(time.Now().Add(time.Hour))
			}
		}()
		begin := time.Now()
		_, err := askText.Call(ctx, f.conn, empty{})
		assertFailed(t, err, endpoint.DeadlineExceeded, endpoint.OutcomeUnknown, "")
		assert.Equal(t, time.Second, time.Since(begin))
		time.Sleep(time.Second)
		synctest.Wait()
	})
}

// TestConnConcurrent: many callers, one connection, a mix of replies, failures
// and callers that give up while they wait. Each gets its own reply.
func TestConnConcurrent(t *testing.T) {
	random := seeded(t)
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		fail.Handle(e, func(_ context.Context, req text) (text, error) {
			if strings.HasPrefix(req.S, "fail") {
				return text{}, endpoint.Errorf(endpoint.Aborted, "%s", req.S)
			}
			return req, nil
		})
	})
	c := openConn(t, n, nil)
	var wg sync.WaitGroup
	for g := range 8 {
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		wg.Go(func() {
			for i := range 200 {
				mine := fmt.Sprintf("%d-%d", g, i)
				switch own.IntN(4) {
				case 0:
					_, err := fail.Call(t.Context(), c, text{"fail" + mine})
					assertFailed(t, err, endpoint.Aborted, endpoint.OutcomeFailed, "fail"+mine)
				case 1:
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					_, err := fail.Call(ctx, c, text{mine})
					assertFailed(t, err, endpoint.Canceled, endpoint.OutcomeNotRun, "")
				default:
					reply, err := fail.Call(t.Context(), c, text{mine})
					assert.NoError(t, err)
					assert.Equal(t, mine, reply.S)
				}
			}
		})
	}
	wg.Wait()
}

// TestConnClosedDuringACall wakes the call and those behind it.
func TestConnClosedDuringACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarEnd(t, endpoint.Limits{})
		errs := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := askText.Call(t.Context(), f.conn, empty{})
				errs <- err
			}()
		}
		synctest.Wait()
		require.NoError(t, f.conn.Close())
		outcomes := map[endpoint.Outcome]int{}
		for range 3 {
			err := <-errs
			assert.ErrorIs(t, err, endpoint.Unavailable)
			outcomes[endpoint.OutcomeOf(err)]++
		}
		assert.Equal(t, map[endpoint.Outcome]int{endpoint.OutcomeUnknown: 1, endpoint.OutcomeNotRun: 2}, outcomes)
	})
}

// TestConnMixed: raw and typed commands on one Conn.
func TestConnMixed(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		askText.Handle(e, func(context.Context, empty) (text, error) { return text{"told"}, nil })
	})
	c := openConn(t, n, nil)
	for range 3 {
		require.NoError(t, c.Command("PING"))
		line, err := c.Reply()
		require.NoError(t, err)
		assert.Equal(t, "PONG", line)
		reply, err := askText.Call(t.Context(), c, empty{})
		require.NoError(t, err)
		assert.Equal(t, "told", reply.S)
	}
}

// TestConnRefusedBeforeTheEnd: an endpoint that takes shorter messages refuses
// one at its head, and the caller, still writing, hears why.
func TestConnRefusedBeforeTheEnd(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.Message = 1 << 10
		tellText.Handle(e, func(context.Context, text) (empty, error) { return empty{}, nil })
	})
	for _, size := range []int{3 << 20, 48 << 20, 48 << 20} { // the kernel may take 3 MiB, and not 48
		c := openConn(t, n, &endpoint.Dialer{Limits: endpoint.Limits{Message: 64 << 20}})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := tellText.Call(ctx, c, text{strings.Repeat("x", size)})
		assertFailed(t, err, endpoint.ResourceExhausted, endpoint.OutcomeNotRun, "message bytes")
	}
}

// TestConnServerGone: the endpoint closes before, or during, a call.
func TestConnServerGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarEnd(t, endpoint.Limits{})
		require.NoError(t, f.Close())
		_, err := askText.Call(t.Context(), f.conn, empty{})
		assert.ErrorIs(t, err, endpoint.Unavailable)
		assert.NotEqual(t, endpoint.OutcomeFailed, endpoint.OutcomeOf(err))
		assertDead(t, f.conn)
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFarEnd(t, endpoint.Limits{})
		go func() {
			time.Sleep(time.Second)
			f.Reset()
		}()
		_, err := askText.Call(t.Context(), f.conn, empty{})
		assertFailed(t, err, endpoint.Unavailable, endpoint.OutcomeUnknown, "reset")
		assertDead(t, f.conn)
	})
}

// TestConnUnimplemented: after an unknown command the endpoint closes, because
// it does not know where the data ends; after a handler's answer it does not.
func TestConnUnimplemented(t *testing.T) {
	for answer, dead := range map[string]bool{
		"ERR unimplemented not_run unknown command\n":      true,
		"ERR unavailable not_run shutting down\n":          true,
		"ERR unimplemented failed not yet\n":               false,
		"ERR resource_exhausted not_run try again later\n": false,
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFarEnd(t, endpoint.Limits{})
			f.send(t, answer)
			_, err := askText.Call(t.Context(), f.conn, empty{})
			require.Error(t, err)
			if dead {
				assertDead(t, f.conn)
				return
			}
			f.send(t, "OK\n"+gobOf(t, text{"fine"}))
			got, err := askText.Call(t.Context(), f.conn, empty{})
			require.NoError(t, err)
			assert.Equal(t, "fine", got.S)
		})
	}
}
