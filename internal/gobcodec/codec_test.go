package gobcodec_test

import (
	"bytes"
	"encoding/gob"
	"errors"
	"io"
	"math"
	"math/big"
	"math/bits"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/gobcodec"
)

type (
	item  struct{ Item any }
	line  struct{ Lines []item }
	order struct {
		Text  string
		Order line
	}
	withChan struct {
		M map[string]struct{ C *chan int }
	}
	withFunc       struct{ P **struct{ F [2]func() } }
	withKey        struct{ M map[any]int }
	withHidden     struct{ A struct{ x, y int } }
	withPointer    struct{ P unsafe.Pointer }
	selfPointer    *selfPointer
	withSelf       struct{ S []selfPointer }
	oneWay         struct{ N int }
	withOneWay     struct{ L []*oneWay }
	embedsAny      struct{ item }
	unhashable     struct{ v any }
	withUnhashable struct{ M map[unhashable]int }
)

func (oneWay) MarshalBinary() ([]byte, error) { return nil, nil }

func (unhashable) GobEncode() ([]byte, error) { return nil, nil }
func (u *unhashable) GobDecode([]byte) error  { u.v = []int{}; return nil }

func refusal[T any]() error {
	_, err := gobcodec.For[T]()
	return err
}

func TestRefusedTypes(t *testing.T) {
	for want, err := range map[string]error{
		"gobcodec_test.order.Order.Lines[].Item: interface":          refusal[order](),
		"gobcodec_test.withChan.M[].C: chan":                         refusal[withChan](),
		"gobcodec_test.withFunc.P.F[]: func":                         refusal[withFunc](),
		"gobcodec_test.withKey.M[key]: interface":                    refusal[withKey](),
		"gobcodec_test.withUnhashable.M[key]: interface":             refusal[withUnhashable](),
		"gobcodec_test.withHidden.A: struct without exported fields": refusal[withHidden](),
		"gobcodec_test.withPointer.P: unsafe.Pointer":                refusal[withPointer](),
		"gobcodec_test.withSelf.S[]: pointer to itself":              refusal[withSelf](),
		"[]interface {}[]: interface":                                refusal[[]any](),
		"error: interface":                                           refusal[error](),
		"chan int: chan":                                             refusal[chan int](),
		"gobcodec_test.hiddenBase2: struct without exported fields":  refusal[hiddenBase2](),
		"gobcodec_test.embedsAny: struct without exported fields":    refusal[embedsAny](),
		"gobcodec_test.selfPointer: pointer to itself":               refusal[selfPointer](),
		"*gobcodec_test.order.Order.Lines[].Item: interface":         refusal[*order](),
		"gobcodec_test.withOneWay.L[]: has methods to encode itself but not the ones to decode itself, or the reverse": refusal[withOneWay](),
	} {
		require.EqualError(t, err, want)
		require.ErrorAs(t, err, new(*gobcodec.Error))
	}
}

type hiddenBase2 struct{ x int } //nolint:unused // the point of it

// What only a promoted field could receive is no reason to refuse a type, and no place for data either.
func TestPromotedFields(t *testing.T) {
	type hidden struct {
		Good *point
		Bad  any
	}
	type target struct {
		hidden
		A int
	}
	c, err := gobcodec.For[target]()
	require.NoError(t, err)
	data, err := stdEncode(&struct {
		Good point
		A    int
	}{point{1, 2}, 3})
	require.NoError(t, err)
	var own, std target
	_, err = c.Decode(data, &own, gobcodec.Limits{})
	require.NoError(t, err)
	require.NoError(t, stdDecode(data, &std))
	require.Equal(t, target{hidden{Good: &point{1, 2}}, 3}, own)
	require.Equal(t, std, own)

	data, err = stdEncode(&struct{ Bad, A int }{1, 2})
	require.NoError(t, err)
	_, err = c.Decode(data, &own, gobcodec.Limits{})
	require.EqualError(t, err, "gobcodec_test.target.Bad: received int for a type that gob cannot hold")
	require.Error(t, stdDecode(data, &std))
}

