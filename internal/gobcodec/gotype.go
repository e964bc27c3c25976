package gobcodec

import (
	"maps"
	"math/bits"
	"reflect"
	"sync"
	"unicode"
	"unicode/utf8"
)

// A goType is what the codec knows of a Go type. They form a graph, with cycles where types are recursive, that is built
// once and never changes. The encoder runs over it as it is; the decoder pairs it with the definitions it receives.
type goType struct {
	kind   kind
	rt     reflect.Type
	size   uintptr // of a value in memory
	key    *goType // of a map
	elem   *goType // of a pointer, slice, array or map
	length int     // of an array

	fields  []field           // of a struct: those that are sent, in the order of the wire
	targets map[string]target // of a struct: where a received field of that name goes

	self    selfEncoding // of a type that encodes itself
	byValue bool         // its encoding method has a value receiver: gob leaves zero values of it out of structs

	shape mapShape  // of a map
	temps sync.Pool // of a map: *mapTemps
	entry uintptr   // of a map: bytes of one slot
	far   uintptr   // of a map: bytes of an entry that is too big for a slot
}

type field struct {
	offset uintptr
	number int // on the wire
	kind   kind
	t      *goType
	name   string
}

// A target is where the decoder puts a field. A promoted field of an embedded struct is a legal target, as in encoding/gob;
// through holds the embedded pointers on the way to it.
type target struct {
	through []embedded
	offset  uintptr
	t       *goType // nil: the field has a type that gob cannot hold
}

type embedded struct {
	offset uintptr
	t      *goType // of the pointer
}

// A walker builds the graph below one type.
type walker struct {
	seen     map[reflect.Type]*goType
	warnings []string
}

// walk returns the goType of rt, or an *Error with the path of what cannot be sent. It enters the type before it looks
// inside, so that recursive types end.
func (w *walker) walk(rt reflect.Type, path string) (*goType, error) {
	if t := w.seen[rt]; t != nil {
		return t, nil
	}
	t := &goType{kind: kindOf(rt), rt: rt, size: rt.Size()}
	switch rt.Kind() {
	case reflect.Interface, reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return nil, &Error{Path: path, Reason: rt.Kind().String()}
	}
	w.seen[rt] = t
	var err error
	if t.self, t.byValue, err = selfEncodingOf(rt, path); err != nil {
		return nil, err
	}
	if t.self != selfNone {
		t.kind = kindSelf
		return t, nil
	}
	switch t.kind { //nolint:exhaustive // the others have nothing inside
	case kindPointer:
		err = w.pointer(t, path)
	case kindSlice, kindArray:
		t.elem, err = w.walk(rt.Elem(), path+"[]")
		if t.kind == kindArray {
			t.length = rt.Len()
		}
	case kindMap:
		err = w.mapType(t, path)
	case kindStruct:
		err = w.structType(t, path)
	}
	return t, err
}

// pointer refuses type T *T, which encoding/gob cannot hold either: following it never comes to a value.
func (w *walker) pointer(t *goType, path string) (err error) {
	slow := t.rt // half as fast as fast: they meet on a cycle of pointers, which would never end in a value
	fast := t.rt
	for n := 0; fast.Kind() == reflect.Pointer; n++ {
		if fast = fast.Elem(); n%2 == 1 {
			slow = slow.Elem()
		}
		if fast == slow {
			return &Error{Path: path, Reason: "pointer to itself"}
		}
	}
	t.elem, err = w.walk(t.rt.Elem(), path)
	return err
}

// mapType prepares the figures that the decoder charges for a map.
func (w *walker) mapType(t *goType, path string) (err error) {
	if t.key, err = w.walk(t.rt.Key(), path+"[key]"); err != nil {
		return err
	}
	if t.elem, err = w.walk(t.rt.Elem(), path+"[]"); err != nil {
		return err
	}
	if holdsInterface(t.key.rt) { // as a type that encodes itself may: its content may have no hash, and inserting it panics
		return &Error{Path: path + "[key]", Reason: "interface"}
	}
	t.shape = shapeOf(t.key.kind, t.elem.kind)
	t.entry, t.far = slotSize(t.key.size, t.elem.size)
	return nil
}

// holdsInterface looks at all of the memory of a map key, what is not exported too.
func holdsInterface(rt reflect.Type) bool {
	switch rt.Kind() {
	case reflect.Interface:
		return true
	case reflect.Array:
		return holdsInterface(rt.Elem())
	case reflect.Struct:
		for f := range rt.Fields() {
			if holdsInterface(f.Type) {
				return true
			}
		}
	}
	return false
}

