package endpoint_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"

	pkgerrors "github.com/pkg/errors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A brokenError is an error that is broken itself: its methods panic on nil.
type brokenError struct{ text string }

func (e *brokenError) Error() string { return e.text }

// An evilError panics in whatever is asked of it.
type evilError struct{}

func (evilError) Error() string   { panic("Error called") }
func (evilError) Is(error) bool   { panic("Is called") }
func (evilError) As(any) bool     { panic("As called") }
func (evilError) Unwrap() error   { panic("Unwrap called") }
func (evilError) String() string  { panic("String called") }
func (evilError) Temporary() bool { panic("Temporary called") }

// serveFailing is a handler's function of this test: its name is looked for in
// stacks.
func serveFailing(do func() error) endpoint.Handler {
	return endpoint.ServeFunc(func(context.Context, *bufio.ReadWriter) error { return do() })
}

func TestFailures(t *testing.T) {
	var nobody *node
	cases := []struct {
		name  string
		do    func() error
		logs  []string // of the one line; none: no line
		stack string   // a function in the stack
	}{
		{"error", func() error { return errors.New("out of order") }, []string{"level=ERROR", "command=\"\\\"FAIL\\\"\"", `error="out of order"`}, "endpoint.(*lineConn)"},
		{"error with a stack", func() error { return pkgerrors.New("with its stack") }, []string{`error="with its stack"`}, "TestFailures.func"},
		{"wrapped error", func() error { return fmt.Errorf("outer: %w", pkgerrors.WithStack(io.ErrShortWrite)) }, []string{`error="outer: short write"`}, ""},
		{"Error", func() error { return endpoint.Errorf(endpoint.NotFound, "no such order") }, []string{"level=ERROR", "no such order (not_found"}, "endpoint.(*lineConn)"},
		{"nil *Error", func() error { var e *endpoint.Error; return e }, []string{"level=ERROR", "*endpoint.Error"}, ""},
		{"nil pointer error", func() error { var e *brokenError; return e }, []string{"level=ERROR", "*endpoint_test.brokenError"}, ""},
		{"error whose methods panic", func() error { return evilError{} }, []string{"level=ERROR"}, ""},
		{"panic", func() error { panic("at the disco") }, []string{"level=ERROR", "panic: at the disco"}, "TestFailures.func"},
		{"panic with an error", func() error { panic(io.ErrNoProgress) }, []string{"level=ERROR", "panic: multiple Read calls"}, "TestFailures.func"},
		{"panic with io.EOF", func() error { panic(io.EOF) }, []string{"level=ERROR", "panic: EOF"}, "TestFailures.func"},
		{"panic with nil", func() error { panic(nil) }, []string{"level=ERROR", "panic called with nil argument"}, "TestFailures.func"}, //nolint:govet // the case
		{"panic with an evil error", func() error { panic(evilError{}) }, []string{"level=ERROR", "panic: "}, ""},
		{"panic with a nil *Error", func() error { var e *endpoint.Error; panic(e) }, []string{"level=ERROR", "panic: "}, ""},
		{"runtime.Error", func() error { return fmt.Errorf("%v", nobody.Logger) }, []string{"level=ERROR", "nil pointer dereference"}, "TestFailures.func"},
		{"index out of range", func() error { return fmt.Errorf("%v", nobody.indexAt(3)) }, []string{"level=ERROR", "index out of range"}, "indexAt"},
		{"runtime.Goexit", func() error { runtime.Goexit(); return nil }, []string{"level=ERROR", "runtime.Goexit"}, "TestFailures.func"},
		{"deep panic", func() error { deep(1000); return nil }, []string{"level=ERROR", "panic: bottom"}, "endpoint_test.deep"},
		{"panic(ErrAbort)", func() error { panic(endpoint.ErrAbort) }, nil, ""},
		{"panic with a wrapped ErrAbort", func() error { panic(pkgerrors.Wrap(endpoint.ErrAbort, "no more")) }, nil, ""},
		{"return ErrAbort", func() error { return endpoint.ErrAbort }, nil, ""},
		{"return a wrapped ErrAbort", func() error { return fmt.Errorf("no more: %w", endpoint.ErrAbort) }, nil, ""},
	}
	for _, inside := range []bool{false, true} {
		for _, tt := range cases {
			bubble(t, fmt.Sprintf("%s,interceptor=%t", tt.name, inside), func(t *testing.T) {
				n := memNode(t, func(e *endpoint.Endpoint) {
					e.Handle("FAIL", serveFailing(tt.do))
					if inside {
						e.Interceptors = []endpoint.Interceptor{pass, pass}
					}
				})
				other := n.dial(t)
				other.ping()
				c := n.dial(t)
				c.send("FAIL with data\nPING\n")
				assert.Empty(t, c.end(), "PING must not run")
				other.ping()
				require.NoError(t, c.Close())
				synctest.Wait()
				if tt.logs == nil {
					assert.Empty(t, n.all())
					return
				}
				n.only(t, append(tt.logs, c.local(), "stack=", tt.stack)...)
			})
		}
	}
}

