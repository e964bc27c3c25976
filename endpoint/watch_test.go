package endpoint_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"gobnode/endpoint"

	"github.com/stretchr/testify/require"
)

// TestBackoffDelay checks the bounds of what programs that reconnect by themselves
// are told to wait.
func TestBackoffDelay(t *testing.T) {
	t.Parallel()
	for failures, most := range map[int]time.Duration{
		-1: 100 * time.Millisecond, 0: 100 * time.Millisecond, 1: 100 * time.Millisecond, 2: 160 * time.Millisecond,
		3: 256 * time.Millisecond, 9: 4294967296 * time.Nanosecond, 10: 5 * time.Second, 1 << 40: 5 * time.Second,
	} {
		longest := time.Duration(0)
		for range 1000 {
			d := endpoint.Backoff{}.Delay(failures)
			require.GreaterOrEqual(t, d, time.Duration(0))
			require.LessOrEqual(t, d, most)
			longest = max(longest, d)
		}
		require.Greater(t, longest, most*9/10) // but for one run in 10^45
	}
}
