package session_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// TestHeardNeedsNoPing: a peer that sends something now and then gets no PING, one that has stopped gets them.
func TestHeardNeedsNoPing(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Accept: bounce, Heartbeat: 15 * time.Second})
		defer p.close()
		for id := uint64(1); id < 1000; id += 2 {
			p.send(wire.AppendCall(nil, wire.FlagEOM|wire.FlagEnd, &wire.Call{Stream: id, Kind: wire.CallUnary, Name: []byte("ECHO"), Data: []byte("x")}))
			require.Equal(t, wire.KindData, p.next().Kind, "of call %d", id)
			time.Sleep(7 * time.Second)
		}
		assert.Equal(t, wire.KindPing, p.next().Kind)
	})
}

// TestPingAfterSilence: what is said after a long silence has its time to be answered before a PING asks whether anybody is there.
func TestPingAfterSilence(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Heartbeat: 2 * time.Minute})
		defer p.close()
		time.Sleep(time.Minute)
		start := time.Now()
		go func() { _, _ = call(t.Context(), p.s, "X", nil) }()
		require.Equal(t, wire.KindCall, p.next().Kind)
		require.Equal(t, wire.KindPing, p.next().Kind)
		assert.GreaterOrEqual(t, time.Since(start), 10*time.Second*7/8)
		assert.LessOrEqual(t, time.Since(start), 10*time.Second)
	})
}

// TestPingsSpread: sessions that have begun together, and fallen silent together, send their PINGs one by one.
func TestPingsSpread(t *testing.T) {
	in(t, func(t *testing.T) {
		const sessions = 200
		var mu sync.Mutex
		var times []time.Duration
		var wg sync.WaitGroup
		start := time.Now()
		for range sessions {
			p := newRawPeer(t, session.Config{Heartbeat: 15 * time.Second})
			wg.Go(func() {
				defer p.close()
				if kind := p.next().Kind; kind != wire.KindPing {
					t.Errorf("got a frame of kind %d", kind)
				}
				mu.Lock()
				defer mu.Unlock()
				times = append(times, time.Since(start))
			})
		}
		wg.Wait()
		slices.Sort(times)
		assert.GreaterOrEqual(t, times[0], 15*time.Second*7/8)
		assert.LessOrEqual(t, times[sessions-1], 15*time.Second)
		for i := range times[:sessions-60] { // 27 in a quarter of a second, on average
			assert.Greater(t, times[i+60]-times[i], 250*time.Millisecond, "from %v on", times[i])
		}
	})
}

// TestPingWhileServing: while a call of the peer's is served a dead peer is noticed as soon as while one of this side's is under way.
func TestPingWhileServing(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newRawPeer(t, session.Config{Heartbeat: 2 * time.Minute, Accept: func(st *session.Stream) {
			<-st.Context().Done()
			st.Finish(nil)
		}})
		defer p.close()
		p.send(unary(1, "WAIT", ""))
		start := time.Now()
		<-p.s.Done()
		require.LessOrEqual(t, time.Since(start), 20*time.Second+lastWords)
	})
}

// TestPingsOfIdleAfterCall: a session that was in use and is idle since has the heartbeat that was agreed.
func TestPingsOfIdleAfterCall(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newPair(session.Config{Heartbeat: 2 * time.Minute}, session.Config{Accept: bounce})
		defer p.close()
		_, err := call(t.Context(), p.a, "ECHO", nil)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		before := p.b.Stats().Frames
		time.Sleep(20 * time.Minute)
		require.LessOrEqual(t, p.b.Stats().Frames-before, uint64(15))
	})
}

// TestPings: whatever a living peer says and when, it gets no more than a PING a second, each within the heartbeat of the last
// byte that was heard of it, and is not taken for dead.
func TestPings(t *testing.T) {
	r := newRand(t)
	for range count(20_000, 300) {
		seed := r.Uint64()
		in(t, func(t *testing.T) { askOften(t, seed) })
	}
}

// A lively peer answers PINGs, and says things of its own accord, until it is dead.
type lively struct {
	*rawPeer
	start time.Time
	ready chan struct{} // closed when its HELLO is sent

	mu          sync.Mutex
	heard, ping time.Duration // when the session heard of it last, and asked it last
	pings       uint64
	dead        bool
}

func newLively(p *rawPeer) *lively {
	return &lively{rawPeer: p, start: time.Now(), ready: make(chan struct{}), ping: -time.Hour}
}

func (p *lively) say(frame []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dead {
		p.heard = time.Since(p.start)
		p.send(frame)
	}
}

func (p *lively) die() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
}

// times returns when the session has heard of the peer and asked it last, and how often.
func (p *lively) times() (heard, ping time.Duration, pings uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heard, p.ping, p.pings
}

