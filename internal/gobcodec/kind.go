package gobcodec

import (
	"math/bits"
	"reflect"
)

// A kind selects the code for a value. int, uint and uintptr are the kind of their size.
type kind uint8

const (
	kindNone kind = iota
	kindBool
	kindInt8
	kindInt16
	kindInt32
	kindInt64
	kindUint8
	kindUint16
	kindUint32
	kindUint64
	kindFloat32
	kindFloat64
	kindComplex64
	kindComplex128
	kindString
	kindBytes
	kindSlice
	kindArray
	kindMap
	kindStruct
	kindPointer
	kindSelf // encodes itself

	// Only in the plans of the decoder:
	kindPromoted // reached through an embedded pointer, which may have to be set first
	skipUint     // what the receiver lacks, by its form on the wire
	skipTwoUints
	skipBytes
	skipSlice
	skipArray
	skipMap
	skipStruct
)

// scalar reports whether values of the kind are read and written without recursion and without a look at their type.
func (k kind) scalar() bool { return k >= kindBool && k <= kindBytes }

// kindOf goes by the kind of the type alone: named types are sent as what they are made of. A slice of bytes is one even if the
// bytes have a name and methods.
func kindOf(t reflect.Type) kind {
	switch t.Kind() {
	case reflect.Bool:
		return kindBool
	case reflect.Int8:
		return kindInt8
	case reflect.Int16:
		return kindInt16
	case reflect.Int32:
		return kindInt32
	case reflect.Int64:
		return kindInt64
	case reflect.Int:
		return bySize(kindInt32, kindInt64)
	case reflect.Uint8:
		return kindUint8
	case reflect.Uint16:
		return kindUint16
	case reflect.Uint32:
		return kindUint32
	case reflect.Uint64:
		return kindUint64
	case reflect.Uint, reflect.Uintptr:
		return bySize(kindUint32, kindUint64)
	case reflect.Float32:
		return kindFloat32
	case reflect.Float64:
		return kindFloat64
	case reflect.Complex64:
		return kindComplex64
	case reflect.Complex128:
		return kindComplex128
	case reflect.String:
		return kindString
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return kindBytes
		}
		return kindSlice
	case reflect.Array:
		return kindArray
	case reflect.Map:
		return kindMap
	case reflect.Struct:
		return kindStruct
	case reflect.Pointer:
		return kindPointer
	}
	return kindNone
}

func bySize(short, long kind) kind {
	if bits.UintSize == 32 {
		return short
	}
	return long
}
