package session

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// A buffer is pooled bytes: what was read, what is staged for the wire, a message on its way. It has one owner at a time.
type buffer struct {
	b     []byte
	r     int     // bytes of b that have been consumed
	ctl   int     // bytes of b at its front that are control frames: they do not count as staged
	next  *buffer // in an inbox
	aloft bool    // in an inbox, and the reader reads more into it: if the inbox drops it, it is the reader's, and this false
}

// Buffers come in sizes of powers of two; larger ones than the last are made and dropped.
const (
	minBuffer  = 9  // 512 bytes
	maxBuffer  = 22 // 4 MiB
	readBuffer = 128 << 10
	wideBuffer = 512 << 10 // for reads of a peer that sends as fast as they are made
)

var pools [maxBuffer - minBuffer + 1]sync.Pool

// buffersOut counts the buffers that have not come back: the leak check of the tests. Elsewhere it is off, for the processors
// would wait for each other at it four times in a call.
var (
	buffersOut    atomic.Int64
	countsBuffers bool
)

// CountBuffers has BuffersOut count from now on. It is called before the first session is made.
func CountBuffers() { countsBuffers = true }

// BuffersOut returns how many pooled buffers have not come back.
func BuffersOut() int64 { return buffersOut.Load() }

func countBuffer(n int64) {
	if countsBuffers {
		buffersOut.Add(n)
	}
}

// getBuffer returns an empty buffer with room for at least n bytes.
func getBuffer(n int) *buffer {
	countBuffer(1)
	class := max(bits.Len(uint(max(n, 1)-1)), minBuffer)
	if class > maxBuffer {
		return &buffer{b: make([]byte, 0, n)}
	}
	if b, ok := pools[class-minBuffer].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, 0, 1<<class)}
}

// putBuffer gives a buffer back; nil is none. Its bytes may have grown beyond the size it was made with: it goes to the
// class that it can serve now.
func putBuffer(b *buffer) {
	if b == nil {
		return
	}
	countBuffer(-1)
	class := bits.Len(uint(cap(b.b))) - 1
	if class < minBuffer || class > maxBuffer {
		return
	}
	*b = buffer{b: b.b[:0]}
	pools[class-minBuffer].Put(b)
}
