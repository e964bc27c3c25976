package gobcodec

import (
	"errors"
	"fmt"
	"strings"
)

// ErrEndUnknown matches (errors.Is) every refusal by [ReadMessage] after which the reader stands in the middle of a gob
// whose end cannot be found. The stream is of no further use then. A refusal without it left the reader right behind the gob.
var ErrEndUnknown = errors.New("gobcodec: the end of the gob is unknown")

// A Bound names what a refused gob had too much of.
type Bound uint8

// What is bounded, and by how much.
const (
	BoundMessage         Bound = iota // bytes of the whole gob against Limits.Message
	BoundDecoded                      // bytes that decoding would have allocated against Limits.Decoded
	BoundDepth                        // structs, slices, arrays and maps inside each other: 1,000
	BoundDefinitions                  // type definitions: 256
	BoundDefinitionBytes              // bytes of type definitions: 64 KiB
	BoundPlan                         // fields and types to compile for the definitions: 16,384
	BoundCount                        // elements, entries or bytes announced against the bytes that are left
)

func (b Bound) String() string {
	switch b {
	case BoundMessage:
		return "message bytes"
	case BoundDecoded:
		return "decoded bytes"
	case BoundDepth:
		return "depth"
	case BoundDefinitions:
		return "type definitions"
	case BoundDefinitionBytes:
		return "bytes of type definitions"
	case BoundPlan:
		return "fields in type definitions"
	case BoundCount:
		return "announced count"
	}
	return fmt.Sprintf("Bound(%d)", uint8(b))
}

// A BoundError says that a gob was refused because of its size. Figure is what the gob has or announces, as far as it had
// been seen; Limit is what is allowed (for BoundCount: what the bytes left can hold). Path is the field's, "" where there is none.
type BoundError struct {
	Bound      Bound
	Figure     uint64
	Limit      uint64
	Path       string
	endUnknown bool
}

func (e *BoundError) Error() string {
	s := fmt.Sprintf("%v: %d, more than %d", e.Bound, e.Figure, e.Limit)
	return describe(e.Path, s)
}

// Is reports whether target is ErrEndUnknown and that holds.
func (e *BoundError) Is(target error) bool { return e.endUnknown && target == ErrEndUnknown }

// An Error says what is wrong with a type, a value or a gob, and where: Path is like types.Order.Lines[].Item. Err is the
// error of the method of a type that encodes itself, else nil.
type Error struct {
	Path       string
	Reason     string
	Err        error
	endUnknown bool
}

func (e *Error) Error() string {
	s := e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return describe(e.Path, s)
}

func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is ErrEndUnknown and that holds.
func (e *Error) Is(target error) bool { return e.endUnknown && target == ErrEndUnknown }

func describe(path, text string) string {
	if path == "" {
		return "gob: " + text
	}
	return path + ": " + text
}

// maxPath bounds the path in an error: a value 1,000 levels deep would otherwise make a path of some KB, built in quadratic time.
const maxPath = 256

// A trail is the first error of a walk and the path to it, put together from the inside out while the walk unwinds, so that
// a walk without an error pays nothing for it.
type trail struct {
	err  error
	path string
}

func (t *trail) at(segment string) {
	switch {
	case len(t.path) < maxPath:
		t.path = segment + t.path
	case !strings.HasPrefix(t.path, "..."):
		t.path = "..." + t.path
	}
}

// finish gives the error its path, which begins with the name of the root type.
func (t *trail) finish(root string) error { return below(root+t.path, t.err) }

// inside puts a segment before the path of an error from further in.
func inside(segment string, err error) error {
	if p := pathOf(err); p != nil {
		t := trail{path: *p}
		t.at(segment)
		*p = t.path
	}
	return err
}

// below puts the name of the root type before the path, however long that is.
func below(root string, err error) error {
	if p := pathOf(err); p != nil {
		*p = root + *p
	}
	return err
}

func pathOf(err error) *string {
	switch e := err.(type) { //nolint:errorlint // made by this package, never wrapped
	case *Error:
		return &e.Path
	case *BoundError:
		return &e.Path
	}
	return nil
}

// fieldSegment is the path's part for a field. Names that a peer sent are quoted unless they are plain, and cut.
func fieldSegment(name string) string {
	plain := len(name) <= 64
	for _, r := range name {
		plain = plain && (r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}
	if plain {
		return "." + name
	}
	return fmt.Sprintf(".%.64q", name)
}
