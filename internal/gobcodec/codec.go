// Package gobcodec encodes and decodes gobs, the format of encoding/gob, for types known at compile time, fast and on bytes
// of strangers.
//
// encoding/gob compiles a decoder for every new Decoder, which costs 12 to 20 µs a message, and its documentation rules out
// untrusted input: a message of 69 bytes can take all memory, one of 88 bytes never ends. Here a type is compiled once, and a
// decoder once for each pair of received definitions and type. What is written is byte for byte what encoding/gob writes, the
// order of map entries aside; what is read is what encoding/gob would read, within bounds. Where it does otherwise on purpose,
// TestDifferences says so and why. encoding/gob is used to learn the definitions of a local type, and never sees a byte from
// outside.
//
// A type becomes a graph of goTypes, over which the encoder runs; definitions and goTypes become a plan, over which the
// decoder runs. Values are reached through unsafe pointers: a goType pairs each offset with the type that is there, pointers
// are made from the beginning of a value or list each time and never stand behind its end, and the tests run under checkptr,
// the race detector and on 32 bits.
package gobcodec

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"math"
	"reflect"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Bounds that no configuration changes. Ordinary data stays under a tenth of each.
const (
	maxDepth           = 1000     // a recursion costs about 300 bytes of stack a level
	maxDefinitions     = 256      // a type has as many as it reaches named and composite types
	maxDefinitionBytes = 64 << 10 // a field costs about 12 bytes
	maxPlan            = 16 << 10
)

// Limits bound one gob. A zero field means its default, a negative one no limit.
type Limits struct {
	Message int // bytes of the gob itself: 4 MiB
	Decoded int // bytes that decoding it may allocate: 64 MiB
}

// The sums with them are in 64 bits; "no limit" is what an int can count.
func (l Limits) message() uint64 { return orDefault(l.Message, 4<<20) }
func (l Limits) decoded() uint64 { return orDefault(l.Decoded, 64<<20) }

func orDefault(n, byDefault int) uint64 {
	switch {
	case n == 0:
		return uint64(byDefault)
	case n < 0:
		return math.MaxInt
	}
	return uint64(n)
}

// A Codec encodes and decodes values of type T. It is made by [For], never changes and may be used by any number of goroutines.
type Codec[T any] struct {
	program
}

// A program is a Codec without its type parameter.
type program struct {
	name        string    // of T, as it begins the path in errors
	root        *goType   // of T
	empty       bool      // T is a struct without any field, or a pointer to one
	structure   bool      // T is a struct, or a pointer to one
	definitions string    // of T, as encoding/gob writes them
	id          int64     // of T in them
	prefix      string    // of every gob of T: the definitions, room for the length of the value, its id, 0 if it is no struct
	rooms       []uintptr // offsets of the []byte fields of T, if that is a struct: what Clear leaves their room
	warnings    []string
	recent      atomic.Pointer[plan] // of the definitions received last, unless they are large
}

var codecs sync.Map // reflect.Type -> *Codec of it; grows with the types of the program, not with its input

// For returns the codec of T, compiled at the first call. Its error is an *Error with the path of what gob cannot hold: an
// interface, a channel, a function, a struct without exported fields, a type that encodes itself one way only.
func For[T any]() (*Codec[T], error) {
	rt := reflect.TypeFor[T]()
	if c, ok := codecs.Load(rt); ok {
		return c.(*Codec[T]), nil
	}
	c := new(Codec[T])
	if err := c.init(rt); err != nil {
		return nil, err
	}
	known, _ := codecs.LoadOrStore(rt, c)
	return known.(*Codec[T]), nil
}

// init compiles rt. The definitions cost one encoding by encoding/gob, about 10 µs.
func (pr *program) init(rt reflect.Type) (err error) {
	pr.name = rt.String()
	w := walker{seen: make(map[reflect.Type]*goType)}
	if pr.root, err = w.walk(rt, pr.name); err != nil {
		return err
	}
	base := pr.root.base()
	pr.structure = base.kind == kindStruct
	pr.empty = pr.structure && base.rt.NumField() == 0
	if pr.root.kind == kindStruct {
		for _, f := range pr.root.fields {
			if f.kind == kindBytes {
				pr.rooms = append(pr.rooms, f.offset)
			}
		}
	}
	pr.warnings = w.warnings
	if pr.definitions, pr.id, err = definitionsOf(base.rt); err != nil {
		return below(pr.name, err)
	}
	prefix := appendInt(append([]byte(pr.definitions), make([]byte, reserved)...), pr.id)
	if !pr.structure {
		prefix = append(prefix, 0)
	}
	pr.prefix = string(prefix)
	return nil
}

