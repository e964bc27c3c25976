package memnet_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/memnet"
)

func TestPipeCarriesBytesBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe()
		for _, ends := range [][2]*memnet.Conn{{a, b}, {b, a}} {
			_, err := ends[0].Write([]byte("hello"))
			require.NoError(t, err)
			require.NoError(t, ends[0].CloseWrite())
			got, err := io.ReadAll(ends[1])
			require.NoError(t, err)
			assert.Equal(t, "hello", string(got))
		}
	})
}

func TestAddresses(t *testing.T) {
	l := memnet.Listen()
	host, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	assert.Equal(t, "1", port)
	assert.Equal(t, "mem", l.Addr().Network())
	assert.NotEqual(t, l.Addr(), memnet.Listen().Addr())

	for _, want := range []string{"2", "3"} {
		c, err := l.Dial(t.Context())
		require.NoError(t, err)
		s, err := l.Accept()
		require.NoError(t, err)
		assert.Equal(t, net.JoinHostPort(host, want), c.LocalAddr().String())
		assert.Equal(t, l.Addr(), c.RemoteAddr())
		assert.Equal(t, l.Addr(), s.LocalAddr())
		assert.Equal(t, c.LocalAddr(), s.RemoteAddr())
	}
	a, b := memnet.Pipe()
	assert.Equal(t, memnet.Addr("pipe:1"), a.LocalAddr())
	assert.Equal(t, memnet.Addr("pipe:2"), b.LocalAddr())
}

// A Write takes what the buffer holds, to the byte, and no more.
func TestBufferSize(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(l *memnet.Listener, c, s *memnet.Conn)
		c, s int // what each end can write
	}{
		{"default", func(*memnet.Listener, *memnet.Conn, *memnet.Conn) {}, 64 << 10, 64 << 10},
		{"one direction", func(_ *memnet.Listener, c, _ *memnet.Conn) { c.SetBuffer(1) }, 1, 64 << 10},
		{"other direction", func(_ *memnet.Listener, _, s *memnet.Conn) { s.SetBuffer(4096) }, 64 << 10, 4096},
		{"back to default", func(_ *memnet.Listener, c, _ *memnet.Conn) { c.SetBuffer(7); c.SetBuffer(0) }, 64 << 10, 64 << 10},
		{"too late for a listener", func(l *memnet.Listener, _, _ *memnet.Conn) { l.SetBuffer(9) }, 64 << 10, 64 << 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := memnet.Listen()
				dialled, err := l.Dial(t.Context())
				require.NoError(t, err)
				accepted, err := l.Accept()
				require.NoError(t, err)
				c, s := dialled.(*memnet.Conn), accepted.(*memnet.Conn)
				tc.set(l, c, s)
				assert.Equal(t, tc.c, capacity(t, c))
				assert.Equal(t, tc.s, capacity(t, s))
			})
		})
	}
	t.Run("listener", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := memnet.Listen()
			for n, want := range map[int]int{4096: 4096, -1: memnet.DefaultBuffer} {
				l.SetBuffer(n)
				c, err := l.Dial(t.Context())
				require.NoError(t, err)
				s, err := l.Accept()
				require.NoError(t, err)
				assert.Equal(t, want, capacity(t, c))
				assert.Equal(t, want, capacity(t, s))
			}
		})
	})
}

// capacity returns how many bytes c writes before its deadline, unread.
func capacity(t *testing.T, c net.Conn) int {
	t.Helper()
	require.NoError(t, c.SetWriteDeadline(time.Now().Add(time.Second)))
	n, err := c.Write(make([]byte, 1<<20))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, c.SetWriteDeadline(time.Time{}))
	return n
}

func TestSetBufferFreesABlockedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := memnet.Pipe()
		a.SetBuffer(10)
		done := writeAsync(a, make([]byte, 15))
		synctest.Wait()
		assert.Empty(t, done)
		a.SetBuffer(15)
		assert.Equal(t, "15 ok", <-done)

		a.SetBuffer(10) // less than is in it
		require.NoError(t, a.SetWriteDeadline(time.Now().Add(time.Second)))
		n, err := a.Write([]byte("x"))
		assert.Zero(t, n)
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
}

// Two peers that both write before they read stand still, as they do over TCP,
// once each has more to say than a buffer holds.
func TestWriteDeadlockIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe()
		a.SetBuffer(4096)
		b.SetBuffer(4096)
		fromA, fromB := writeAsync(a, make([]byte, 5000)), writeAsync(b, make([]byte, 5000))
		synctest.Wait()
		assert.Empty(t, fromA)
		assert.Empty(t, fromB)
		_, err := io.ReadFull(b, make([]byte, 904))
		require.NoError(t, err)
		synctest.Wait()
		assert.Len(t, fromA, 1)
		assert.Empty(t, fromB)
		a.Reset()
		assert.Contains(t, <-fromB, "4096 write: write: connection reset by peer")
	})
}

