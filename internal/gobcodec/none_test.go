package gobcodec_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"gobnode/internal/gobcodec"
)

// TestArraysOfNone: an array without elements, in front of something smaller than one of them. With -race the compiler checks that
// no pointer to such an element is made.
func TestArraysOfNone(t *testing.T) {
	type item struct {
		A [0]string
		B [0]float64
		C [0]int64
		D [0][]byte
		E int8
	}
	type list struct {
		Items []*item
		Rows  [][0]string
	}
	codec, err := gobcodec.For[list]()
	require.NoError(t, err)
	for range 100 { // of the small objects side by side some are at the end of their span
		in := list{Items: []*item{{E: 1}, {E: 2}, {E: 3}}, Rows: make([][0]string, 2)}
		data, err := codec.Append(nil, &in)
		require.NoError(t, err)
		var out list
		_, err = codec.Decode(data, &out, gobcodec.Limits{})
		require.NoError(t, err)
		require.Equal(t, in, out)
	}
}
