package gobcodec

import (
	"reflect"
	"unsafe"
)

// A mapShape selects a loop compiled for the memory of the keys and elements; reflection takes two to three times as long. The
// map is handled as one of another type with the same layout and hash: unsigned for signed integers and floats, string for
// named strings. The runtime takes sizes and hash from the type at the access, not from the map, so equal ones do.
//
// Keys that are floats hash otherwise (0 and -0 are one key, each NaN one of its own), and small integers are rare: both go by
// reflection, as do all elements with something inside.
type mapShape uint8

const (
	shapeOther mapShape = iota
	shapeString1
	shapeString8
	shapeStringString
	shape8x1
	shape8x8
	shape8String
)

func shapeOf(key, elem kind) mapShape {
	var e mapShape
	switch elem {
	case kindBool, kindInt8, kindUint8:
		e = 1
	case kindInt64, kindUint64, kindFloat64:
		e = 2
	case kindString:
		e = 3
	default:
		return shapeOther
	}
	switch key { //nolint:exhaustive // the rest have no loop
	case kindString:
		return e
	case kindInt64, kindUint64:
		return e + shapeStringString
	}
	return shapeOther
}

// mapTemps hold one entry of a map while it is moved. They are pooled for each type: two allocations a map otherwise.
type mapTemps struct {
	key, elem reflect.Value // addressable
	iter      reflect.MapIter
}

// takeTemps returns temps that are zero. A map within a map of the same type takes other ones.
func (t *goType) takeTemps() *mapTemps {
	if m, ok := t.temps.Get().(*mapTemps); ok {
		return m
	}
	return &mapTemps{key: reflect.New(t.key.rt).Elem(), elem: reflect.New(t.elem.rt).Elem()}
}

// giveTemps empties the temps, so that the pool keeps nothing of a message alive.
func (t *goType) giveTemps(m *mapTemps) {
	m.key.SetZero()
	m.elem.SetZero()
	m.iter.Reset(reflect.Value{})
	t.temps.Put(m)
}

// mapping appends a map: the number of entries, then keys and elements in turn.
func (e *encoder) mapping(b []byte, t *goType, p ptr) []byte {
	switch t.shape {
	case shapeString1:
		return appendMap[string, uint8](b, t, p)
	case shapeString8:
		return appendMap[string, uint64](b, t, p)
	case shapeStringString:
		return appendMap[string, string](b, t, p)
	case shape8x1:
		return appendMap[uint64, uint8](b, t, p)
	case shape8x8:
		return appendMap[uint64, uint64](b, t, p)
	case shape8String:
		return appendMap[uint64, string](b, t, p)
	case shapeOther:
	}
	m := reflect.NewAt(t.rt, p).Elem()
	n := m.Len()
	b = appendUint(b, uint64(n))
	if n == 0 || !e.enter() {
		return b
	}
	temps := t.takeTemps()
	for temps.iter.Reset(m); e.err == nil && temps.iter.Next(); {
		temps.key.SetIterKey(&temps.iter)
		temps.elem.SetIterValue(&temps.iter)
		if b = e.value(b, t.key, temps.key.Addr().UnsafePointer()); e.err != nil {
			e.at("[key]")
		} else if b = e.value(b, t.elem, temps.elem.Addr().UnsafePointer()); e.err != nil {
			e.at("[]")
		}
	}
	t.giveTemps(temps)
	e.depth--
	return b
}

// appendMap appends a map as one of another type with the same layout. Most keys are strings: without the way through
// appendScalar three nodes with a map of three entries each take a tenth less time.
func appendMap[K comparable, E any](b []byte, t *goType, p ptr) []byte {
	m := *(*map[K]E)(p)
	b = appendUint(b, uint64(len(m)))
	for k, v := range m {
		if t.key.kind == kindString {
			s := *(*string)(unsafe.Pointer(&k))
			b = append(appendUint(b, uint64(len(s))), s...)
		} else {
			b = appendScalar(b, t.key.kind, unsafe.Pointer(&k))
		}
		b = appendScalar(b, t.elem.kind, unsafe.Pointer(&v))
	}
	return b
}

// mapping reads a map. Like encoding/gob it adds to one that is there. The number of entries is known to be no more than half the
// bytes left and charged before it becomes the size of a map: encoding/gob makes the map that the message asks for, which
// 69 bytes can have take all memory (golang/go#79539).
func (d *decoder) mapping(s *step, p ptr) {
	n := d.count(2)
	t := s.t
	if d.err != nil || !d.charge(t.mapCost(n)) {
		return
	}
	switch t.shape {
	case shapeString1:
		decodeMap[string, uint8](d, t, p, n)
		return
	case shapeString8:
		decodeMap[string, uint64](d, t, p, n)
		return
	case shapeStringString:
		decodeMap[string, string](d, t, p, n)
		return
	case shape8x1:
		decodeMap[uint64, uint8](d, t, p, n)
		return
	case shape8x8:
		decodeMap[uint64, uint64](d, t, p, n)
		return
	case shape8String:
		decodeMap[uint64, string](d, t, p, n)
		return
	case shapeOther:
	}
	m := reflect.NewAt(t.rt, p).Elem()
	if m.IsNil() {
		m.Set(reflect.MakeMapWithSize(t.rt, int(n)))
	}
	if n == 0 || !d.enter() {
		return
	}
	temps := t.takeTemps()
	for range n {
		if d.value(s.key, temps.key.Addr().UnsafePointer()); d.err != nil {
			d.at("[key]")
			break
		}
		if d.value(s.elem, temps.elem.Addr().UnsafePointer()); d.err != nil {
			d.at("[]")
			break
		}
		m.SetMapIndex(temps.key, temps.elem)
		temps.key.SetZero()
		temps.elem.SetZero()
	}
	t.giveTemps(temps)
	d.depth--
}

// decodeMap reads a map as one of another type with the same layout. An entry is not inserted before it is known to be whole.
// Keys that are strings go past scalar, as in appendMap.
func decodeMap[K comparable, E any](d *decoder, t *goType, p ptr, n uint64) {
	m := *(*map[K]E)(p)
	if m == nil {
		m = make(map[K]E, n)
		*(*map[K]E)(p) = m
	}
	for range n {
		var k K
		var v E
		if t.key.kind == kindString {
			*(*string)(unsafe.Pointer(&k)) = d.string()
		} else {
			d.scalar(t.key.kind, unsafe.Pointer(&k))
		}
		if d.err != nil {
			d.at("[key]")
			return
		}
		d.scalar(t.elem.kind, unsafe.Pointer(&v))
		if d.err != nil {
			d.at("[]")
			return
		}
		m[k] = v
	}
}
