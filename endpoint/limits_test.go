package endpoint_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
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

// bubble runs f in a bubble of fake time.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// endsAfter asserts that the server ends c, without a word, d after now.
func (c *client) endsAfter(d time.Duration) {
	c.t.Helper()
	start := time.Now()
	assert.Empty(c.t, c.end())
	assert.Equal(c.t, d, time.Since(start))
}

// local returns the address by which the server's log knows c.
func (c *client) local() string { return "peer=" + c.LocalAddr().String() }

func TestIdle(t *testing.T) {
	bubble(t, "from the start", func(t *testing.T) {
		n := memNode(t, nil)
		c := n.dial(t)
		c.endsAfter(5 * time.Minute)
		n.only(t, "limit=Idle", "value=5m0s", "no byte either way", c.local())
	})
	bubble(t, "between commands", func(t *testing.T) {
		n := memNode(t, nil)
		c := n.dial(t)
		for range 10 {
			time.Sleep(4 * time.Minute)
			c.ping()
		}
		c.endsAfter(5 * time.Minute)
		n.only(t, "limit=Idle", c.local())
	})
	bubble(t, "in a raw handler", func(t *testing.T) {
		var handlerErr error
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.Handle("READ", endpoint.ServeFunc(func(_ context.Context, rw *bufio.ReadWriter) error {
				_, handlerErr = rw.ReadString('\n')
				return handlerErr
			}))
		})
		c := n.dial(t)
		c.send("READ\nno end")
		c.endsAfter(5 * time.Minute)
		n.only(t, "limit=Idle", c.local())
		assert.ErrorContains(t, handlerErr, "limit Idle")
		assert.ErrorIs(t, handlerErr, os.ErrDeadlineExceeded)
		assert.Equal(t, endpoint.DeadlineExceeded, endpoint.CodeOf(handlerErr))
	})
	bubble(t, "in a handler that ignores it", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.AddHandleFunc("READ", func(rw *bufio.ReadWriter) {
				for range 5 {
					_, _ = rw.ReadByte() // each of them would wait anew
				}
			})
		})
		c := n.dial(t)
		c.send("READ\n")
		c.endsAfter(5 * time.Minute)
		n.only(t, "limit=Idle", c.local())
	})
	bubble(t, "not while the handler works", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.AddHandleFunc("WORK", func(rw *bufio.ReadWriter) {
				time.Sleep(time.Hour)
				line, _ := rw.ReadString('\n')
				_, _ = rw.WriteString(line)
			})
		})
		c := n.dial(t)
		c.send("WORK\n")
		time.Sleep(time.Hour + 4*time.Minute)
		c.send("done\n")
		c.expect("done\n")
		c.ping()
		assert.Empty(t, n.all())
	})
	bubble(t, "not while bytes move the other way", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			e.AddHandleFunc("TICK", func(rw *bufio.ReadWriter) {
				done := make(chan struct{})
				go func() {
					defer close(done)
					for range 10 {
						time.Sleep(4 * time.Minute)
						_ = rw.WriteByte('.')
						_ = rw.Flush()
					}
				}()
				_, _ = rw.ReadString('\n')
				<-done
			})
		})
		c := n.dial(t)
		c.send("TICK\n")
		c.expect("..........")
		c.endsAfter(5 * time.Minute)
		n.only(t, "limit=Idle", c.local())
	})
	bubble(t, "configured", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Idle = 700 * time.Millisecond })
		c := n.dial(t)
		c.ping()
		c.endsAfter(700 * time.Millisecond)
		n.only(t, "limit=Idle", "value=700ms", c.local())
	})
	bubble(t, "none", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Idle = -1 })
		c := n.dial(t)
		c.ping()
		time.Sleep(1000 * time.Hour)
		c.ping()
		assert.Empty(t, n.all())
	})
	bubble(t, "shorter than lingering", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Idle = 100 * time.Millisecond })
		c := n.dial(t)
		c.send("NONESUCH\n")
		c.end()
		time.Sleep(time.Minute) // c does not close
		n.only(t, "refused", c.local())
	})
}

func TestProgressOfALine(t *testing.T) {
	for _, half := range []string{"P", "PING", "PING ", "PING left over", "PING\r", "   ", strings.Repeat(" ", 8000)} {
		bubble(t, fmt.Sprintf("%.20q", half), func(t *testing.T) {
			n := memNode(t, nil)
			c := n.dial(t)
			c.ping()
			time.Sleep(time.Minute)
			c.send(half)
			c.endsAfter(10 * time.Second)
			n.only(t, "limit=Progress", "value=10s", c.local())
		})
	}
	bubble(t, "not renewed", func(t *testing.T) {
		n := memNode(t, nil)
		c := n.dial(t)
		go func() {
			for range 9 {
				_, _ = io.WriteString(c.Conn, "x")
				time.Sleep(3 * time.Second)
			}
		}()
		synctest.Wait()
		c.endsAfter(10 * time.Second)
		n.only(t, "limit=Progress", c.local())
		time.Sleep(time.Minute)
	})
	bubble(t, "just in time, again and again", func(t *testing.T) {
		n := memNode(t, nil)
		c := n.dial(t)
		for range 20 {
			c.send("PI")
			time.Sleep(10*time.Second - 1)
			c.send("NG\n")
			c.expect("PONG\n")
		}
		assert.Empty(t, n.all())
	})
	bubble(t, "over after the line", func(t *testing.T) {
		n := memNode(t, nil)
		c := n.dial(t)
		c.send("LI")
		time.Sleep(time.Second)
		c.send("NE\nhalf of the ")
		time.Sleep(4 * time.Minute) // a raw handler's data: only Idle counts
		c.send("data\n")
		c.expect("line half of the data\n")
		assert.Empty(t, n.all())
	})
	bubble(t, "none", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Progress = -1 })
		c := n.dial(t)
		c.send("PI")
		time.Sleep(4 * time.Minute)
		c.send("NG\n")
		c.expect("PONG\n")
		c.send("PI")
		c.endsAfter(5 * time.Minute)
		n.only(t, "limit=Idle", c.local())
	})
}

