package gobcodec

import (
	"encoding/binary"
	"math"
	"math/bits"
	"reflect"
	"unsafe"
)

// structure reads the fields of a struct. What is not sent keeps its value. The kinds of most fields are read in its loop:
// with a call of value for each, records of such fields take half as long again.
func (d *decoder) structure(s *step, p ptr) {
	if !d.enter() {
		return
	}
	last := -1
	for d.i < len(d.b) {
		delta := uint64(d.b[d.i]) // uint by hand: it is too long to be inlined
		if delta <= 0x7f {
			d.i++
		} else {
			delta = d.longUint()
		}
		if delta == 0 {
			break
		}
		if delta >= uint64(len(s.fields)-last) { // unsigned: delta may be 2^64-1
			d.malformed("field number out of range")
			return
		}
		last += int(delta)
		f := &s.fields[last]
		fp := unsafe.Add(p, f.offset)
		switch f.kind {
		case kindBool:
			*(*bool)(fp) = d.uint() != 0
		case kindInt64:
			*(*int64)(fp) = d.int()
		case kindUint64:
			*(*uint64)(fp) = d.uint()
		case kindFloat64:
			*(*float64)(fp) = d.float()
		case kindString:
			*(*string)(fp) = d.string()
		case kindBytes:
			d.byteSlice((*[]byte)(fp))
		case kindSlice:
			d.slice(f.step, fp)
		default:
			d.value(f.step, fp)
		}
	}
	d.depth--
	if d.err != nil && last >= 0 {
		d.at(fieldSegment(s.fields[last].name))
	}
}

// value reads one value of any kind into the memory at p.
func (d *decoder) value(s *step, p ptr) {
	switch s.kind {
	case kindStruct:
		d.structure(s, p)
	case kindSlice:
		d.slice(s, p)
	case kindArray:
		if n := d.uint(); n != uint64(s.t.length) {
			d.malformed(wrongLength)
			return
		}
		d.elements(s, p, s.t.length)
	case kindMap:
		d.mapping(s, p)
	case kindPointer, kindPromoted:
		to := s.t.elem
		if s.kind == kindPromoted {
			to = s.t
		}
		pp := (*ptr)(p)
		if *pp == nil { // a pointer that is set keeps its target, as in encoding/gob
			if !d.charge(uint64(to.size)) {
				return
			}
			*pp = reflect.New(to.rt).UnsafePointer()
		}
		d.value(s.elem, unsafe.Add(*pp, s.offset))
	case kindSelf:
		// What the method allocates cannot be known; most copy what they are given.
		if b := d.bytes(); d.err == nil && d.charge(uint64(len(b))) {
			if err := s.t.unmarshal(p, b); err != nil {
				d.fail(&Error{Reason: "decoding itself", Err: err})
			}
		}
	default:
		if s.kind.scalar() {
			d.scalar(s.kind, p)
		} else {
			d.skip(s)
		}
	}
}

// scalar is apart from value so that p does not escape to the heap.
func (d *decoder) scalar(k kind, p ptr) {
	switch k { //nolint:exhaustive // scalars only
	case kindBool:
		*(*bool)(p) = d.uint() != 0
	case kindInt8:
		*(*int8)(p) = int8(d.narrowInt(math.MaxInt8))
	case kindInt16:
		*(*int16)(p) = int16(d.narrowInt(math.MaxInt16))
	case kindInt32:
		*(*int32)(p) = int32(d.narrowInt(math.MaxInt32))
	case kindInt64:
		*(*int64)(p) = d.int()
	case kindUint8:
		*(*uint8)(p) = uint8(d.narrowUint(math.MaxUint8))
	case kindUint16:
		*(*uint16)(p) = uint16(d.narrowUint(math.MaxUint16))
	case kindUint32:
		*(*uint32)(p) = uint32(d.narrowUint(math.MaxUint32))
	case kindUint64:
		*(*uint64)(p) = d.uint()
	case kindFloat32:
		*(*float32)(p) = d.float32()
	case kindFloat64:
		*(*float64)(p) = d.float()
	case kindComplex64:
		r := d.float32()
		*(*complex64)(p) = complex(r, d.float32())
	case kindComplex128:
		r := d.float()
		*(*complex128)(p) = complex(r, d.float())
	case kindString:
		*(*string)(p) = d.string()
	case kindBytes:
		d.byteSlice((*[]byte)(p))
	}
}

// narrowInt reads an integer for a type whose highest value is given. It is an error of the message, not a truncation.
func (d *decoder) narrowInt(highest int64) int64 {
	i := d.int()
	if i > highest || i < -highest-1 {
		d.malformed(outOfRange)
	}
	return i
}

