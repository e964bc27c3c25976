package gobcodec

import (
	"encoding/binary"
	"math"
	"math/bits"
	"reflect"
	"unsafe"
)

// A decoder reads one message. After an error it stands at the end of the data, so that every loop over it ends soon; what
// it reads then is zero and means nothing.
//
// Its work is linear in the data: each element takes at least one byte, and what an element makes it allocate is charged
// first. Only a struct at the very end of a message takes none, as encoding/gob allows its last terminators to be missing.
type decoder struct {
	trail
	b     []byte
	i     int
	depth int
	left  uint64 // bytes that it may still allocate
	limit uint64
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.i = len(d.b)
}

func (d *decoder) malformed(reason string) {
	if d.err == nil {
		d.fail(&Error{Reason: reason})
	}
}

func (d *decoder) bound(b Bound, figure, limit uint64) {
	d.fail(&BoundError{Bound: b, Figure: figure, Limit: limit})
}

// enter counts a level.
func (d *decoder) enter() bool {
	d.depth++
	if d.depth > maxDepth {
		d.bound(BoundDepth, uint64(d.depth), maxDepth)
	}
	return d.err == nil
}

// charge accounts for n allocations of size bytes, before they are made.
func (d *decoder) charge(n, size uint64) bool {
	over, cost := bits.Mul64(n, size)
	if over != 0 || cost > d.left {
		figure := d.limit - d.left + cost
		if over != 0 || figure < cost {
			figure = math.MaxUint64
		}
		d.bound(BoundDecoded, figure, d.limit)
		return false
	}
	d.left -= cost
	return true
}

// roundUp is the size of the block that the allocator gives for a short string.
func roundUp(n int) uint64 { return (uint64(n) + 7) &^ 7 }

func (d *decoder) uint() uint64 {
	if d.i < len(d.b) {
		if c := d.b[d.i]; c <= 0x7f {
			d.i++
			return uint64(c)
		}
	}
	return d.longUint()
}

func (d *decoder) longUint() uint64 {
	i := d.i + 1
	if i > len(d.b) {
		d.malformed("message ends within a value")
		return 0
	}
	n := -int(int8(d.b[i-1]))
	if n > 8 || n > len(d.b)-i {
		d.malformed("number is malformed or cut off")
		return 0
	}
	d.i = i + n
	if len(d.b)-i >= 8 {
		return binary.BigEndian.Uint64(d.b[i:]) >> (64 - 8*uint(n))
	}
	var x uint64
	for _, c := range d.b[i : i+n] {
		x = x<<8 | uint64(c)
	}
	return x
}

func (d *decoder) int() int64 { return fromZigzag(d.uint()) }

func (d *decoder) float() float64 { return math.Float64frombits(bits.ReverseBytes64(d.uint())) }

// count reads a number of elements of at least size bytes each.
func (d *decoder) count(size int) uint64 {
	n := d.uint()
	if room := uint64(len(d.b)-d.i) / uint64(size); n > room {
		d.bound(BoundCount, n, room)
		return 0
	}
	return n
}

// bytes reads a counted run of bytes; the slice is part of the message.
func (d *decoder) bytes() []byte {
	n := d.count(1)
	i := d.i
	d.i += int(n)
	return d.b[i:d.i:d.i]
}

func (d *decoder) string() string {
	b := d.bytes()
	if !d.charge(1, roundUp(len(b))) {
		return ""
	}
	return string(b)
}

// structure reads the fields of a struct. What is not sent keeps its value.
func (d *decoder) structure(s *step, p ptr) {
	if !d.enter() {
		return
	}
	last := -1
	for d.i < len(d.b) {
		delta := d.uint()
		if delta == 0 {
			break
		}
		if delta >= uint64(len(s.fields)-last) {
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
		case kindFloat64:
			*(*float64)(fp) = d.float()
		case kindString:
			*(*string)(fp) = d.string()
		default:
			d.value(f.step, fp)
		}
	}
	d.depth--
	if d.err != nil && last >= 0 {
		d.at(fieldSegment(s.fields[last].name))
	}
}

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
		if *pp == nil {
			if !d.charge(1, uint64(to.size)) {
				return
			}
			*pp = reflect.New(to.rt).UnsafePointer()
		}
		d.value(s.elem, unsafe.Add(*pp, s.offset))
	case kindSelf:
		if b := d.bytes(); d.err == nil && d.charge(1, uint64(len(b))) {
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
	switch k {
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

const (
	outOfRange  = "number out of the range of its type"
	wrongLength = "wrong number of elements for an array"
	endsInList  = "message ends within a list"
)

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

// byteSlice and slice use the room of a slice that is there, as encoding/gob does.
func (d *decoder) byteSlice(p *[]byte) {
	b := d.bytes()
	if cap(*p) < len(b) {
		if !d.charge(1, roundUp(len(b))) {
			return
		}
		*p = make([]byte, len(b))
	}
	*p = (*p)[:len(b)]
	copy(*p, b)
}

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
	if !d.charge(uint64(n), uint64(et.size)) {
		return
	}
	switch et.kind {
	case kindInt64, kindUint64, kindFloat64:
		*(*[]uint64)(p) = make([]uint64, n)
	case kindString:
		*(*[]string)(p) = make([]string, n)
	default:
		// Grow allocates into the slice; reflect.MakeSlice would allocate a slice header besides.
		v := reflect.NewAt(s.t.rt, p).Elem()
		v.SetZero()
		v.Grow(n)
		v.SetLen(n)
	}
	d.elements(s, h.data, n)
}

// elements reads n elements to p and behind it. Elements that are there already are decoded into, not zeroed.
func (d *decoder) elements(s *step, p ptr, n int) {
	et := s.t.elem
	switch et.kind {
	case kindFloat64:
		d.floats(unsafe.Slice((*float64)(p), n))
		return
	case kindInt64:
		d.ints(unsafe.Slice((*int64)(p), n))
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

func (d *decoder) floats(fs []float64) {
	for i := range fs {
		fs[i] = d.float()
	}
}

func (d *decoder) ints(is []int64) {
	for i := range is {
		is[i] = d.int()
	}
}

// skip passes over a value that the receiver has no place for.
func (d *decoder) skip(s *step) {
	switch s.kind {
	case skipUint:
		d.uint()
	case skipTwoUints:
		d.uint()
		d.uint()
	case skipBytes:
		d.bytes()
	case skipArray:
		if n := d.uint(); n != s.length {
			d.malformed(wrongLength)
		} else {
			d.skipElements(n, s)
		}
	case skipSlice:
		d.skipElements(d.count(1), s)
	case skipMap:
		d.skipElements(d.count(2), s)
	case skipStruct:
		if !d.enter() {
			return
		}
		for f := d.next(-1, len(s.fields)); f >= 0; f = d.next(f, len(s.fields)) {
			d.skip(s.fields[f].step)
		}
		d.depth--
	}
}

// skipElements refuses an element without a byte: encoding/gob counts 2^62 map entries of none. It counts no level that
// decoding the same elements would not count.
func (d *decoder) skipElements(n uint64, s *step) {
	deep := s.elem.kind > skipBytes || s.key != nil && s.key.kind > skipBytes
	if deep && !d.enter() {
		return
	}
	for range n {
		if d.i < len(d.b) && s.key != nil {
			d.skip(s.key)
		}
		if d.i >= len(d.b) {
			d.malformed(endsInList)
		}
		if d.err != nil {
			return
		}
		d.skip(s.elem)
	}
	if deep {
		d.depth--
	}
}
