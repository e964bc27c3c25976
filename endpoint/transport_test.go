package endpoint_test

import (
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"
	"gobnode/internal/memnet"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestReadDeadlines plays random schedules of bytes in both directions, pauses
// of the reader and bounds, and compares when reads end with a model that knows
// no deadlines, only times.
func TestReadDeadlines(t *testing.T) {
	random := seeded(t)
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			// Idle is odd in nanoseconds and all pauses are even: no ties.
			idle := time.Duration(1+random.IntN(1000))*10*time.Millisecond + 1
			peer, c := memnet.Pipe()
			tr := endpoint.NewTransport(c, endpoint.Limits{Idle: idle})
			pause := func() time.Duration { return time.Duration(2 * random.Int64N(int64(idle)*2/3)) }
			start := time.Now()
			moved := start
			var writing sync.Mutex
			for step := 0; ; step++ {
				// The reader is busy for a while, the other direction moves now and then,
				// and the peer sends a byte at last.
				work, wait := pause(), pause()
				time.Sleep(work)
				began := time.Now()
				arrives := began.Add(wait)
				var writes []time.Duration // before it arrives
				for at := pause() / 2; at < wait && random.IntN(2) == 0; at += 2 + pause()/2 {
					writes = append(writes, at)
				}
				bound := time.Duration(0)
				if random.IntN(3) == 0 {
					bound = 2 + pause()
				}

				// The model.
				ends, cause := arrives, ""
				silent := maxTime(moved, began)
				for _, at := range append(append([]time.Duration(nil), writes...), wait) {
					if next := began.Add(at); next.Sub(silent) > idle {
						ends, cause = silent.Add(idle), "Idle"
						break
					} else if at != wait {
						silent = next
					}
				}
				if bound > 0 && began.Add(bound).Before(ends) {
					ends, cause = began.Add(bound), "Bound"
				}

				tr.BoundReads("Bound", bound)
				go func() {
					from := began
					for _, at := range writes {
						time.Sleep(began.Add(at).Sub(from))
						from = began.Add(at)
						if !from.Before(ends) {
							return
						}
						writing.Lock() // one writer after the other
						_, _ = tr.Write([]byte{1})
						writing.Unlock()
					}
				}()
				go func() {
					time.Sleep(wait)
					if time.Now().After(ends) {
						return
					}
					_, _ = peer.Write([]byte{2})
				}()
				_, err := tr.Read(make([]byte, 10))
				require.Equal(t, ends.Sub(start), time.Since(start), "step %d: %v", step, err)
				require.Equal(t, cause, endpoint.LimitOf(err), "step %d", step)
				moved = ends
				if cause != "" {
					assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
					// Once reached, a limit stays reached.
					_, again := tr.Read(make([]byte, 10))
					assert.Equal(t, err, again)
					assert.Equal(t, ends.Sub(start), time.Since(start))
					break
				}
				if step == 50 {
					break
				}
			}
			_ = peer.Close()
			_ = tr.Close()
			synctest.Wait()
			time.Sleep(time.Hour) // the goroutines above
		})
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestWriteDeadlines has random peers take random portions at random times, and
// writers write random portions.
func TestWriteDeadlines(t *testing.T) {
	const step = 64 << 10
	random := seeded(t)
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			limit := time.Duration(1+random.IntN(100))*time.Second + 1
			l := memnet.Listen()
			l.SetBuffer(1 << (8 + random.IntN(10)))
			dialled, err := l.Dial(t.Context())
			require.NoError(t, err)
			c, err := l.Accept()
			require.NoError(t, err)
			tr := endpoint.NewTransport(c, endpoint.Limits{Progress: limit})
			healthy := random.IntN(2) == 0
			taking := rand.New(rand.NewPCG(random.Uint64(), 0))
			go func() {
				for buf := make([]byte, step); ; {
					// A healthy peer takes a step's worth in less than the limit.
					n, pause := step, limit*9/10
					if !healthy {
						n, pause = 1+taking.IntN(step/2), limit*6/10
					}
					time.Sleep(pause)
					if _, err := io.ReadFull(dialled, buf[:n]); err != nil {
						return
					}
				}
			}()
			portion := 1000 + random.IntN(3*step)
			began, worst := time.Now(), time.Duration(0)
			for sent := 0; sent < 20*step; sent += portion {
				start := time.Now()
				_, err = tr.Write(make([]byte, portion))
				worst = max(worst, time.Since(start)/time.Duration(1+portion/step))
				if err != nil {
					break
				}
			}
			if healthy {
				assert.NoError(t, err)
			} else {
				assert.Equal(t, "Progress", endpoint.LimitOf(err), "after %v", time.Since(began))
				assert.LessOrEqual(t, worst, limit)
			}
			_ = tr.Close()
			_ = dialled.Close()
			time.Sleep(time.Hour)
		})
	}
}

// TestWriteTimeExact: a peer that stops taking is cut after exactly Progress,
// wherever in a step it stopped.
func TestWriteTimeExact(t *testing.T) {
	random := seeded(t)
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			taken := random.IntN(300 << 10)
			peer, c := memnet.Pipe()
			tr := endpoint.NewTransport(c, endpoint.Limits{Progress: 10 * time.Second})
			go func() { _, _ = io.CopyN(io.Discard, peer, int64(taken)) }()
			start := time.Now()
			n, err := tr.Write(make([]byte, 1<<20))
			assert.Equal(t, "Progress", endpoint.LimitOf(err))
			assert.Equal(t, 10*time.Second, time.Since(start))
			assert.Equal(t, taken+memnet.DefaultBuffer, n)
			_ = tr.Close()
		})
	}
}

// TestUnnamedBound: a bound without a name ends the read, is no limit, and the
// next read goes on under the Idle of the first.
func TestUnnamedBound(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		peer, c := memnet.Pipe()
		tr := endpoint.NewTransport(c, endpoint.Limits{Idle: time.Minute})
		start := time.Now()
		for i := range 5 {
			tr.BoundReads("", 7*time.Second)
			_, err := tr.Read(make([]byte, 1))
			require.Equal(t, endpoint.ErrBound, err)
			require.Equal(t, time.Duration(i+1)*7*time.Second, time.Since(start))
		}
		tr.BoundReads("", 0)
		_, err := tr.Read(make([]byte, 1))
		require.Equal(t, "Idle", endpoint.LimitOf(err))
		require.Equal(t, time.Minute, time.Since(start))
		_ = peer.Close()
	})
}
