package endpoint

import (
	"encoding"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// goText returns T as Go text: the declaration of every named type that it
// reaches, each once, T first.
func goText[T any]() string {
	w := typeText{names: make(map[reflect.Type]string), taken: make(map[string]bool)}
	if name := w.name(reflect.TypeFor[T]()); len(w.named) == 0 || w.names[w.named[0]] != name {
		w.b.WriteString(name + "\n")
	}
	for i := 0; i < len(w.named); i++ { //nolint:intrange // literal finds more
		t := w.named[i]
		w.b.WriteString("type " + w.names[t] + " " + w.literal(t) + "\n")
	}
	return strings.TrimSuffix(w.b.String(), "\n")
}

type typeText struct {
	b     strings.Builder
	names map[reflect.Type]string
	taken map[string]bool
	named []reflect.Type // in the order in which they are met
}

// sendsItself reports whether gob leaves t to t's own methods, so that what is
// inside of t does not travel. encoding.TextMarshaler is not among them.
func sendsItself(t reflect.Type) bool {
	return implements[gob.GobEncoder](t) || implements[encoding.BinaryMarshaler](t)
}

func implements[I any](t reflect.Type) bool {
	i := reflect.TypeFor[I]()
	return t.Implements(i) || reflect.PointerTo(t).Implements(i)
}

// name returns t as it is written inside a declaration.
func (w *typeText) name(t reflect.Type) string {
	if sendsItself(t) {
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
	if w.names[t] == "" {
		name := packagePath.ReplaceAllString(t.Name(), "")
		if w.taken[name] {
			name = t.String()
		}
		w.names[t], w.taken[name] = name, true
		w.named = append(w.named, t)
	}
	return w.names[t]
}

// packagePath matches what reflect puts around the names of type arguments: a
// path in front, and a number behind that of a type declared in a function.
var packagePath = regexp.MustCompile(`[^][*, ]+\.|·\d+`)

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
	for f := range t.Fields() {
		if !f.IsExported() {
			continue // gob does not send it
		}
		line := w.name(f.Type)
		if !f.Anonymous || line == f.Type.Kind().String() { // an embedded basic type goes by its own name
			line = f.Name + " " + line
		}
		if f.Tag != "" {
			line += " `" + string(f.Tag) + "`"
		}
		b.WriteString("\t" + strings.ReplaceAll(line, "\n", "\n\t") + "\n")
	}
	if b.Len() == 0 {
		return "struct{}"
	}
	return "struct {\n" + b.String() + "}"
}

const (
	maxExample     = 1 << 10 // bytes of an example; nobody types more
	maxExampleSize = 4 << 10 // bytes of a value in one
)

// jsonExample returns a T as JSON with one of everything, "" where JSON cannot
// hold one or where the type takes no such thing. It is not settled if a method
// of the type's panicked: the next time it may not.
func jsonExample[T any]() (example string, settled bool) {
	settled = true
	var text []byte
	err := protect(func() (err error) {
		if reflect.TypeFor[T]().Size() > maxExampleSize {
			return nil
		}
		v := new(T)
		f := filler{within: make(map[reflect.Type]bool), left: maxExample}
		f.fill(reflect.ValueOf(v).Elem())
		if text, err = json.Marshal(v); err != nil {
			return err
		}
		return decodeJSON(text, new(T))
	}, func(err error, _ bool) error { settled = false; return err }) // of the type's own methods
	if err != nil || len(text) > maxExample {
		return "", settled
	}
	return string(text), settled
}

// A filler gives values one element, one entry or one value to point at, all
// the way down but not round in a circle.
type filler struct {
	within map[reflect.Type]bool // the types that the value is in
	left   int                   // values that may still be filled
}

func (f *filler) fill(v reflect.Value) {
	t := v.Type()
	if t.Kind() == reflect.Pointer {
		if f.fits(t.Elem()) {
			v.Set(reflect.New(t.Elem()))
			f.fill(v.Elem())
		}
		return
	}
	if f.left--; f.left < 0 || f.within[t] || implements[json.Marshaler](t) || implements[encoding.TextMarshaler](t) {
		return
	}
	f.within[t] = true
	defer delete(f.within, t)
	switch t.Kind() {
	case reflect.String:
		v.SetString("text")
	case reflect.Slice:
		if f.fits(t.Elem()) {
			v.Set(reflect.MakeSlice(t, 1, 1))
			f.fill(v.Index(0))
		}
	case reflect.Array:
		if v.Len() > 0 {
			f.fill(v.Index(0))
		}
	case reflect.Map:
		if f.fits(t.Key()) && f.fits(t.Elem()) {
			key, elem := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
			f.fill(key)
			f.fill(elem)
			v.Set(reflect.MakeMap(t))
			v.SetMapIndex(key, elem)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if t.Field(i).IsExported() {
				f.fill(v.Field(i))
			}
		}
	}
}

// fits reports whether a new value of t is to be made. What it points at is
// asked about when it is met.
func (f *filler) fits(t reflect.Type) bool { return !f.within[t] && t.Size() <= maxExampleSize }
