package endpoint_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const notRun = "ERR unavailable not_run this endpoint is shutting down: connect again\n"

// workNode has WORK, which takes a minute and answers "done", STUBBORN, which
// takes a minute whatever its context says, and WAIT, which waits for its
// context's end.
func workNode(t *testing.T) *node {
	return memNode(t, func(e *endpoint.Endpoint) {
		e.Handle("WORK", endpoint.ServeFunc(func(ctx context.Context, rw *bufio.ReadWriter) error {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Minute):
			}
			_, err := rw.WriteString("done\n")
			return err
		}))
		e.AddHandleFunc("STUBBORN", func(*bufio.ReadWriter) { time.Sleep(time.Minute) })
		e.Handle("WAIT", endpoint.ServeFunc(func(ctx context.Context, _ *bufio.ReadWriter) error {
			<-ctx.Done()
			return endpoint.ErrAbort
		}))
	})
}

// together runs f beside the test. The function that it returns waits for f.
func together(f func()) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(f)
	return wg.Wait
}

func TestShutdownIdle(t *testing.T) {
	for name, state := range map[string]string{
		"fresh": "", "after a command": "PING\n", "half a line": "STRING hel", "half a name": "PI", "blank line": "\n", "CR": "PING\r",
	} {
		bubble(t, name, func(t *testing.T) {
			n := workNode(t)
			for i := range 12 {
				c := n.dial(t)
				c.send(state)
				if i%4 == 1 {
					time.Sleep(2 * endpoint.SettleTime) // waiting on a fresh goroutine
				}
			}
			synctest.Wait()
			start := time.Now()
			require.NoError(t, n.Shutdown(t.Context()))
			assert.LessOrEqual(t, time.Since(start), 10*ms)
			assert.Empty(t, n.all())
			_, err := n.mem.Dial(t.Context())
			assert.Error(t, err)
		})
	}
}

func TestShutdownWaits(t *testing.T) {
	bubble(t, "for the running command", func(t *testing.T) {
		n := workNode(t)
		c, idle := n.dial(t), n.dial(t)
		c.send("WORK\n")
		idle.ping()
		time.Sleep(20 * time.Second)
		start := time.Now()
		defer together(func() {
			assert.Empty(t, idle.end())
			assert.LessOrEqual(t, time.Since(start), 10*ms)
			assert.Equal(t, "done\n", c.end())
			assert.Equal(t, 40*time.Second, time.Since(start).Truncate(time.Second))
			_ = c.Close()
		})()
		require.NoError(t, n.Shutdown(t.Context()))
		assert.Equal(t, 40*time.Second, time.Since(start).Truncate(time.Second))
		assert.Empty(t, n.all())
	})
	pipelined := map[string]string{
		"in the same write":    "PING\n",
		"with its data":        "LINE data\nPING\n",
		"behind blank lines":   "\n\r\n  \nPING\n",
		"unknown":              "NONESUCH\n",
		"two":                  "PING\nPING\n",
		"left over inline":     " left over\nPING\n",
		"longer than a buffer": " " + strings.Repeat("x", 5000) + "\n" + strings.Repeat("\n", 5000) + "PING\n",
	}
	for name, behind := range pipelined {
		for _, late := range []bool{false, true} {
			bubble(t, fmt.Sprintf("and the command behind it does not run, %s, late=%t", name, late), func(t *testing.T) {
				n := workNode(t)
				c := n.dial(t)
				if late && behind[0] != ' ' {
					c.send("WORK\n")
					synctest.Wait()
					time.Sleep(time.Second)
					c.send(behind) // not seen by the endpoint while WORK runs
				} else if behind[0] == ' ' {
					c.send("WORK" + behind)
				} else {
					c.send("WORK\n" + behind)
				}
				synctest.Wait()
				defer together(func() {
					assert.Equal(t, "done\n"+notRun, c.end())
					_ = c.Close()
				})()
				start := time.Now()
				require.NoError(t, n.Shutdown(t.Context()))
				assert.InDelta(t, 60, time.Since(start).Seconds(), 1)
			})
		}
	}
	bubble(t, "and half a command behind it", func(t *testing.T) {
		n := workNode(t)
		c := n.dial(t)
		c.send("WORK\nPIN")
		synctest.Wait()
		defer together(func() {
			assert.Equal(t, "done\n", c.end())
			_ = c.Close()
		})()
		require.NoError(t, n.Shutdown(t.Context()))
	})
	bubble(t, "and what cannot be a command behind it", func(t *testing.T) {
		n := workNode(t)
		c := n.dial(t)
		c.send("WORK\n\n\x01PING\n")
		synctest.Wait()
		defer together(func() {
			assert.Regexp(t, "^done\nERR invalid_argument not_run [^\n]*\n$", c.end())
			_ = c.Close()
		})()
		require.NoError(t, n.Shutdown(t.Context()))
	})
	bubble(t, "not for long for a peer that keeps its end open", func(t *testing.T) {
		n := workNode(t)
		c := n.dial(t)
		c.send("WORK\n")
		synctest.Wait()
		start := time.Now()
		require.NoError(t, n.Shutdown(t.Context()))
		assert.LessOrEqual(t, time.Since(start), time.Minute+2*endpoint.LingerTime)
		assert.Equal(t, "done\n", c.end())
	})
}