func (d *decoder) narrowUint(highest uint64) uint64 {
	u := d.uint()
	if u > highest {
		d.malformed(outOfRange)
	}
	return u
}

// float32 lets infinities and NaN pass and rounds small numbers, as encoding/gob does.
func (d *decoder) float32() float32 {
	f := d.float()
	if a := math.Abs(f); a > math.MaxFloat32 && a <= math.MaxFloat64 {
		d.malformed(outOfRange)
	}
	return float32(f)
}

// byteSlice uses the room of a slice that is there, as encoding/gob does. An empty one stays nil if it was.
func (d *decoder) byteSlice(p *[]byte) {
	b := d.bytes()
	if cap(*p) >= len(b) {
		*p = (*p)[:len(b)]
		copy(*p, b)
		return
	}
	if d.i <= d.shared || d.shareRest(len(b)) {
		i := d.i - d.from
		*p = d.block[i-len(b) : i : i]
		return
	}
	if !d.charge(roundUp(len(b))) {
		return
	}
	fresh := make([]byte, len(b)) // with the copy right behind it, the compiler leaves the zeroing out
	copy(fresh, b)
	*p = fresh
}

// slice makes room for as many elements as are announced, charged first, and reads them. Like byteSlice it uses what room there
// is; the old elements of a slice that is too small are dropped, not copied, as encoding/gob drops them.
func (d *decoder) slice(s *step, p ptr) {
	n := int(d.count(1))
	if d.err != nil {
		return
	}
	h := (*sliceHeader)(p)
	et := s.t.elem
	if h.cap >= n {
		h.len = n
		d.elements(s, h.data, n)
		return
	}
	if !d.chargeEach(uint64(n), uint64(et.size)) {
		return
	}
	switch et.kind {
	// Made as slices of a type with the same memory: no pointers, or one string each.
	case kindInt64, kindUint64, kindFloat64:
		*(*[]uint64)(p) = make([]uint64, n)
	case kindString:
		*(*[]string)(p) = make([]string, n)
	default:
		// Grow allocates into the slice that is there; reflect.MakeSlice would allocate a slice header besides.
		v := reflect.NewAt(s.t.rt, p).Elem()
		v.SetZero()
		v.Grow(n)
		v.SetLen(n)
	}
	d.elements(s, h.data, n)
}

// elements reads n elements to p and behind it. Elements that are there already are decoded into, not zeroed: fields that the
// message leaves out keep what they had, as in encoding/gob.
func (d *decoder) elements(s *step, p ptr, n int) {
	if n == 0 { // of an array of none, where p points at something else
		return
	}
	et := s.t.elem
	switch et.kind { //nolint:exhaustive // the others have no loop
	case kindFloat64:
		d.floats(unsafe.Slice((*float64)(p), n))
		return
	case kindInt64:
		d.ints(unsafe.Slice((*int64)(p), n))
		return
	case kindString:
		if d.strings(unsafe.Slice((*string)(p), n)); d.err != nil {
			d.at("[]")
		}
		return
	}
	if et.kind.scalar() {
		for i := range n {
			if d.scalar(et.kind, unsafe.Add(p, uintptr(i)*et.size)); d.err != nil {
				d.at("[]")
				return
			}
		}
		return
	}
	if !d.enter() {
		return
	}
	for i := range n {
		// Each pointer from the base, as in the encoder: none may stand behind the last element.
		if d.i >= len(d.b) {
			d.malformed(endsInList)
		} else if ep := unsafe.Add(p, uintptr(i)*et.size); et.kind == kindStruct {
			d.structure(s.elem, ep)
		} else {
			d.value(s.elem, ep)
		}
		if d.err != nil {
			d.at("[]")
			break
		}
	}
	d.depth--
}

// floats keeps the position in a register and reads the nine bytes that a float usually has without a call: decoding the large
// value, 10,000 floats among its 154 KB, takes a quarter less time.
func (d *decoder) floats(fs []float64) {
	b, i := d.b, d.i
	for k := range fs {
		if len(b)-i >= maxUint && b[i] >= 0xf8 {
			n := -int(int8(b[i]))
			x := binary.BigEndian.Uint64(b[i+1:i+maxUint]) >> (64 - 8*uint(n))
			fs[k] = math.Float64frombits(bits.ReverseBytes64(x))
			i += 1 + n
			continue
		}
		d.i = i
		fs[k] = d.float()
		i = d.i
	}
	d.i = i
}

// ints does the same for the single bytes of small integers.
func (d *decoder) ints(is []int64) {
	b, i := d.b, d.i
	for k := range is {
		if i < len(b) && b[i] <= 0x7f {
			is[k] = fromZigzag(uint64(b[i]))
			i++
			continue
		}
		d.i = i
		is[k] = d.int()
		i = d.i
	}
	d.i = i
}
