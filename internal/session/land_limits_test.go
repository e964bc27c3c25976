package session_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gobnode/internal/session"
	"gobnode/internal/wire"
)

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestLandingCharged: what peers hold by half a frame each, when the stream that it was for is over, is charged for, but little.
func TestLandingCharged(t *testing.T) {
	const sessions = 40
	budget := session.NewBudget(32<<20, nil)
	before := heapInUse()
	var peers []*handPeer
	for i := range sessions {
		got, left := make(chan error, 1), make(chan struct{})
		p := newHandPeer(t, session.Config{Credit: 4 << 20, Budget: budget, Accept: func(st *session.Stream) {
			got <- st.Receive(context.Background(), func([]byte) error { return nil })
			<-left
			st.Finish(nil)
		}})
		defer p.close()
		leave := sync.OnceFunc(func() { close(left) })
		defer leave()
		peers = append(peers, p)
		p.send(streamCall(1, "TAKE"))
		for i := range 32 { // a message of nearly 2 MiB, so that the next is given as much room
			p.send(wire.AppendData(nil, wire.Flags(i/31)*wire.FlagEOM, 1, make([]byte, wire.MaxData)))
		}
		require.NoError(t, <-got)
		p.send(wire.AppendData(nil, 0, 1, make([]byte, wire.MaxData)))
		p.send(wire.AppendData(nil, 0, 1, make([]byte, wire.MaxData))[:100])
		if i == 0 {
			require.Eventually(t, p.s.Landing, 5*time.Second, time.Millisecond)
		}
		for range 10 { // later ones may find too little of the budget free
			if p.s.Landing() {
				break
			}
			time.Sleep(time.Millisecond)
		}
		leave()
		require.Eventually(t, func() bool { return p.s.Stats().Serving == 0 }, 5*time.Second, time.Millisecond)
	}
	held, charged := heapInUse()-before, budget.Used()
	t.Logf("%d sessions hold %d bytes, of which %d are charged", sessions, held, charged)
	require.Positive(t, charged)
	require.LessOrEqual(t, charged, int64(16<<20), "half of the budget")
	require.Less(t, held, charged+4<<20)
	runtime.KeepAlive(peers)
}

// TestLandingFits: a frame that does not quite fit behind its message is put elsewhere.
func TestLandingFits(t *testing.T) {
	const first = 40_000
	var msg []byte
	got := make(chan error, 1)
	p := newHandPeer(t, session.Config{Accept: func(st *session.Stream) {
		got <- st.Receive(context.Background(), func(b []byte) error {
			if string(b) != string(msg) {
				return errors.New("other bytes than were sent")
			}
			return nil
		})
		st.Finish(nil)
	}})
	defer p.close()
	room := 64<<10 - 5 - first // of a chunk of 64 KiB with the head of a part
	for i, n := range []int{room - 1, room, room + 1, room + 2} {
		id := uint64(2*i + 1)
		msg = message(id, 0, first+n)
		p.send(streamCall(id, "TAKE"))
		p.send(wire.AppendData(nil, 0, id, msg[:first]))
		last := wire.AppendData(nil, wire.FlagEOM|wire.FlagEnd, id, msg[first:])
		p.send(last[:6000])
		if n <= room {
			require.Eventually(t, p.s.Landing, 5*time.Second, time.Millisecond)
		} else {
			time.Sleep(20 * time.Millisecond)
		}
		p.send(last[6000:])
		require.NoError(t, <-got)
	}
	require.EqualValues(t, 2, p.s.Stats().Landed)
}

// TestLandingIsOfData: a large frame of another kind that names a stream with an unfinished message is handled as what it is.
func TestLandingIsOfData(t *testing.T) {
	p := newHandPeer(t, session.Config{Accept: func(st *session.Stream) {
		_ = st.Receive(context.Background(), func([]byte) error { return nil })
		st.Finish(nil)
	}})
	defer p.close()
	p.send(streamCall(1, "TAKE"))
	p.send(wire.AppendData(nil, 0, 1, make([]byte, wire.MaxData)))
	bad := wire.AppendError(nil, &wire.Failure{Stream: 1, Code: wire.Internal, Message: make([]byte, 40_000)})
	p.send(bad[:6000])
	time.Sleep(20 * time.Millisecond)
	require.False(t, p.s.Landing())
	p.send(bad[6000:])
	<-p.s.Done()
	require.ErrorContains(t, p.s.Err(), "ERROR from the side that called")
}

// TestLandingRenewsFrameTime: with each frame that lands the time of the next begins anew.
func TestLandingRenewsFrameTime(t *testing.T) {
	p := newHandPeer(t, session.Config{Progress: time.Second, Credit: 4 << 20, Accept: func(st *session.Stream) {
		for st.Receive(context.Background(), func([]byte) error { return nil }) == nil {
		}
		st.Finish(nil)
	}})
	defer p.close()
	p.send(streamCall(1, "TAKE"))
	for i := range 13 {
		p.send(wire.AppendData(nil, wire.Flags(i/12)*wire.FlagEOM, 1, make([]byte, wire.MaxData)))
	}
	var all []byte
	for range 12 {
		all = append(all, wire.AppendData(nil, 0, 1, make([]byte, wire.MaxData))...)
	}
	for at := 0; at < len(all); at += 40_000 { // never ends where a frame does
		p.send(all[at:min(len(all), at+40_000)])
		time.Sleep(80 * time.Millisecond)
		require.NoError(t, p.s.Err(), "after %d bytes", at)
	}
	require.GreaterOrEqual(t, p.s.Stats().Landed, uint64(5))
}

// TestLandingDropped: a unary call's handler that asks for a second message drops what has come of it, while more lands.
func TestLandingDropped(t *testing.T) {
	again, done := make(chan struct{}), make(chan error, 1)
	p := newHandPeer(t, session.Config{Accept: func(st *session.Stream) {
		_ = st.Receive(context.Background(), func([]byte) error { return nil })
		<-again
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		done <- st.Receive(ctx, func([]byte) error { return nil })
		st.Finish(nil)
	}})
	defer p.close()
	p.send(wire.AppendCall(nil, wire.FlagEOM, &wire.Call{Stream: 1, Kind: wire.CallUnary, Name: []byte("X"), Data: []byte("first")}))
	p.send(wire.AppendData(nil, 0, 1, make([]byte, wire.MaxData)))
	second := wire.AppendData(nil, wire.FlagEOM, 1, make([]byte, wire.MaxData))
	p.send(second[:30_000])
	require.Eventually(t, p.s.Landing, 5*time.Second, time.Millisecond)
	close(again)
	time.Sleep(50 * time.Millisecond)
	p.send(second[30_000:])
	require.Error(t, <-done)
	require.Eventually(t, func() bool { return p.s.Stats().Serving == 0 }, 5*time.Second, time.Millisecond)
	require.NoError(t, p.s.Err())
	require.EqualValues(t, 1, p.s.Stats().Landed)
}
