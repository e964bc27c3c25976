package endpoint_test

import (
	"bufio"
	"context"
	"io"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRow39Panics: handlers of each kind that panic in each way, some after
// they have answered, thousands of them beside good calls on the same session:
// each caller is told an incident and nothing more, the log has that incident
// once, with the stack, and nothing is left.
func TestRow39Panics(t *testing.T) {
	ways := []string{"panic", "panic error", "panic nil", "panic nil error", "nil pointer", "goexit"}
	var w witness
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		w.register(e)
		fail.Handle(e, misbehave)
		echoStream.Handle(e, func(ctx context.Context, s *endpoint.Stream[line, line]) error {
			l, err := s.Recv()
			if err == nil {
				err = s.Send(line{"answer"})
			}
			if err != nil {
				return err
			}
			_, err = misbehave(ctx, text{l.Text})
			return err
		})
		e.Handle("RAW", endpoint.ServeFunc(func(ctx context.Context, rw *bufio.ReadWriter) error {
			how, err := rw.ReadString('\n')
			if err != nil {
				return err
			}
			_, _ = rw.WriteString("answer\n")
			if err := rw.Flush(); err != nil {
				return err
			}
			_, _ = rw.WriteString("what the panic leaves")
			_, err = misbehave(ctx, text{strings.TrimSuffix(how, "\n")})
			return err
		}))
	})
	w.start(t, n, patience)
	c := dialNode(t, n, nil)
	before := runtime.NumGoroutine()
	each := longOr(10_000, 500) / 10
	var mu sync.Mutex
	told := make(map[string]int)
	var good atomic.Int64
	stop := make(chan struct{})
	var beside, wg sync.WaitGroup
	for range 3 {
		beside.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				want := strings.Repeat(strconv.Itoa(i), 1+i%500)
				got, err := fail.Call(t.Context(), c, text{want})
				assert.NoError(t, err)
				assert.Equal(t, want, got.S)
				good.Add(1)
			}
		})
	}
	for g := range 10 {
		wg.Go(func() {
			for i := range each {
				err := panicOnce(t, c, i%3, ways[(g+i)%len(ways)])
				e := failure(t, err)
				assert.Equal(t, endpoint.Internal, e.Code, "%v", err)
				assert.Equal(t, endpoint.OutcomeFailed, e.Outcome, "%v", err)
				id := incidentID.FindStringSubmatch(e.Message)
				if assert.NotNil(t, id, "%v", err) {
					assert.Equal(t, "internal error; the log of the answering side has it as incident "+id[1], e.Message, "and nothing more")
					mu.Lock()
					told[id[1]]++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	beside.Wait()
	w.end(t)
	assert.Positive(t, good.Load())
	assert.Equal(t, map[string]uint64{"panic": uint64(10 * each)}, n.Counts())
	logged := regexp.MustCompile(`level=ERROR msg="command panicked" command=.* incident=([0-9a-f]{8}) error=.* stack=.*endpoint_test`)
	found := 0
	for _, line := range n.all() {
		id := logged.FindStringSubmatch(line)
		if assert.NotNil(t, id, "%s", line) {
			found++
			mu.Lock()
			told[id[1]]--
			mu.Unlock()
		}
	}
	assert.Equal(t, 10*each, found)
	for id, left := range told {
		assert.Zero(t, left, "incident %s", id)
	}
	t.Logf("%d panics, %d good calls beside them", found, good.Load())
	assertReleased(t, n)
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+250 }, patience, ms, "workers at most")
}

// panicOnce makes a handler of one of three kinds misbehave.
func panicOnce(t *testing.T, c *endpoint.Client, kind int, how string) error {
	switch kind {
	case 0:
		_, err := fail.Call(t.Context(), c, text{how})
		return err
	case 1:
		s, err := echoStream.Open(t.Context(), c)
		if err != nil {
			return err
		}
		defer func() { assert.NoError(t, s.Close()) }()
		if err := s.Send(line{how}); err != nil {
			return err
		}
		got, err := s.Recv()
		assert.NoError(t, err, "what was sent before comes first")
		assert.Equal(t, "answer", got.Text)
		_, err = s.Recv()
		return err
	}
	conn, err := c.Open(t.Context(), "RAW")
	if err != nil {
		return err
	}
	defer func() { assert.NoError(t, conn.Close()) }()
	if _, err := conn.WriteString(how + "\n"); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	all, err := io.ReadAll(conn)
	assert.Equal(t, "answer\n", string(all))
	return err
}

// TestRow39PanicsInCallsBack: the same of handlers on the side that dialed.
func TestRow39PanicsInCallsBack(t *testing.T) {
	callee, c, back := calledBack(t, func(e *endpoint.Endpoint) {
		fail.Handle(e, misbehave)
		streamCommands(e)
	})
	for _, how := range []string{"panic", "nil pointer", "goexit"} {
		_, err := fail.Call(t.Context(), back, text{how})
		assertFailed(t, err, endpoint.Internal, endpoint.OutcomeFailed, "incident")
		s, err := echoStream.Open(t.Context(), back)
		require.NoError(t, err)
		require.NoError(t, s.Send(line{"panic"}))
		_, err = s.Recv()
		assertFailed(t, err, endpoint.Internal, endpoint.OutcomeFailed, "incident")
		got, err := fail.Call(t.Context(), back, text{"fine"})
		require.NoError(t, err)
		assert.Equal(t, "fine", got.S)
	}
	assert.EqualValues(t, 6, callee.Counts()["panic"])
	_, err := fail.Call(t.Context(), c, text{"fine"})
	require.NoError(t, err)
	require.NoError(t, callee.Close(), "nothing runs any more")
}
