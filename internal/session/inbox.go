package session

import "encoding/binary"

// An inbox holds what has arrived on a stream and was not taken yet, in as few bytes as possible: a peer chooses how its
// messages are cut, and a slice header for each byte of credit would be twenty times what the credit says.
//
// It is a list of chunks, pooled buffers. Those of a raw stream hold its bytes. Those of a stream of messages hold entries,
// a uvarint of (length << 2 | mark) and the bytes, one after the other; the parts of a message that came in many frames are
// one entry for each chunk. The session's reader adds at the end and never moves what is there; only the stream's receiver
// takes, at the front. So the receiver may look at a finished message without the session's lock.
//
// Credit. granted >= received always, and the peer may send the difference. What is granted follows
// window + taken + open: bytes of finished messages come back when they are taken, bytes of the unfinished one at once, so
// that a message longer than the window gets through. When it is finished they are owed back: nothing more is granted until
// enough has been taken. So at most the window and one message are ever held.
type inbox struct {
	head, tail *buffer
	part       int    // where in tail.b the unfinished message's entry begins, if it has one there
	parted     bool   // it has
	whole      uint64 // finished messages
	empties    uint64 // those of them, of no bytes, that came after all that is in the chunks
	open       int64  // bytes of the message that is not finished
	last       int64  // bytes of the message that was finished last
	ended      bool   // END has come
	held       int64  // capacity of the chunks
	busy       bool   // the receiver looks at the message at the front: nothing may be dropped
	doomed     bool   // to be dropped once it does not

	window, granted, received, taken int64

	calls uint64 // of the session, when widened looked last
	base  int64  // what was taken before the stream had the session to itself
}

// The marks of entries.
const (
	markPart = 0 // more of the message follows
	markEnd  = 1 // the message ends with this entry
	markRun  = 2 // no bytes: the length counts empty messages

	partHead = 5 // bytes of the head of a part, fixed because its length grows; 33 bits are more than a chunk holds

	wideWindow = 8 // times the window, for a stream that has the session to itself

	largePart = 32 << 10 // bytes of a message's first frame that are taken for a large message's
)

// addRaw copies bytes of a raw stream to the end.
func (in *inbox) addRaw(data []byte) {
	if in.tail == nil || cap(in.tail.b)-len(in.tail.b) < len(data) {
		in.grow(len(data))
	}
	in.tail.b = append(in.tail.b, data...)
}

// readRaw takes bytes of a raw stream.
func (in *inbox) readRaw(p []byte) int {
	n := 0
	for n < len(p) && in.head != nil {
		c := in.head
		m := copy(p[n:], c.b[c.r:])
		c.r += m
		n += m
		in.trim()
	}
	in.taken += int64(n)
	return n
}

// buffered reports whether a raw stream has bytes to read.
func (in *inbox) buffered() bool { return in.head != nil }

// add copies data of a message to the end; eom says that the message ends with it.
func (in *inbox) add(data []byte, eom bool) {
	switch {
	case !eom:
		in.addPart(data, markPart)
	case in.parted && cap(in.tail.b)-len(in.tail.b) >= len(data):
		in.addPart(data, markEnd) // so that a message in one chunk is in one piece
	case in.open == 0 && len(data) == 0:
		in.empties++
	default:
		// An entry even for no bytes: it marks the end of the parts before it.
		in.entry(data, uint64(len(data))<<2|markEnd)
	}
	in.count(len(data), eom)
}

// count takes note of n more bytes of a message.
func (in *inbox) count(n int, eom bool) {
	in.open += int64(n)
	if eom {
		in.whole++
		in.last = in.open
		in.open, in.parted = 0, false
	}
}

// addPart copies part of a message: into the entry that the parts before it are in, if that has room.
func (in *inbox) addPart(data []byte, mark uint64) {
	if len(data) == 0 && mark == markPart {
		return
	}
	if in.parted && cap(in.tail.b)-len(in.tail.b) >= len(data) {
		in.tail.b = append(in.tail.b, data...)
		in.mark(mark)
		return
	}
	in.flushEmpties()
	// Behind the message before there is often room for half of this one, which would have to be joined.
	if need := partHead + in.expect(len(data)); in.tail == nil || cap(in.tail.b)-len(in.tail.b) < need {
		in.grow(need)
	}
	c := in.tail
	in.part, in.parted = len(c.b), true
	c.b = append(c.b, make([]byte, partHead)...)
	c.b = append(c.b, data...)
	in.mark(markPart)
}

// mark writes the head of the entry at the end, of which part tells where it begins.
func (in *inbox) mark(mark uint64) {
	c := in.tail
	putPadded(c.b[in.part:in.part+partHead], uint64(len(c.b)-in.part-partHead)<<2|mark)
}

