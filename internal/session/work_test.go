package session_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/memnet"
	"gobnode/internal/session"
	"gobnode/internal/wire"
)

// TestWorkersShared: what one session's call has warmed up serves the next session, and is let go when nothing was to be done
// for a while, or nobody is left.
func TestWorkersShared(t *testing.T) {
	in(t, func(t *testing.T) {
		var w session.Workers
		w.Hold()
		waiting := func(want int) {
			t.Helper()
			synctest.Wait()
			workers, young := w.Waiting()
			assert.Equal(t, want, workers)
			assert.Zero(t, young)
		}
		for range 5 {
			p := newPair(session.Config{}, session.Config{Accept: bounce, Workers: &w})
			for range 3 {
				_, err := call(t.Context(), p.a, "ECHO", []byte("x"))
				require.NoError(t, err)
				synctest.Wait() // until the worker waits: a call finds it busy otherwise, and makes another
			}
			p.close()
			waiting(1)
		}
		time.Sleep(3 * session.CoolTime)
		waiting(0)

		p := newPair(session.Config{}, session.Config{Accept: bounce, Workers: &w})
		_, err := call(t.Context(), p.a, "ECHO", nil)
		require.NoError(t, err)
		p.close()
		waiting(1)
		w.Release()
		waiting(0)
	})
}

// TestYoungSessions: a session that shares Workers is without a timer at first, and nothing that has a time is late for it.
func TestYoungSessions(t *testing.T) {
	for _, limit := range []time.Duration{10 * time.Millisecond, session.CoolTime - 1, session.CoolTime, session.CoolTime + 1, 10 * time.Second} {
		for _, before := range []time.Duration{0, 1, session.CoolTime / 2, session.CoolTime - 1} {
			in(t, func(t *testing.T) {
				var w session.Workers
				w.Hold()
				defer w.Release()
				_, other := memnet.Pipe()
				first := session.New(other, session.Config{Accept: bounce, Workers: &w})
				time.Sleep(before) // the Workers look at a time of their own
				begin := time.Now()
				a, b := memnet.Pipe()
				s := session.New(b, session.Config{Accept: bounce, Workers: &w, Handshake: limit})
				_, young := w.Waiting()
				if limit >= session.CoolTime {
					assert.Positive(t, young)
				}
				<-s.GoingAway() // for want of a HELLO
				assert.Equal(t, limit, time.Since(begin))
				assert.NoError(t, a.Close())
				assert.NoError(t, s.Close())
				assert.NoError(t, first.Close())
				_, young = w.Waiting()
				assert.Zero(t, young)
			})
		}
	}
}

// TestYoungHeartbeat: the heartbeat of a session that shares Workers is on time, a PING for each second of silence.
func TestYoungHeartbeat(t *testing.T) {
	in(t, func(t *testing.T) {
		var w session.Workers
		p := newRawPeer(t, session.Config{Accept: bounce, Workers: &w, Heartbeat: time.Second})
		defer p.close()
		start := time.Now()
		for i := range 60 {
			f := p.next()
			require.Equal(t, wire.KindPing, f.Kind)
			require.Equal(t, time.Duration(i+1)*time.Second, time.Since(start))
			v, err := wire.ParsePing(f.Payload)
			require.NoError(t, err)
			p.send(wire.AppendPing(nil, wire.KindPong, v))
		}
		require.NoError(t, p.s.Err())
	})
}

// TestWorkersOnGone: it is called when the last handler has returned, and by then Wait does not wait.
func TestWorkersOnGone(t *testing.T) {
	in(t, func(t *testing.T) {
		gone, release := make(chan time.Time, 2), make(chan bool)
		p := newPair(session.Config{}, session.Config{
			Accept: func(*session.Stream) { <-release },
			OnGone: func() { gone <- time.Now() },
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _, _ = call(ctx, p.a, "WAIT", nil) }()
		synctest.Wait()
		p.b.Abort(errors.New("enough"))
		time.Sleep(time.Minute)
		assert.Empty(t, gone)
		close(release)
		p.b.Wait()
		<-gone
		assert.NoError(t, p.a.Close())
		time.Sleep(time.Minute)
		assert.Empty(t, gone)
	})
}
