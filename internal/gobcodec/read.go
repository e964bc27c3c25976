package gobcodec

import (
	"bufio"
	"io"
	"math"
)

// firstRead is how much memory a message gets before its first bytes have arrived.
const firstRead = 4 << 10

// ReadMessage reads one self-contained gob from r, no byte further, and appends it to dst. It takes apart nothing but the
// lengths and signs of type ids that it needs to find the end. Memory grows with what has arrived, never by a length
// that is only announced.
//
// Errors of r come back as they are: io.EOF if there was no byte at all, io.ErrUnexpectedEOF after the first. A refusal is an
// *Error or a *BoundError; unless it matches ErrEndUnknown, the gob has been read to its end and the stream can go on. Of a
// gob with too many definitions the rest is read and dropped, within the limit of the whole. With an error dst comes back as
// it was. The limits of time are the caller's: r blocks as its connection does.
func ReadMessage(r *bufio.Reader, dst []byte, lim Limits) ([]byte, error) {
	return ReadMessageCharged(r, dst, lim, nil)
}

// ReadMessageCharged is ReadMessage with a say in the memory it takes: charge, if not nil, is called with the length
// that dst is about to have, before it grows. When charge fails, the rest of the gob is read and dropped, and its error comes
// back.
func ReadMessageCharged(r *bufio.Reader, dst []byte, lim Limits, charge func(length int) error) ([]byte, error) {
	m := messageReader{r: r, dst: dst, limit: lim.message(), charge: charge}
	for {
		id, err := m.next()
		if err != nil {
			if err == io.EOF && m.read > 0 { //nolint:errorlint // from a bufio.Reader, not wrapped
				err = io.ErrUnexpectedEOF
			}
			return dst, err
		}
		if id < 0 {
			continue
		}
		if m.refused != nil {
			return dst, m.refused
		}
		return m.dst, nil
	}
}

// A messageReader is the state of one ReadMessage.
type messageReader struct {
	r       *bufio.Reader
	dst     []byte
	limit   uint64
	read    uint64 // bytes taken from r
	defs    int
	charge  func(length int) error
	refused error // with the end still to be found
}

// next reads one message and returns the sign of its id: 1 for the value.
func (m *messageReader) next() (sign int, err error) {
	var head [maxUint]byte
	n, err := m.uint(&head)
	if err != nil {
		return 0, err
	}
	size, next := parseUint(head[:n], 0)
	if next < 0 || size == 0 {
		return 0, &Error{Reason: "message length is malformed or zero", endUnknown: true}
	}
	if size > m.limit-min(m.limit, m.read) {
		return 0, &BoundError{Bound: BoundMessage, Figure: saturate(m.read, size), Limit: m.limit, endUnknown: true}
	}
	// No more than the message has: r may have to wait for a byte behind it for ever.
	body, err := m.r.Peek(int(min(size, maxUint)))
	if err != nil {
		return 0, err
	}
	x, next := parseUint(body, 0)
	if next < 0 {
		return 0, &Error{Reason: "message without a type id", endUnknown: true}
	}
	if sign = 1; fromZigzag(x) < 0 {
		sign = -1
		m.definition(m.read + size)
	}
	return sign, m.body(head[:n], int(size))
}

// uint reads the bytes of an unsigned integer. Of one that is too long it reads the first byte only, which says so.
func (m *messageReader) uint(head *[maxUint]byte) (n int, err error) {
	more := 1
	for ; n < more; n++ {
		if head[n], err = m.r.ReadByte(); err != nil {
			return 0, err
		}
		m.read++
		if c := -int(int8(head[0])); n == 0 && head[0] > 0x7f && c < maxUint {
			more += c
		}
	}
	return n, nil
}

// definition counts a definition that ends at the given position.
func (m *messageReader) definition(end uint64) {
	m.defs++
	switch {
	case m.refused != nil:
	case m.defs > maxDefinitions:
		m.refused = &BoundError{Bound: BoundDefinitions, Figure: uint64(m.defs), Limit: maxDefinitions}
	case end > maxDefinitionBytes:
		m.refused = &BoundError{Bound: BoundDefinitionBytes, Figure: end, Limit: maxDefinitionBytes}
	}
}

// body reads a message's size bytes and keeps them unless the gob is refused already.
func (m *messageReader) body(head []byte, size int) error {
	for first := true; size > 0; first = false {
		n := min(size, max(firstRead, len(m.dst), cap(m.dst)-len(m.dst)))
		if m.refused == nil && m.charge != nil {
			m.refused = m.charge(len(m.dst) + len(head) + n)
		}
		if m.refused != nil {
			m.dst = nil // what is dropped may take long to come
			dropped, err := m.r.Discard(size)
			m.read += uint64(dropped)
			return err
		}
		if first {
			m.dst = append(m.dst, head...)
		}
		if cap(m.dst)-len(m.dst) < n { // slices.Grow would take up to a quarter more than was charged
			m.dst = append(make([]byte, 0, len(m.dst)+n), m.dst...)
		}
		got, err := io.ReadFull(m.r, m.dst[len(m.dst):len(m.dst)+n])
		m.dst = m.dst[:len(m.dst)+got]
		m.read += uint64(got)
		if err != nil {
			return err
		}
		size -= n
	}
	return nil
}

func saturate(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}