func (n *node) indexAt(i int) int { return []int{}[i] }

func deep(n int) {
	if n == 0 {
		panic("bottom")
	}
	deep(n - 1)
}

// pass is an interceptor that does nothing.
func pass(ctx context.Context, _ *endpoint.Info, next func(context.Context) error) error {
	return next(ctx)
}

// TestOutputOfFailures: what a handler wrote before it failed is sent, unless it
// panicked.
func TestOutputOfFailures(t *testing.T) {
	for name, want := range map[string]string{"ERROR": "partial", "ABORT": "partial", "PANIC": "", "GOEXIT": "", "PANIC-ABORT": "", "FLUSHED": "partial"} {
		bubble(t, name, func(t *testing.T) {
			n := memNode(t, func(e *endpoint.Endpoint) {
				e.Handle(name, endpoint.ServeFunc(func(_ context.Context, rw *bufio.ReadWriter) error {
					_, _ = rw.WriteString("partial")
					switch name {
					case "ERROR":
						return errors.New("failed")
					case "ABORT":
						return endpoint.ErrAbort
					case "GOEXIT":
						runtime.Goexit()
					case "PANIC-ABORT":
						panic(endpoint.ErrAbort)
					case "FLUSHED":
						_ = rw.Flush()
					}
					panic("late")
				}))
			})
			c := n.dial(t)
			c.send(name + "\n")
			assert.Equal(t, want, c.end())
		})
	}
}

func TestManyPanics(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.AddHandleFunc("PANIC", func(*bufio.ReadWriter) { panic("again") })
		e.AddHandleFunc("EXIT", func(*bufio.ReadWriter) { runtime.Goexit() })
	})
	before := runtime.NumGoroutine()
	good := n.dial(t)
	for i := range 300 {
		c := n.dial(t)
		c.send([]string{"PANIC\n", "EXIT\n"}[i%2])
		assert.Empty(t, c.end())
		require.NoError(t, c.Close())
		good.ping()
	}
	assert.Eventually(t, func() bool { return len(n.all()) == 300 }, patience, time.Millisecond)
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() < before+20 }, patience, time.Millisecond)
}

func TestForgottenFlush(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		big := strings.Repeat("0123456789", 5000)
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.AddHandleFunc("A", handle("a"))
			e.AddHandleFunc("B", handle("b"))
			e.AddHandleFunc("FLUSH", func(rw *bufio.ReadWriter) {
				_, _ = rw.WriteString("flushed")
				_ = rw.Flush()
				_, _ = rw.WriteString("+more")
			})
			e.AddHandleFunc("BIG", handle(big))
		})
		c := n.dial(t)
		c.send("A\n")
		c.expect("a")
		c.send("A\nB\nFLUSH\nBIG\nA\n")
		c.expect("abflushed+more" + big + "a")
	})
}

// TestHandlerReader: a handler may read by any of the reader's methods, and what
// it leaves of its own line is skipped whatever it did.
func TestHandlerReader(t *testing.T) {
	uses := map[string]func(rw *bufio.ReadWriter){
		"nothing": func(*bufio.ReadWriter) {},
		"a byte":  func(rw *bufio.ReadWriter) { _, _ = rw.ReadByte() },
		"unread":  func(rw *bufio.ReadWriter) { _, _ = rw.ReadByte(); _ = rw.UnreadByte() },
		"word":    func(rw *bufio.ReadWriter) { var s string; _, _ = fmt.Fscan(rw, &s) },
		"peek":    func(rw *bufio.ReadWriter) { _, _ = rw.Peek(5) },
		"line":    func(rw *bufio.ReadWriter) { _, _ = rw.ReadSlice('\n') },
		"discard": func(rw *bufio.ReadWriter) { _, _ = rw.Discard(10) },
	}
	for name, use := range uses {
		bubble(t, name, func(t *testing.T) {
			n := memNode(t, func(e *endpoint.Endpoint) { e.AddHandleFunc("USE", use) })
			c := n.dial(t)
			c.send("USE first second third\nPING\nUSE first second third\r\n\nPING\n")
			c.expect("PONG\nPONG\n")
			c.ping()
			assert.Empty(t, n.all())
		})
	}
	bubble(t, "lines beyond its own", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.AddHandleFunc("FOUR", func(rw *bufio.ReadWriter) {
				p := make([]byte, 20000)
				_, _ = io.ReadFull(rw, p) // large: past the buffer
				_, _ = fmt.Fprintf(rw, "%d\n", len(p))
			})
		})
		c := n.dial(t)
		c.send("FOUR " + strings.Repeat("x", 4999) + "\n" + strings.Repeat("y", 15000) + "PING\n")
		c.expect("20000\nPONG\n")
	})
}