// flood is a command that writes n bytes, size at a time.
func flood(n, size int) endpoint.HandleFunc {
	return func(rw *bufio.ReadWriter) {
		part := make([]byte, size)
		for sent := 0; sent < n; sent += size {
			if _, err := rw.Write(part); err != nil {
				return
			}
		}
	}
}

func TestProgressOfWrites(t *testing.T) {
	const all = 1 << 20
	for _, size := range []int{128, 4 << 10, 16 << 10, all} {
		name := func(s string) string { return fmt.Sprintf("%s, %d bytes a write", s, size) }
		start := func(t *testing.T, limit time.Duration) (*node, *client) {
			n := memNode(t, func(e *endpoint.Endpoint) {
				e.AddHandleFunc("FLOOD", flood(all, size))
				e.Limits.Progress = limit
			})
			c := n.dial(t)
			c.send("FLOOD\n")
			return n, c
		}
		bubble(t, name("a peer that takes nothing"), func(t *testing.T) {
			n, c := start(t, 0)
			time.Sleep(10*time.Second - 1)
			synctest.Wait()
			assert.Empty(t, n.all())
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			n.only(t, "limit=Progress", "value=10s", "took too little", c.local())
			c.end()
		})
		bubble(t, name("64 KiB every 9 s"), func(t *testing.T) {
			n, c := start(t, 0)
			for range all >> 16 {
				time.Sleep(9 * time.Second)
				_, err := io.ReadFull(c.Conn, make([]byte, 64<<10))
				require.NoError(t, err)
			}
			c.ping()
			assert.Empty(t, n.all())
		})
		bubble(t, name("4 KiB every 9 s is too little"), func(t *testing.T) {
			n, c := start(t, 0)
			for range 16 {
				time.Sleep(9 * time.Second)
				if _, err := io.ReadFull(c.Conn, make([]byte, 4<<10)); err != nil {
					break
				}
			}
			synctest.Wait()
			n.only(t, "limit=Progress", c.local())
		})
		bubble(t, name("none"), func(t *testing.T) {
			n, c := start(t, -1)
			time.Sleep(time.Hour)
			_, err := io.CopyN(io.Discard, c.Conn, all)
			require.NoError(t, err)
			c.ping()
			assert.Empty(t, n.all())
		})
	}
	bubble(t, "small replies now and then", func(t *testing.T) {
		n := memNode(t, nil)
		c := n.dial(t)
		for range 1000 {
			time.Sleep(time.Minute)
			c.ping()
		}
		assert.Empty(t, n.all())
	})
}

func TestLine(t *testing.T) {
	for _, limit := range []int{0, 8 << 10, 100, 16, 5, 1000_000} {
		bubble(t, strconv.Itoa(limit), func(t *testing.T) {
			n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Line = limit })
			if limit == 0 {
				limit = 8 << 10
			}
			c := n.dial(t)
			if limit > 5 {
				c.send("PING " + strings.Repeat("x", limit-6) + "\n") // as long as can be
			} else {
				c.send("PING\n")
			}
			c.expect("PONG\n")
			c.ping()
			assert.Empty(t, n.all())
			c.send("PING " + strings.Repeat("x", limit-5)) // and one byte more, whatever follows
			reply := c.end()
			want := fmt.Sprintf("ERR resource_exhausted not_run a command line has at most %d bytes", limit)
			assert.True(t, strings.HasPrefix(reply, want) && strings.HasSuffix(reply, "\n"), "%q", reply)
			n.only(t, "limit=Line", fmt.Sprintf("value=%d", limit), c.local())
		})
	}
	bubble(t, "the long line comes whole", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Line = 10 })
		c := n.dial(t)
		c.send("PING 7890\n") // 10
		c.expect("PONG\n")
		c.send("PING 78901\nPING\n") // 11
		assert.Contains(t, c.end(), "ERR resource_exhausted not_run ")
		n.only(t, "limit=Line", c.local())
	})
	bubble(t, "none", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Line = -1 })
		c := n.dial(t)
		long := strings.Repeat("x", 3<<20)
		go func() { _, _ = io.WriteString(c.Conn, "LINE "+long+"\nPING\n") }()
		c.expect("line " + long + "\nPONG\n")
		assert.Empty(t, n.all())
	})
	bubble(t, "data on the next lines is not bounded", func(t *testing.T) {
		n := memNode(t, nil)
		c := n.dial(t)
		long := strings.Repeat("x", 1<<20)
		go func() { _, _ = io.WriteString(c.Conn, "LINE\n"+long+"\n") }()
		c.expect("line " + long + "\n")
	})
}

