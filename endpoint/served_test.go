package endpoint_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/endpoint"
)

type servedRequest struct {
	To, How string
	Pad     []byte
	Held    *held
}

type servedReply struct {
	From string
	Pad  int
	Held *held
}

// held is something that the collector is seen to take.
type held struct {
	Bytes [4 << 10]byte
	Name  string
}

func (s servedRequest) check(ctx context.Context, owner string) error {
	info := endpoint.InfoFrom(ctx)
	_, timed := ctx.Deadline()
	header := s.To
	if s.How == "no header" {
		header = ""
	}
	switch {
	case s.To != owner || owner[1:] != info.Command:
		return fmt.Errorf("a request for %s as %s in %s", s.To, info.Command, owner)
	case info.Header("to") != header:
		return fmt.Errorf("header %q in %s", info.Header("to"), owner)
	case timed != (s.How == "timed"):
		return fmt.Errorf("%s: a deadline: %v", s.How, timed)
	}
	return nil
}

// serveAs registers a command that finds out whether a call was meant for it.
func serveAs(t *testing.T, e *endpoint.Endpoint, node, name string) {
	owner := node + name
	endpoint.Command[servedRequest, servedReply](name).Handle(e, func(ctx context.Context, r servedRequest) (servedReply, error) {
		if err := r.check(ctx, owner); err != nil {
			t.Error(err)
		}
		info := endpoint.InfoFrom(ctx)
		var ended atomic.Bool
		info.OnEnd(func(error) {
			if ended.Swap(true) {
				t.Error("OnEnd twice")
			}
			info.OnEnd(func(error) { t.Error("OnEnd of the end") })
			_ = ctx.Err()
		})
		reply := servedReply{From: owner, Pad: len(r.Pad)}
		switch r.How {
		case "panic":
			panic("asked")
		case "goexit":
			runtime.Goexit()
		case "error":
			return reply, errors.New("asked")
		case "canceled":
			<-ctx.Done()
			return reply, ctx.Err()
		case "kept":
			go func() {
				for range 20 {
					_, _, _ = ctx.Value(ctxKey{}), ctx.Err(), ctx.Done()
					derived, cancel := context.WithCancel(ctx)
					stop := context.AfterFunc(derived, func() { _ = ctx.Err() })
					runtime.Gosched()
					stop()
					cancel()
				}
				<-ctx.Done()
				if info.Command != name || info.Header("to") != owner {
					t.Error("what a handler kept has become another call's")
				}
			}()
			_ = ctx.Done()
		}
		return reply, nil
	})
}

// TestServedAlike: commands whose types are the same, on three endpoints, share what serves their calls and nothing else, however these end, and
// while they are registered anew.
func TestServedAlike(t *testing.T) {
	r := seeded(t)
	const commands = 20
	nodes := make(map[string]*node)
	for id, set := range map[string]func(*endpoint.Endpoint){
		"a": func(*endpoint.Endpoint) {},
		"b": func(e *endpoint.Endpoint) { e.Limits.Message = 3000 },
		"c": func(e *endpoint.Endpoint) {
			e.Interceptors = []endpoint.Interceptor{func(ctx context.Context, _ *endpoint.Info, next next) error { return next(ctx) }}
		},
	} {
		nodes[id] = memNode(t, func(e *endpoint.Endpoint) {
			set(e)
			for i := range commands {
				serveAs(t, e, id, "C"+strconv.Itoa(i))
			}
		})
	}
	var callers, others sync.WaitGroup
	stop := make(chan struct{})
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				serveAs(t, nodes["a"].Endpoint, "a", "C"+strconv.Itoa(i%commands))
			}
		}
	})
	for id, n := range nodes {
		c := dialNode(t, n, nil)
		for _, seed := range seeds(r, 4) {
			callers.Go(func() {
				r := rand.New(rand.NewPCG(seed, 1))
				for range 300 {
					callServed(t, r, c, id, "C"+strconv.Itoa(r.IntN(commands)))
				}
			})
		}
	}
	callers.Wait()
	close(stop)
	others.Wait()
}

func callServed(t *testing.T, r *rand.Rand, c *endpoint.Client, node, name string) {
	how := []string{"", "", "", "panic", "goexit", "error", "canceled", "kept", "timed", "no header", "large"}[r.IntN(11)]
	request := servedRequest{To: node + name, How: how}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	switch how {
	case "canceled":
		time.AfterFunc(time.Duration(r.IntN(300))*time.Microsecond, cancel)
	case "timed":
		ctx, cancel = context.WithTimeout(ctx, time.Minute)
		defer cancel()
	case "large":
		request.Pad = make([]byte, 4000)
	}
	if how != "no header" {
		ctx = endpoint.WithHeader(ctx, "to", request.To)
	}
	reply, err := endpoint.Command[servedRequest, servedReply](name).Call(ctx, c, request)
	switch {
	case how == "panic" || how == "goexit" || how == "large" && node == "b":
		assert.Error(t, err)
	case how == "error":
		assert.ErrorContains(t, err, "asked")
	case how == "canceled":
		assert.ErrorIs(t, err, endpoint.Canceled)
	default:
		if assert.NoError(t, err) {
			assert.Equal(t, servedReply{From: request.To, Pad: len(request.Pad)}, reply)
		}
	}
}