func TestHandlerContext(t *testing.T) {
	bubble(t, "what it says", func(t *testing.T) {
		var ctx context.Context
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.Handle("CTX", endpoint.ServeFunc(func(c context.Context, rw *bufio.ReadWriter) error {
				ctx = c
				info, peer := endpoint.InfoFrom(c), endpoint.PeerFrom(c)
				_, err := fmt.Fprintln(rw, info.Command, info.Kind, info.Peer == peer, peer, info.Logger == e.Logger, c.Err(), peer.TLS())
				return err
			}))
		})
		c := n.dial(t)
		c.send("CTX\n")
		assert.Equal(t, fmt.Sprintf("CTX raw true %v true <nil> <nil>", c.LocalAddr()), c.line())
		synctest.Wait()
		require.NotNil(t, ctx)
		require.NoError(t, c.Close())
		synctest.Wait()
		assert.ErrorIs(t, ctx.Err(), context.Canceled, "at the end of the connection at the latest")
	})
	bubble(t, "outside of a call", func(t *testing.T) {
		info := endpoint.InfoFrom(t.Context())
		assert.NotNil(t, info.Logger)
		assert.Equal(t, "local", info.Peer.String())
		assert.Nil(t, info.Peer.Addr())
		assert.Nil(t, info.Peer.TLS())
		assert.NoError(t, info.Peer.Close())
		assert.Equal(t, "local", endpoint.PeerFrom(t.Context()).String())
	})
	bubble(t, "it ends with the handler", func(t *testing.T) {
		var ctx context.Context
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.Handle("CTX", endpoint.ServeFunc(func(c context.Context, _ *bufio.ReadWriter) error {
				ctx = c
				return nil
			}))
		})
		c := n.dial(t)
		c.send("CTX\nPING\n")
		c.expect("PONG\n")
		assert.ErrorIs(t, ctx.Err(), context.Canceled)
		c.ping()
	})
	bubble(t, "Peer.Close cuts", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.Handle("CUT", endpoint.ServeFunc(func(c context.Context, rw *bufio.ReadWriter) error {
				_ = endpoint.PeerFrom(c).Close()
				_, err := rw.ReadByte()
				assert.ErrorIs(t, err, net.ErrClosed)
				return endpoint.ErrAbort
			}))
		})
		c := n.dial(t)
		c.send("CUT\n")
		assert.Empty(t, c.end())
		assert.Empty(t, n.all())
	})
}

func TestConnContext(t *testing.T) {
	type key struct{}
	bubble(t, "reaches the handlers", func(t *testing.T) {
		calls := 0
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
				calls++
				return context.WithValue(ctx, key{}, c.RemoteAddr().String())
			}
			e.Handle("KEY", endpoint.ServeFunc(func(ctx context.Context, rw *bufio.ReadWriter) error {
				_, err := fmt.Fprintln(rw, ctx.Value(key{}), endpoint.InfoFrom(ctx).Command)
				return err
			}))
		})
		c := n.dial(t)
		for range 3 {
			time.Sleep(2 * time.Second) // across goroutines
			c.send("KEY\n")
			assert.Equal(t, c.LocalAddr().String()+" KEY", c.line())
		}
		assert.Equal(t, 1, calls)
	})
	for name, f := range map[string]func(context.Context, net.Conn) context.Context{
		"nil":            func(context.Context, net.Conn) context.Context { return nil },
		"panic":          func(context.Context, net.Conn) context.Context { panic("in ConnContext") },
		"runtime.Goexit": func(context.Context, net.Conn) context.Context { runtime.Goexit(); return nil },
	} {
		bubble(t, name, func(t *testing.T) {
			n := memNode(t, func(e *endpoint.Endpoint) {
				e.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
					if strings.HasSuffix(c.RemoteAddr().String(), ":2") {
						return f(ctx, c)
					}
					return ctx
				}
			})
			c := n.dial(t)
			assert.Empty(t, c.end())
			n.only(t, "level=ERROR", "connection closed: ConnContext", c.local(), "stack=")
			n.dial(t).ping()
		})
	}
	bubble(t, "panic(ErrAbort)", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.ConnContext = func(context.Context, net.Conn) context.Context { panic(endpoint.ErrAbort) }
		})
		assert.Empty(t, n.dial(t).end())
		assert.Empty(t, n.all())
	})
}

