package wire

import (
	"encoding/binary"
	"math"
	"time"
)

// What a CALL opens.
const (
	CallRaw    = 0 // bytes both ways, without messages
	CallUnary  = 1 // one message each way
	CallStream = 2 // messages both ways
)

// A Code says why a call or a session ended: the values and meanings of gRPC's codes, of which these are the ones that
// a session sets by itself.
type Code uint8

// The codes that a session sets.
const (
	OK                 Code = 0
	Canceled           Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14

	maxCode Code = 16
)

// An Outcome says what is known of a call that did not succeed.
type Outcome uint8

// The outcomes.
const (
	OutcomeUnknown Outcome = 0 // it may have run
	OutcomeNotRun  Outcome = 1 // it did not run and will not
	OutcomeFailed  Outcome = 2 // it ran and failed
)

// The ids of what a HELLO says.
const (
	helloMessage   = 1
	helloCalls     = 2
	helloCredit    = 3
	helloHeartbeat = 4
	helloProgram   = 5
)

// program is what most peers call themselves: it is not allocated anew for each.
const program = "gobnode"

// MaxProgram is the most bytes of Hello.Program that are sent or kept.
const MaxProgram = 256

// A Hello is the first frame of each side. A zero number and an empty text are left out: the peer goes on assuming what
// it assumes without them.
type Hello struct {
	Message   uint64 // bytes; the longest message the sender accepts
	Calls     uint64 // streams of the receiver's that the sender serves at once
	Credit    uint64 // bytes the receiver may send on a stream before the first CREDIT
	Heartbeat uint64 // milliseconds; how often the sender would like a PING to go
	Program   string // name and version, for people
}

// AppendHello adds a HELLO frame.
func AppendHello(dst []byte, h *Hello) []byte {
	start := len(dst)
	dst = begin(dst, KindHello, 0)
	for id, v := range [...]uint64{helloMessage: h.Message, helloCalls: h.Calls, helloCredit: h.Credit, helloHeartbeat: h.Heartbeat} {
		if v != 0 {
			var number [binary.MaxVarintLen64]byte
			n := binary.PutUvarint(number[:], v)
			dst = append(dst, byte(id), byte(n))
			dst = append(dst, number[:n]...)
		}
	}
	if h.Program != "" {
		dst = append(dst, helloProgram)
		dst = appendString(dst, h.Program[:min(len(h.Program), MaxProgram)])
	}
	return finish(dst, start)
}

// ParseHello reads the payload of a HELLO. Ids it does not know are skipped; one that comes twice is an error, because
// the two sides might then believe different halves of it. It allocates only the text.
func ParseHello(p []byte) (Hello, error) {
	var h Hello
	seen := uint64(0)
	for len(p) > 0 {
		id, rest, ok := uvarint(p)
		if !ok {
			return Hello{}, ErrMalformed
		}
		value, rest, ok := bytesOf(rest)
		if !ok {
			return Hello{}, ErrMalformed
		}
		p = rest
		if id == 0 || id > helloProgram {
			continue
		}
		if seen&(1<<id) != 0 || !h.set(id, value) {
			return Hello{}, ErrMalformed
		}
		seen |= 1 << id
	}
	return h, nil
}

// set takes one value of a HELLO and reports whether it is well formed.
func (h *Hello) set(id uint64, value []byte) bool {
	if id == helloProgram {
		if value = value[:min(len(value), MaxProgram)]; string(value) != program {
			h.Program = string(value)
			return true
		}
		h.Program = program
		return true
	}
	v, rest, ok := uvarint(value)
	if !ok || len(rest) != 0 {
		return false
	}
	switch id {
	case helloMessage:
		h.Message = v
	case helloCalls:
		h.Calls = v
	case helloCredit:
		h.Credit = v
	case helloHeartbeat:
		h.Heartbeat = v
	}
	return true
}