func TestConnections(t *testing.T) {
	told := func(n int) string {
		return fmt.Sprintf("ERR resource_exhausted not_run this endpoint serves %d connections at once and has them: try again later\n", n)
	}
	bubble(t, "the next one is told", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Connections = 3 })
		var held []*client
		for range 3 {
			c := n.dial(t)
			c.ping()
			held = append(held, c)
		}
		start := time.Now()
		over := n.dial(t)
		assert.Equal(t, told(3), over.end())
		assert.Zero(t, time.Since(start))
		n.only(t, "limit=Connections", "value=3", "refused=1", over.local())
		require.NoError(t, over.Close())
		for _, c := range held {
			c.ping() // not disturbed
		}
		require.NoError(t, held[0].Close())
		synctest.Wait()
		n.dial(t).ping() // there is room again
		n.only(t)
	})
	bubble(t, "one line a second", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Connections = 1 })
		n.dial(t).ping()
		refuse := func() {
			c := n.dial(t)
			assert.Equal(t, told(1), c.end())
			require.NoError(t, c.Close())
			synctest.Wait()
		}
		for range 30 { // of 0.1 s
			refuse()
			time.Sleep(100 * time.Millisecond)
		}
		lines := n.with("limit=Connections")
		require.Len(t, lines, 3)
		for i, count := range []string{"refused=1 ", "refused=10 ", "refused=10 "} {
			assert.Contains(t, strings.TrimSpace(lines[i])+" ", count)
		}
	})
	bubble(t, "at most 64 are told at a time", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Connections = 1 })
		served := n.dial(t)
		served.ping()
		var waiting []*client
		for range 64 {
			c := n.dial(t)
			c.expect(told(1)) // and does not close
			waiting = append(waiting, c)
		}
		start := time.Now()
		for range 20 {
			assert.Empty(t, n.dial(t).end())
		}
		assert.Zero(t, time.Since(start))
		for _, c := range waiting {
			assert.Empty(t, c.end())
		}
		synctest.Wait()
		assert.Len(t, n.with("limit=Connections"), 1)
		time.Sleep(2 * time.Second) // until the waiting ones are given up
		c := n.dial(t)
		assert.Equal(t, told(1), c.end())
		assert.Len(t, n.with("refused=84"), 1) // 63 that were told, 20 that were not, and the last
		served.ping()
	})
	bubble(t, "none", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Connections = -1 })
		for range 300 {
			n.dial(t).ping()
		}
		assert.Empty(t, n.all())
	})
	bubble(t, "a newcomer who says nothing and stays", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.Limits.Connections = 1 })
		n.dial(t).ping()
		over := n.dial(t)
		over.expect(told(1))
		require.NoError(t, over.SetReadDeadline(time.Now().Add(time.Hour)))
		over.end()
		// The server has let go of it: what is sent now is answered by a reset.
		time.Sleep(1100 * time.Millisecond)
		_, _ = io.WriteString(over.Conn, "x")
		_, err := io.WriteString(over.Conn, "x")
		assert.Error(t, err)
	})
}

// TestWriteBufferOfPeer shows that a peer that does not read its replies while
// it sends commands is cut in the end, and is not read from meanwhile.
func TestPeerThatOnlySends(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) { e.AddHandleFunc("BIG", flood(8<<10, 8<<10)) })
		c := n.dial(t)
		sent := 0
		require.NoError(t, c.SetWriteDeadline(time.Now().Add(time.Minute)))
		for {
			k, err := io.WriteString(c.Conn, "BIG\n")
			sent += k
			if err != nil {
				break
			}
		}
		synctest.Wait()
		assert.Less(t, sent, 2*memnet.DefaultBuffer)
		n.only(t, "limit=Progress", "took too little", c.local())
	})
}

// TestSlowloris: 1,000 peers that send a byte a second are all gone after 10 s,
// one that behaves notices nothing.
func TestSlowloris(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		n := memNode(t, nil)
		good := n.dial(t)
		var slow sync.WaitGroup
		for range 1000 {
			c := n.dial(t)
			slow.Go(func() {
				start := time.Now()
				for {
					if _, err := c.Write([]byte{'x'}); err != nil {
						break
					}
					time.Sleep(time.Second)
				}
				assert.LessOrEqual(t, time.Since(start), 12*time.Second)
				_ = c.Close()
			})
		}
		for range 150 {
			start := time.Now()
			good.ping()
			assert.Zero(t, time.Since(start))
			time.Sleep(100 * ms)
		}
		slow.Wait()
		assert.Len(t, n.with("limit=Progress"), 1000)
		assert.Len(t, n.all(), 1000)
	})
}
