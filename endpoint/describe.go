package endpoint

import (
	"encoding"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// goText returns T as Go text: the declaration of every named type that it
// reaches, each once, T first.
func goText[T any]() string {
	w := typeText{seen: make(map[reflect.Type]bool)}
	if name := w.name(reflect.TypeFor[T]()); len(w.named) == 0 || w.named[0].Name() != name {
		w.b.WriteString(name + "\n")
	}
	for len(w.named) > 0 { // literal finds more
		t := w.named[0]
		w.named = w.named[1:]
		w.b.WriteString("type " + t.Name() + " " + w.literal(t) + "\n")
	}
	return strings.TrimSuffix(w.b.String(), "\n")
}

type typeText struct {
	b     strings.Builder
	seen  map[reflect.Type]bool
	named []reflect.Type // met and not declared yet, in order
}

// opaque reports whether values of t encode themselves, so that what is inside
// of t does not travel.
func opaque(t reflect.Type) bool {
	for _, i := range []reflect.Type{
		reflect.TypeFor[gob.GobEncoder](), reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.TextMarshaler](),
	} {
		if t.Implements(i) || reflect.PointerTo(t).Implements(i) {
			return true
		}
	}
	return false
}

// name returns t as it is written inside a declaration.
func (w *typeText) name(t reflect.Type) string {
	if opaque(t) {
		return t.String()
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Slice, reflect.Array, reflect.Map, reflect.Pointer:
	default:
		return t.Kind().String() // the name of a basic type does not travel
	}
	if t.Name() == "" {
		return w.literal(t)
	}
	if !w.seen[t] {
		w.seen[t] = true
		w.named = append(w.named, t)
	}
	return t.Name()
}

// literal returns what t is made of.
func (w *typeText) literal(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return "*" + w.name(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "[]byte"
		}
		return "[]" + w.name(t.Elem())
	case reflect.Array:
		return fmt.Sprintf("[%d]%s", t.Len(), w.name(t.Elem()))
	case reflect.Map:
		return "map[" + w.name(t.Key()) + "]" + w.name(t.Elem())
	default: // a struct
	}
	var b strings.Builder
	b.WriteString("struct {\n")
	for f := range t.Fields() {
		if !f.IsExported() {
			continue // gob does not send it
		}
		line := w.name(f.Type)
		if !f.Anonymous {
			line = f.Name + " " + line
		}
		if f.Tag != "" {
			line += " `" + string(f.Tag) + "`"
		}
		b.WriteString("\t" + strings.ReplaceAll(line, "\n", "\n\t") + "\n")
	}
	return b.String() + "}"
}

// jsonExample returns a T as JSON with one of everything, "" where JSON cannot
// hold one.
func jsonExample[T any]() string {
	v := reflect.New(reflect.TypeFor[T]()).Elem()
	fillExample(v, make(map[reflect.Type]bool))
	b, err := json.Marshal(v.Interface())
	if err != nil || len(b) > 1<<10 { // a large array, say: nobody types that
		return ""
	}
	return string(b)
}

// fillExample gives v one element, one entry or one value to point at, all the
// way down but not round in a circle: within holds the types that v is in.
func fillExample(v reflect.Value, within map[reflect.Type]bool) {
	t := v.Type()
	if within[t] || opaque(t) {
		return
	}
	within[t] = true
	defer delete(within, t)
	switch v.Kind() {
	case reflect.String:
		v.SetString("text")
	case reflect.Pointer:
		if !within[t.Elem()] {
			v.Set(reflect.New(t.Elem()))
			fillExample(v.Elem(), within)
		}
	case reflect.Slice:
		if !within[t.Elem()] {
			v.Set(reflect.MakeSlice(t, 1, 1))
			fillExample(v.Index(0), within)
		}
	case reflect.Array:
		if v.Len() > 0 {
			fillExample(v.Index(0), within)
		}
	case reflect.Map:
		if !within[t.Elem()] {
			key, elem := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
			fillExample(key, within)
			fillExample(elem, within)
			v.Set(reflect.MakeMap(t))
			v.SetMapIndex(key, elem)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if t.Field(i).IsExported() {
				fillExample(v.Field(i), within)
			}
		}
	default: // zero will do
	}
}