func TestForIsCached(t *testing.T) {
	first, err := gobcodec.For[bigs]()
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c, err := gobcodec.For[bigs]()
			assert.NoError(t, err)
			assert.Same(t, first, c)
		})
	}
	wg.Wait()
}

func TestWarnings(t *testing.T) {
	c, err := gobcodec.For[pointers]()
	require.NoError(t, err)
	var want []string
	for f := range strings.SplitSeq("B I J F S T L M", " ") { // not A, R, Q: arrays and structs are always sent
		want = append(want, "gobcodec_test.pointers."+f+": pointer to a zero value arrives as nil")
	}
	// The same types are not walked twice: pointers in scalars are none.
	require.Equal(t, want, c.Warnings())

	none, err := gobcodec.For[times]()
	require.NoError(t, err)
	require.Empty(t, none.Warnings())
}

// What the warning says is so.
func TestPointerToZeroArrivesAsNil(t *testing.T) {
	c, err := gobcodec.For[pointers]()
	require.NoError(t, err)
	zero, text := false, ""
	b, err := c.Append(nil, &pointers{B: &zero, S: &text, A: new([2]int16), R: new(scalars)})
	require.NoError(t, err)
	var got pointers
	_, err = c.Decode(b, &got, gobcodec.Limits{})
	require.NoError(t, err)
	require.Equal(t, pointers{A: new([2]int16), R: new(scalars)}, got)
}

func TestEmptyStruct(t *testing.T) {
	c, err := gobcodec.For[struct{}]()
	require.NoError(t, err)
	require.True(t, c.Empty())
	b, err := c.Append([]byte("dst"), &struct{}{})
	require.NoError(t, err)
	require.Equal(t, "dst", string(b))
	_, err = c.Decode(nil, &struct{}{}, gobcodec.Limits{})
	require.NoError(t, err)

	// A peer whose struct is not empty any more, or a plain encoding/gob: passed over, but held to the rules.
	older, err := stdEncode(&point{1, 2})
	require.NoError(t, err)
	plain, err := stdEncode(&struct{}{})
	require.NoError(t, err)
	for _, b := range [][]byte{older, plain} {
		_, err = c.Decode(b, &struct{}{}, gobcodec.Limits{})
		require.NoError(t, err)
		_, err = c.Decode(b[:len(b)-2], &struct{}{}, gobcodec.Limits{})
		require.Error(t, err)
	}
	notEmpty, err := gobcodec.For[point]()
	require.NoError(t, err)
	require.False(t, notEmpty.Empty())
}

func TestNoData(t *testing.T) {
	c, err := gobcodec.For[**point]()
	require.NoError(t, err)
	var p **point
	charged, err := c.Decode(nil, &p, gobcodec.Limits{})
	require.NoError(t, err)
	require.Equal(t, point{}, **p)
	require.Equal(t, int(unsafe.Sizeof(p)+unsafe.Sizeof(point{})), charged)
	_, err = c.Decode(nil, new(**point), gobcodec.Limits{Decoded: charged - 1})
	require.ErrorAs(t, err, new(*gobcodec.BoundError))

	for _, err := range []error{decodeNothing[int](t), decodeNothing[[]point](t), decodeNothing[time.Time](t), decodeNothing[map[string]int](t)} {
		require.ErrorContains(t, err, "no data")
	}
}

func decodeNothing[T any](t *testing.T) error {
	t.Helper()
	c, err := gobcodec.For[T]()
	require.NoError(t, err)
	_, err = c.Decode(nil, new(T), gobcodec.Limits{})
	return err
}

type failing struct{ n int }

func (f failing) GobEncode() ([]byte, error) {
	if f.n == 2 {
		panic("no twos")
	}
	return []byte{byte(f.n)}, errors.New("never")
}

func (f *failing) GobDecode(b []byte) error {
	if len(b) == 2 {
		_ = append(b, 'x') // must not reach the bytes behind
		panic("no twos")
	}
	return io.ErrNoProgress
}

type failings struct {
	L []failing
	S string
}

