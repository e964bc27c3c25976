package breaker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"gobnode/breaker"
	"gobnode/endpoint"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func failure(code endpoint.Code, outcome endpoint.Outcome) error {
	return &endpoint.Error{Code: code, Outcome: outcome}
}

// call makes one call of b that ends with err, and reports whether it was let
// through.
func call(b endpoint.Breaker, err error) bool {
	done, refused := b.Allow()
	if refused != nil {
		return false
	}
	done(err)
	return true
}

var (
	lost    = failure(endpoint.Unavailable, endpoint.OutcomeUnknown)
	crowded = failure(endpoint.ResourceExhausted, endpoint.OutcomeNotRun)
	late    = failure(endpoint.DeadlineExceeded, endpoint.OutcomeUnknown)
	said    = failure(endpoint.Unavailable, endpoint.OutcomeFailed)
	left    = failure(endpoint.Canceled, endpoint.OutcomeUnknown)
)

// TestBreaker walks one breaker through its life.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var states []string
		b := breaker.New(breaker.Config{OnState: func(addr, from, to string) {
			assert.Equal(t, "a:1", addr)
			states = append(states, from+" "+to)
		}})("a:1")
		for range 100 { // what handlers say is no failure of the node's, and what callers leave tells nothing
			require.True(t, call(b, said))
			require.True(t, call(b, left))
			require.True(t, call(b, nil))
		}
		for range 199 { // of 399 that tell something
			require.True(t, call(b, lost))
		}
		assert.Empty(t, states)
		require.True(t, call(b, crowded))
		assert.Equal(t, []string{"closed open"}, states)
		for range 39 {
			require.False(t, call(b, nil))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2200 * time.Millisecond)

		// It lets three through, all of which have to succeed.
		require.True(t, call(b, late))
		require.False(t, call(b, nil))
		time.Sleep(6 * time.Second)
		var done [3]func(error)
		for i := range done {
			d, err := b.Allow()
			require.NoError(t, err)
			done[i] = d
		}
		require.False(t, call(b, nil), "three at once")
		for _, d := range done {
			d(nil)
		}
		require.True(t, call(b, nil))
		assert.Equal(t, []string{"closed open", "open half-open", "half-open open", "open half-open", "half-open closed"}, states)
	})
}

// TestBreakerFew: few failures open nothing, nor do old ones; and each node has
// its own.
func TestBreakerFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := breaker.New(breaker.Config{Calls: 10, Failed: 0.9, Window: time.Second, Open: time.Minute, Probes: 1})
		a, b := of("a:1"), of("b:1")
		for range 10 {
			for range 9 {
				require.True(t, call(a, lost))
			}
			time.Sleep(1200 * time.Millisecond)
		}
		for range 10 {
			require.True(t, call(a, lost))
		}
		require.False(t, call(a, nil))
		require.True(t, call(b, nil))
		time.Sleep(73 * time.Second)
		require.True(t, call(a, nil))
		require.True(t, call(a, nil))
	})
}