// A Call is the payload of a CALL frame. Parsed, its slices point into the payload.
type Call struct {
	Stream  uint64
	Kind    uint8
	Timeout time.Duration // time left; 0 is none. Travels in microseconds, rounded up
	Name    []byte
	Pairs   Pairs
	Data    []byte
}

// HeadSize returns how many bytes of payload c takes apart from its data.
func (c *Call) HeadSize() int {
	return streamSize + 1 + uvarintSize(micros(c.Timeout)) + uvarintSize(uint64(len(c.Name))) + len(c.Name) + c.Pairs.size()
}

// AppendCall adds a CALL frame. HeadSize and the data together are at most MaxPayload.
func AppendCall(dst []byte, f Flags, c *Call) []byte {
	start := len(dst)
	dst = begin(dst, KindCall, f)
	dst = binary.BigEndian.AppendUint64(dst, c.Stream)
	dst = append(dst, c.Kind)
	dst = binary.AppendUvarint(dst, micros(c.Timeout))
	dst = binary.AppendUvarint(dst, uint64(len(c.Name)))
	dst = append(dst, c.Name...)
	dst = c.Pairs.appendTo(dst)
	dst = append(dst, c.Data...)
	return finish(dst, start)
}

// ParseCall reads the payload of a CALL. A timeout beyond what a Duration holds becomes the longest one.
func ParseCall(p []byte) (Call, error) {
	var c Call
	var ok bool
	if c.Stream, p, ok = streamOf(p); !ok || len(p) == 0 {
		return Call{}, ErrMalformed
	}
	c.Kind, p = p[0], p[1:]
	us, p, ok := uvarint(p)
	if !ok {
		return Call{}, ErrMalformed
	}
	c.Timeout = time.Duration(min(us, math.MaxInt64/uint64(time.Microsecond))) * time.Microsecond
	if c.Name, p, ok = bytesOf(p); !ok {
		return Call{}, ErrMalformed
	}
	if c.Pairs, p, ok = pairsOf(p); !ok {
		return Call{}, ErrMalformed
	}
	c.Data = p
	return c, nil
}

// micros is d as it travels: rounded up, so that a deadline is never told shorter than it is.
func micros(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	us := uint64(d / time.Microsecond)
	if d%time.Microsecond != 0 {
		us++
	}
	return us
}

// AppendData adds a DATA frame with at most MaxData bytes of data.
func AppendData(dst []byte, f Flags, stream uint64, data []byte) []byte {
	start := len(dst)
	dst = begin(dst, KindData, f)
	dst = binary.BigEndian.AppendUint64(dst, stream)
	dst = append(dst, data...)
	return finish(dst, start)
}

// MaxData is how many bytes of data fit into a DATA frame.
const MaxData = MaxPayload - streamSize

// ParseData reads the payload of a DATA frame.
func ParseData(p []byte) (stream uint64, data []byte, err error) {
	stream, data, ok := streamOf(p)
	if !ok {
		return 0, nil, ErrMalformed
	}
	return stream, data, nil
}

// A Failure is the payload of an ERROR frame. Parsed, its slices point into the payload.
type Failure struct {
	Stream  uint64
	Code    Code
	Outcome Outcome
	Message []byte
	Pairs   Pairs
}

// AppendError adds an ERROR frame. Message and pairs together leave room for MaxPayload.
func AppendError(dst []byte, e *Failure) []byte {
	start := len(dst)
	dst = begin(dst, KindError, 0)
	dst = binary.BigEndian.AppendUint64(dst, e.Stream)
	dst = append(dst, byte(e.Code), byte(e.Outcome))
	dst = binary.AppendUvarint(dst, uint64(len(e.Message)))
	dst = append(dst, e.Message...)
	dst = e.Pairs.appendTo(dst)
	return finish(dst, start)
}