func TestMethodsThatFail(t *testing.T) {
	c, err := gobcodec.For[failings]()
	require.NoError(t, err)
	b, err := c.Append([]byte("dst"), &failings{L: []failing{{1}}})
	require.EqualError(t, err, "gobcodec_test.failings.L[]: encoding itself: never")
	require.Equal(t, "dst", string(b))
	_, err = c.Append(nil, &failings{L: []failing{{2}}})
	require.EqualError(t, err, "gobcodec_test.failings.L[]: encoding itself: panic: no twos")

	_, err = c.Decode(message[failings](t, []byte{1, 1, 1, 'a', 1, 1, 'b', 0}), new(failings), gobcodec.Limits{})
	require.ErrorIs(t, err, io.ErrNoProgress)
	two := message[failings](t, []byte{1, 1, 2, 'a', 'b', 1, 1, 'b', 0})
	before := bytes.Clone(two)
	_, err = c.Decode(two, new(failings), gobcodec.Limits{})
	require.EqualError(t, err, "gobcodec_test.failings.L[]: decoding itself: panic: no twos")
	require.Equal(t, before, two)

	// The nil pointer of a type with a value receiver: encoding/gob lets the panic out.
	moments, err := gobcodec.For[[]*time.Time]()
	require.NoError(t, err)
	_, err = moments.Append(nil, &[]*time.Time{nil})
	require.ErrorContains(t, err, "[]*time.Time[]: encoding itself: panic: ")
	numbers, err := gobcodec.For[[]*big.Int]()
	require.NoError(t, err)
	b, err = numbers.Append(nil, &[]*big.Int{nil})
	require.NoError(t, err)
	std, err := stdEncode(&[]*big.Int{nil})
	require.NoError(t, err)
	require.Equal(t, std, b)
}

func TestAppendRefuses(t *testing.T) {
	c, err := gobcodec.For[nested]()
	require.NoError(t, err)
	b, err := c.Append([]byte("dst"), &nested{Q: []**int{new(*int)}})
	require.EqualError(t, err, "gobcodec_test.nested.Q[]: nil pointer where gob needs a value")
	require.Equal(t, "dst", string(b))
	_, err = c.Append(nil, nil)
	require.EqualError(t, err, "gobcodec_test.nested: nil pointer where gob needs a value")
	byKey, err := gobcodec.For[map[string]*point]()
	require.NoError(t, err)
	_, err = byKey.Append(nil, &map[string]*point{"a": nil})
	require.EqualError(t, err, "map[string]*gobcodec_test.point[]: nil pointer where gob needs a value")
	_, err = c.Decode([]byte{1}, nil, gobcodec.Limits{})
	require.EqualError(t, err, "gobcodec_test.nested: nil pointer to decode into")

	loop := &list{V: 1}
	loop.N = loop
	l, err := gobcodec.For[list]()
	require.NoError(t, err)
	_, err = l.Append(nil, loop)
	var bound *gobcodec.BoundError
	require.ErrorAs(t, err, &bound)
	require.Equal(t, gobcodec.BoundDepth, bound.Bound)
	require.Less(t, len(bound.Path), 512)
}

// What can be encoded can be decoded: both sides count levels alike.
func TestDepth(t *testing.T) {
	c, err := gobcodec.For[list]()
	require.NoError(t, err)
	chain := func(n int) *list {
		var l *list
		for range n {
			l = &list{V: 1, N: l}
		}
		return l
	}
	b, err := c.Append(nil, chain(gobcodec.MaxDepth))
	require.NoError(t, err)
	var got list
	_, err = c.Decode(b, &got, gobcodec.Limits{})
	require.NoError(t, err)
	require.Equal(t, chain(gobcodec.MaxDepth), &got)
	_, err = c.Append(nil, chain(gobcodec.MaxDepth+1))
	require.ErrorAs(t, err, new(*gobcodec.BoundError))
	std, err := stdEncode(chain(gobcodec.MaxDepth + 1))
	require.NoError(t, err)
	_, err = c.Decode(std, &got, gobcodec.Limits{})
	require.ErrorAs(t, err, new(*gobcodec.BoundError))

	skips, err := gobcodec.For[struct{ V int }]()
	require.NoError(t, err)
	_, err = skips.Decode(b, new(struct{ V int }), gobcodec.Limits{})
	require.NoError(t, err)
	_, err = skips.Decode(std, new(struct{ V int }), gobcodec.Limits{})
	require.ErrorAs(t, err, new(*gobcodec.BoundError))
}