// expect returns how much room to make for a message of which n bytes have come: so much that the rest of it needs no other chunk,
// if it is like the one before, for to join a message of 1 MiB costs as much as to copy it to here. A message that began with a
// full frame is expected to have little more.
//
// To read into memory of the message's own, for its []byte field to be part of, took 10 to 35 % more CPU time than to copy the field out of
// a pooled chunk: the memory is new to the processor either way, and here it is the reader that waits for it, with the lock.
func (in *inbox) expect(n int) int {
	if n < largePart || in.open > 0 {
		return n
	}
	return max(n+n/2, int(min(in.last, 1<<(maxBuffer-1)-partHead)))
}

// flushEmpties writes down the empty messages that came before what comes now.
func (in *inbox) flushEmpties() {
	if run := in.empties; run > 0 {
		in.empties = 0
		in.entry(nil, run<<2|markRun)
	}
}

// entry adds one entry.
func (in *inbox) entry(data []byte, head uint64) {
	in.flushEmpties()
	if in.tail == nil || cap(in.tail.b)-len(in.tail.b) < binary.MaxVarintLen64+len(data) {
		in.grow(binary.MaxVarintLen64 + len(data))
	}
	in.tail.b = binary.AppendUvarint(in.tail.b, head)
	in.tail.b = append(in.tail.b, data...)
}

// grow adds a chunk with room for need bytes. The first is made to measure, for most calls are one small message; those
// behind it double.
func (in *inbox) grow(need int) {
	if in.tail != nil {
		need = max(need, min(2*cap(in.tail.b), maxStaged))
	}
	c := getBuffer(need)
	in.held += int64(cap(c.b))
	if in.tail == nil {
		in.head = c
	} else {
		in.tail.next = c
	}
	in.tail, in.parted = c, false
}

// trim gives back chunks that are used up, and makes a last one that is used up empty again.
func (in *inbox) trim() {
	for in.head != nil && in.head.r == len(in.head.b) {
		c := in.head
		in.head = c.next
		in.held -= int64(cap(c.b))
		putBuffer(c)
	}
	if in.head == nil {
		in.tail, in.parted = nil, false
	}
}

// message adds the entries of the message at the front to parts and returns them: none if it is empty. whole is not 0.
// Until skip they stay where they are, however much is added behind them.
func (in *inbox) message(parts [][]byte) [][]byte {
	for c := in.head; c != nil; c = c.next {
		for r := c.r; r < len(c.b); {
			head, n := binary.Uvarint(c.b[r:])
			if head&3 == markRun {
				return parts
			}
			end := r + n + int(head>>2)
			parts = append(parts, c.b[r+n:end:end])
			if head&3 == markEnd {
				return parts
			}
			r = end
		}
	}
	return parts
}

// skip takes the message at the front.
func (in *inbox) skip() {
	in.whole--
	for in.head != nil {
		c := in.head
		head, n := binary.Uvarint(c.b[c.r:])
		mark := head & 3
		if mark == markRun {
			if head>>2 > 1 {
				putPadded(c.b[c.r:c.r+n], (head>>2-1)<<2|markRun)
			} else {
				c.r += n
				in.trim()
			}
			return
		}
		c.r += n + int(head>>2)
		in.taken += int64(head >> 2)
		in.trim()
		if mark == markEnd {
			return
		}
	}
	in.empties--
}

// drop forgets everything that was not taken, at once or when the receiver does not look at it any more.
func (in *inbox) drop() {
	if in.busy {
		in.doomed = true
		return
	}
	for c := in.head; c != nil; {
		next := c.next
		if c.aloft {
			c.aloft = false
		} else {
			putBuffer(c)
		}
		c = next
	}
	in.head, in.tail, in.parted, in.whole, in.empties, in.open, in.held, in.doomed = nil, nil, false, 0, 0, 0, 0, false
}

// widened is the window now. It grows to wideWindow times what it was, by what was taken while calls, the number of calls of the session so far,
// stood still and shared was false: a stream that nobody reads stops where it always did, and small calls never wait behind a
// large window of another stream. Both sides then stop and start each other an eighth as often: a stream of 32 KiB messages takes a third less CPU time.
func (in *inbox) widened(calls uint64, shared bool) int64 {
	if shared || calls != in.calls {
		in.calls, in.base = calls, in.taken
	}
	return min(max(in.window, in.taken-in.base), wideWindow*in.window, maxCredit)
}

// room is the credit to grant now: nothing while it is less than a quarter of the window and the peer has some left, for
// a CREDIT frame costs both sides more than it brings.
func (in *inbox) room(window int64) int64 {
	n := window + in.taken + in.open - in.granted
	if n <= 0 || n < window/4 && in.granted > in.received {
		return 0
	}
	return min(n, maxCredit)
}

// putPadded writes v as a uvarint of exactly len(b) bytes.
func putPadded(b []byte, v uint64) {
	for i := range len(b) - 1 {
		b[i] = byte(v) | 0x80
		v >>= 7
	}
	b[len(b)-1] = byte(v)
}
