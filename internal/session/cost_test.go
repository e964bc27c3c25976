package session_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// TestWritesPerCall: a caller alone costs one system call to write on each side; callers at once share them.
func TestWritesPerCall(t *testing.T) {
	a, b := tcpPair(t, session.Config{}, session.Config{Accept: bounce})
	defer b.Close()
	defer a.Close()
	_, err := call(t.Context(), a, "ECHO", nil)
	require.NoError(t, err)
	wa, wb := a.Stats().Writes, b.Stats().Writes
	for range 1000 {
		_, err := call(t.Context(), a, "ECHO", make([]byte, 100))
		require.NoError(t, err)
	}
	// A socket that took no bytes at once would cost one more.
	assert.InDelta(t, 1000, a.Stats().Writes-wa, 20)
	assert.InDelta(t, 1000, b.Stats().Writes-wb, 20)

	wa, wb = a.Stats().Writes, b.Stats().Writes
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 200 {
				_, err := call(t.Context(), a, "ECHO", make([]byte, 100))
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	total := a.Stats().Writes - wa + b.Stats().Writes - wb
	t.Logf("64 callers: %.3f writes a call", float64(total)/(64*200))
	assert.Less(t, total, uint64(64*200), "half of what they would cost alone")
}

// TestAllocationsPerCall: a small call allocates nothing on either side that is not used again.
func TestAllocationsPerCall(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget")
	}
	a, b := tcpPair(t, session.Config{}, session.Config{Accept: bounce})
	defer b.Close()
	defer a.Close()
	spec := &session.CallSpec{Name: "ECHO"}
	msg := make([]byte, 64)
	one := func() {
		err := a.Call(context.Background(), spec,
			func(b []byte) ([]byte, error) { return append(b, msg...), nil },
			func([]byte) error { return nil })
		if err != nil {
			t.Error(err)
		}
	}
	one()
	assert.LessOrEqual(t, testing.AllocsPerRun(2000, one), 1.0) // pools are emptied by the collector now and then
}

// TestIdleSessionsHoldNoBuffer: a session on a socket that waits for its next frame has given every buffer back, even if it
// has read half of that frame: then it keeps that half.
func TestIdleSessionsHoldNoBuffer(t *testing.T) {
	if !rawSockets {
		t.Skip("sockets are read like other connections here")
	}
	a, b := tcpPair(t, session.Config{}, session.Config{Accept: bounce})
	defer b.Close()
	defer a.Close()
	_, err := call(t.Context(), a, "ECHO", make([]byte, 100_000))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return session.BuffersOut() == 0 }, 5*time.Second, time.Millisecond)

	ca, cb := sockets(t)
	half := session.New(cb, session.Config{})
	defer half.Close()
	defer ca.Close()
	_, err = ca.Write(wire.AppendHello(nil, &wire.Hello{}))
	require.NoError(t, err)
	_, err = ca.Write(wire.AppendData(nil, 0, 1, make([]byte, 1000))[:600])
	require.NoError(t, err)
	require.Eventually(t, func() bool { return session.BuffersOut() == 1 }, 5*time.Second, time.Millisecond,
		"%d buffers", session.BuffersOut())
}

// TestIdleMemory measures what waiting sessions hold.
func TestIdleMemory(t *testing.T) {
	if raceEnabled || !rawSockets {
		t.Skip("not a figure of the library")
	}
	n := count(4000, 400)
	var before, after runtime.MemStats
	measure := func(m *runtime.MemStats) {
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(m)
	}
	measure(&before)
	var all []*session.Session
	for range n {
		a, b := tcpPair(t, session.Config{}, session.Config{Accept: bounce})
		_, err := call(t.Context(), a, "ECHO", nil)
		require.NoError(t, err)
		all = append(all, a, b)
	}
	time.Sleep(100 * time.Millisecond)
	measure(&after)
	per := float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse) / float64(2*n)
	t.Logf("%.0f bytes of heap and stack for a session, sockets included; a server's session has an idle worker", per)
	assert.Less(t, per, 12e3)
	for _, s := range all {
		s.Close()
	}
}

// TestRandomMessages sends messages of all sizes on streams whose receivers take their time, and bytes on raw streams that are
// read in pieces of all sizes. What arrives is what was sent.
func TestRandomMessages(t *testing.T) {
	in(t, func(t *testing.T) {
		r := newRand(t)
		p := newPair(session.Config{}, session.Config{Accept: echo})
		defer p.close()
		var wg sync.WaitGroup
		for i := range 16 {
			seed := r.Uint64()
			kind := []uint8{wire.CallStream, wire.CallRaw}[i%2]
			wg.Go(func() {
				st, err := p.a.Open(t.Context(), &session.CallSpec{Name: "X", Kind: kind})
				if !assert.NoError(t, err) {
					return
				}
				wg.Go(func() { sendRandom(t, st, seed) })
				receiveRandom(t, st, seed)
			})
		}
		wg.Wait()
	})
}

// randomSizes are the sizes of the messages that a seed stands for.
func randomSizes(seed uint64) []int {
	r := randOf(seed)
	sizes := make([]int, count(1000, 60))
	for i := range sizes {
		sizes[i] = []int{0, 0, 1, r.IntN(10), r.IntN(1000), 65527 + r.IntN(20), r.IntN(300_000), 256<<10 + r.IntN(3)}[r.IntN(8)]
	}
	return sizes
}

// fill fills p with bytes that depend on where they are.
func fill(p []byte, at int) {
	for i := range p {
		p[i] = byte((at + i) * 31 >> 3)
	}
}

func sendRandom(t *testing.T, st *session.Stream, seed uint64) {
	at := 0
	for _, n := range randomSizes(seed) {
		msg := make([]byte, n)
		fill(msg, at)
		at += n
		var err error
		if st.Kind() == wire.CallRaw {
			_, err = st.Write(t.Context(), msg)
		} else {
			err = st.Send(t.Context(), msg)
		}
		if !assert.NoError(t, err) {
			return
		}
	}
	assert.NoError(t, st.CloseSend())
}

func receiveRandom(t *testing.T, st *session.Stream, seed uint64) {
	r := randOf(^seed)
	at, total := 0, 0
	check := func(b []byte) error {
		want := make([]byte, len(b))
		fill(want, at)
		at += len(b)
		if string(want) != string(b) {
			return fmt.Errorf("bytes from %d on are wrong", at-len(b))
		}
		return nil
	}
	for _, n := range randomSizes(seed) {
		total += n
		if r.IntN(10) == 0 {
			time.Sleep(time.Millisecond)
		}
		if st.Kind() == wire.CallStream {
			if !assert.NoError(t, st.Receive(t.Context(), func(b []byte) error {
				assert.Len(t, b, n)
				return check(b)
			})) {
				return
			}
		}
	}
	for at < total {
		buf := make([]byte, 1+r.IntN(100_000))
		n, err := st.Read(t.Context(), buf)
		if !assert.NoError(t, err) || !assert.NoError(t, check(buf[:n])) {
			return
		}
	}
	if st.Kind() == wire.CallRaw {
		_, err := st.Read(t.Context(), make([]byte, 1))
		assert.Equal(t, io.EOF, err)
	} else {
		assert.Equal(t, io.EOF, st.Receive(t.Context(), nil))
	}
}