func TestLimits(t *testing.T) {
	c, err := gobcodec.For[[]byte]()
	require.NoError(t, err)
	v := make([]byte, 4*mib)
	b, err := c.Append(nil, &v)
	require.NoError(t, err)
	_, err = c.Decode(b, &v, gobcodec.Limits{})
	var bound *gobcodec.BoundError
	require.ErrorAs(t, err, &bound)
	require.Equal(t, gobcodec.BoundError{Bound: gobcodec.BoundMessage, Figure: uint64(len(b)), Limit: 4 * mib, Path: "[]uint8"}, *bound)
	_, err = c.Decode(b, &v, gobcodec.Limits{Message: len(b)})
	require.NoError(t, err)
	_, err = c.Decode(b, &v, gobcodec.Limits{Message: -1})
	require.NoError(t, err)

	type point struct{ X, Y int64 }
	const size = 2*int(unsafe.Sizeof([]point{})) + 2*3*mib*16
	many, err := gobcodec.For[[][]point]()
	require.NoError(t, err)
	points := [][]point{make([]point, 3*mib), make([]point, 3*mib)} // 96 MiB in 6 MiB
	b, err = many.Append(nil, &points)
	require.NoError(t, err)
	_, err = many.Decode(b, new([][]point), gobcodec.Limits{Message: -1})
	require.ErrorAs(t, err, &bound)
	require.Equal(t, gobcodec.BoundDecoded, bound.Bound)
	require.EqualValues(t, 64*mib, bound.Limit)
	require.EqualValues(t, size, bound.Figure)
	require.Equal(t, "[][]gobcodec_test.point[]", bound.Path)
	charged, err := many.Decode(b, new([][]point), gobcodec.Limits{Message: -1, Decoded: -1})
	require.NoError(t, err)
	require.Equal(t, size, charged)
}

// Numbers are checked against the width they are received into; which fails names the field.
func TestWidths(t *testing.T) {
	type wide struct {
		I int64
		U uint64
		F float64
		C complex128
	}
	type narrow struct {
		I int8
		U uint16
		F float32
		C complex64
	}
	c, err := gobcodec.For[narrow]()
	require.NoError(t, err)
	for _, v := range []struct {
		wide
		field string
	}{
		{wide{I: 127, U: 65535, F: math.MaxFloat32, C: complex(math.MaxFloat32, 1e-300)}, ""},
		{wide{I: -128, F: math.Inf(1), C: complex(math.Inf(-1), math.NaN())}, ""},
		{wide{I: 128}, "I"},
		{wide{I: -129}, "I"},
		{wide{I: math.MinInt64}, "I"},
		{wide{U: 65536}, "U"},
		{wide{U: math.MaxUint64}, "U"},
		{wide{F: 3.5e38}, "F"},
		{wide{F: -math.MaxFloat64}, "F"},
		{wide{C: complex(3.5e38, 0)}, "C"},
		{wide{C: complex(0, -3.5e38)}, "C"},
	} {
		b, err := stdEncode(&v.wide)
		require.NoError(t, err)
		_, err = c.Decode(b, new(narrow), gobcodec.Limits{})
		require.Equal(t, stdDecode(b, new(narrow)) == nil, err == nil)
		if v.field == "" {
			require.NoError(t, err)
		} else {
			require.EqualError(t, err, "gobcodec_test.narrow."+v.field+": number out of the range of its type")
		}
	}
}

// Every prefix of a gob is refused, whatever the type; so is a gob with a byte more.
func TestCutOff(t *testing.T) {
	f := newFiller(*seed)
	for _, s := range subjects(t) {
		b, err := s.append(nil, s.random(f))
		require.NoError(t, err)
		for n := 1; n < len(b); n += 1 + len(b)/2000 {
			_, err = s.decode(b[:n], s.zero(), gobcodec.Limits{})
			require.Error(t, err, "%v, -seed %d, %d of %d bytes", s.rt, *seed, n, len(b))
			checkError(t, err)
		}
		_, err = s.decode(append(b, 0), s.zero(), gobcodec.Limits{})
		require.Error(t, err)
	}
}

