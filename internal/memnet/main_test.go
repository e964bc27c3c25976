package memnet_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gobnode/internal/memnet"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0: a new one each run")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// seeded returns a random source and logs how to get the same one again.
func seeded(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with: go test -run %s ./internal/memnet -args -seed=%d", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// connect returns the two ends of a connection made through a listener.
func connect(t *testing.T) (client, server *memnet.Conn) {
	t.Helper()
	l := memnet.Listen()
	c, err := l.Dial(t.Context())
	require.NoError(t, err)
	s, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return c.(*memnet.Conn), s.(*memnet.Conn)
}

// outcome says what a call returned in words that TCP and memnet share: all of
// the error but the network and the addresses.
func outcome(n int, err error) string {
	return fmt.Sprint(n, " ", errText(err))
}

func errText(err error) string {
	if err == nil {
		return "ok"
	}
	op, ok := errors.AsType[*net.OpError](err)
	switch {
	case err == io.EOF: //nolint:errorlint // callers compare with ==, so it must not be wrapped
		return "EOF"
	case !ok:
		return fmt.Sprintf("%T: %v", err, err)
	}
	return fmt.Sprintf("%s: %v (%T) timeout=%t temporary=%t source=%t addr=%t",
		op.Op, op.Err, op.Err, op.Timeout(), op.Temporary(), op.Source != nil, op.Addr != nil)
}