// TestServedValuesGo: what is kept for the next call keeps nothing of the last: not its values on either side, not the function of
// a command that was registered anew.
func TestServedValuesGo(t *testing.T) {
	for _, how := range []string{"", "panic", "error", "goexit"} {
		bubble(t, how, func(t *testing.T) {
			var mu sync.Mutex
			refs := make(map[string]weak.Pointer[held])
			hold := func(what string) *held {
				h := &held{Name: what}
				mu.Lock()
				defer mu.Unlock()
				refs[what] = weak.Make(h)
				return h
			}
			const get endpoint.Command[servedRequest, servedReply] = "GET"
			register := func(e *endpoint.Endpoint, h *held) {
				get.Handle(e, func(_ context.Context, r servedRequest) (servedReply, error) {
					mu.Lock()
					refs["request"] = weak.Make(r.Held)
					mu.Unlock()
					reply := servedReply{From: h.Name, Held: hold("reply")}
					switch how {
					case "panic":
						panic("asked")
					case "error":
						return reply, errors.New("asked")
					case "goexit":
						runtime.Goexit()
					}
					return reply, nil
				})
			}
			n := memNode(t, func(e *endpoint.Endpoint) { register(e, hold("function")) })
			c := dialNode(t, n, nil)
			reply, err := get.Call(t.Context(), c, servedRequest{Held: hold("sent")})
			assert.Equal(t, how == "", err == nil, "%v", err)
			if how == "" {
				mu.Lock()
				refs["received"] = weak.Make(reply.Held)
				mu.Unlock()
			}
			register(n.Endpoint, &held{})
			synctest.Wait()
			runtime.GC() // one, over which a pool keeps what it has
			mu.Lock()
			defer mu.Unlock()
			require.GreaterOrEqual(t, len(refs), 4)
			for what, ref := range refs {
				assert.Nil(t, ref.Value(), what)
			}
		})
	}
}

// TestContextAfterEnd: what a handler keeps of its call tells that the call is over, and takes no more.
func TestContextAfterEnd(t *testing.T) {
	kept := make(chan context.Context, 1)
	n := memNode(t, func(e *endpoint.Endpoint) {
		fail.Handle(e, func(ctx context.Context, r text) (text, error) {
			if r.S == "asked" {
				_ = ctx.Done()
			}
			kept <- ctx
			return r, nil
		})
	})
	for name, to := range map[string]endpoint.Caller{"session": dialNode(t, n, nil), "line": openConn(t, n, nil), "in process": n.Endpoint} {
		for _, s := range []string{"asked", "not asked"} {
			_, err := fail.Call(t.Context(), to, text{s})
			require.NoError(t, err)
			ctx := <-kept
			<-ctx.Done()
			require.ErrorIs(t, ctx.Err(), context.Canceled, name, s)
			derived, cancel := context.WithCancel(ctx)
			require.Error(t, derived.Err())
			cancel()
			fired := make(chan struct{})
			context.AfterFunc(ctx, func() { close(fired) })
			<-fired
			info := endpoint.InfoFrom(ctx)
			assert.Equal(t, "FAIL", info.Command)
			assert.Empty(t, info.Header("x"))
			info.OnEnd(func(error) { t.Error("OnEnd after the end") })
		}
	}
}

// TestOnEndAfterStream: what is given to OnEnd once its stream has ended is not called, however often the stream is let go.
func TestOnEndAfterStream(t *testing.T) {
	n := memNode(t, streamCommands)
	var info *endpoint.Info
	c := dialNode(t, n, &endpoint.Dialer{Interceptors: []endpoint.Interceptor{func(ctx context.Context, i *endpoint.Info, next next) error {
		info = i
		return next(ctx)
	}}})
	s, err := echoStream.Open(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, s.CloseSend())
	_, err = s.Recv()
	require.Equal(t, io.EOF, err)
	info.OnEnd(func(error) { t.Error("OnEnd after the end") })
	_ = s.Close()
	_ = s.Close()
}

// TestDeadlineIsTheEarlier: of the caller's and the connection's.
func TestDeadlineIsTheEarlier(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		ends := time.Now().Add(time.Hour)
		var got time.Time
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
				ctx, cancel := context.WithDeadline(ctx, ends)
				t.Cleanup(cancel)
				return ctx
			}
			fail.Handle(e, func(ctx context.Context, r text) (text, error) {
				got, _ = ctx.Deadline()
				return r, nil
			})
		})
		c := dialNode(t, n, nil)
		for _, left := range []time.Duration{time.Minute, 2 * time.Hour} {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			_, err := fail.Call(ctx, c, text{})
			cancel()
			require.NoError(t, err)
			assert.Equal(t, min(left, time.Hour), time.Until(got))
		}
	})
}
