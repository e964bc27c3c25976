package endpoint_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A four takes 64 bytes, 32 on 386, of one byte on the wire.
type four struct{ A, B, C, D string }

const (
	fourSize = int(unsafe.Sizeof(four{}))
	intSize  = strconv.IntSize / 8
)

const holdOn endpoint.Command[text, empty] = "HOLD"

// holding registers HOLD, which waits for a receive from release.
func holding(e *endpoint.Endpoint) (entered chan string, release chan struct{}) {
	entered, release = make(chan string, 1000), make(chan struct{})
	holdOn.Handle(e, func(_ context.Context, req text) (empty, error) {
		entered <- req.S
		<-release
		return empty{}, nil
	})
	return entered, release
}

// TestLimitMessage: a gob of exactly Limits.Message runs. One of a byte more
// is refused at the head of the message that is too much, so its end is unknown.
func TestLimitMessage(t *testing.T) {
	request := gobOf(t, text{strings.Repeat("x", 900)})
	for limit, answer := range map[int]string{
		len(request):     "OK\n",
		len(request) - 1: fmt.Sprintf("ERR resource_exhausted not_run gob: message bytes: %d, more than %d\n", len(request), len(request)-1),
	} {
		n := tcpNode(t, func(e *endpoint.Endpoint) {
			e.Limits.Message = limit
			handleSize[text](e, "TAKE")
		})
		c := n.dial(t)
		c.send("TAKE\n" + request)
		c.expect(answer)
		if strings.HasPrefix(answer, "OK") {
			c.ping()
		} else {
			assert.Empty(t, c.end())
		}
		assertReleased(t, n)
	}
}

// TestLimitDecoded: the figure is that of the codec, the answer names the field,
// and the connection goes on.
func TestLimitDecoded(t *testing.T) {
	type list struct{ L []four }
	request := gobOf(t, list{L: make([]four, 10_000)})
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.Decoded = 10_000 * fourSize
		handleSize[list](e, "TAKE")
	})
	c := n.dial(t)
	c.send("TAKE\n" + request)
	c.expect("OK\n")
	c.ping()
	c.send("TAKE\n" + gobOf(t, list{L: make([]four, 10_001)}))
	c.expect(fmt.Sprintf("ERR resource_exhausted not_run endpoint_test.list.L: decoded bytes: %d, more than %d\n", 10_001*fourSize, 10_000*fourSize))
	c.ping()
	assertReleased(t, n)
}

// TestLimitInFlight reaches the limit by calls under way; refused ones are
// read to their end and go on, and all is given back.
func TestLimitInFlight(t *testing.T) {
	var entered chan string
	var release chan struct{}
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.InFlight = 3*endpoint.LeastCharge + 100
		entered, release = holding(e)
		nothing.Handle(e, func(context.Context, empty) (empty, error) { return empty{}, nil })
		askText.Handle(e, func(context.Context, empty) (text, error) { entered <- ""; <-release; return text{}, nil })
	})
	const full = "ERR resource_exhausted not_run the calls under way hold all of the 24676 bytes that they may: try again later\n"
	holders := []*client{n.dial(t), n.dial(t), n.dial(t)}
	for i, c := range holders {
		c.send("ASK\n")
		<-entered
		assert.EqualValues(t, (i+1)*endpoint.LeastCharge, n.Held(), "a call is charged 8 KiB at least")
	}
	c := n.dial(t)
	for range 3 {
		c.send("NOTHING\n" + "NOTHING {}\n" + "HOLD\n" + gobOf(t, text{"x"}) + "HOLD\n" + gobOf(t, text{strings.Repeat("x", 2<<20)}) + `HOLD {"S":"x"}` + "\n")
		for range 5 {
			c.expect(full)
		}
		c.ping()
	}
	to := openConn(t, n, nil)
	_, err := holdOn.Call(t.Context(), to, text{"x"})
	assertFailed(t, err, endpoint.ResourceExhausted, endpoint.OutcomeNotRun, "try again later")
	_, err = holdOn.Call(t.Context(), n.Endpoint, text{"x"})
	assertFailed(t, err, endpoint.ResourceExhausted, endpoint.OutcomeNotRun, "try again later")
	assert.EqualValues(t, 3*endpoint.LeastCharge, n.Held())
	assert.Empty(t, entered, "none of them ran")
	close(release)
	for _, c := range holders {
		c.expect("OK\n")
	}
	assertReleased(t, n)
	_, err = nothing.Call(t.Context(), to, empty{})
	require.NoError(t, err, "the refused caller goes on")
}

