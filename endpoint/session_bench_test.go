//go:build unix

package endpoint_test

import (
	"net"
	"net/rpc"
	"sync"
	"sync/atomic"
	"testing"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/types"

	"github.com/stretchr/testify/require"
)

// Adder is types.Sum for net/rpc.
type Adder struct{}

// Sum adds numbers up.
func (Adder) Sum(req types.SumRequest, reply *types.SumReply) error {
	for _, x := range req.Numbers {
		reply.Total += x
	}
	return nil
}

// BenchmarkSessionBesideRPC has 128 callers on one connection call SUM of three
// numbers, over a session and over net/rpc in turns, both ends in this process,
// over the loopback. Rounds that alternate share
// what the machine does besides; the ratio is the median of theirs.
func BenchmarkSessionBesideRPC(b *testing.B) {
	const callers, calls = 128, 20_000
	e := endpoint.New()
	handlers.Register(e)
	c, err := endpoint.Dial(b.Context(), serve(b, e))
	require.NoError(b, err)
	defer func() {
		require.NoError(b, c.Close())
		require.NoError(b, e.Close())
	}()
	old := dialRPC(b)
	request := types.SumRequest{Numbers: []float64{1, 2, 3}}
	session := func() error {
		reply, err := types.Sum.Call(b.Context(), c, request)
		return sixOr(reply, err)
	}
	netRPC := func() error {
		var reply types.SumReply
		err := old.Call("Adder.Sum", request, &reply)
		return sixOr(reply, err)
	}
	cpuPerCall(b, callers, calls, session) // both warm
	cpuPerCall(b, callers, calls, netRPC)
	var ours, theirs, ratios []float64
	for b.Loop() {
		o := cpuPerCall(b, callers, calls, session)
		r := cpuPerCall(b, callers, calls, netRPC)
		ours, theirs, ratios = append(ours, o), append(theirs, r), append(ratios, o/r)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ours), "session-cpu-µs/call")
	b.ReportMetric(median(theirs), "net/rpc-cpu-µs/call")
	b.ReportMetric(median(ratios), "session/rpc")
}

func sixOr(reply types.SumReply, err error) error {
	if err == nil && reply.Total != 6 {
		return endpoint.Errorf(endpoint.DataLoss, "1 + 2 + 3 is %v", reply.Total)
	}
	return err
}

func dialRPC(b *testing.B) *rpc.Client {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	server := rpc.NewServer()
	require.NoError(b, server.Register(Adder{}))
	go func() { // ends with the one connection
		c, err := l.Accept()
		_ = l.Close()
		if err == nil {
			server.ServeConn(c)
		}
	}()
	c, err := rpc.Dial("tcp", l.Addr().String())
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Close() })
	return c
}

// cpuPerCall returns the CPU time of this process for a call, in microseconds.
func cpuPerCall(b *testing.B, callers, calls int, call func() error) float64 {
	var left atomic.Int64
	left.Store(int64(calls))
	var wg sync.WaitGroup
	before := cpuTime()
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return float64((cpuTime() - before).Nanoseconds()) / 1e3 / float64(calls)
}
