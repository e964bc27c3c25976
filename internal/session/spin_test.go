package session_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/session"
)

// TestSpin: readers look for answers before they wait only where they are told to, behind a lone small message, and less and less when
// there are none.
func TestSpin(t *testing.T) {
	if !rawSockets {
		t.Skip("sockets are read like other connections here")
	}
	calls := func(t *testing.T, s *session.Session, n, size int) {
		for range n {
			_, err := call(t.Context(), s, "ECHO", make([]byte, size))
			assert.NoError(t, err)
		}
	}
	t.Run("off", func(t *testing.T) {
		a, b := tcpPair(t, session.Config{}, session.Config{Accept: bounce, Spin: -1})
		defer b.Close()
		defer a.Close()
		calls(t, a, 100, 10)
		assert.Zero(t, a.Stats().Spins)
		assert.Zero(t, b.Stats().Spins)
	})
	t.Run("lone caller", func(t *testing.T) {
		a, b := tcpPair(t, session.Config{Spin: time.Hour}, session.Config{Accept: bounce, Spin: time.Hour})
		defer b.Close()
		defer a.Close()
		require.Eventually(t, func() bool {
			calls(t, a, 100, 10)
			return a.Stats().Found > 0 && b.Stats().Found > 0
		}, 20*time.Second, time.Millisecond)
		// Both readers give up after a millisecond, though an hour was asked for, and no call is lost when they have.
		for range 5 {
			require.Eventually(t, func() bool { return session.BuffersOut() == 0 }, 5*time.Second, time.Millisecond)
			calls(t, a, 1, 10)
		}
	})
	t.Run("in vain", func(t *testing.T) {
		a, b := tcpPair(t, session.Config{Spin: time.Nanosecond}, session.Config{Accept: bounce})
		defer b.Close()
		defer a.Close()
		calls(t, a, 1000, 10)
		st := a.Stats()
		assert.Less(t, st.Spins-st.Found, uint64(500), "a nanosecond is never enough, but by chance")
	})
	t.Run("large", func(t *testing.T) {
		a, b := tcpPair(t, session.Config{Spin: time.Millisecond}, session.Config{Accept: bounce, Spin: time.Millisecond})
		defer b.Close()
		defer a.Close()
		calls(t, a, 1, 10)
		before := a.Stats().Spins
		calls(t, a, 100, 100_000)
		assert.Less(t, a.Stats().Spins-before, uint64(100), "only frames of credit are small")
	})
	t.Run("many", func(t *testing.T) {
		a, b := tcpPair(t, session.Config{Spin: time.Millisecond}, session.Config{Accept: bounce, Spin: time.Millisecond})
		defer b.Close()
		defer a.Close()
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() { calls(t, a, 200, 10) })
		}
		wg.Wait()
	})
}
