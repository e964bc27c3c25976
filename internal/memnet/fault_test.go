package memnet_test

import (
	"bytes"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"gobnode/internal/memnet"
)

// TestFaults: what is written arrives in pieces and late, but for the one bit
// that is wrong, up to the byte of the reset.
func TestFaults(t *testing.T) {
	sent := bytes.Repeat([]byte{0xa5}, 10_000)
	for at := range int64(40) {
		synctest.Test(t, func(t *testing.T) {
			a, b := memnet.Pipe()
			c := memnet.NewFaultConn(a, memnet.Faults{Pieces: 7, Delay: time.Second, FlipAt: at}, 1)
			go func() {
				_, _ = c.Write(sent)
				_ = c.CloseWrite()
			}()
			begin := time.Now()
			got, err := io.ReadAll(b)
			require.NoError(t, err)
			require.Greater(t, time.Since(begin), time.Minute)
			want := bytes.Clone(sent)
			if at > 0 {
				want[at-1] = got[at-1]
				require.Equal(t, byte(1)<<((at-1)%8), got[at-1]^0xa5, "one bit")
			}
			require.True(t, bytes.Equal(want, got))

			a, b = memnet.Pipe()
			c = memnet.NewFaultConn(a, memnet.Faults{Pieces: 7, ResetAt: at + 1}, 1)
			n, err := c.Write(sent)
			require.ErrorIs(t, err, net.ErrClosed)
			require.EqualValues(t, at+1, n)
			_, err = io.ReadAll(b)
			require.ErrorIs(t, err, syscall.ECONNRESET)
		})
	}
}
