package endpoint_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/types"

	"github.com/stretchr/testify/require"
)

func TestTypedSmoke(t *testing.T) {
	e := endpoint.New()
	handlers.Register(e)
	defer e.Close()
	addr := serve(t, e)
	c, err := endpoint.Open(addr)
	require.NoError(t, err)
	for _, to := range []endpoint.Caller{c, e} {
		for range 3 {
			r, err := types.Sum.Call(t.Context(), to, types.SumRequest{Numbers: []float64{1, 2, 3}})
			require.NoError(t, err)
			require.Equal(t, 6.0, r.Total)
		}
		d, err := types.Describe.Call(t.Context(), to, types.DescribeRequest{Name: "REVERSE"})
		require.NoError(t, err)
		t.Logf("%+v", d)
		_, err = types.Describe.Call(t.Context(), to, types.DescribeRequest{Name: "REVERS"})
		require.ErrorIs(t, err, endpoint.NotFound)
		t.Log(err)
		rev, err := types.Reverse.Call(t.Context(), to, types.Sample())
		require.NoError(t, err)
		require.Equal(t, -1, rev.N)
		require.Equal(t, types.Sample().N, rev.C.N)
	}
	n, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	io.WriteString(n, "SUM {\"Numbers\":[1,2,3]}\nSUM {\"Nubers\":[1]}\nLIST {}\nSUM x\nREVERSE {\"N\":1}\nPING x y\n\nSUM {\"Numbers\":[1]} 5\nSUMM {}\n")
	b, _ := io.ReadAll(n)
	t.Logf("%s", b)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	e.Shutdown(ctx)
}
