package gobcodec_test

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gobnode/internal/gobcodec"
)

// A subject is one type of the differential tests, with its codec.
type subject struct {
	rt      reflect.Type
	ordered bool // no maps: equal values have equal bytes
	append  func(dst []byte, v any) ([]byte, error)
	decode  func(src []byte, v any, lim gobcodec.Limits) (int, error)
}

func of[T any](tb testing.TB) subject {
	tb.Helper()
	c, err := gobcodec.For[T]()
	require.NoError(tb, err)
	rt := reflect.TypeFor[T]()
	return subject{
		rt: rt, ordered: !reaches(rt, reflect.Map, map[reflect.Type]bool{}),
		append: func(dst []byte, v any) ([]byte, error) { return c.Append(dst, v.(*T)) },
		decode: func(src []byte, v any, lim gobcodec.Limits) (int, error) { return c.Decode(src, v.(*T), lim) },
	}
}

func (s subject) zero() any { return reflect.New(s.rt).Interface() }

// random returns a pointer to a random value.
func (s subject) random(f *filler) any {
	v := reflect.New(s.rt)
	f.fill(v.Elem())
	return v.Interface()
}

func reaches(rt reflect.Type, k reflect.Kind, seen map[reflect.Type]bool) bool {
	if seen[rt] {
		return false
	}
	seen[rt] = true
	switch rt.Kind() {
	case k:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return reaches(rt.Elem(), k, seen)
	case reflect.Map:
		return reaches(rt.Elem(), k, seen) || reaches(rt.Key(), k, seen)
	case reflect.Struct:
		for f := range rt.Fields() {
			if f.IsExported() && reaches(f.Type, k, seen) {
				return true
			}
		}
	}
	return false
}

// stdEncode encodes what the pointer v points to. It takes the inner one of pointers to pointers, on which encoding/gob panics if
// the type encodes itself.
func stdEncode(v any) ([]byte, error) {
	var w bytes.Buffer
	p := reflect.ValueOf(v)
	for p.Elem().Kind() == reflect.Pointer {
		p = p.Elem()
	}
	err := gob.NewEncoder(&w).EncodeValue(p)
	return w.Bytes(), err
}

func stdDecode(b []byte, v any) error { return gob.NewDecoder(bytes.NewReader(b)).Decode(v) }

type (
	scalars struct {
		B      bool
		I8     int8
		I16    int16
		I32    int32
		I64    int64
		I      int
		U8     uint8
		U16    uint16
		U32    uint32
		U64    uint64
		U      uint
		P      uintptr
		F32    float32
		F64    float64
		C64    complex64
		C128   complex128
		S      string
		Bytes  []byte
		hidden int //nolint:unused // left out by gob
		Last   bool
	}
	pointers struct {
		B *bool
		I **int
		J ***int8
		F *float32
		S *string
		T *[]byte
		L *[]int
		M *map[string]int
		A *[2]int16
		R *scalars
		Q **scalars
	}
	arrays struct {
		I [3]int
		B [5]byte
		S [2]struct{ X, Y int8 }
		N [2][3]string
		Z [0]int
		P [2]*int
		L [2][]bool
		F [3]float32
	}
	lists struct {
		B    []bool
		I8   []int8
		I16  []int16
		I32  []int32
		I64  []int64
		I    []int
		U16  []uint16
		U32  []uint32
		U64  []uint64
		U    []uint
		P    []uintptr
		F32  []float32
		F64  []float64
		C64  []complex64
		C128 []complex128
		S    []string
		R    [][]byte
	}
	nested struct {
		S [][]string
		F [][][]float64
		P []*scalars
		Q []**int
		T []scalars
		M []map[string]int
		E []struct{}
		A [][2]int
	}
	mapsTyped struct {
		SI map[string]int
		SL map[string]int64
		SS map[string]string
		SB map[string]bool
		SF map[string]float64
		S8 map[string]int8
		IB map[int]bool
		II map[int64]uint64
		IS map[int]string
		US map[uint64]string
		NN map[label]level
	}
	mapsOther struct {
		A map[[2]int]string
		F map[float64]int
		C map[complex64]bool
		S map[string]scalars
		P map[string]*point
		Q map[*int8]int
		T map[point]point
		L map[string][]int
		M map[string]map[int8]point
		B map[bool][]byte
		H map[int16]float32
		W map[string][40]int
		E map[string]struct{}
	}
	point  struct{ X, Y int }
	label  string
	level  float64
	octets []byte
	octet  uint8
	number int32
	flags  []bool
	named  struct {
		L label
		V level
		O octets
		P []octet
		N number
		F flags
		A [2]octet
		D time.Duration
	}
	list struct {
		V int
		N *list
	}
	tree struct {
		Name string
		Kids []tree
	}
	graph struct {
		Name  string
		Edges map[string]*graph
	}
	selfSlice []selfSlice
	selfMap   map[string]selfMap
	ping      struct {
		N int
		P *pong
	}
	pong struct {
		S string
		L []ping
	}
	Base struct {
		ID   int
		Name string
	}
	Deep struct {
		Base
		Depth int
	}
	embeds struct {
		Base
		Extra string
	}
	embedsPointer struct {
		*Base
		*Deep
		Extra string
	}
	hiddenBase   struct{ ID int }
	embedsHidden struct {
		hiddenBase
		Extra string
	}
	shadowing struct {
		Base
		Name []string
	}
	empties struct {
		A struct{}
		B *struct{}
		C []struct{}
		D int
	}
	times struct {
		T time.Time
		P *time.Time
		L []time.Time
		M map[string]time.Time
		A [2]time.Time
	}
	bigs struct {
		I big.Int
		P *big.Int
		Q **big.Int
		L []*big.Int
		V []big.Int
	}
	nets struct {
		A netip.Addr
		P *netip.Addr
		L []netip.Addr
		U *url.URL
		I net.IP
		M map[netip.Addr]string
	}
	selves struct {
		C celsius
		P *celsius
		B box
		Q *box
		L []box
		M map[celsius]int
		T textual
		S tags
	}
	generic[T any] struct {
		V T
		L []T
	}
	wide struct {
		A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z int
		AA, BB, CC, DD, EE, FF, GG, HH, II, JJ, KK, LL, MM, NN, OO, PP, QQ, RR, SS   string
	}
)

