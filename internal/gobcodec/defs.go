package gobcodec

import (
	"fmt"
	"math"
)

// A wireForm is what a received definition defines. The order is that of the fields of encoding/gob's wireType.
type wireForm uint8

const (
	wireArray wireForm = iota
	wireSlice
	wireStruct
	wireMap
	wireGobEncoder
	wireBinaryMarshaler
	wireTextMarshaler
	wireForms
)

type wireType struct {
	form   wireForm
	name   string
	elem   int64 // of an array, slice or map
	key    int64 // of a map
	length uint64
	fields []wireField
}

type wireField struct {
	name string
	id   int64
}

// parseDefinitions reads the definitions in b, which split has measured. Everything in them comes from the peer: counts are
// checked against the bytes left, and nothing is made ahead of its bytes.
//
// A definition is the gob of a struct whose one set field says the form: its own fields are CommonType (Name, Id), then
// Elem and Len of an array, Elem of a slice, Field of a struct, Key and Elem of a map.
func parseDefinitions(b []byte) (map[int64]*wireType, error) {
	types := make(map[int64]*wireType)
	for i := 0; i < len(b); {
		h, reason := parseHeader(b, i)
		if reason != "" {
			return nil, &Error{Reason: reason}
		}
		d := decoder{b: b[:h.end], i: h.body}
		t := d.definition()
		switch {
		case d.err == nil && d.i != h.end:
			d.malformed("data behind a type definition")
		case d.err == nil && (-h.id < firstID || types[-h.id] != nil):
			d.malformed(fmt.Sprintf("type id %d is defined twice or reserved", -h.id))
		}
		if d.err != nil {
			return nil, d.err
		}
		types[-h.id] = t
		i = h.end
	}
	return types, nil
}

// definition reads the body of one definition. encoding/gob would take one of several forms, whichever suits it; no encoder
// writes that.
func (d *decoder) definition() *wireType {
	t := &wireType{form: wireForms}
	for f := d.next(-1, int(wireForms)); f >= 0; f = d.next(f, int(wireForms)) {
		if t.form != wireForms {
			d.malformed("type definition of two forms")
			return t
		}
		t.form = wireForm(f)
		for f := d.next(-1, t.form.members()); f >= 0; f = d.next(f, t.form.members()) {
			switch {
			case f == 0:
				d.common(t)
			case t.form == wireStruct:
				d.wireFields(t)
			case t.form == wireMap && f == 1:
				t.key = d.id()
			case t.form == wireArray && f == 2:
				n := fromZigzag(d.uint())
				if n < 0 {
					d.malformed("negative array length")
				}
				t.length = uint64(n)
			default:
				t.elem = d.id()
			}
		}
	}
	if t.form == wireForms {
		d.malformed("empty type definition")
	}
	return t
}

// members is the number of fields of the form's own struct.
func (f wireForm) members() int {
	switch f { //nolint:exhaustive // the others have common members only
	case wireArray, wireMap:
		return 3
	case wireSlice, wireStruct:
		return 2
	}
	return 1
}

// common reads the name, which only error texts use, and the id, which says again what the message's header says.
func (d *decoder) common(t *wireType) {
	for f := d.next(-1, 2); f >= 0; f = d.next(f, 2) {
		if f == 0 {
			t.name = string(d.bytes())
		} else {
			d.id()
		}
	}
}

// wireFields reads the fields of a struct. They are appended as they come: a definition of 20 bytes that claims 2^28 fields makes
// encoding/gob allocate 10 MiB. Names are copied; all of them together are no longer than the definitions.
func (d *decoder) wireFields(t *wireType) {
	for range d.count(1) {
		var w wireField
		for f := d.next(-1, 2); f >= 0; f = d.next(f, 2) {
			if f == 0 {
				w.name = string(d.bytes())
			} else {
				w.id = d.id()
			}
		}
		if d.err == nil && w.name == "" {
			d.malformed("field without a name in a type definition")
		}
		if d.err != nil {
			return
		}
		t.fields = append(t.fields, w)
	}
}

// id reads a type id. encoding/gob keeps ids in 32 bits and cuts longer ones, which are refused here.
func (d *decoder) id() int64 {
	id := fromZigzag(d.uint())
	if id < math.MinInt32 || id > math.MaxInt32 {
		d.malformed("type id out of range")
	}
	return id
}

// next returns the number of the struct's next field, or -1 at its end, which may be the end of the message as well.
func (d *decoder) next(last, fields int) int {
	if d.i >= len(d.b) {
		return -1
	}
	delta := d.uint()
	if delta > uint64(fields-1-last) {
		d.malformed("field number out of range")
		return -1
	}
	if delta == 0 {
		return -1
	}
	return last + int(delta)
}

// wireName describes a received type for an error text. Names are the peer's: quoted and cut.
func wireName(types map[int64]*wireType, id int64) string {
	switch id {
	case idBool:
		return "bool"
	case idInt:
		return "int"
	case idUint:
		return "uint"
	case idFloat:
		return "float"
	case idBytes:
		return "[]byte"
	case idString:
		return "string"
	case idComplex:
		return "complex"
	case idInterface:
		return "interface"
	}
	t := types[id]
	if t == nil {
		return fmt.Sprintf("undefined type %d", id)
	}
	form := [...]string{"array", "slice", "struct", "map", "GobEncoder", "BinaryMarshaler", "TextMarshaler"}[t.form]
	if t.name == "" {
		return form
	}
	return fmt.Sprintf("%s %.64q", form, t.name)
}
