package handlers_test

import (
	"encoding/json"
	"log/slog"
	"math"
	"strings"
	"testing"

	"gobnode/endpoint"
	"gobnode/handlers"
	"gobnode/types"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// newNode is an endpoint with all commands of the package, called in process.
func newNode(t *testing.T) *endpoint.Endpoint {
	e := endpoint.New()
	e.Logger = slog.New(slog.DiscardHandler)
	handlers.Register(e)
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	return e
}

func TestSum(t *testing.T) {
	e := newNode(t)
	for _, test := range []struct {
		numbers []float64
		total   float64
	}{
		{nil, 0},
		{[]float64{}, 0},
		{[]float64{1, 2, 3}, 6},
		{[]float64{-1.5, 1.5}, 0},
		{[]float64{math.MaxFloat64, math.MaxFloat64}, math.Inf(1)},
		{make([]float64, 100_000), 0},
	} {
		reply, err := types.Sum.Call(t.Context(), e, types.SumRequest{Numbers: test.numbers})
		require.NoError(t, err)
		assert.Equal(t, types.SumReply{Total: test.total}, reply)
	}
	reply, err := types.Sum.Call(t.Context(), e, types.SumRequest{Numbers: []float64{1, math.NaN()}})
	require.NoError(t, err)
	assert.True(t, math.IsNaN(reply.Total))
}

// chain is a value with depth more inside it, numbered from the outside.
func chain(depth int) *types.ComplexData {
	var v *types.ComplexData
	for n := depth; n >= 0; n-- {
		v = &types.ComplexData{N: n + 1, S: strings.Repeat("s", n), M: map[string]int{"n": n}, P: []byte{byte(n)}, C: v}
	}
	return v
}

func TestReverse(t *testing.T) {
	e := newNode(t)
	for _, depth := range []int{0, 1, 2, 100, 990} {
		v := chain(depth)
		reply, err := types.Reverse.Call(t.Context(), e, *v)
		require.NoError(t, err)
		n := depth + 1
		for r := &reply; r != nil; r = r.C {
			assert.Equal(t, n, r.N)
			assert.Equal(t, strings.Repeat("s", n-1), r.S)
			assert.Equal(t, map[string]int{"n": n - 1}, r.M)
			assert.Equal(t, []byte{byte(n - 1)}, r.P)
			n--
		}
		assert.Zero(t, n, "all of them came back")
		assert.Equal(t, chain(depth), v, "the caller's is as it was")
		again, err := types.Reverse.Call(t.Context(), e, reply)
		require.NoError(t, err)
		assert.Equal(t, *v, again, "twice is once forth and back")
	}
	_, err := types.Reverse.Call(t.Context(), e, *chain(1000))
	assert.ErrorIs(t, err, endpoint.InvalidArgument)
	assert.Equal(t, endpoint.OutcomeNotRun, endpoint.OutcomeOf(err))
	empty, err := handlers.Reverse(t.Context(), types.ComplexData{})
	require.NoError(t, err)
	assert.Zero(t, empty)
}

func TestList(t *testing.T) {
	e := newNode(t)
	list, err := types.List.Call(t.Context(), e, types.ListRequest{})
	require.NoError(t, err)
	kinds := map[string]string{}
	for _, c := range list.Commands {
		kinds[c.Name] = c.Kind
		assert.NotEmpty(t, c.Doc, c.Name)
		assert.NotContains(t, c.Doc, "\n", "HELP gives each a line")
	}
	assert.Equal(t, map[string]string{
		"STRING": "raw", "GOB": "raw", "ECHO": "raw", "PING": "raw", "HELP": "raw",
		"SUM": "unary", "REVERSE": "unary", "LIST": "unary", "DESCRIBE": "unary", "CHAT": "stream",
	}, kinds)
}

func TestDescribe(t *testing.T) {
	e := newNode(t)
	d, err := types.Describe.Call(t.Context(), e, types.DescribeRequest{Name: "SUM"})
	require.NoError(t, err)
	assert.Equal(t, types.CommandDescription{
		Name: "SUM", Kind: "unary", Doc: "Adds numbers up.",
		Request: "type SumRequest struct {\n\tNumbers []float64\n}",
		Reply:   "type SumReply struct {\n\tTotal float64\n}",
		Example: `{"Numbers":[0]}`,
	}, d)
	var req types.SumRequest
	require.NoError(t, json.Unmarshal([]byte(d.Example), &req))
	d, err = types.Describe.Call(t.Context(), e, types.DescribeRequest{Name: "STRING"})
	require.NoError(t, err)
	assert.Equal(t, types.CommandDescription{Name: "STRING", Kind: "raw", Doc: d.Doc}, d)
	_, err = types.Describe.Call(t.Context(), e, types.DescribeRequest{})
	assert.ErrorIs(t, err, endpoint.NotFound)
	assert.Equal(t, endpoint.OutcomeFailed, endpoint.OutcomeOf(err))
}

// TestSample: what the demonstration sends has a bit of everything.
func TestSample(t *testing.T) {
	v := types.Sample()
	require.NotNil(t, v.C)
	assert.True(t, v.N != 0 && v.S != "" && len(v.M) > 0 && len(v.P) > 0)
	reply, err := types.Reverse.Call(t.Context(), newNode(t), v)
	require.NoError(t, err)
	assert.Equal(t, v.C.S, reply.S)
	assert.Equal(t, v.S, reply.C.S)
}