func TestConcurrent(t *testing.T) {
	all := subjects(t)
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			f := newFiller(uint64(n))
			for range 30 {
				for _, s := range all {
					v, got := s.random(f), s.zero()
					b, err := s.append(nil, v)
					assert.NoError(t, err)
					_, err = s.decode(b, got, gobcodec.Limits{})
					assert.NoError(t, err)
					again, err := s.append(nil, got)
					assert.NoError(t, err)
					assert.Len(t, again, len(b))
				}
			}
		})
	}
	wg.Wait()
}

func TestAppendDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random")
	}
	noAllocs(t, newCall())
	noAllocs(t, newSmall())
	noAllocs(t, newMedium())
	noAllocs(t, newNode())
	noAllocs(t, newLarge())
	f := newFiller(3)
	f.budget = 100
	var v struct {
		S scalars
		P pointers
		N nested
		M mapsOther
	}
	f.value(reflect.ValueOf(&v).Elem(), true)
	noAllocs(t, &v)
}

func noAllocs[T any](t *testing.T, v *T) {
	t.Helper()
	c, err := gobcodec.For[T]()
	require.NoError(t, err)
	buf, err := c.Append(nil, v)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() { buf, _ = c.Append(buf[:0], v) }), "%T", v)
}

// A flood of definitions never seen before stays within the table, and leaves the ones in use alone.
func TestTableIsBounded(t *testing.T) {
	c, err := gobcodec.For[argsTarget]()
	require.NoError(t, err)
	own, err := c.Append(nil, &argsTarget{A: 1})
	require.NoError(t, err)
	for i := range int64(3 * gobcodec.TablePlans) {
		b := cat(wStruct(100+i, "Args", wField{"A", 2}), wMessage(wInt(100+i), []byte{1, 2, 0}))
		var v argsTarget
		_, err := c.Decode(b, &v, gobcodec.Limits{})
		require.NoError(t, err)
		require.Equal(t, argsTarget{A: 1}, v)
		if i%100 == 0 {
			_, err = c.Decode(own, &v, gobcodec.Limits{})
			require.NoError(t, err)
		}
	}
	n, _, consistent := gobcodec.Table()
	require.Equal(t, gobcodec.TablePlans, n)
	require.True(t, consistent)

	for i := range int64(300) { // large ones: the bound of bytes
		b := cat(wStruct(100+i, "Args", extraFields(3000, 2)...), wMessage(wInt(100+i), []byte{1, 2, 0}))
		_, err := c.Decode(b, new(argsTarget), gobcodec.Limits{})
		require.NoError(t, err)
	}
	n, size, consistent := gobcodec.Table()
	require.Less(t, n, gobcodec.TablePlans)
	require.LessOrEqual(t, size, gobcodec.TableBytes)
	require.True(t, consistent)
}