// structType gathers the fields that are sent, which are those of encoding/gob, and the names under which fields can be
// received, which are more: promoted ones, also of embedded structs that are not exported and so not sent.
func (w *walker) structType(t *goType, path string) error {
	for f := range t.rt.Fields() {
		if !exported(f.Name) {
			continue
		}
		fpath := path + "." + f.Name
		ft, err := w.walk(f.Type, fpath)
		if err != nil {
			return err
		}
		t.fields = append(t.fields, field{f.Offset, len(t.fields), ft.kind, ft, f.Name})
		// By w.seen: in a recursive type ft itself may not be finished.
		base := f.Type
		for base.Kind() == reflect.Pointer {
			base = base.Elem()
		}
		if f.Type != base && w.seen[base].losesZero() {
			w.warnings = append(w.warnings, fpath+": pointer to a zero value arrives as nil")
		}
	}
	if len(t.fields) == 0 && t.rt.NumField() > 0 {
		return &Error{Path: path, Reason: "struct without exported fields"}
	}
	t.targets = make(map[string]target, len(t.fields))
	for _, f := range reflect.VisibleFields(t.rt) {
		if found, ok := t.rt.FieldByName(f.Name); ok && exported(f.Name) {
			if to, ok := w.target(t.rt, found); ok {
				t.targets[f.Name] = to
			}
		}
	}
	return nil
}

// target finds the way to field f of struct rt. A field behind an unexported embedded pointer has none: reflection may not
// set that pointer, and encoding/gob panics if it is nil.
func (w *walker) target(rt reflect.Type, f reflect.StructField) (to target, ok bool) {
	for _, i := range f.Index[:len(f.Index)-1] {
		e := rt.Field(i)
		to.offset += e.Offset
		rt = e.Type
		if rt.Kind() != reflect.Pointer {
			continue
		}
		if !e.IsExported() {
			return to, false
		}
		to.through = append(to.through, embedded{to.offset, w.try(rt)})
		to.offset = 0
		rt = rt.Elem()
	}
	to.offset += f.Offset
	to.t = w.try(f.Type)
	for _, e := range to.through {
		if e.t == nil {
			to.t = nil
		}
	}
	return to, true
}

// try walks a type that is not sent but can be received: a field promoted from an unexported embedded struct. It is nil if
// gob cannot hold it, which is no reason to refuse the whole. It walks apart: of a type that failed half way nothing may stay
// in seen, and warnings are for what is sent.
func (w *walker) try(rt reflect.Type) *goType {
	if t := w.seen[rt]; t != nil {
		return t
	}
	apart := walker{seen: maps.Clone(w.seen)}
	t, err := apart.walk(rt, "")
	if err != nil {
		return nil
	}
	return t
}

// base is the type behind all pointers.
func (t *goType) base() *goType {
	for t.kind == kindPointer {
		t = t.elem
	}
	return t
}

// losesZero reports whether a field of the type is left out of a struct when it is zero. A pointer to such a zero arrives as nil.
func (t *goType) losesZero() bool { return t.kind.scalar() || t.kind == kindSlice || t.kind == kindMap }

// exported is encoding/gob's rule.
func exported(name string) bool {
	r, _ := utf8.DecodeRuneInString(name)
	return unicode.IsUpper(r)
}

// Figures of the runtime's maps (Go 1.24 to 1.26: Swiss tables): a header of 48 bytes, groups of 8 slots with a control byte
// a slot, 7 of 8 slots full at most, keys and elements over 128 bytes behind a pointer.
const (
	mapHeader = 48
	groupSize = 8
	farFrom   = 128
)

// slotSize is the memory of an entry in its slot and behind pointers.
func slotSize(key, elem uintptr) (slot, far uintptr) {
	const pointer = bits.UintSize / 8
	slot = 1
	for _, size := range []uintptr{key, elem} {
		if size > farFrom {
			far += size
			size = pointer
		}
		slot += size
	}
	return slot, far
}

// mapCost is what a map with room for n entries allocates. One with a single entry already has a group of eight slots, which is
// most of what a flood of small maps takes. Maps of many tables are made full to the brim, so that some of the tables are
// split at once: half as much again.
func (t *goType) mapCost(n uint64) uint64 {
	cost := uint64(mapHeader)
	if n == 0 {
		return cost
	}
	slots := uint64(groupSize)
	if n > groupSize {
		slots = 1 << bits.Len64(n*8/7)
	}
	if slots >= 1024 {
		slots += slots / 2
	}
	return cost + slots*uint64(t.entry) + n*uint64(t.far)
}