// ParseError reads the payload of an ERROR frame. A code it does not know, and the code for success, become Unknown; an
// outcome it does not know becomes OutcomeUnknown, which claims nothing.
func ParseError(p []byte) (Failure, error) {
	var e Failure
	var ok bool
	if e.Stream, p, ok = streamOf(p); !ok || len(p) < 2 {
		return Failure{}, ErrMalformed
	}
	e.Code, e.Outcome, p = Code(p[0]), Outcome(p[1]), p[2:]
	if e.Code == OK || e.Code > maxCode {
		e.Code = Unknown
	}
	if e.Outcome > OutcomeFailed {
		e.Outcome = OutcomeUnknown
	}
	if e.Message, p, ok = bytesOf(p); !ok {
		return Failure{}, ErrMalformed
	}
	if e.Pairs, p, ok = pairsOf(p); !ok || len(p) != 0 {
		return Failure{}, ErrMalformed
	}
	return e, nil
}

// AppendCancel adds a CANCEL frame.
func AppendCancel(dst []byte, stream uint64) []byte {
	start := len(dst)
	dst = begin(dst, KindCancel, 0)
	dst = binary.BigEndian.AppendUint64(dst, stream)
	return finish(dst, start)
}

// ParseCancel reads the payload of a CANCEL frame.
func ParseCancel(p []byte) (stream uint64, err error) {
	stream, p, ok := streamOf(p)
	if !ok || len(p) != 0 {
		return 0, ErrMalformed
	}
	return stream, nil
}

// AppendCredit adds a CREDIT frame for n more bytes.
func AppendCredit(dst []byte, stream uint64, n uint32) []byte {
	start := len(dst)
	dst = begin(dst, KindCredit, 0)
	dst = binary.BigEndian.AppendUint64(dst, stream)
	dst = binary.BigEndian.AppendUint32(dst, n)
	return finish(dst, start)
}

// ParseCredit reads the payload of a CREDIT frame. A credit of nothing is malformed: it can only be a flood.
func ParseCredit(p []byte) (stream uint64, n uint32, err error) {
	stream, p, ok := streamOf(p)
	if !ok || len(p) != 4 || binary.BigEndian.Uint32(p) == 0 {
		return 0, 0, ErrMalformed
	}
	return stream, binary.BigEndian.Uint32(p), nil
}

// AppendPing adds a PING, or the PONG that answers it, with the eight bytes of v.
func AppendPing(dst []byte, k Kind, v uint64) []byte {
	start := len(dst)
	dst = begin(dst, k, 0)
	dst = binary.BigEndian.AppendUint64(dst, v)
	return finish(dst, start)
}

// ParsePing reads the payload of a PING or PONG.
func ParsePing(p []byte) (uint64, error) {
	if len(p) != pingSize {
		return 0, ErrMalformed
	}
	return binary.BigEndian.Uint64(p), nil
}

// A GoAway is the payload of a GOAWAY frame: no stream of the receiver's above Last has run or will.
type GoAway struct {
	Last    uint64
	Code    Code // OK for a drain; otherwise why the sender ends the session
	Message []byte
}

// AppendGoAway adds a GOAWAY frame.
func AppendGoAway(dst []byte, g *GoAway) []byte {
	start := len(dst)
	dst = begin(dst, KindGoAway, 0)
	dst = binary.BigEndian.AppendUint64(dst, g.Last)
	dst = append(dst, byte(g.Code))
	dst = binary.AppendUvarint(dst, uint64(len(g.Message)))
	dst = append(dst, g.Message...)
	return finish(dst, start)
}

// ParseGoAway reads the payload of a GOAWAY frame.
func ParseGoAway(p []byte) (GoAway, error) {
	if len(p) < streamSize+1 {
		return GoAway{}, ErrMalformed
	}
	g := GoAway{Last: binary.BigEndian.Uint64(p), Code: Code(p[streamSize])}
	if g.Code > maxCode {
		g.Code = Unknown
	}
	var ok bool
	if g.Message, p, ok = bytesOf(p[streamSize+1:]); !ok || len(p) != 0 {
		return GoAway{}, ErrMalformed
	}
	return g, nil
}