func TestShutdownCut(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		n := workNode(t)
		var clients []*client
		for range 3 {
			c := n.dial(t)
			c.send("WORK\nPING\n")
			clients = append(clients, c)
		}
		n.dial(t).ping()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		start := time.Now()
		err := n.Shutdown(ctx)
		assert.Equal(t, 25*time.Second, time.Since(start))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "3 running commands")
		for _, c := range clients {
			assert.Empty(t, c.end())
		}
	})
	bubble(t, "cancelled from the start", func(t *testing.T) {
		n := workNode(t)
		c := n.dial(t)
		c.send("WORK\n")
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		err := n.Shutdown(ctx)
		assert.Zero(t, time.Since(start))
		assert.ErrorIs(t, err, context.Canceled)
		assert.ErrorContains(t, err, "1 running command")
	})
	bubble(t, "a cause of the context", func(t *testing.T) {
		n := workNode(t)
		n.dial(t).send("WORK\n")
		synctest.Wait()
		reason := errors.New("the second signal")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		err := n.Shutdown(ctx)
		assert.ErrorIs(t, err, reason)
	})
	bubble(t, "and waits for those who do not care", func(t *testing.T) {
		n := workNode(t)
		c := n.dial(t)
		c.send("STUBBORN\n")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := n.Shutdown(ctx)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(start))
	})
	bubble(t, "nothing was running", func(t *testing.T) {
		n := workNode(t)
		n.dial(t).ping()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		assert.NoError(t, n.Shutdown(ctx))
	})
}

func TestClose(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		n := workNode(t)
		var clients []*client
		for _, state := range []string{"", "PI", "WORK\n", "WAIT\n", "LINE\nhalf", "WORK\nPING\n", "NONESUCH\n"} {
			c := n.dial(t)
			c.send(state)
			clients = append(clients, c)
		}
		synctest.Wait()
		start := time.Now()
		require.NoError(t, n.Close())
		assert.Zero(t, time.Since(start))
		for _, c := range clients {
			c.end()
		}
		require.NoError(t, n.Close(), "again")
		require.NoError(t, n.Shutdown(t.Context()), "again")
	})
	bubble(t, "waits for the handlers", func(t *testing.T) {
		n := workNode(t)
		n.dial(t).send("STUBBORN\n")
		synctest.Wait()
		start := time.Now()
		require.NoError(t, n.Close())
		assert.Equal(t, time.Minute, time.Since(start))
	})
	bubble(t, "during Shutdown", func(t *testing.T) {
		n := workNode(t)
		n.dial(t).send("WORK\n")
		synctest.Wait()
		start := time.Now()
		time.AfterFunc(10*time.Second, func() { assert.NoError(t, n.Close()) })
		require.NoError(t, n.Shutdown(t.Context()))
		assert.Equal(t, 10*time.Second, time.Since(start))
	})
	bubble(t, "never served", func(t *testing.T) {
		var e endpoint.Endpoint
		require.NoError(t, e.Close())
		require.NoError(t, new(endpoint.Endpoint).Shutdown(t.Context()))
	})
}