// TestInFlightFigures: what a call is charged while its handler runs.
func TestInFlightFigures(t *testing.T) {
	type list struct{ L []four }
	entered, release := make(chan int), make(chan struct{})
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.InFlight = 8 << 20
		endpoint.Command[list, empty]("TAKE").Handle(e, func(_ context.Context, l list) (empty, error) {
			entered <- len(l.L)
			<-release
			return empty{}, nil
		})
	})
	for _, count := range []int{1, 100, 1000, 10_000, 100_000} {
		request := gobOf(t, list{L: make([]four, count)})
		c := n.dial(t)
		c.send("TAKE\n" + request)
		assert.Equal(t, count, <-entered)
		assert.InDelta(t, max(endpoint.LeastCharge, len(request)+fourSize*count), n.Held(), float64(fourSize*count)/10+64)
		release <- struct{}{}
		c.expect("OK\n")
		assertReleased(t, n)
	}
	// What cannot be held at all is refused as too large by itself.
	c := n.dial(t)
	c.send("TAKE\n" + gobOf(t, list{L: make([]four, 300_000)}))
	assert.Regexp(t, fmt.Sprintf(`^ERR resource_exhausted not_run .*decoded bytes: %d, more than \d+$`, 300_000*fourSize), c.line())
	c.ping()
	assertReleased(t, n)
}

// TestInFlightManyTries: messages that decode to more than the first allowance
// do not shut each other out while there is room.
func TestInFlightManyTries(t *testing.T) {
	type list struct{ L []four }
	release := make(chan struct{})
	var running atomic.Int32
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		endpoint.Command[list, empty]("TAKE").Handle(e, func(context.Context, list) (empty, error) {
			running.Add(1)
			<-release
			return empty{}, nil
		})
	})
	request := "TAKE\n" + gobOf(t, list{L: make([]four, 16_000)}) // 16 KB for 1 MB
	var wg sync.WaitGroup
	for range 32 {
		c := n.dial(t)
		wg.Go(func() {
			c.send(request)
			c.expect("OK\n")
		})
	}
	assert.Eventually(t, func() bool { return running.Load() == 32 }, patience, time.Millisecond, "%d run", running.Load())
	close(release)
	wg.Wait()
	assertReleased(t, n)
}

// TestInFlightUnlimited: no bound on what a message decodes to does not unbound
// the calls together; no bound at all is no bound.
func TestInFlightUnlimited(t *testing.T) {
	request := "NUMBERS\n" + gobOf(t, make([]int, 3<<20))
	decoded := 3 << 20 * intSize
	for limits, answer := range map[endpoint.Limits]string{
		{Decoded: -1, InFlight: decoded}: fmt.Sprintf("ERR resource_exhausted not_run []int: decoded bytes: %d, more than", decoded),
		{Decoded: -1, InFlight: -1}:      "OK",
		{Decoded: -1}:                    "OK",
		{InFlight: -1}:                   "OK",
		{Decoded: decoded - 1}:           fmt.Sprintf("ERR resource_exhausted not_run []int: decoded bytes: %d, more than %d", decoded, decoded-1),
		{Message: -1, Decoded: -1, InFlight: -1, Progress: -1, Idle: -1}: "OK",
	} {
		n := tcpNode(t, func(e *endpoint.Endpoint) {
			e.Limits = limits
			numbers.Handle(e, func(_ context.Context, l []int) (int, error) { return len(l), nil })
		})
		c := n.dial(t)
		c.send(request)
		assert.True(t, strings.HasPrefix(c.line(), answer), "%+v", limits)
		assertReleased(t, n)
	}
}

