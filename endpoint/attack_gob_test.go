package endpoint_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/session"
	"gobnode/internal/wire"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// longOr is n with -long, and short without.
func longOr(n, short int) int {
	if *long {
		return n
	}
	return short
}

// handleBoth registers a unary command and a stream of Ts under name and
// name/STREAM. The stream fails with what Recv says.
func handleBoth[T any](e *endpoint.Endpoint, name string) {
	handleSize[T](e, name)
	endpoint.StreamCommand[T, empty](name+"/STREAM").Handle(e, func(_ context.Context, s *endpoint.Stream[T, empty]) error {
		for _, err := range s.All() {
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// sendGob sends any bytes as the one message of a call of either kind and
// returns what the endpoint says.
func sendGob(ctx context.Context, s *session.Session, name, data string) error {
	if !strings.HasSuffix(name, "/STREAM") {
		_, err := rawCall(ctx, s, name, data)
		return err
	}
	st, err := s.Open(ctx, &session.CallSpec{Name: name, Kind: wire.CallStream})
	if err != nil {
		return err
	}
	defer st.Cancel()
	if err := st.Send(ctx, []byte(data)); err != nil {
		return err
	}
	if err := st.CloseSend(); err != nil {
		return err
	}
	if err := st.Receive(ctx, func([]byte) error { return nil }); err != io.EOF { //nolint:errorlint // as it is returned
		return err
	}
	return nil
}

// assertRefusedGob asserts that a message was refused: before a unary command
// has run, to a handler that receives it of a stream.
func assertRefusedGob(t *testing.T, err error, name, what string) {
	t.Helper()
	var e *session.Error
	if !assert.ErrorAs(t, err, &e, what) {
		return
	}
	assert.Contains(t, []wire.Code{wire.InvalidArgument, wire.ResourceExhausted}, e.Code, "%s: %v", what, err)
	want := wire.OutcomeNotRun
	if strings.HasSuffix(name, "/STREAM") {
		want = wire.OutcomeFailed
	}
	assert.Equal(t, want, e.Outcome, "%s: %v", what, err)
}

// TestRow01To05GobsInSession: rows 1, 3, 4 and 5: every attack by gob, as the
// message of a unary call and on a stream. Each is refused in bounded memory, and
// the session goes on.
func TestRow01To05GobsInSession(t *testing.T) {
	const limit = 4 << 20
	var w witness
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.Decoded = limit
		w.register(e)
		handleBoth[hasMap](e, "MAP")
		handleBoth[hasInts](e, "INTS")
		handleBoth[hasA](e, "A")
		handleBoth[linked](e, "LINKED")
	})
	w.start(t, n, patience)
	s := rawSession(t, n)
	refused := map[string]int{}
	for _, a := range attacks(t) {
		for _, name := range []string{"MAP", "INTS", "A", "LINKED"} {
			for _, name := range []string{name, name + "/STREAM"} {
				what := a.name + " at " + name
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				err := sendGob(t.Context(), s, name, a.gob)
				runtime.ReadMemStats(&after)
				if !raceEnabled { // the message is in buffers of both sides
					assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2*limit+8*min(len(a.gob), 4<<20)+2<<20), what)
				}
				if err == nil {
					assert.NotContains(t, a.text, "count", what)
					continue
				}
				assertRefusedGob(t, err, name, what)
				refused[a.text]++
			}
		}
	}
	for _, text := range []string{"count", "depth", "definitions", "message bytes"} {
		assert.NotZero(t, refused[text], text)
	}
	require.NoError(t, sendGob(t.Context(), s, "A", gobOf(t, hasA{1})))
	w.end(t)
	assertReleased(t, n)
}

// TestRow01MapCountBombs: claims of 2^24, 2^31 and 2^62 entries, again and
// again on eight sessions at once.
func TestRow01MapCountBombs(t *testing.T) {
	var bombs []string
	for _, a := range attacks(t) {
		if strings.HasPrefix(a.name, "map of 2^") {
			bombs = append(bombs, a.gob)
		}
	}
	require.Len(t, bombs, 5)
	var w witness
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		w.register(e)
		handleBoth[hasMap](e, "MAP")
	})
	w.start(t, n, patience)
	each := longOr(1000, 100)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for g := range 8 {
		s := rawSession(t, n)
		wg.Go(func() {
			for i := range each {
				name := []string{"MAP", "MAP/STREAM"}[i%2]
				assertRefusedGob(t, sendGob(t.Context(), s, name, bombs[(g+i)%len(bombs)]), name, "bomb")
			}
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&after)
	w.end(t)
	perBomb := (after.TotalAlloc - before.TotalAlloc) / uint64(8*each)
	t.Logf("%d bytes allocated for each of %d bombs", perBomb, 8*each)
	if !raceEnabled {
		assert.Less(t, perBomb, uint64(32<<10))
	}
	assertReleased(t, n)
}

// heapPeak runs f and returns how far the heap rose meanwhile, in bytes.
func heapPeak(f func()) int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	base, peak := int64(m.HeapAlloc), int64(0)
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			runtime.ReadMemStats(&m)
			peak = max(peak, int64(m.HeapAlloc)-base)
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	f()
	close(done)
	<-stopped
	return peak
}