// answer reads until the end of the connection, and answers each PING after lag. Only to the last a PONG is still allowed by then.
func (p *lively) answer(lag time.Duration) {
	var answers sync.WaitGroup
	defer answers.Wait()
	for f := p.next(); f.Kind != 0; f = p.next() {
		if f.Kind != wire.KindPing {
			continue
		}
		p.mu.Lock()
		now := time.Since(p.start)
		if now-p.ping < time.Second {
			p.t.Errorf("PINGs %v apart", now-p.ping)
		}
		p.ping = now
		p.pings++
		p.mu.Unlock()
		v, _ := wire.ParsePing(f.Payload)
		answers.Go(func() {
			<-p.ready
			time.Sleep(lag)
			if _, _, last := p.times(); v == last {
				p.say(wire.AppendPing(nil, wire.KindPong, v))
			} else {
				p.say(anything())
			}
		})
	}
}

// anything is a frame that says nothing.
func anything() []byte { return wire.AppendFrame(nil, wire.FirstOptional, 0, nil) }

func askOften(t *testing.T, seed uint64) {
	r := randOf(seed)
	beats := []time.Duration{time.Second, 1100 * time.Millisecond, 3 * time.Second, 9900 * time.Millisecond, 10 * time.Second, 11 * time.Second, 15 * time.Second, 2 * time.Minute}
	beat, wish := beats[r.IntN(len(beats))], beats[r.IntN(len(beats))]
	cfg := session.Config{Heartbeat: beat, Dialer: r.IntN(2) == 0, Accept: bounce}
	if r.IntN(2) == 0 {
		cfg.Workers = new(session.Workers)
	}
	p := newLively(dialRaw(t, cfg))
	lag := time.Duration(r.Int64N(int64(9*time.Second))) * time.Duration(r.IntN(2))
	var wg sync.WaitGroup
	wg.Go(func() { p.answer(lag) })
	time.Sleep(time.Duration(r.Int64N(int64(9 * time.Second))))
	p.say(wire.AppendHello(nil, &wire.Hello{Message: 4 << 20, Calls: 250, Credit: 256 << 10, Heartbeat: uint64(wish / time.Millisecond)}))
	close(p.ready)
	ctx, cancel := context.WithCancel(context.Background())
	id := uint64(1)
	if cfg.Dialer {
		id = 2
	}
	for agreed := max(beat, wish); r.IntN(20) > 0; id += 2 {
		time.Sleep(time.Duration(r.Int64N(int64(agreed) * 5 / 4)))
		switch r.IntN(4) {
		case 0:
			wg.Go(func() { _, _ = call(ctx, p.s, "X", nil) })
		case 1:
			p.say(unary(id, "ECHO", ""))
		case 2:
			p.say(anything())
		}
		heard, ping, _ := p.times()
		require.LessOrEqual(t, time.Since(p.start)-max(heard, ping), agreed, "seed %d: silent, and no PING", seed)
		require.NoError(t, p.s.Err(), "seed %d: heartbeats of %v and %v, answers after %v", seed, beat, wish, lag)
	}
	cancel()
	p.close()
	wg.Wait()
	require.False(t, t.Failed(), "seed %d", seed)
}

// TestDeadPeersNoticed: whatever both sides did before, a peer that falls silent is noticed in time, and none before.
func TestDeadPeersNoticed(t *testing.T) {
	r := newRand(t)
	for range count(20_000, 500) {
		seed := r.Uint64()
		in(t, func(t *testing.T) { fallSilent(t, seed) })
	}
}

func fallSilent(t *testing.T, seed uint64) {
	r := randOf(seed)
	beat := []time.Duration{time.Second, 3 * time.Second, 15 * time.Second, 2 * time.Minute}[r.IntN(4)]
	p := newLively(newRawPeer(t, session.Config{Accept: bounce, Heartbeat: beat}))
	close(p.ready)
	defer p.close()
	var wg sync.WaitGroup
	wg.Go(func() { p.answer(0) })
	said := time.Duration(-1) // by the session, last, of its own accord
	speak := func() {
		said = time.Since(p.start)
		wg.Go(func() { _, _ = call(t.Context(), p.s, "X", nil) })
	}
	for id := uint64(1); r.IntN(8) > 0; id += 2 {
		time.Sleep(time.Duration(r.Int64N(int64(beat) * 3 / 2)))
		if r.IntN(4) == 0 {
			speak()
		} else {
			p.say(unary(id, "ECHO", ""))
		}
	}
	time.Sleep(time.Duration(r.Int64N(int64(beat))))
	require.NoError(t, p.s.Err(), "seed %d", seed)
	p.die()
	select {
	case <-p.s.Done():
	case <-time.After(time.Duration(r.Int64N(int64(2 * beat)))):
		speak()
		<-p.s.Done()
	}
	died := time.Since(p.start)
	last, _, _ := p.times()
	assert.LessOrEqual(t, died, last+beat+10*time.Second+lastWords, "seed %d", seed)
	assert.GreaterOrEqual(t, died, last+10*time.Second, "seed %d", seed)
	if said >= 0 {
		assert.LessOrEqual(t, died, max(said, last)+20*time.Second+lastWords, "seed %d", seed)
	}
	wg.Wait()
}