// TestInFlightSlowSenders: 200 connections send 4 MiB each, a little at a time.
// What the process holds for them stays within the limit.
func TestInFlightSlowSenders(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("takes 100 MB and a while")
	}
	const conns, limit = 200, 64 << 20
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.InFlight = limit
		handleSize[text](e, "TAKE")
	})
	request := "TAKE\n" + gobOf(t, text{strings.Repeat("x", 4<<20-200)})
	senders := make([]*client, conns)
	for i := range senders {
		senders[i] = n.dial(t)
		senders[i].ping()
	}
	runtime.GC()
	var before, m runtime.MemStats
	runtime.ReadMemStats(&before)
	most, mostHeld := uint64(0), int64(0)
	for at := 0; at < len(request); at += 64 << 10 {
		for _, c := range senders {
			c.send(request[at:min(len(request), at+64<<10)])
		}
		if at/(64<<10)%8 == 0 {
			// What was grown out of while a collection ran is garbage, but counted.
			heap := uint64(1 << 62)
			for range 3 {
				runtime.GC()
				runtime.ReadMemStats(&m)
				heap = min(heap, m.HeapAlloc)
				mostHeld = max(mostHeld, n.Held())
			}
			most = max(most, heap-min(before.HeapAlloc, heap))
		}
	}
	t.Logf("at most %d MiB of heap, %d MiB accounted for", most>>20, mostHeld>>20)
	assert.LessOrEqual(t, mostHeld, int64(limit))
	assert.Less(t, most, uint64(limit+32<<20), "200 connections with buffers, and what they hold")
	answers := map[string]int{}
	for _, c := range senders {
		word, _, _ := strings.Cut(c.line(), " ")
		answers[word]++
		c.ping() // all were read to their end
	}
	t.Log(answers)
	assert.NotZero(t, answers["OK"])
	assert.NotZero(t, answers["ERR"])
	assertReleased(t, n)
}

// TestInFlightRandom: calls of all kinds end in all ways; at the end nothing is
// held.
func TestInFlightRandom(t *testing.T) {
	random := seeded(t)
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.InFlight = 2 << 20
		e.Limits.Message = 1 << 20
		fail.Handle(e, func(ctx context.Context, req text) (text, error) {
			return misbehave(ctx, text{strings.TrimRight(req.S, "x")})
		})
		copyBack.Handle(e, func(_ context.Context, v everything) (everything, error) { return v, nil })
		nothing.Handle(e, func(context.Context, empty) (empty, error) { return empty{}, nil })
		numbers.Handle(e, func(ctx context.Context, l []int) (int, error) {
			if len(l) == 0 {
				_ = endpoint.PeerFrom(ctx).Close()
			}
			return numbers.Call(ctx, e, nil)
		})
	})
	var requests []string
	for _, how := range []string{"panic", "goexit", "abort", "nil pointer", "fine"} {
		requests = append(requests, "FAIL\n"+gobOf(t, text{how}), fmt.Sprintf("FAIL {\"S\":%q}\n", how), "FAIL\n"+gobOf(t, text{how + strings.Repeat("x", 300_000)}))
	}
	requests = append(requests, "COPY\n"+gobOf(t, sample()), "NOTHING\n", "NOTHING {}\n", "NOTHING {\"X\":1}\n", "COPY {}\n", "COPY {\n",
		"NUMBERS\n"+gobOf(t, []int{}), "NUMBERS [1,2]\n", "NUMBERS\n"+gobOf(t, text{"x"}), "NUMBERS\n"+gobOf(t, make([]int, 900_000)),
		"NUMBERS\n\x00", "NUMBERS\n\xf8\xff", "PING\n")
	var wg sync.WaitGroup
	for range 16 {
		var script strings.Builder
		for range 30 {
			script.WriteString(requests[random.IntN(len(requests))])
		}
		bytes := script.String()
		if random.IntN(2) == 0 {
			bytes = bytes[:random.IntN(len(bytes))] // the connection breaks within
		}
		broken := random.IntN(2) == 0
		c, err := net.Dial("tcp", n.net.Addr().String())
		require.NoError(t, err)
		wg.Go(func() {
			defer c.Close()
			go func() { // ends with the connection
				_, _ = io.WriteString(c, bytes)
				if !broken {
					_ = c.(*net.TCPConn).CloseWrite()
				} else {
					_ = c.(*net.TCPConn).SetLinger(0)
					_ = c.Close()
				}
			}()
			_, _ = io.Copy(io.Discard, c)
		})
	}
	wg.Wait()
	require.NoError(t, n.Close())
	assert.Zero(t, n.Held())
}