// TestRow02GobAmplification: 16 messages of 4 MiB at once, of elements that take
// a byte each on the wire: 4 KiB each decoded, or 16 bytes, which is within
// Limits.Decoded for the message alone and not for all of them.
func TestRow02GobAmplification(t *testing.T) {
	const decoded, inFlight, at, size = 64 << 20, 256 << 20, 16, 4<<20 - 1000
	elements := func(of string, n int) string {
		head, id := definitions(of)
		body := id + "\x01" + gobUint(n) + strings.Repeat("\x00", n) + "\x00"
		return head + gobUint(len(body)) + body
	}
	type list struct{ L []string }
	fats := elements(gobOf(t, hasList{L: make([]struct{ A [4096]byte }, 1)}), size)
	texts := elements(gobOf(t, list{L: []string{"x"}}), size/2)
	var w witness
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		e.Limits.Decoded, e.Limits.InFlight = decoded, inFlight
		w.register(e)
		handleBoth[hasList](e, "FAT")
		handleBoth[list](e, "TEXT")
	})
	w.start(t, n, patience)
	sessions := []*session.Session{rawSession(t, n), rawSession(t, n)}
	for name, message := range map[string]string{"FAT": fats, "FAT/STREAM": fats, "TEXT": texts, "TEXT/STREAM": texts} {
		var refused atomic.Int64
		rise := heapPeak(func() {
			var wg sync.WaitGroup
			for i := range at {
				wg.Go(func() {
					if err := sendGob(t.Context(), sessions[i%2], name, message); err != nil {
						refused.Add(1)
						var e *session.Error
						if assert.ErrorAs(t, err, &e) {
							assert.Equal(t, wire.ResourceExhausted, e.Code, "%v", err)
						}
					}
				})
			}
			wg.Wait()
		})
		t.Logf("%s: %d of %d refused, heap %+d MiB", name, refused.Load(), at, rise>>20)
		assert.Positive(t, refused.Load())
		if !raceEnabled {
			// What both sessions may hold, and the messages in the buffers of both sides.
			assert.Less(t, rise, int64(inFlight/2+at*4*(4<<20)), name)
		}
	}
	assertReleased(t, n)
	require.NoError(t, sendGob(t.Context(), sessions[0], "TEXT", texts), "alone it fits")
	w.end(t)
	assertReleased(t, n)
}

// TestRow04DefinitionFlood: every message defines a type that was never seen.
// What is kept of them is bounded.
func TestRow04DefinitionFlood(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) { handleBoth[hasA](e, "A") })
	s := rawSession(t, n)
	sample := gobOf(t, hasA{1})
	require.Equal(t, 1, strings.Count(sample, "hasA"))
	next := 0
	flood := func(messages int) uint64 {
		for range messages {
			next++
			name := []string{"A", "A/STREAM"}[next%16/15]
			require.NoError(t, sendGob(t.Context(), s, name, strings.Replace(sample, "hasA", fmt.Sprintf("%04s", strconv.FormatInt(int64(next), 36)), 1)))
		}
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	messages := longOr(1_000_000, 5_000)
	before := flood(5_000)
	after := flood(messages)
	t.Logf("heap %+d bytes by %d types", int64(after)-int64(before), messages)
	assert.Less(t, int64(after)-int64(before), int64(1<<20))
}

// TestRow25BadPayloads: messages that are damaged in every way among good ones,
// by many callers on one session: each caller gets its own answer, and the
// session goes on.
func TestRow25BadPayloads(t *testing.T) {
	n := tcpNode(t, func(e *endpoint.Endpoint) {
		fail.Handle(e, func(_ context.Context, req text) (text, error) { return text{"re: " + req.S}, nil })
	})
	s := rawSession(t, n)
	r := seeded(t)
	var good, refused, passed atomic.Int64
	var wg sync.WaitGroup
	for g := range 20 {
		r := rand.New(rand.NewPCG(r.Uint64(), 0))
		wg.Go(func() {
			for i := range longOr(10_000, 500) {
				id := fmt.Sprintf("%d/%d", g, i)
				message := []byte(gobOf(t, text{id}))
				if i%2 == 0 {
					reply, err := rawCall(t.Context(), s, "FAIL", string(message))
					assert.NoError(t, err)
					assert.True(t, strings.Contains(string(reply), "re: "+id+"\x00"), "%q got %q", id, reply)
					good.Add(1)
					continue
				}
				switch r.IntN(4) {
				case 0:
					message = message[:r.IntN(len(message))]
				case 1:
					message[r.IntN(len(message))] ^= 1 << r.IntN(8)
				case 2:
					message = append(message, byte(r.Uint32()))
				case 3:
					for k := range message {
						message[k] = byte(r.Uint32())
					}
				}
				if _, err := rawCall(t.Context(), s, "FAIL", string(message)); err != nil {
					assertRefusedGob(t, err, "FAIL", fmt.Sprintf("%q", message))
					refused.Add(1)
				} else {
					passed.Add(1) // a letter of the text was hit, or nothing was left, which is the zero value
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d good, %d refused, %d decoded all the same", good.Load(), refused.Load(), passed.Load())
	assert.Greater(t, refused.Load(), passed.Load())
	assert.Empty(t, n.Counts())
	assertReleased(t, n)
}