// TestShutdownReplyArrives: what a command answered as its endpoint ended
// arrives on a real socket, though the peer had sent more that nobody read: a
// reset would have overtaken it.
func TestShutdownReplyArrives(t *testing.T) {
	for range 50 {
		started, release := make(chan struct{}), make(chan struct{})
		n := tcpNode(t, func(e *endpoint.Endpoint) {
			e.AddHandleFunc("GATE", func(rw *bufio.ReadWriter) {
				close(started)
				<-release
				_, _ = rw.WriteString("through\n")
			})
		})
		c := n.dial(t)
		c.send("GATE\n")
		<-started
		c.send("PING\n" + strings.Repeat("PING\n", 5000))
		ended := make(chan error, 1)
		go func() { ended <- n.Shutdown(context.Background()) }()
		require.Eventually(t, func() bool { return n.Addr() == nil }, patience, time.Millisecond)
		close(release)
		got, err := io.ReadAll(c.r)
		require.NoError(t, err)
		require.Equal(t, "through\n"+notRun, string(got))
		_ = c.Close()
		require.NoError(t, <-ended)
	}
}

// TestClosingDriver lets clients, newcomers, registrations and the ends of the
// endpoint happen at random moments, on sockets and in memory, and checks what
// must hold whatever the order: all return, each reply is whole, a command that
// was told not_run did not run, and no goroutine is left (TestMain).
func TestClosingDriver(t *testing.T) {
	random := seeded(t)
	for round := range 60 {
		driveClosing(t, rand.New(rand.NewPCG(random.Uint64(), uint64(round))))
	}
}

func driveClosing(t *testing.T, random *rand.Rand) {
	var runs atomic.Int64
	n := newNode(func(e *endpoint.Endpoint) {
		e.AddHandleFunc("COUNT", func(rw *bufio.ReadWriter) {
			runs.Add(1)
			_, _ = rw.WriteString("counted\n")
		})
		e.Limits.Connections = 1 + random.IntN(20)
	})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	mem := memnet.Listen()
	dials := []func() (net.Conn, error){
		func() (net.Conn, error) { return net.Dial("tcp", tcp.Addr().String()) },
		func() (net.Conn, error) { return mem.Dial(context.Background()) },
		func() (net.Conn, error) {
			a, b := memnet.Pipe()
			go n.ServeConn(context.Background(), b)
			return a, nil
		},
	}
	var wg sync.WaitGroup
	for _, l := range []net.Listener{tcp, mem} {
		wg.Go(func() { assert.ErrorIs(t, n.Serve(l), endpoint.ErrClosed) })
	}
	var replies, sent atomic.Int64
	later := func() time.Duration { return time.Duration(random.IntN(8000)) * time.Microsecond }
	for range 12 {
		dial, wait, burst := dials[random.IntN(len(dials))], later(), 1+random.IntN(20)
		wg.Go(func() {
			time.Sleep(wait)
			c, err := dial()
			if err != nil {
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			k, _ := io.WriteString(c, strings.Repeat("COUNT\n", burst))
			sent.Add(int64(k / len("COUNT\n")))
			_ = c.(interface{ CloseWrite() error }).CloseWrite()
			got, err := io.ReadAll(c)
			if err != nil {
				assert.True(t, ended(err), "%v", err)
			}
			text := string(got)
			counted := strings.Count(text, "counted\n")
			replies.Add(int64(counted))
			rest := text[counted*len("counted\n"):]
			assert.True(t, rest == "" || rest == notRun || strings.HasPrefix(rest, "ERR resource_exhausted not_run ") && counted == 0, "%q", text)
		})
	}
	for i := range 3 {
		wait := later()
		wg.Go(func() {
			time.Sleep(wait)
			n.AddHandleFunc(fmt.Sprint("NEW-", i), handle(""))
			n.AddHandleFunc("PING", handle("PONG\n"))
			_ = n.Commands()
			_ = n.Addr()
		})
	}
	for range 3 {
		wait, kind, limit := later(), random.IntN(3), later()
		wg.Go(func() {
			time.Sleep(wait)
			switch kind {
			case 0:
				assert.NoError(t, n.Close())
			case 1:
				assert.NoError(t, n.Shutdown(context.Background()))
			default:
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				defer cancel()
				if err := n.Shutdown(ctx); err != nil {
					assert.ErrorIs(t, err, context.DeadlineExceeded)
				}
			}
			assert.Nil(t, n.Addr())
			l := memnet.Listen()
			assert.ErrorIs(t, n.Serve(l), endpoint.ErrClosed)
		})
	}
	wg.Wait()
	assert.LessOrEqual(t, replies.Load(), runs.Load(), "a reply of a command that did not run")
	assert.LessOrEqual(t, runs.Load(), sent.Load(), "a command ran that was not sent")
}
