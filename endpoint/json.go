package endpoint

import (
	"bytes"
	"encoding"
	"encoding/json"
	"io"
	"reflect"
	"strings"

	"github.com/pkg/errors"
)

const (
	// A slice that grows is copied; what it allocates on the way was measured at
	// 2.5 to 3.2 times its elements for lines of 8 KiB, and is at most 6.25 times
	// for any (a growth by a quarter, with as much room left over at the end).
	jsonGrowth = 7

	// A byte of a string that is no UTF-8 becomes three, in a buffer that is
	// doubled: measured at 16 for each byte of a line, all told.
	jsonByte = 20

	// What an interface takes that is made a map with one entry.
	jsonAny = 512
)

// jsonCost is the most that decoding src can allocate, in bytes: every
// separator and bracket may stand for one more of the largest element that the
// type reaches. 8 KB of JSON could cost 600 MB otherwise.
func jsonCost(src []byte, largest int64) int64 {
	n := int64(1)
	for _, b := range src {
		if strings.IndexByte(",:[{", b) >= 0 {
			n++
		}
	}
	return n*largest*jsonGrowth + int64(len(src))*jsonByte
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// jsonLargest is the size of the largest value that one separator of JSON can
// make anywhere in a t. It looks where encoding/json does, which is not where
// gob does: into types that encode themselves as gobs, too. seen may be nil.
func jsonLargest(t reflect.Type, seen map[reflect.Type]bool) int64 {
	if seen == nil {
		seen = make(map[reflect.Type]bool)
	}
	if seen[t] {
		return 0
	}
	seen[t] = true
	largest := int64(t.Size())
	if p := reflect.PointerTo(t); p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler) {
		return largest
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		largest = max(largest, jsonLargest(t.Elem(), seen))
	case reflect.Map:
		// A first group of 8 slots, larger keys and elements behind pointers, and
		// one of each to decode into.
		const slots, header, far = 8, 64, 128
		key, elem := int64(t.Key().Size()), int64(t.Elem().Size())
		first := header + slots*(1+min(key, far)+min(elem, far)) + 2*(key+elem)
		largest = max(largest, first, jsonLargest(t.Key(), seen), jsonLargest(t.Elem(), seen))
	case reflect.Struct:
		for f := range t.Fields() {
			largest = max(largest, jsonLargest(f.Type, seen))
		}
	case reflect.Interface:
		largest = jsonAny
	}
	return largest
}

// maxDepth is how many values inside values a request may have, as a gob may.
const maxDepth = 1000

// jsonDepth is how deep src nests, whether it is JSON or not. encoding/json
// itself goes down 10,000 levels, and takes a stack of megabytes for them.
func jsonDepth(src []byte) int {
	depth, deepest, quoted := 0, 0, false
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case quoted && c == '\\':
			i++ // whatever it is, it does not end the string
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
			deepest = max(deepest, depth)
		case c == ']' || c == '}':
			depth--
		}
	}
	return deepest
}

// decodeJSON decodes exactly one value. A field that *v does not have is an
// error.
func decodeJSON(src []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(src))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data behind the JSON value")
	}
	return nil
}