// What encoding/gob does otherwise, and why the codec does not follow it.
func TestDifferences(t *testing.T) {
	t.Run("two received types for one own type in a struct", func(t *testing.T) {
		// encoding/gob decodes the second with the plan of the first: its values end in the wrong fields.
		type a struct{ P, Q int }
		type b struct{ Q, P int }
		type from struct {
			X a
			Y b
		}
		type to struct{ X, Y a }
		data, err := stdEncode(&from{a{1, 2}, b{3, 4}})
		require.NoError(t, err)
		c, err := gobcodec.For[to]()
		require.NoError(t, err)
		var own, std to
		_, err = c.Decode(data, &own, gobcodec.Limits{})
		require.NoError(t, err)
		require.Equal(t, to{a{1, 2}, a{4, 3}}, own)
		require.NoError(t, stdDecode(data, &std))
		require.Equal(t, to{a{1, 2}, a{3, 4}}, std)
	})
	t.Run("promoted field behind a nil embedded pointer", func(t *testing.T) {
		// encoding/gob panics, on bytes that any peer can send; the codec sets the pointer, as encoding/json does.
		data, err := stdEncode(&struct{ ID, Extra string }{"x", "y"})
		require.NoError(t, err)
		_, err = mustFor[embedsPointer](t).Decode(data, new(embedsPointer), gobcodec.Limits{})
		require.ErrorContains(t, err, "gobcodec_test.embedsPointer.ID: received string for int")
		data, err = stdEncode(&struct {
			ID    int
			Extra string
		}{7, "y"})
		require.NoError(t, err)
		require.Panics(t, func() { _ = stdDecode(data, new(embedsPointer)) })
		var v embedsPointer
		_, err = mustFor[embedsPointer](t).Decode(data, &v, gobcodec.Limits{})
		require.NoError(t, err)
		require.Equal(t, embedsPointer{Base: &Base{ID: 7}, Extra: "y"}, v)
	})
	t.Run("promoted field behind an unexported embedded pointer", func(t *testing.T) {
		// Nothing may set that pointer: the field is unknown. encoding/gob panics.
		data, err := stdEncode(&Base{ID: 7, Name: "n"})
		require.NoError(t, err)
		type target struct {
			*hiddenBase
			Name string
		}
		var v target
		_, err = mustFor[target](t).Decode(data, &v, gobcodec.Limits{})
		require.NoError(t, err)
		require.Equal(t, target{Name: "n"}, v)
		require.Panics(t, func() { _ = stdDecode(data, new(target)) })
	})
	t.Run("map entries of types that encode themselves by a pointer", func(t *testing.T) {
		// encoding/gob cannot take the address of an entry; what the codec sends it can receive.
		v := map[string]box{"a": {7}}
		_, err := stdEncode(&v)
		require.ErrorContains(t, err, "unaddressable")
		data, err := mustFor[map[string]box](t).Append(nil, &v)
		require.NoError(t, err)
		var own, std map[string]box
		_, err = mustFor[map[string]box](t).Decode(data, &own, gobcodec.Limits{})
		require.NoError(t, err)
		require.NoError(t, stdDecode(data, &std))
		require.Equal(t, v, own)
		require.Equal(t, v, std)
	})
	t.Run("interface that the receiver lacks", func(t *testing.T) {
		// Its end is known only with the definitions inside the value; types with interfaces are refused everywhere.
		gob.Register(point{})
		data, err := stdEncode(&struct {
			A int
			X any
		}{1, nil})
		require.NoError(t, err)
		require.NoError(t, stdDecode(data, new(argsTarget)))
		_, err = mustFor[argsTarget](t).Decode(data, new(argsTarget), gobcodec.Limits{})
		require.EqualError(t, err, "gobcodec_test.argsTarget.X: received interface")
	})
	t.Run("bytes behind the value inside its message", func(t *testing.T) {
		// encoding/gob drops them. A message with bytes of no meaning is damaged.
		data := message[argsTarget](t, []byte{1, 2, 0, 99})
		require.NoError(t, stdDecode(data, new(argsTarget)))
		_, err := mustFor[argsTarget](t).Decode(data, new(argsTarget), gobcodec.Limits{})
		require.Error(t, err)
	})
	t.Run("channels and functions", func(t *testing.T) {
		// encoding/gob leaves them out in silence.
		_, err := stdEncode(&struct {
			A int
			C chan int
		}{A: 1})
		require.NoError(t, err)
		require.Error(t, refusal[struct {
			A int
			C chan int
		}]())
	})
	t.Run("nil at the top", func(t *testing.T) {
		// encoding/gob panics for nil, and sends a message without content for a pointer to nil.
		_, err := mustFor[*point](t).Append(nil, new(*point))
		require.Error(t, err)
		require.Panics(t, func() { _ = gob.NewEncoder(io.Discard).Encode((*point)(nil)) })
	})
	t.Run("definitions of two forms", func(t *testing.T) {
		// encoding/gob takes the one that suits it.
		defs := wMessage(wInt(-70), []byte{2, 1}, wCommon("L", 70), []byte{1}, wInt(2), []byte{0, 1, 1}, wCommon("L", 70), []byte{0, 0})
		data := cat(defs, wMessage(wInt(70), []byte{0, 1, 2}))
		require.NoError(t, stdDecode(data, new([]int)))
		_, err := mustFor[[]int](t).Decode(data, new([]int), gobcodec.Limits{})
		require.Error(t, err)
	})
	t.Run("lists of uint on 32 bits", func(t *testing.T) {
		// encoding/gob cuts their elements, and nothing else, to 32 bits without an error (decUintSlice has a TODO for it).
		data, err := stdEncode(&[]uint64{1 << 40})
		require.NoError(t, err)
		var own, std []uint
		_, err = mustFor[[]uint](t).Decode(data, &own, gobcodec.Limits{})
		require.NoError(t, stdDecode(data, &std))
		if bits.UintSize == 32 {
			require.Equal(t, []uint{0}, std)
			require.EqualError(t, err, "[]uint[]: number out of the range of its type")
		} else {
			require.NoError(t, err)
			require.Equal(t, std, own)
		}
	})
	t.Run("type ids beyond 32 bits", func(t *testing.T) {
		// encoding/gob cuts them to 32 bits.
		data := wMessage(wInt(1<<32+2), []byte{0, 2})
		require.NoError(t, stdDecode(data, new(int)))
		_, err := mustFor[int](t).Decode(data, new(int), gobcodec.Limits{})
		require.Error(t, err)
	})
}

