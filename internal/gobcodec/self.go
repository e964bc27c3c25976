package gobcodec

import (
	"encoding"
	"encoding/gob"
	"fmt"
	"reflect"
	"runtime/debug"
)

// A selfEncoding says by which methods a type encodes itself. encoding/gob asks for GobEncode, then for MarshalBinary, and
// leaves MarshalText alone (golang/go#6760): types with that only go by their structure.
type selfEncoding uint8

const (
	selfNone selfEncoding = iota
	selfGob
	selfBinary
)

const oneWay = "has methods to encode itself but not the ones to decode itself, or the reverse"

var (
	gobEncoder        = reflect.TypeFor[gob.GobEncoder]()
	gobDecoder        = reflect.TypeFor[gob.GobDecoder]()
	binaryMarshaler   = reflect.TypeFor[encoding.BinaryMarshaler]()
	binaryUnmarshaler = reflect.TypeFor[encoding.BinaryUnmarshaler]()
)

// selfEncodingOf looks at the methods of *rt. A type with one half only is refused: encoding/gob would send it and then
// not receive it.
func selfEncodingOf(rt reflect.Type, path string) (self selfEncoding, byValue bool, err error) {
	if rt.Kind() == reflect.Pointer { // *T is looked at when its T is
		return selfNone, false, nil
	}
	p := reflect.PointerTo(rt)
	enc := chosen(p, gobEncoder, binaryMarshaler)
	if dec := chosen(p, gobDecoder, binaryUnmarshaler); dec != enc {
		return selfNone, false, &Error{Path: path, Reason: oneWay}
	}
	switch enc {
	case selfGob:
		byValue = rt.Implements(gobEncoder)
	case selfBinary:
		byValue = rt.Implements(binaryMarshaler)
	case selfNone:
	}
	return enc, byValue, nil
}

func chosen(p, byGob, byBinary reflect.Type) selfEncoding {
	switch {
	case p.Implements(byGob):
		return selfGob
	case p.Implements(byBinary):
		return selfBinary
	}
	return selfNone
}

// A PanicError is a panic in a method of a type that encodes itself. It is the Err of an *Error.
type PanicError struct {
	Value any
	Stack []byte // of the panic
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// zero reports whether gob leaves the value at p out of a struct.
func (t *goType) zero(p ptr) bool { return t.byValue && reflect.NewAt(t.rt, p).Elem().IsZero() }

// marshal calls the value's method. A panic in it, such as that of a value receiver for a nil pointer, is an error here.
func (t *goType) marshal(p ptr) (data []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
	switch v := reflect.NewAt(t.rt, p).Interface(); t.self {
	case selfGob:
		return v.(gob.GobEncoder).GobEncode()
	default:
		return v.(encoding.BinaryMarshaler).MarshalBinary()
	}
}

// unmarshal calls the value's method with data that it must not keep.
func (t *goType) unmarshal(p ptr, data []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
	switch v := reflect.NewAt(t.rt, p).Interface(); t.self {
	case selfGob:
		return v.(gob.GobDecoder).GobDecode(data)
	default:
		return v.(encoding.BinaryUnmarshaler).UnmarshalBinary(data)
	}
}
