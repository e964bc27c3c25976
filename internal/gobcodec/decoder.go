package gobcodec

import (
	"encoding/binary"
	"math"
	"math/bits"
	"unsafe"
)

// Reasons that several places give.
const (
	outOfRange  = "number out of the range of its type"
	wrongLength = "wrong number of elements for an array"
	endsInList  = "message ends within a list"
)

// A decoder reads one message. After an error it stands at the end of the data, so that every loop over it ends soon; what
// it reads then is zero and means nothing.
//
// Its work is linear in the data: each element takes at least one byte, and what an element makes it allocate is charged
// first. Only a struct at the very end of a message takes none, as encoding/gob allows its last terminators to be missing;
// counts are checked against the bytes left before that, so even those elements are no more than the message has bytes.
//
// It lives on the stack of decode: no method may let it escape, which is why loops over maps do not take functions that read
// a key or an element. Errors are kept here and not returned, because a second result at every number costs more than a
// look at the error once a struct or an element.
type decoder struct {
	trail
	b     []byte
	i     int
	depth int
	left  uint64 // bytes that it may still allocate
	limit uint64

	block        []byte // a copy of b[from:shared], which values in there are parts of
	from, shared int
}

// fail keeps the first error and moves to the end of the data.
func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.i = len(d.b)
}

// malformed does not make an error that fail would drop: a loop over an array of a million elements may come here for each.
func (d *decoder) malformed(reason string) {
	if d.err == nil {
		d.fail(&Error{Reason: reason})
	}
}

func (d *decoder) bound(b Bound, figure, limit uint64) {
	d.fail(&BoundError{Bound: b, Figure: figure, Limit: limit})
}

// enter counts a level: a struct, or a list of what may have levels inside. Go's stack would end a recursion over the data at
// about 2 million levels, with an error that cannot be recovered.
func (d *decoder) enter() bool {
	d.depth++
	if d.depth > maxDepth {
		d.bound(BoundDepth, uint64(d.depth), maxDepth)
	}
	return d.err == nil
}

// charge accounts for an allocation before it is made.
func (d *decoder) charge(cost uint64) bool {
	if cost > d.left {
		return d.overcharged(0, cost)
	}
	d.left -= cost
	return true
}

// chargeEach accounts for n elements of size bytes: n is the peer's and size any type's, so the product may take 128 bits.
func (d *decoder) chargeEach(n, size uint64) bool {
	over, cost := bits.Mul64(n, size)
	if over != 0 || cost > d.left {
		return d.overcharged(over, cost)
	}
	d.left -= cost
	return true
}

func (d *decoder) overcharged(over, cost uint64) bool {
	figure, carry := bits.Add64(d.limit-d.left, cost, 0)
	if over+carry != 0 {
		figure = math.MaxUint64
	}
	d.bound(BoundDecoded, figure, d.limit)
	return false
}

// roundUp is the size of the block that the allocator gives for a short string. Larger blocks come in steps of an eighth, which
// the estimate leaves out.
func roundUp(n int) uint64 { return (uint64(n) + 7) &^ 7 }

// uint reads one unsigned integer. Half of all integers in a gob, field numbers above all, are a single byte.
func (d *decoder) uint() uint64 {
	if i := d.i; i < len(d.b) && d.b[i] <= 0x7f {
		d.i = i + 1
		return uint64(d.b[i])
	}
	return d.longUint()
}

// longUint reads an integer of several bytes. With nine bytes left it reads eight at once and shifts: half the time of a
// loop.
func (d *decoder) longUint() uint64 {
	b, i := d.b, d.i
	if len(b)-i < maxUint || b[i] < 0xf8 {
		return d.lastUint()
	}
	n := -int(int8(b[i]))
	d.i = i + 1 + n
	return binary.BigEndian.Uint64(b[i+1:i+maxUint]) >> (64 - 8*uint(n))
}

// lastUint reads an integer near the end of the data, or a malformed one.
func (d *decoder) lastUint() uint64 {
	x, next := parseUint(d.b, d.i)
	switch {
	case next >= 0:
		d.i = next
	case d.i >= len(d.b):
		d.malformed("message ends within a value")
	default:
		d.malformed("number is malformed or cut off")
	}
	return x
}

func (d *decoder) int() int64 { return fromZigzag(d.uint()) }

func (d *decoder) float() float64 { return math.Float64frombits(bits.ReverseBytes64(d.uint())) }

