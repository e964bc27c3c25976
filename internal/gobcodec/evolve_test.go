package gobcodec_test

import (
	"bytes"
	"encoding/gob"
	"math/bits"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gobnode/internal/gobcodec"
)

// An evolver makes random struct types, and versions of them: fields dropped, added, moved, renamed, retyped, some so that
// they no longer fit.
type evolver struct{ *filler }

var scalarTypes = []reflect.Type{
	reflect.TypeFor[bool](), reflect.TypeFor[int](), reflect.TypeFor[int8](), reflect.TypeFor[int16](), reflect.TypeFor[int32](),
	reflect.TypeFor[int64](), reflect.TypeFor[uint](), reflect.TypeFor[uint8](), reflect.TypeFor[uint16](), reflect.TypeFor[uint32](),
	reflect.TypeFor[uint64](), reflect.TypeFor[uintptr](), reflect.TypeFor[float32](), reflect.TypeFor[float64](),
	reflect.TypeFor[complex64](), reflect.TypeFor[complex128](), reflect.TypeFor[string](), reflect.TypeFor[[]byte](),
}

func (e evolver) scalar() reflect.Type { return scalarTypes[e.IntN(len(scalarTypes))] }

func (e evolver) any(depth int) reflect.Type {
	if depth == 0 {
		return e.scalar()
	}
	switch e.IntN(9) {
	case 0:
		return reflect.SliceOf(e.any(depth - 1))
	case 1:
		return reflect.ArrayOf(e.IntN(3), e.any(depth-1))
	case 2:
		return reflect.MapOf(e.key(), e.any(depth-1))
	case 3, 4:
		return e.structure(depth - 1)
	case 5:
		return reflect.PointerTo(e.any(depth - 1))
	}
	return e.scalar()
}

func (e evolver) key() reflect.Type {
	for {
		if t := e.scalar(); t.Comparable() {
			return t
		}
	}
}

func (e evolver) structure(depth int) reflect.Type {
	var fs []reflect.StructField
	for _, i := range e.Perm(6)[:1+e.IntN(5)] {
		fs = append(fs, reflect.StructField{Name: string('A' + rune(i)), Type: e.any(depth)})
	}
	return reflect.StructOf(fs)
}

// version changes about every fourth thing in t.
func (e evolver) version(t reflect.Type) reflect.Type {
	if e.IntN(30) == 0 {
		return e.any(1)
	}
	if e.IntN(12) == 0 {
		return reflect.PointerTo(e.version(t))
	}
	switch t.Kind() {
	case reflect.Pointer:
		return e.version(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 {
			return reflect.SliceOf(e.version(t.Elem()))
		}
	case reflect.Array:
		return reflect.ArrayOf(t.Len(), e.version(t.Elem()))
	case reflect.Map:
		return reflect.MapOf(t.Key(), e.version(t.Elem()))
	case reflect.Struct:
		var fs []reflect.StructField
		for f := range t.Fields() {
			if e.IntN(6) != 0 {
				fs = append(fs, reflect.StructField{Name: f.Name, Type: e.version(f.Type)})
			}
		}
		if e.IntN(3) == 0 {
			fs = append(fs, reflect.StructField{Name: string('G' + rune(e.IntN(3))), Type: e.any(1)})
		}
		e.Shuffle(len(fs), func(i, j int) { fs[i], fs[j] = fs[j], fs[i] })
		return reflect.StructOf(fs)
	}
	return e.width(t)
}

// width is another type of the same family: any width fits any other.
func (e evolver) width(t reflect.Type) reflect.Type {
	families := [][2]int{{1, 6}, {6, 12}, {12, 14}, {14, 16}}
	for _, f := range families {
		if i := slices.Index(scalarTypes, t); i >= f[0] && i < f[1] && t.Kind() != reflect.Uint8 && e.IntN(2) == 0 {
			if w := scalarTypes[f[0]+e.IntN(f[1]-f[0])]; w.Kind() != reflect.Uint8 {
				return w
			}
		}
	}
	return t
}

// A pairing notes which types a decoder meets for each of its own. encoding/gob compiles, within one struct, only the first of
// them, and so misreads a second; see TestDifferences.
type pairing map[reflect.Type]reflect.Type

func (p pairing) twice(from, to reflect.Type) bool {
	for from.Kind() == reflect.Pointer {
		from = from.Elem()
	}
	for to.Kind() == reflect.Pointer {
		to = to.Elem()
	}
	if from.Kind() != to.Kind() {
		return false
	}
	if f, ok := p[to]; ok {
		return f != from && f.Kind() > reflect.Complex128 && f.Kind() != reflect.String
	}
	p[to] = from
	switch to.Kind() {
	case reflect.Slice, reflect.Array:
		return p.twice(from.Elem(), to.Elem())
	case reflect.Map:
		return p.twice(from.Elem(), to.Elem()) || p.twice(from.Key(), to.Key())
	case reflect.Struct:
		for t := range to.Fields() {
			if f, ok := from.FieldByName(t.Name); ok && p.twice(f.Type, t.Type) {
				return true
			}
		}
	}
	return false
}

// cutsUints recognizes what encoding/gob does to lists of uint on 32 bits; see TestDifferences.
func cutsUints(to reflect.Type, own error) bool {
	return bits.UintSize == 32 && reaches(to, reflect.Uint, map[reflect.Type]bool{}) &&
		strings.HasSuffix(own.Error(), "[]: number out of the range of its type")
}

func TestEvolution(t *testing.T) {
	pairs := 300
	if *long {
		pairs = 5000
	}
	t.Logf("-seed %d", *seed)
	e := evolver{newFiller(*seed)}
	var accepted, refused, left int
	for n := range pairs {
		from := e.structure(2)
		to := e.version(from)
		if (pairing{}).twice(from, to) {
			left++
			continue
		}
		own, err := gobcodec.ForType(to)
		if to.Kind() != reflect.Struct || err != nil || own == nil {
			left++
			continue
		}
		for range 8 {
			v := reflect.New(from)
			e.fill(v.Elem())
			b, err := stdEncode(v.Interface())
			require.NoError(t, err)
			want, got := reflect.New(to), reflect.New(to)
			stdErr := gob.NewDecoder(bytes.NewReader(b)).DecodeValue(want)
			_, ownErr := own.Decode(b, got, gobcodec.Limits{})
			if stdErr == nil && ownErr != nil && cutsUints(to, ownErr) {
				continue
			}
			if (stdErr == nil) != (ownErr == nil) || stdErr == nil && !reflect.DeepEqual(want.Interface(), got.Interface()) {
				t.Fatalf("-seed %d, pair %d\nfrom %v\nto %v\nencoding/gob: %v, %+v\ncodec: %v, %+v", *seed, n, from, to, stdErr, want, ownErr, got)
			}
			if ownErr == nil {
				accepted++
			} else {
				refused++
			}
		}
	}
	t.Logf("%d pairs of types: %d values accepted, %d refused by both; %d pairs left out", pairs, accepted, refused, left)
	require.Greater(t, accepted, pairs/2)
	require.Greater(t, refused, pairs/20)
}