// celsius encodes itself with a value receiver.
type celsius float64

func (c celsius) GobEncode() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(c), 'g', -1, 64), nil
}

func (c *celsius) GobDecode(b []byte) error {
	f, err := strconv.ParseFloat(string(b), 64)
	*c = celsius(f)
	return err
}

// box is a BinaryMarshaler with a pointer receiver and nothing that gob could send by itself.
type box struct{ n uint32 }

func (b *box) MarshalBinary() ([]byte, error) { return binary.BigEndian.AppendUint32(nil, b.n), nil }

func (b *box) UnmarshalBinary(p []byte) error {
	if len(p) != 4 {
		return errors.New("a box has four bytes")
	}
	b.n = binary.BigEndian.Uint32(p)
	return nil
}
func (b *box) random(f *filler) { b.n = f.Uint32() }

// textual has text methods only, which gob passes over.
type textual struct{ A, B int }

func (t textual) MarshalText() ([]byte, error) { return nil, errors.New("not to be called") }
func (t *textual) UnmarshalText([]byte) error  { return errors.New("not to be called") }

// tags is a map that encodes itself.
type tags map[string]bool

func (t tags) MarshalBinary() ([]byte, error) { return []byte{byte(len(t))}, nil }
func (t *tags) UnmarshalBinary(b []byte) error {
	*t = tags{}
	for i := range b[0] {
		(*t)[string('a'+rune(i))] = true
	}
	return nil
}
func (t *tags) random(f *filler) { _ = t.UnmarshalBinary([]byte{byte(f.IntN(5))}) }

func subjects(tb testing.TB) []subject {
	tb.Helper()
	return []subject{
		of[scalars](tb), of[pointers](tb), of[arrays](tb), of[lists](tb), of[nested](tb), of[mapsTyped](tb), of[mapsOther](tb),
		of[named](tb), of[list](tb), of[tree](tb), of[graph](tb), of[selfSlice](tb), of[selfMap](tb), of[ping](tb), of[embeds](tb),
		of[embedsPointer](tb), of[embedsHidden](tb), of[shadowing](tb), of[empties](tb), of[times](tb), of[bigs](tb),
		of[nets](tb), of[selves](tb), of[generic[point]](tb), of[generic[map[string]int]](tb), of[wide](tb),
		of[int](tb), of[string](tb), of[bool](tb), of[[]byte](tb), of[float32](tb), of[complex128](tb), of[[3]string](tb), of[[]int](tb),
		of[map[string]int](tb), of[map[int]list](tb), of[***list](tb), of[*int](tb), of[[]*tree](tb), of[time.Time](tb),
		of[*big.Int](tb), of[netip.Addr](tb), of[celsius](tb), of[struct{ A, B []int }](tb),
		of[smallValue](tb), of[mediumValue](tb), of[nodeValue](tb),
	}
}
