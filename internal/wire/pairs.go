package wire

import (
	"encoding/binary"
	"iter"
)

// Pairs are strings two by two, as they travel: a header. The zero value is none of them.
type Pairs struct {
	count uint64
	raw   []byte // count pairs, checked when it was made
}

// MakePairs encodes strings two by two; a last one without a partner gets an empty one. It allocates unless kv is empty.
func MakePairs(kv []string) Pairs {
	if len(kv) == 0 {
		return Pairs{}
	}
	var p Pairs
	for i := 0; i < len(kv); i += 2 {
		value := ""
		if i+1 < len(kv) {
			value = kv[i+1]
		}
		p.raw = appendString(p.raw, kv[i])
		p.raw = appendString(p.raw, value)
		p.count++
	}
	return p
}

// Size returns how many bytes the strings and their lengths take: what a limit on a header is compared with.
func (p Pairs) Size() int { return len(p.raw) }

// Len returns the number of pairs.
func (p Pairs) Len() int { return int(p.count) }

// Strings returns the pairs as strings two by two, nil if there are none. It allocates in proportion to Size.
func (p Pairs) Strings() []string {
	if p.count == 0 {
		return nil
	}
	out := make([]string, 0, 2*p.count)
	for k, v := range p.All() {
		out = append(out, string(k), string(v))
	}
	return out
}

// All ranges over the pairs without copying them.
func (p Pairs) All() iter.Seq2[[]byte, []byte] {
	return func(yield func([]byte, []byte) bool) {
		for raw := p.raw; len(raw) > 0; {
			var k, v []byte
			k, raw, _ = bytesOf(raw)
			v, raw, _ = bytesOf(raw)
			if !yield(k, v) {
				return
			}
		}
	}
}

// size is what p takes in a payload, its count included.
func (p Pairs) size() int { return uvarintSize(p.count) + len(p.raw) }

// appendTo adds the count and the pairs.
func (p Pairs) appendTo(dst []byte) []byte {
	return append(binary.AppendUvarint(dst, p.count), p.raw...)
}

// pairsOf reads a count and that many pairs from the front of b. Each pair takes at least two bytes, so a count that
// cannot be true is refused before the first of them is looked at.
func pairsOf(b []byte) (p Pairs, rest []byte, ok bool) {
	count, b, ok := uvarint(b)
	if !ok || count > uint64(len(b))/2 {
		return Pairs{}, nil, false
	}
	rest = b
	for range 2 * count {
		if _, rest, ok = bytesOf(rest); !ok {
			return Pairs{}, nil, false
		}
	}
	return Pairs{count: count, raw: b[:len(b)-len(rest)]}, rest, true
}

// streamOf reads the number of a stream. 0 is the number of none.
func streamOf(b []byte) (id uint64, rest []byte, ok bool) {
	if len(b) < streamSize {
		return 0, nil, false
	}
	id = binary.BigEndian.Uint64(b)
	return id, b[streamSize:], id != 0
}

// bytesOf reads a length and that many bytes. The comparison is made in 64 bits: a length that only fits after it has
// been cut to an int is refused on every machine.
func bytesOf(b []byte) (s, rest []byte, ok bool) {
	n, b, ok := uvarint(b)
	if !ok || n > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}

// uvarint reads a number of at most 64 bits.
func uvarint(b []byte) (v uint64, rest []byte, ok bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// uvarintSize is how many bytes v takes.
func uvarintSize(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// appendString adds a length and the bytes of s.
func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}