// TestProgressOfData: data may trickle as long as every 64 KiB takes no more
// than Limits.Progress; else the connection is closed without a word.
func TestProgressOfData(t *testing.T) {
	request := gobOf(t, text{random64(300 << 10)})
	for name, test := range map[string]struct {
		step  int
		every time.Duration
		after time.Duration // at which the connection is cut; 0: it is answered
	}{
		"fast enough, barely":      {step: 7300, every: time.Second},
		"64 KiB in just under 10s": {step: 64 << 10, every: 9999 * time.Millisecond},
		"too slow":                 {step: 6500, every: time.Second, after: 10 * time.Second},
		"too slow from the middle": {step: 64 << 10, every: 10001 * time.Millisecond, after: 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memNode(t, func(e *endpoint.Endpoint) { handleSize[text](e, "TAKE") })
				c := n.dial(t)
				begin := time.Now()
				c.send("TAKE\n")
				var got strings.Builder
				done := make(chan time.Time)
				go func() {
					_, _ = io.Copy(&got, io.LimitReader(c.r, 3))
					done <- time.Now()
				}()
				go func() {
					for rest := request; len(rest) > 0; {
						k := min(test.step, len(rest))
						if _, err := io.WriteString(c.Conn, rest[:k]); err != nil {
							return
						}
						rest = rest[k:]
						time.Sleep(test.every)
					}
				}()
				at := <-done
				if test.after == 0 {
					assert.Equal(t, "OK\n", got.String())
				} else {
					assert.Empty(t, got.String())
					assert.Equal(t, test.after, at.Sub(begin))
					assert.NotEmpty(t, n.with("Progress"), "%q", n.all())
				}
				time.Sleep(time.Minute) // the senders end
				assert.Zero(t, n.Held())
			})
		})
	}
}

// random64 returns n characters without repetitions that a buffer could hide.
func random64(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	for i := range b {
		b[i] = 'A' + b[i]%26
	}
	return string(b)
}

// TestProgressOfReply: a peer that takes no reply is cut off, and holds nothing.
func TestProgressOfReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memNode(t, func(e *endpoint.Endpoint) {
			askText.Handle(e, func(context.Context, empty) (text, error) { return text{strings.Repeat("x", 1<<20)}, nil })
		})
		c := n.dial(t)
		begin := time.Now()
		c.send("ASK\n")
		time.Sleep(9 * time.Second)
		synctest.Wait()
		assert.NotZero(t, n.Held())
		for n.Held() > 0 {
			time.Sleep(time.Second / 10)
			synctest.Wait()
		}
		assert.InDelta(t, 10, time.Since(begin).Seconds(), 0.11)
		assert.NotEmpty(t, n.with("Progress", "took too little"), "%q", n.all())
	})
}

// TestReadGobInFlight: raw handlers that read gobs are bounded together, too.
func TestReadGobInFlight(t *testing.T) {
	request := gobOf(t, text{strings.Repeat("x", 100<<10)})
	limits := endpoint.Limits{InFlight: 150 << 10}
	first, firstFar := memnet.Pipe()
	defer first.Close()
	got := make(chan error)
	go func() {
		var v text
		got <- endpoint.ReadGob(bufio.NewReader(first), &v, limits)
	}()
	_, err := io.WriteString(firstFar, request[:90<<10])
	require.NoError(t, err)
	require.Eventually(t, func() bool { return endpoint.HeldByReadGob() > 80<<10 }, patience, time.Millisecond)
	var v text
	r := bufio.NewReader(strings.NewReader(request + "rest"))
	err = endpoint.ReadGob(r, &v, limits)
	assertFailed(t, err, endpoint.ResourceExhausted, endpoint.OutcomeNotRun, "try again later")
	rest, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Equal(t, "rest", string(rest))
	require.NoError(t, firstFar.Close())
	assert.ErrorIs(t, <-got, io.ErrUnexpectedEOF)
	assert.Zero(t, endpoint.HeldByReadGob())
}