// writeAsync writes p in a goroutine, which ends with the Write, and sends the outcome.
func writeAsync(c net.Conn, p []byte) <-chan string {
	done := make(chan string, 1)
	go func() { done <- outcome(c.Write(p)) }()
	return done
}

// readAsync reads once in a goroutine, which ends with the Read, and sends the outcome.
func readAsync(c net.Conn) <-chan string {
	done := make(chan string, 1)
	go func() { done <- outcome(c.Read(make([]byte, 16))) }()
	return done
}

func TestDeadlines(t *testing.T) {
	never := time.Time{}
	for _, tc := range []struct {
		name  string
		apply func(c *memnet.Conn, start time.Time) // before the calls
		later func(c *memnet.Conn, start time.Time) // 5 s into them
		read  time.Duration                         // when Read fails
		write time.Duration                         // when Write fails
	}{
		{name: "both", apply: func(c *memnet.Conn, s time.Time) { _ = c.SetDeadline(s.Add(10 * time.Second)) }, read: 10 * time.Second, write: 10 * time.Second},
		{name: "one each", apply: func(c *memnet.Conn, s time.Time) {
			_ = c.SetReadDeadline(s.Add(20 * time.Hour))
			_ = c.SetWriteDeadline(s.Add(7*time.Second + 1))
		}, read: 20 * time.Hour, write: 7*time.Second + 1},
		{name: "past", apply: func(c *memnet.Conn, s time.Time) { _ = c.SetDeadline(s.Add(-time.Hour)) }},
		{name: "now", apply: func(c *memnet.Conn, s time.Time) { _ = c.SetDeadline(s) }},
		{name: "without a monotonic reading", apply: func(c *memnet.Conn, s time.Time) {
			_ = c.SetDeadline(s.Add(time.Second).Round(0).UTC())
		}, read: time.Second, write: time.Second},
		{name: "set under way", later: func(c *memnet.Conn, s time.Time) { _ = c.SetDeadline(s.Add(6 * time.Second)) }, read: 6 * time.Second, write: 6 * time.Second},
		{name: "set to the past under way", later: func(c *memnet.Conn, _ time.Time) { _ = c.SetDeadline(time.Unix(1, 0)) }, read: 5 * time.Second, write: 5 * time.Second},
		{
			name:  "put off",
			apply: func(c *memnet.Conn, s time.Time) { _ = c.SetDeadline(s.Add(6 * time.Second)) },
			later: func(c *memnet.Conn, s time.Time) { _ = c.SetDeadline(s.Add(60 * time.Second)) },
			read:  time.Minute, write: time.Minute,
		},
		{
			name:  "taken away from Read",
			apply: func(c *memnet.Conn, s time.Time) { _ = c.SetDeadline(s.Add(6 * time.Second)) },
			later: func(c *memnet.Conn, s time.Time) {
				_ = c.SetReadDeadline(never)
				time.AfterFunc(time.Hour, func() { _ = c.SetReadDeadline(time.Now()) })
			},
			read: time.Hour + 5*time.Second, write: 6 * time.Second,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := memnet.Pipe()
				a.SetBuffer(3)
				start := time.Now()
				if tc.apply != nil {
					tc.apply(a, start)
				}
				if tc.later != nil {
					time.AfterFunc(5*time.Second, func() { tc.later(a, start) })
				}
				written := make(chan time.Duration, 1)
				go func() {
					n, err := a.Write(make([]byte, 10))
					assertTimeout(t, err)
					if tc.write > 0 {
						assert.Equal(t, 3, n)
					} else {
						assert.Zero(t, n)
					}
					written <- time.Since(start)
				}()
				n, err := a.Read(make([]byte, 1))
				assert.Zero(t, n)
				assertTimeout(t, err)
				assert.Equal(t, tc.read, time.Since(start))
				assert.Equal(t, tc.write, <-written)
			})
		})
	}
}

func assertTimeout(t *testing.T, err error) {
	t.Helper()
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	ne, ok := errors.AsType[net.Error](err)
	assert.True(t, ok && ne.Timeout(), "%v", err)
}

// A connection works again when the deadline that passed is moved.
func TestDeadlineIsNotTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe()
		_, err := b.Write([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, a.SetDeadline(time.Now()))
		_, err = a.Read(make([]byte, 1))
		assertTimeout(t, err)
		_, err = a.Write([]byte("y"))
		assertTimeout(t, err)
		require.NoError(t, a.SetDeadline(time.Time{}))
		assert.Equal(t, "1 ok", outcome(a.Read(make([]byte, 1))))
		assert.Equal(t, "1 ok", outcome(a.Write([]byte("y"))))
	})
}

func TestConcurrentWritesStayWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const writers, size = 8, 1000
		a, b := memnet.Pipe()
		a.SetBuffer(7)
		var done []<-chan string
		for i := range writers {
			done = append(done, writeAsync(a, bytes.Repeat([]byte{byte(i)}, size)))
		}
		seen := make(map[byte]bool)
		for range writers {
			p := make([]byte, size)
			_, err := io.ReadFull(b, p)
			require.NoError(t, err)
			assert.Equal(t, bytes.Repeat(p[:1], size), p)
			seen[p[0]] = true
		}
		assert.Len(t, seen, writers)
		for _, d := range done {
			assert.Equal(t, "1000 ok", <-d)
		}
	})
}

// A Write that waits for another one is not beyond the reach of deadlines and Close.
func TestWriteBehindAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe()
		a.SetBuffer(3)
		first := writeAsync(a, []byte("abcdef"))
		synctest.Wait()
		second := writeAsync(a, []byte("gh"))
		synctest.Wait()
		_, err := io.ReadFull(b, make([]byte, 2))
		require.NoError(t, err)
		synctest.Wait()
		assert.Empty(t, second, "cut into the first")
		require.NoError(t, a.SetWriteDeadline(time.Now()))
		assert.Contains(t, <-first, "5 write: i/o timeout")
		assert.Contains(t, <-second, "0 write: i/o timeout")
		require.NoError(t, a.SetWriteDeadline(time.Time{}))
		got := make([]byte, 3)
		_, err = io.ReadFull(b, got)
		require.NoError(t, err)
		assert.Equal(t, "cde", string(got))
	})
}

func TestBlockedCallsEnd(t *testing.T) {
	for _, tc := range []struct {
		name        string
		end         func(a, b *memnet.Conn)
		read, write string
	}{
		{"own Close", func(a, _ *memnet.Conn) { _ = a.Close() }, "0 read: use of closed network connection", "4 write: use of closed network connection"},
		{"own Reset", func(a, _ *memnet.Conn) { a.Reset() }, "0 read: use of closed network connection", "4 write: use of closed network connection"},
		{"own CloseWrite", func(a, b *memnet.Conn) { _ = a.CloseWrite(); _, _ = b.Write([]byte("z")) }, "1 ok", "4 write: write: broken pipe"},
		{"peer's CloseWrite", func(_, b *memnet.Conn) { _ = b.CloseWrite(); _, _ = io.ReadFull(b, make([]byte, 9)) }, "0 EOF", "9 ok"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := connect(t)
				a.SetBuffer(4)
				read, written := readAsync(a), writeAsync(a, make([]byte, 9))
				synctest.Wait()
				tc.end(a, b)
				assert.Contains(t, <-read, tc.read)
				assert.Contains(t, <-written, tc.write)
			})
		})
	}
	// The two that wait share one reset, and only one of them hears of it.
	t.Run("peer's Close with data unread", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := connect(t)
			a.SetBuffer(4)
			read, written := readAsync(a), writeAsync(a, make([]byte, 9))
			synctest.Wait()
			require.NoError(t, b.Close())
			r, w := <-read, <-written
			if r == "0 EOF" {
				assert.Contains(t, w, "4 write: write: connection reset by peer")
			} else {
				assert.Contains(t, r, "0 read: read: connection reset by peer")
				assert.Contains(t, w, "4 write: write: broken pipe")
			}
		})
	})
}

func TestWriteToAClosedPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe()
		_, err := b.Write([]byte("bye"))
		require.NoError(t, err)
		require.NoError(t, b.Close())
		assert.Equal(t, "0 ok", outcome(a.Write(nil)))
		assert.Equal(t, "5 ok", outcome(a.Write([]byte("hello"))))
		n, err := a.Write([]byte("hello"))
		assert.Zero(t, n)
		assert.ErrorIs(t, err, syscall.EPIPE)
		got, err := io.ReadAll(a)
		require.NoError(t, err)
		assert.Equal(t, "bye", string(got))

		c, d := memnet.Pipe()
		c.SetBuffer(4)
		require.NoError(t, d.Close())
		n, err = c.Write([]byte("hello"))
		assert.Equal(t, 4, n)
		assert.ErrorIs(t, err, syscall.EPIPE)
	})
}

func TestResetLosesWhatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe()
		_, err := a.Write([]byte("to b"))
		require.NoError(t, err)
		_, err = b.Write([]byte("to a"))
		require.NoError(t, err)
		b.Reset()
		b.Reset()
		_, err = a.Read(make([]byte, 4))
		assert.ErrorIs(t, err, syscall.ECONNRESET)
		_, err = b.Read(make([]byte, 4))
		assert.ErrorIs(t, err, net.ErrClosed)
		assert.ErrorIs(t, b.Close(), net.ErrClosed)
	})
}
