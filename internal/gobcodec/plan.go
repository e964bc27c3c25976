package gobcodec

import (
	"fmt"
	"slices"
)

// A plan is the decoder for one pair of received definitions and local type. It is not changed once it is made.
type plan struct {
	definitions string
	id          int64 // of the value message
	root        *step
	cost        int // bytes it keeps, about
}

// A step is one type of the definitions paired with the Go type it is decoded into, or with none if it is skipped. Steps form
// a graph with cycles, as the types do.
type step struct {
	kind   kind
	t      *goType // nil: skipped
	key    *step
	elem   *step
	offset uintptr // of a promoted field in the struct that its embedded pointer points to
	length uint64  // of a skipped array
	fields []stepField
}

type stepField struct {
	kind   kind
	offset uintptr
	step   *step
	name   string
}

// Sizes of what a plan keeps, for its cost. They need not be exact: the table is bounded in plans as well.
const (
	stepCost  = 96 + 64 // with its share of the compiler's tables, which live as long as it compiles
	fieldCost = 48
)

// A pair of the memo: one received type may be met with several own ones, and the reverse.
type pair struct {
	id int64
	t  *goType
}

// A compiler makes a plan. The number of its steps and fields is bounded: definitions of 64 KiB can name as many pairs as
// wire types × Go types. Memoizing by pair also keeps it from repeating the work of encoding/gob, for which 3,000 ignored
// fields of a type nested 3,000 deep take 2.3 s.
type compiler struct {
	types map[int64]*wireType
	pairs map[pair]*step
	size  int // steps and fields made
}

// compile makes the plan for definitions that split has passed. Whatever is wrong in what the value can reach is an error here,
// whether this value has it or not, as in encoding/gob; definitions out of its reach only have to be well-formed. A plan that
// failed is nowhere kept.
func (pr *program) compile(definitions string, id int64) (*plan, error) {
	types, err := parseDefinitions([]byte(definitions))
	if err != nil {
		return nil, err
	}
	c := compiler{types: types, pairs: make(map[pair]*step)}
	root, err := c.step(id, pr.root)
	if err != nil {
		return nil, err
	}
	if err := someField(root, types[id]); err != nil {
		return nil, err
	}
	return &plan{definitions: definitions, id: id, root: root, cost: len(definitions) + c.size*(stepCost+fieldCost)/2}, nil
}

// someField refuses, as encoding/gob does for the outermost struct alone, a struct that has no field in common with ours.
func someField(root *step, t *wireType) error {
	for root.kind == kindPointer {
		root = root.elem
	}
	if root.kind != kindStruct || t == nil || len(t.fields) == 0 || root.t.rt.NumField() == 0 {
		return nil
	}
	for _, f := range root.fields {
		if f.kind < skipUint {
			return nil
		}
	}
	return &Error{Reason: "no field of the received struct has the name of one here"}
}

// grow counts steps and fields before they are made.
func (c *compiler) grow(n int) error {
	if c.size += n; c.size > maxPlan {
		return &BoundError{Bound: BoundPlan, Figure: uint64(c.size), Limit: maxPlan}
	}
	return nil
}

// step pairs wire type id with t; t nil: to be skipped. The step is entered in the memo before its insides are looked at, so that
// recursive types end.
func (c *compiler) step(id int64, t *goType) (*step, error) {
	if s := c.pairs[pair{id, t}]; s != nil {
		return s, nil
	}
	if err := c.grow(1); err != nil {
		return nil, err
	}
	s := &step{t: t}
	c.pairs[pair{id, t}] = s
	if t == nil {
		return s, c.skip(s, id)
	}
	s.kind = t.kind
	if t.kind == kindPointer {
		var err error
		s.elem, err = c.step(id, t.elem)
		return s, err
	}
	return s, c.match(s, id)
}