func mustFor[T any](t *testing.T) *gobcodec.Codec[T] {
	t.Helper()
	c, err := gobcodec.For[T]()
	require.NoError(t, err)
	return c
}

// TestListsOfStrings: short strings of a list share blocks of up to 256 bytes, their lengths included, long ones do not, and what they
// hold is the same.
func TestListsOfStrings(t *testing.T) {
	c, err := gobcodec.For[[]string]()
	require.NoError(t, err)
	for _, test := range []struct{ n, length, allocs int }{
		{1, 5, 2}, {2, 5, 2}, {3, 0, 1}, {2, 127, 2}, {2, 128, 3}, {3, 127, 3}, {3, 128, 4}, {42, 5, 2}, {43, 5, 3}, {103, 4, 4}, {512, 0, 1},
	} {
		list := make([]string, test.n)
		for i := range list {
			list[i] = strings.Repeat(string(rune('a'+i%26)), test.length)
		}
		gob, err := c.Append(nil, &list)
		require.NoError(t, err)
		var got []string
		allocs := testing.AllocsPerRun(100, func() {
			got = nil
			_, err = c.Decode(gob, &got, gobcodec.Limits{})
		})
		require.NoError(t, err)
		assert.Equal(t, list, got)
		if !raceEnabled {
			assert.InDelta(t, test.allocs, allocs, 0.5, "%d strings of %d bytes", test.n, test.length)
		}
	}
}

// TestSharedBlock: from the first string or bytes within 256 bytes of the message's end on, all are parts of one block, which is
// charged as it is allocated. A first one of less than an eighth of that is by itself.
func TestSharedBlock(t *testing.T) {
	type value struct {
		Name  string
		Bytes []byte
		Last  string
	}
	c, err := gobcodec.For[value]()
	require.NoError(t, err)
	for n := 1; n <= 600; n++ {
		name := strings.Repeat("n", 32)
		if n > 300 {
			name = "short"
		}
		v := value{name, bytes.Repeat([]byte{'b'}, (n-1)%300+1), "last"}
		gob, err := c.Append(nil, &v)
		require.NoError(t, err)
		blocks := 3
		if rest := len(gob) - bytes.LastIndex(gob, []byte(name)); rest <= 256 && rest <= 8*len(name) {
			blocks = 1
		} else if len(gob)-bytes.LastIndex(gob, v.Bytes) <= 256 {
			blocks = 2
		}
		var got value
		var charged int
		decode := func() {
			got = value{}
			charged, err = c.Decode(gob, &got, gobcodec.Limits{})
		}
		allocs := testing.AllocsPerRun(20, decode)
		require.NoError(t, err)
		require.Equal(t, v, got)
		require.Equal(t, len(v.Bytes), cap(got.Bytes))
		_, err = c.Decode(gob, new(value), gobcodec.Limits{Decoded: charged})
		require.NoError(t, err)
		_, err = c.Decode(gob, new(value), gobcodec.Limits{Decoded: charged - 1})
		require.ErrorAs(t, err, new(*gobcodec.BoundError))
		if raceEnabled {
			continue
		}
		require.InDelta(t, blocks, allocs, 0.5, "%d bytes", n)
		if blocks < 3 { // larger ones than 256 bytes are charged without the size classes
			require.LessOrEqual(t, allocatedBy(decode), charged, "%d bytes", n)
		}
	}
}