// definitionsOf has encoding/gob write a zero value and keeps the definitions. So the ids agree with the ones the standard
// library uses in this process, and so does the form, whatever the Go version. A value that gob cannot write
// (a nil pointer in an array) fails after its definitions are out. rt is no pointer: encoding/gob panics on a pointer to a
// pointer to a type that encodes itself.
func definitionsOf(rt reflect.Type) (string, int64, error) {
	var out bytes.Buffer
	failed := encodeZero(&out, rt)
	b := out.Bytes()
	end, id := 0, int64(0)
	for id <= 0 && end < len(b) {
		h, reason := parseHeader(b, end)
		if reason != "" {
			return "", 0, &Error{Reason: reason}
		}
		if h.id > 0 {
			return string(b[:end]), h.id, nil
		}
		if id == 0 {
			id = h.id // the outermost type is defined first
		}
		end = h.end
	}
	if id == 0 {
		return "", 0, &Error{Reason: "encoding/gob does not define it", Err: failed}
	}
	return string(b), -id, nil
}

func encodeZero(out *bytes.Buffer, rt reflect.Type) (err error) {
	defer func() {
		if r := recover(); r != nil { // of a method of a self-encoding type
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return gob.NewEncoder(out).EncodeValue(reflect.New(rt))
}

// Append writes *v behind dst as a self-contained gob: the definitions of T, then one value. It allocates only if dst has
// too little room, and what methods of self-encoding types allocate. The gob of an empty struct is no bytes at all.
//
// The error is a *BoundError if v is nested deeper than 1,000 levels, which a cycle of pointers is, or larger than 2 GiB; else
// an *Error: a nil pointer where a value is needed, an error or panic of a method. dst is returned as it was then.
func (c *Codec[T]) Append(dst []byte, v *T) ([]byte, error) {
	return c.append(dst, unsafe.Pointer(v))
}

// Decode reads exactly one self-contained gob, the whole of src, into *v, and returns the bytes it allocated for it, after an
// error too: an estimate by size classes and the layout of maps, within a factor of two, made before each allocation. It is
// the figure that Limits.Decoded bounds. What a method of a self-encoding type allocates is counted as the bytes it is given,
// and what it costs to compile definitions never seen before, 4 MB at most and mostly given back, is not counted.
//
// Strings and []byte may be parts of one block of at most 256 bytes: short strings next to each other in a list, and those in the
// last 256 bytes of src, which is all of a small message, unless the first is a small part of that. So what keeps one of them may
// keep 256 bytes; no []byte has room behind its length. The block is what is allocated, hence what is counted, with the bytes of src between its values.
//
// As with encoding/gob, what is not sent keeps its value, slices use the room they have, maps are added to, and *v is partly
// filled after an error. No data is the zero value of any struct. The error is an *Error or a *BoundError. Nothing of src is
// kept, unless a method of a self-encoding type does.
func (c *Codec[T]) Decode(src []byte, v *T, lim Limits) (allocated int, err error) {
	return c.decode(src, unsafe.Pointer(v), lim)
}

func (pr *program) decode(src []byte, p ptr, lim Limits) (int, error) {
	limit := lim.message()
	if uint64(len(src)) > limit {
		return 0, &BoundError{Bound: BoundMessage, Figure: uint64(len(src)), Limit: limit, Path: pr.name}
	}
	if p == nil {
		return 0, &Error{Path: pr.name, Reason: "nil pointer to decode into"}
	}
	var d decoder // a literal would be put together beside it and copied
	d.b, d.limit = src, lim.decoded()
	d.left = d.limit
	if len(src) == 0 {
		return d.nothing(pr, p)
	}
	pl, body, err := pr.plan(src)
	if err != nil {
		return 0, below(pr.name, err)
	}
	d.i = body
	if pr.structure || d.uint() == 0 {
		d.value(pl.root, p)
	} else {
		d.malformed("no zero before a value that is no struct")
	}
	if d.err == nil && d.i != len(src) {
		d.malformed("data behind the value")
	}
	if d.err != nil {
		err = d.finish(pr.name)
	}
	return int(d.limit - d.left), err
}

// Clear makes *v the zero value of T, but []byte fields of T itself keep the room they have, for Decode to use again; they are empty,
// not nil, if they have any.
func (c *Codec[T]) Clear(v *T) {
	var cleared T
	for _, offset := range c.rooms {
		*(*[]byte)(unsafe.Add(unsafe.Pointer(&cleared), offset)) = (*(*[]byte)(unsafe.Add(unsafe.Pointer(v), offset)))[:0]
	}
	*v = cleared
}

// nothing decodes no data. Pointers to the struct are set: a handler that takes a *T gets one.
func (d *decoder) nothing(pr *program, p ptr) (int, error) {
	if !pr.structure {
		return 0, &Error{Path: pr.name, Reason: "no data"}
	}
	for t := pr.root; t.kind == kindPointer; t = t.elem {
		pp := (*ptr)(p)
		if *pp == nil {
			if !d.charge(uint64(t.elem.size)) {
				return 0, d.finish(pr.name)
			}
			*pp = reflect.New(t.elem.rt).UnsafePointer()
		}
		p = *pp
	}
	return int(d.limit - d.left), nil
}

// Empty reports whether T is an empty struct, whose gob is no data at all.
func (c *Codec[T]) Empty() bool { return c.empty }

// Warnings says, field by field with its path, what of T gob cannot tell apart.
func (c *Codec[T]) Warnings() []string { return c.warnings }
