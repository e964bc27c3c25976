package gobcodec_test

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"io"
	"math/big"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gobnode/internal/gobcodec"
)

type Scal struct {
	A  bool
	B  int8
	C  int16
	D  int32
	E  int64
	F  int
	G  uint8
	H  uint16
	I  uint32
	J  uint64
	K  uint
	L  uintptr
	M  float32
	N  float64
	O  complex64
	P  complex128
	Q  string
	R  []byte
	PA *int
	PB **string
	PC *float32
	PD *[]int
	T  time.Time
	U  *time.Time
	V  big.Int
}
type M struct {
	A map[string]int
	B map[string]string
	C map[int]bool
	D map[string][]int
	E map[string]map[int8]M2
	F map[[2]int]string
	H map[float64]struct{ X int }
}
type M2 struct{ V int }

func rt[T any](t *testing.T, f *filler) {
	c, err := gobcodec.For[T]()
	require.NoError(t, err)
	for range 3000 {
		var v T
		f.fill(reflect.ValueOf(&v).Elem())
		got, err := c.Append(nil, &v)
		require.NoError(t, err)
		var w bytes.Buffer
		require.NoError(t, gob.NewEncoder(&w).Encode(&v))
		require.Equal(t, w.Len(), len(got))
		var a, b T
		_, err = c.Decode(w.Bytes(), &a, gobcodec.Limits{})
		require.NoError(t, err)
		require.NoError(t, gob.NewDecoder(bytes.NewReader(got)).Decode(&b))
		require.True(t, reflect.DeepEqual(b, a))
		r := bufio.NewReader(bytes.NewReader(append(got, "xyz"...)))
		m, err := gobcodec.ReadMessage(r, nil, gobcodec.Limits{})
		require.NoError(t, err)
		require.Equal(t, got, m)
		rest, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "xyz", string(rest))
	}
}

func TestQuick(t *testing.T) {
	r := newFiller(1)
	rt[Scal](t, r)
	rt[M](t, r)
	rt[[]string](t, r)
	rt[int](t, r)
	rt[map[string][]byte](t, r)
	rt[**Scal](t, r)
	rt[[]*big.Int](t, r)
	rt[time.Time](t, r)
	rt[*time.Time](t, r)
}