// match pairs the insides of wire type id and s.t, which is no pointer.
func (c *compiler) match(s *step, id int64) (err error) {
	t, w := s.t, c.types[id]
	if !fits(t, id, w) {
		return &Error{Reason: fmt.Sprintf("received %s for %v", wireName(c.types, id), t.rt)}
	}
	switch t.kind { //nolint:exhaustive // the others have nothing inside
	case kindSlice, kindArray:
		if s.elem, err = c.step(w.elem, t.elem); err != nil {
			return inside("[]", err)
		}
	case kindMap:
		if s.key, err = c.step(w.key, t.key); err != nil {
			return inside("[key]", err)
		}
		if s.elem, err = c.step(w.elem, t.elem); err != nil {
			return inside("[]", err)
		}
	case kindStruct:
		if err = c.grow(len(w.fields)); err != nil {
			return err
		}
		s.fields = make([]stepField, len(w.fields))
		for i, f := range w.fields {
			if s.fields[i], err = c.field(f, t); err != nil {
				return inside(fieldSegment(f.name), err)
			}
		}
	}
	return nil
}

// fits is encoding/gob's rule of what may be decoded into what, one level deep. Any width of a number fits any other.
func fits(t *goType, id int64, w *wireType) bool {
	switch t.kind { //nolint:exhaustive // composite ones are below
	case kindBool:
		return id == idBool
	case kindInt8, kindInt16, kindInt32, kindInt64:
		return id == idInt
	case kindUint8, kindUint16, kindUint32, kindUint64:
		return id == idUint
	case kindFloat32, kindFloat64:
		return id == idFloat
	case kindComplex64, kindComplex128:
		return id == idComplex
	case kindString:
		return id == idString
	case kindBytes:
		return id == idBytes
	}
	if w == nil {
		return false
	}
	switch t.kind { //nolint:exhaustive // fits is asked for no other
	case kindSlice:
		return w.form == wireSlice
	case kindArray:
		return w.form == wireArray && w.length == uint64(t.length)
	case kindMap:
		return w.form == wireMap
	case kindStruct:
		return w.form == wireStruct
	case kindSelf:
		return t.self == selfGob && w.form == wireGobEncoder || t.self == selfBinary && w.form == wireBinaryMarshaler
	}
	return false
}

// field finds the place of a received field in struct t.
func (c *compiler) field(f wireField, t *goType) (sf stepField, err error) {
	to, ok := t.targets[f.name]
	sf.name = f.name
	if ok && to.t == nil {
		return sf, &Error{Reason: fmt.Sprintf("received %s for a type that gob cannot hold", wireName(c.types, f.id))}
	}
	if sf.step, err = c.step(f.id, to.t); err != nil {
		return sf, err
	}
	sf.kind, sf.offset = sf.step.kind, to.offset
	for _, e := range slices.Backward(to.through) {
		if err := c.grow(1); err != nil {
			return sf, err
		}
		sf.step = &step{kind: kindPromoted, t: e.t.elem, offset: sf.offset, elem: sf.step}
		sf.kind, sf.offset = kindPromoted, e.offset
	}
	return sf, nil
}

// skip prepares to pass over a value of wire type id.
func (c *compiler) skip(s *step, id int64) (err error) {
	switch id {
	case idBool, idInt, idUint, idFloat:
		s.kind = skipUint
		return nil
	case idComplex:
		s.kind = skipTwoUints
		return nil
	case idBytes, idString:
		s.kind = skipBytes
		return nil
	}
	w := c.types[id]
	if w == nil { // interface among them: where its value ends is known only with the definitions inside it
		return &Error{Reason: "received " + wireName(c.types, id)}
	}
	switch w.form {
	case wireSlice:
		s.kind = skipSlice
		s.elem, err = c.step(w.elem, nil)
	case wireArray:
		s.kind, s.length = skipArray, w.length
		s.elem, err = c.step(w.elem, nil)
	case wireMap:
		s.kind = skipMap
		if s.key, err = c.step(w.key, nil); err == nil {
			s.elem, err = c.step(w.elem, nil)
		}
	case wireStruct:
		s.kind = skipStruct
		if err = c.grow(len(w.fields)); err != nil {
			return err
		}
		s.fields = make([]stepField, len(w.fields))
		for i, f := range w.fields {
			e, failed := c.step(f.id, nil)
			if failed != nil {
				return failed
			}
			s.fields[i] = stepField{kind: e.kind, step: e, name: f.name}
		}
	default:
		s.kind = skipBytes
	}
	return err
}
