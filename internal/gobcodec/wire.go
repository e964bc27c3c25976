package gobcodec

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Type ids that every gob knows. Ids from firstID up are numbered by the sending process and defined in the gob itself;
// those between are encoding/gob's own and never sent.
const (
	idBool      = 1
	idInt       = 2
	idUint      = 3
	idFloat     = 4
	idBytes     = 5
	idString    = 6
	idComplex   = 7
	idInterface = 8
	firstID     = 64
)

// maxUint is the size of the longest unsigned integer: one byte for the length, eight of value.
const maxUint = 9

// appendUint appends x: itself up to 127, else the number of its bytes, negated, and the bytes.
func appendUint(b []byte, x uint64) []byte {
	if x <= 0x7f {
		return append(b, byte(x))
	}
	return appendLongUint(b, x)
}

// appendLongUint writes nine bytes at once and keeps those that count: a loop over the bytes took twice the time. It
// is kept out of line so that appendUint can be inlined.
//
//go:noinline
func appendLongUint(b []byte, x uint64) []byte {
	n := len(b)
	if cap(b)-n < maxUint {
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	b = b[:n+maxUint]
	spare := bits.LeadingZeros64(x) >> 3
	b[n] = byte(spare - 8)
	binary.BigEndian.PutUint64(b[n+1:], x<<(8*uint(spare)))
	return b[:n+maxUint-spare]
}

// zigzag moves the sign to bit 0: a set bit 0 means the complement of the rest.
func zigzag(i int64) uint64     { return uint64(i<<1) ^ uint64(i>>63) }
func fromZigzag(x uint64) int64 { return int64(x>>1) ^ -int64(x&1) }

func appendInt(b []byte, i int64) []byte { return appendUint(b, zigzag(i)) }

// appendFloat reverses the bytes, so that the exponent comes first and round numbers are short.
func appendFloat(b []byte, f float64) []byte {
	return appendUint(b, bits.ReverseBytes64(math.Float64bits(f)))
}

// appendFloats is appendFloat in a loop without its calls, for the slices that are long.
func appendFloats(b []byte, fs []float64) []byte {
	for _, f := range fs {
		x := bits.ReverseBytes64(math.Float64bits(f))
		if x <= 0x7f {
			b = append(b, byte(x))
			continue
		}
		n := len(b)
		if cap(b)-n < maxUint {
			b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		}
		b = b[:n+maxUint]
		spare := bits.LeadingZeros64(x) >> 3
		b[n] = byte(spare - 8)
		binary.BigEndian.PutUint64(b[n+1:], x<<(8*uint(spare)))
		b = b[:n+maxUint-spare]
	}
	return b
}

// parseUint reads the unsigned integer at b[i:]; next is -1 if it is malformed or cut off. Leading zero bytes are legal, as
// in encoding/gob.
func parseUint(b []byte, i int) (x uint64, next int) {
	if i >= len(b) {
		return 0, -1
	}
	c := b[i]
	i++
	if c <= 0x7f {
		return uint64(c), i
	}
	n := -int(int8(c))
	if n > 8 || n > len(b)-i {
		return 0, -1
	}
	for _, c := range b[i : i+n] {
		x = x<<8 | uint64(c)
	}
	return x, i + n
}

// A header is the beginning of one message inside a gob: its type id (negative: the definition of type -id) and the
// positions of its body and its end.
type header struct {
	id        int64
	body, end int
}

// parseHeader reads the header of the message at b[i:]. What is wrong with it is in reason.
func parseHeader(b []byte, i int) (h header, reason string) {
	size, i := parseUint(b, i)
	if i < 0 {
		return h, "message length is malformed or cut off"
	}
	if size > uint64(len(b)-i) {
		return h, "message is longer than the data"
	}
	h.end = i + int(size)
	x, i := parseUint(b[:h.end], i)
	if i < 0 {
		return h, "message without a type id"
	}
	h.id, h.body = fromZigzag(x), i
	if h.id > math.MaxInt32 || h.id < -math.MaxInt32 {
		return h, "type id out of range"
	}
	return h, ""
}

// split finds where the definitions of a gob end and its value message begins, which must be the end of the gob as well.
func split(b []byte) (defs int, value header, err error) {
	for n := 0; ; n++ {
		h, reason := parseHeader(b, defs)
		if reason == "" && h.id == 0 {
			reason = "type id 0"
		}
		if reason == "" && h.id > 0 && h.end != len(b) {
			reason = "data behind the value"
		}
		switch {
		case reason != "":
			return 0, h, &Error{Reason: reason}
		case h.id > 0:
			return defs, h, nil
		case n == maxDefinitions:
			return 0, h, &BoundError{Bound: BoundDefinitions, Figure: uint64(n) + 1, Limit: maxDefinitions}
		case h.end > maxDefinitionBytes:
			return 0, h, &BoundError{Bound: BoundDefinitionBytes, Figure: uint64(h.end), Limit: maxDefinitionBytes}
		}
		defs = h.end
	}
}