// TestNamesInLogs: whatever a peer sends for a name, the log is one line of
// printable ASCII and no long one.
func TestNamesInLogs(t *testing.T) {
	for name, send := range map[string]string{
		"escape":  "\x1b]0;owned\x07\n",
		"U+2028":  "A\u2028B\n",
		"newline": "A\rB\n",
		"nul":     "\x00\n",
		"1 MiB":   strings.Repeat("A", 1<<20) + "\n",
		"quotes":  "\"'`\\\n",
		"spaces":  strings.Repeat(" ", 100) + "x\n",
		"format":  "%s%d%!v\n",
		"utf-8":   "gr\u00fc\u00df\n",
	} {
		bubble(t, name, func(t *testing.T) {
			n := memNode(t, nil)
			c := n.dial(t)
			go func() { _, _ = io.WriteString(c.Conn, send) }()
			c.end()
			_ = c.Close()
			synctest.Wait()
			n.only(t, "refused", c.local())
			line := strings.TrimSuffix(n.all()[0], "\n")
			assert.Less(t, len(line), 1000)
			for i := range len(line) {
				require.True(t, ' ' <= line[i] && line[i] <= '~', "%q", line)
			}
		})
	}
}

// TestLostConnectionIsNoError: a handler that fails because the peer went away
// is not worth more than a line of information.
func TestLostConnectionIsNoError(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.Handle("READ", endpoint.ServeFunc(func(_ context.Context, rw *bufio.ReadWriter) error {
				_, err := rw.ReadString('\n')
				return pkgerrors.Wrap(err, "data")
			}))
		})
		c := n.dial(t)
		c.send("READ\nhal")
		synctest.Wait()
		require.NoError(t, c.Close())
		synctest.Wait()
		n.only(t, "level=INFO", "data: EOF", c.local())
	})
}

// TestCallContext: the context of a call, whose end is made only when somebody
// asks for it, is one like any other.
func TestCallContext(t *testing.T) {
	type key struct{}
	run := func(t *testing.T, f func(ctx context.Context), after func(ctx context.Context)) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return context.WithValue(ctx, key{}, "conn") }
			var last context.Context
			e.Handle("RUN", endpoint.ServeFunc(func(ctx context.Context, _ *bufio.ReadWriter) error {
				last = ctx
				f(ctx)
				return nil
			}))
			e.AddHandleFunc("AFTER", func(*bufio.ReadWriter) { after(last) })
		})
		c := n.dial(t)
		c.send("RUN\nAFTER\nPING\n")
		c.expect("PONG\n")
		assert.Empty(t, n.all())
	}
	bubble(t, "asked before and after the end", func(t *testing.T) {
		run(t, func(ctx context.Context) {
			assert.NoError(t, ctx.Err())
			select {
			case <-ctx.Done():
				t.Error("done too early")
			default:
			}
			assert.NoError(t, ctx.Err())
			assert.NoError(t, context.Cause(ctx))
			assert.Equal(t, "conn", ctx.Value(key{}))
		}, func(ctx context.Context) {
			<-ctx.Done()
			assert.Equal(t, context.Canceled, ctx.Err())
			assert.Equal(t, context.Canceled, context.Cause(ctx))
			assert.Equal(t, "conn", ctx.Value(key{}))
			assert.Equal(t, "RUN", endpoint.InfoFrom(ctx).Command)
		})
	})
	bubble(t, "asked only after the end", func(t *testing.T) {
		run(t, func(context.Context) {}, func(ctx context.Context) {
			assert.Equal(t, context.Canceled, ctx.Err())
			assert.Equal(t, context.Canceled, context.Cause(ctx))
			<-ctx.Done()
			assert.Equal(t, context.Canceled, ctx.Err())
		})
	})
	bubble(t, "derived contexts", func(t *testing.T) {
		var derived context.Context
		var stopped bool
		run(t, func(ctx context.Context) {
			before := runtime.NumGoroutine()
			var cancel context.CancelFunc
			derived, cancel = context.WithTimeout(context.WithValue(ctx, key{}, "own"), time.Hour)
			t.Cleanup(cancel)
			context.AfterFunc(derived, func() { stopped = true })
			assert.Equal(t, before, runtime.NumGoroutine(), "no goroutine to pass the end on")
			assert.Equal(t, "RUN", endpoint.InfoFrom(derived).Command)
		}, func(context.Context) {
			<-derived.Done()
			assert.Equal(t, context.Canceled, derived.Err())
			synctest.Wait()
			assert.True(t, stopped)
		})
	})
}