// allocatedBy is the bytes that f allocates, without what the runtime does meanwhile.
func allocatedBy(f func()) int {
	const times = 50
	least := uint64(math.MaxUint64)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range times {
			f()
		}
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return int(least / times)
}

// No value of a block reaches another: not by append, and not when its room is decoded into again.
func TestValuesOfBlockAreApart(t *testing.T) {
	c := mustFor[callValue](t)
	v := newCall()
	gob, err := c.Append(nil, v)
	require.NoError(t, err)
	var got callValue
	_, err = c.Decode(gob, &got, gobcodec.Limits{})
	require.NoError(t, err)
	first := got
	first.Tags = slices.Clone(got.Tags) // the list has room as well, the strings do not
	body := got.Body
	_ = append(got.Body, "more"...)
	require.Equal(t, *v, got)

	other := &callValue{Name: "name", Body: bytes.Repeat([]byte{0xff}, 64), Tags: []string{"a tag that is longer", "b", "ccc"}}
	gob, err = c.Append(nil, other)
	require.NoError(t, err)
	_, err = c.Decode(gob, &got, gobcodec.Limits{})
	require.NoError(t, err)
	require.Equal(t, other.Body, got.Body)
	require.Equal(t, other.Tags, got.Tags)
	require.Equal(t, other.Body, body, "the room was used")
	require.Equal(t, v.Name, first.Name)
	require.Equal(t, v.Tags, first.Tags)
}

// TestClear: nothing is left of a value but the room of its []byte fields, which Decode uses again.
func TestClear(t *testing.T) {
	type named []byte
	type message struct {
		ID    int
		Body  []byte
		Name  string
		More  named
		Tags  []string
		Inner struct{ B []byte }
		Deep  *int
	}
	c, one := mustFor[message](t), 1
	v := message{ID: 1, Body: []byte("a body"), Name: "n", More: named("more"), Tags: []string{"t"}, Deep: &one}
	v.Inner.B = []byte("inner")
	body := &v.Body[0]
	c.Clear(&v)
	require.Equal(t, message{Body: []byte{}, More: named{}}, v)
	src, err := c.Append(nil, &message{ID: 2, Body: []byte("other")})
	require.NoError(t, err)
	allocated, err := c.Decode(src, &v, gobcodec.Limits{})
	require.NoError(t, err)
	require.Zero(t, allocated)
	require.Equal(t, message{ID: 2, Body: []byte("other"), More: named{}}, v)
	require.Same(t, body, &v.Body[0])

	var zero message
	c.Clear(&zero)
	require.Equal(t, message{}, zero)
	p := mustFor[*message](t)
	pointer := &v
	p.Clear(&pointer)
	require.Nil(t, pointer)
	require.Equal(t, 2, v.ID)
}

// TestLongBytes: bytes that are copied in pieces are the bytes that encoding/gob reads, behind what was there before.
func TestLongBytes(t *testing.T) {
	type message struct {
		ID   int
		Body []byte
		Tail string
	}
	c, err := gobcodec.For[message]()
	require.NoError(t, err)
	for _, n := range []int{1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 5} {
		want := message{7, make([]byte, n), "tail"}
		for i := range want.Body {
			want.Body[i] = byte(i * 31 >> 3)
		}
		for _, room := range []int{0, n / 2, 2 * n} {
			b, err := c.Append(append(make([]byte, 0, room), "before"...), &want)
			require.NoError(t, err)
			require.Equal(t, "before", string(b[:6]))
			var got message
			require.NoError(t, gob.NewDecoder(bytes.NewReader(b[6:])).Decode(&got))
			require.Equal(t, want.ID, got.ID)
			require.Equal(t, want.Tail, got.Tail)
			require.True(t, bytes.Equal(want.Body, got.Body), "%d bytes", n)
		}
	}
}
