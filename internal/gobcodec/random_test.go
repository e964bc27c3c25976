package gobcodec_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"reflect"
	"time"
)

// A filler makes random values. Their size is bounded by a budget of elements, so that recursive types end.
type filler struct {
	*rand.Rand
	budget int
	noMaps bool // maps stay nil or get one entry at most: their order shows in the bytes
	nan    bool // NaN is made as well: not where values are compared
}

func newFiller(seed uint64) *filler { return &filler{Rand: rand.New(rand.NewPCG(seed, 0))} }

// fill sets v, which is settable, to a random value that encoding/gob can encode: no nil pointers among elements.
func (f *filler) fill(v reflect.Value) {
	f.budget = 1 + f.IntN(60)
	f.value(v, true)
}

func (f *filler) value(v reflect.Value, element bool) {
	f.budget--
	if f.self(v) {
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(f.integer() >> (64 - v.Type().Bits()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		v.SetUint(uint64(f.integer()) >> (64 - v.Type().Bits()))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(f.float(v.Type().Bits()))
	case reflect.Complex64, reflect.Complex128:
		v.SetComplex(complex(f.float(v.Type().Bits()/2), f.float(v.Type().Bits()/2)))
	case reflect.String:
		v.SetString(string(f.bytes()))
	case reflect.Slice:
		n := f.length()
		if n < 0 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n+f.IntN(2)))
		for i := range n {
			f.value(v.Index(i), true)
		}
	case reflect.Array:
		for i := range v.Len() {
			f.value(v.Index(i), true)
		}
	case reflect.Map:
		f.mapping(v)
	case reflect.Pointer:
		// Far elements of recursive types have to end; an element must not be nil, so its type must not need it.
		if element || f.budget > 0 && f.IntN(4) != 0 {
			v.Set(reflect.New(v.Type().Elem()))
			f.value(v.Elem(), element)
		}
	case reflect.Struct:
		for _, e := range v.Fields() {
			always := e.Kind() == reflect.Array || e.Kind() == reflect.Struct // they are sent always, with what is in them
			if e.CanSet() && (always || f.IntN(8) != 0) {
				f.value(e, false)
			}
		}
	}
}

func (f *filler) mapping(v reflect.Value) {
	n := f.length()
	if n < 0 {
		return
	}
	if f.noMaps {
		n = min(n, 1)
	}
	v.Set(reflect.MakeMap(v.Type()))
	for range n {
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.value(k, true)
		f.value(e, true)
		v.SetMapIndex(k, e)
	}
}

// length is -1 for nil.
func (f *filler) length() int {
	if f.budget <= 0 {
		return -1
	}
	if f.IntN(200) == 0 {
		return f.IntN(300)
	}
	return f.IntN(6) - 1
}

// integer prefers the edges of the widths.
func (f *filler) integer() int64 {
	switch f.IntN(6) {
	case 0:
		return 0
	case 1:
		return math.MinInt64
	case 2:
		return math.MaxInt64
	case 3:
		return -1
	}
	return int64(f.Uint64()) >> f.IntN(64) << f.IntN(64)
}

func (f *filler) float(bits int) float64 {
	switch f.IntN(10) {
	case 0:
		return 0
	case 1:
		return math.Copysign(0, -1)
	case 2:
		return math.Inf(1 - 2*f.IntN(2))
	case 3:
		if f.nan {
			return math.NaN()
		}
		return float64(f.IntN(1000))
	case 4:
		if bits == 32 {
			return math.MaxFloat32
		}
		return math.MaxFloat64
	case 5:
		return math.SmallestNonzeroFloat32
	}
	if bits == 32 {
		return float64(float32(f.NormFloat64()))
	}
	return f.NormFloat64()
}

func (f *filler) bytes() []byte {
	n := f.IntN(12)
	if f.IntN(500) == 0 {
		n = f.IntN(70_000)
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(f.Uint32())
	}
	return b
}

// self fills types with methods of their own, which hold what reflection cannot set or what their methods refuse.
func (f *filler) self(v reflect.Value) bool {
	if !v.CanAddr() {
		return false
	}
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		if f.IntN(4) != 0 {
			*p = time.Unix(f.Int64N(4e9), f.Int64N(1e9)).UTC()
		}
	case *big.Int:
		p.SetBytes(f.bytes())
		if f.IntN(2) == 0 {
			p.Neg(p)
		}
	case *netip.Addr:
		if f.IntN(4) != 0 {
			*p = netip.AddrFrom4([4]byte{10, 0, byte(f.IntN(256)), 1})
		}
	case *url.URL:
		*p = url.URL{Scheme: "https", Host: "example.org", Path: "/a"}
	case interface{ random(f *filler) }:
		p.random(f)
	default:
		return false
	}
	return true
}
