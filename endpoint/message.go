package endpoint

import (
	"math/bits"
	"sync"
)

// messages are the buffers that messages are read into and made in: those of
// messages[i] have room for leastCharge<<i bytes at least, and for less than twice
// as many, but for the first, which may have any less. They go by size because
// a peer holds one for as long as it takes over its message: with one pool for
// all, ten thousand small messages that never ended each held a buffer of
// 1 MiB, and were charged 8 KiB.
var messages [8]sync.Pool // of *[]byte

// keptMessage is the size from which on a buffer is not kept, in bytes. Smaller
// bounds were measured to throw the gain away for large values.
const keptMessage = leastCharge << len(messages)

// requests are the buffers of Conn.call, of any size below keptMessage: how many
// are held, and for how long, is the caller's own affair.
var requests = sync.Pool{New: func() any { return new([]byte) }}

func dropRequest(b *[]byte) {
	if cap(*b) < keptMessage {
		*b = (*b)[:0]
		requests.Put(b)
	}
}

// messageSize is the place in messages of a buffer for n bytes.
func messageSize(n int) int { return max(0, bits.Len(uint(n/leastCharge))-1) }

// takeMessage returns an empty buffer that leastCharge pays for.
func takeMessage() *[]byte {
	if b, ok := messages[0].Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

func dropMessage(b *[]byte) {
	if cap(*b) < keptMessage {
		*b = (*b)[:0]
		messages[messageSize(cap(*b))].Put(b)
	}
}

// room makes *buf dst with room for n more bytes, and c hold as much as that
// takes. It fails with *buf as it was.
func (c *charge) room(buf *[]byte, dst []byte, n int) *Error {
	need := len(dst) + n
	if need <= cap(dst) {
		*buf = dst
		return c.hold(max(int64(need), c.held))
	}
	size := need
	if need < keptMessage/2 { // the least power of two that will do
		size = max(leastCharge, 1<<bits.Len(uint(need-1)))
	}
	if err := c.hold(int64(size)); err != nil {
		return err
	}
	larger := takeLarger(size)
	*larger = append(*larger, dst...)
	*buf, *larger = *larger, dst
	dropMessage(larger)
	return nil
}

// takeLarger returns an empty buffer with room for size bytes.
func takeLarger(size int) *[]byte {
	if leastCharge < size && size < keptMessage {
		if b, ok := messages[messageSize(size)].Get().(*[]byte); ok && cap(*b) >= size {
			return b
		}
	}
	b := make([]byte, 0, size)
	return &b
}
