package gobcodec

// skip passes over a value that the receiver has no place for.
func (d *decoder) skip(s *step) {
	switch s.kind { //nolint:exhaustive // skipped ones only
	case skipUint:
		d.uint()
	case skipTwoUints:
		d.uint()
		d.uint()
	case skipBytes:
		d.bytes()
	case skipArray:
		if n := d.uint(); n != s.length {
			d.malformed(wrongLength)
		} else {
			d.skipElements(n, s)
		}
	case skipSlice:
		d.skipElements(d.count(1), s)
	case skipMap:
		d.skipElements(d.count(2), s)
	case skipStruct:
		if !d.enter() {
			return
		}
		for f := d.next(-1, len(s.fields)); f >= 0; f = d.next(f, len(s.fields)) {
			d.skip(s.fields[f].step)
		}
		d.depth--
	}
}

// skipElements refuses an element without a byte: encoding/gob counts 2^62 map entries of none. It counts no level that
// decoding the same elements would not count.
func (d *decoder) skipElements(n uint64, s *step) {
	deep := s.elem.kind > skipBytes || s.key != nil && s.key.kind > skipBytes
	if deep && !d.enter() {
		return
	}
	for range n {
		if d.i < len(d.b) && s.key != nil {
			d.skip(s.key)
		}
		if d.i >= len(d.b) {
			d.malformed(endsInList)
		}
		if d.err != nil {
			return
		}
		d.skip(s.elem)
	}
	if deep {
		d.depth--
	}
}