// count reads a number of elements of at least size bytes each, and refuses what the bytes left cannot hold: whatever is
// made for the elements afterwards stands in a proportion to bytes that have been received.
func (d *decoder) count(size int) uint64 {
	n := d.uint()
	if room := uint64(len(d.b) - d.i); n > room || n*uint64(size) > room { // no overflow, and no division where all is well
		d.bound(BoundCount, n, room/uint64(size))
		return 0
	}
	return n
}

// bytes reads a counted run of bytes. The slice is part of the message, without room behind it: methods of types that decode
// themselves get it.
func (d *decoder) bytes() []byte {
	i := d.i
	if i < len(d.b) && int(d.b[i]) < len(d.b)-i && d.b[i] <= 0x7f { // short and whole, as most are: without a call
		n := int(d.b[i])
		d.i = i + 1 + n
		return d.b[i+1 : d.i : d.i]
	}
	n := d.uint()
	i = d.i
	if room := uint64(len(d.b) - i); n > room {
		d.bound(BoundCount, n, room)
		return nil
	}
	d.i = i + int(n)
	return d.b[i:d.i:d.i]
}

const (
	// The size of the largest block that values share: what one of them can keep in memory. 512 gained nothing over 256, and at
	// 128 a recursive node of 0.4 KB took longer.
	sharedBytes = 256
	// A block is made for a value, or for the strings of a list, that is a part of it no smaller than this: without that a short name
	// before 24 floats took 18 % longer than by itself.
	leastPart = 8
	// The fewest bytes that another value takes: the number of its field, its length, itself.
	another = 3
)

// string copies. All strings of a message in one block, whatever its size, saved 32 of 41 allocations of an order of 20 items but
// no time, and a single one of them would keep the whole message in memory.
func (d *decoder) string() string {
	b := d.bytes()
	if d.i > d.shared && (len(d.b)-d.i > sharedBytes || !d.shareRest(len(b))) {
		if !d.charge(roundUp(len(b))) {
			return ""
		}
		return string(b)
	}
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(&d.block[d.i-d.from-len(b)], len(b))
}

// shareRest makes a block for the n bytes just read and all values behind them, if what is left of the message is short and may
// hold another one. It is a call's request that gains: three allocations become one.
func (d *decoder) shareRest(n int) bool {
	from := d.i - n
	if !d.restFor(from, n) || len(d.b)-d.i < another {
		return false
	}
	return d.share(from, len(d.b))
}

// restFor reports whether the rest of the message is to be one block, of which n bytes are known to be needed.
func (d *decoder) restFor(from, n int) bool { return len(d.b)-from <= min(sharedBytes, leastPart*n) }

// shareList makes a block for the short strings that come next in a list, of which n are left, and perhaps for what follows. It
// begins at none that is empty, as whole lists may be.
func (d *decoder) shareList(n int) {
	from := d.i
	if from >= len(d.b) || d.b[from] == 0 {
		return
	}
	to, sharers := from, 0
	for sharers < n && to < len(d.b) && d.b[to] <= 0x7f && to+1+int(d.b[to])-from <= sharedBytes {
		to += 1 + int(d.b[to])
		sharers++
	}
	if sharers < 2 || to > len(d.b) {
		return
	}
	if d.restFor(from, to-from) {
		to = len(d.b)
	}
	d.share(from, to)
}

// share copies a part of the message as it is: the values in it are as far from each other as there. No two blocks are copies of the
// same bytes, so all of them are no more than the message.
func (d *decoder) share(from, to int) bool {
	if !d.charge((uint64(to-from) + 15) &^ 15) { // the sizes of blocks from 32 to 256 bytes
		return false
	}
	block := make([]byte, to-from) // not zeroed, as in byteSlice
	copy(block, d.b[from:to])
	d.block, d.from, d.shared = block, from, to
	return true
}

// strings reads a list of strings; those in a block without a call: for three tags it saves 7 % of a request's time.
func (d *decoder) strings(ss []string) {
	for k := range ss {
		if d.i >= d.shared {
			d.shareList(len(ss) - k)
		}
		if i := d.i; i < d.shared { // which is in the message
			if n := int(d.b[i]); n > 0 && n <= 0x7f && i+1+n <= d.shared {
				d.i = i + 1 + n
				ss[k] = unsafe.String(&d.block[i+1-d.from], n)
				continue
			}
		}
		if ss[k] = d.string(); d.err != nil {
			return
		}
	}
}
