package gobcodec_test

import (
	"bytes"
	"encoding/gob"
	"flag"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gobnode/internal/gobcodec"
)

var (
	long = flag.Bool("long", false, "run the differential tests with 1,000,000 values and 5,000 pairs of types")
	seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the random tests")
)

func TestDifferential(t *testing.T) {
	all := subjects(t)
	require.GreaterOrEqual(t, len(all), 25)
	values := 20_000
	if *long {
		values = 1_000_000
	}
	t.Logf("-seed %d: %d types", *seed, len(all))
	f := newFiller(*seed)
	n := 0
	for n < values {
		for _, s := range all {
			f.noMaps = f.IntN(2) == 0
			differential(t, f, s)
			if n++; t.Failed() {
				t.Fatalf("%v, -seed %d, value %d", s.rt, *seed, n)
			}
		}
	}
	t.Logf("%d values", n)
}

// differential compares the codec with encoding/gob on one value: bytes, decoding each other's, decoding into a value that
// holds something already.
func differential(t *testing.T, f *filler, s subject) {
	v := s.random(f)
	own, err := s.append([]byte("before"), v)
	require.NoError(t, err)
	own = own[len("before"):]
	std, err := stdEncode(v)
	require.NoError(t, err)
	if s.ordered || f.noMaps && !nestedMaps(s.rt) {
		require.True(t, bytes.Equal(std, own), "%x\n%x", std, own)
	} else {
		require.Len(t, own, len(std))
	}

	want, got, back := s.zero(), s.zero(), s.zero()
	require.NoError(t, stdDecode(std, want))
	allocated, err := s.decode(std, got, gobcodec.Limits{})
	require.NoError(t, err)
	require.True(t, equal(want, got), "%#v\n%#v", want, got)
	require.NoError(t, stdDecode(own, back))
	require.True(t, equal(want, back), "%#v\n%#v", want, back)

	// The charge is what has to be allowed, to the byte.
	if allocated > 0 {
		_, err = s.decode(std, s.zero(), gobcodec.Limits{Decoded: allocated})
		require.NoError(t, err)
		_, err = s.decode(std, s.zero(), gobcodec.Limits{Decoded: allocated - 1})
		if allocated > 1 { // 0 would be the default
			require.ErrorAs(t, err, new(*gobcodec.BoundError))
		}
	}
	filled(t, f, s, std)
}

// filled decodes into two equal values that are not zero.
func filled(t *testing.T, f *filler, s subject, b []byte) {
	seed := f.Uint64()
	a, c := s.random(newFiller(seed)), s.random(newFiller(seed))
	require.NoError(t, stdDecode(b, a))
	_, err := s.decode(b, c, gobcodec.Limits{})
	require.NoError(t, err)
	// Maps with pointers as keys only grow and never match.
	require.True(t, s.rt == reflect.TypeFor[mapsOther]() || equal(a, c), "%#v\n%#v", a, c)
}

// nestedMaps reports types whose maps make different orders even with one entry each at most: none but those that hold
// several entries by another way.
func nestedMaps(rt reflect.Type) bool { return rt == reflect.TypeFor[selves]() }

// equal is DeepEqual, but for maps with pointer keys, which it cannot compare.
func equal(a, b any) bool {
	if m, ok := a.(*mapsOther); ok {
		n := b.(*mapsOther)
		x, y := *m, *n
		if len(x.Q) != len(y.Q) {
			return false
		}
		x.Q, y.Q = nil, nil
		return reflect.DeepEqual(x, y)
	}
	return reflect.DeepEqual(a, b)
}

// One long-lived encoding/gob stream takes the value messages of the codec behind the definitions of the first.
func TestStreamOfValues(t *testing.T) {
	c, err := gobcodec.For[mediumValue]()
	require.NoError(t, err)
	var pipe bytes.Buffer
	dec := gob.NewDecoder(&pipe)
	v := newMedium()
	for i := range 50 {
		v.ID = i
		b, err := c.Append(nil, v)
		require.NoError(t, err)
		if i > 0 {
			_, b, err = gobcodec.Split(b)
			require.NoError(t, err)
		}
		pipe.Write(b)
		var got mediumValue
		require.NoError(t, dec.Decode(&got))
		require.Equal(t, *v, got)
	}
}
