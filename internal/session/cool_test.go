package session_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/session"
)

// TestCooling: a session gives back what it keeps soon after a call, later after many, and not as long as there are calls.
func TestCooling(t *testing.T) {
	in(t, func(t *testing.T) {
		p := newPair(session.Config{}, session.Config{Accept: bounce})
		defer p.close()
		calls := func(n int) {
			for range n {
				_, err := call(t.Context(), p.a, "ECHO", nil)
				require.NoError(t, err)
				require.True(t, p.a.Warm())
				time.Sleep(999 * time.Millisecond)
				require.True(t, p.a.Warm())
			}
		}
		for range 2 {
			calls(1)
			time.Sleep(2 * session.CoolTime)
			assert.False(t, p.a.Warm(), "after one call")
			calls(60)
			time.Sleep(3 * session.CoolTime)
			assert.True(t, p.a.Warm(), "after many calls")
			time.Sleep(5 * session.CoolTime)
			assert.False(t, p.a.Warm(), "long after many calls")
		}
	})
}

// TestSize: a Session, with the 8 bytes that the runtime puts before it, fits into 1,536: there is no smaller size below 1,792, and what
// 10,000 idle ones hold is asserted by a benchmark alone.
func TestSize(t *testing.T) {
	assert.LessOrEqual(t, session.Size+8, uintptr(1536))
}
