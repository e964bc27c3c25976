// Package wire is the frames of session mode: pure functions on slices, with no goroutine, no connection and no state.
//
//	frame = header u16 | length u32 | payload [length] | crc u32
//
// The header is a kind and its flags, integers are big-endian, and the CRC-32C covers everything before it, header and
// length included. Every kind has an Append function, which adds one whole frame to a slice, and a Parse function, which
// reads a payload without copying: what it returns points into the payload. Nothing here allocates except where it says
// so, and nothing is sized by a number from the wire before that number has been compared, in 64 bits, with the bytes
// that are really there.
package wire

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A Kind says what a frame is. Kinds from FirstOptional up may be ignored by a side that does not know them.
type Kind uint8

// The kinds of frame.
const (
	KindHello  Kind = 1
	KindCall   Kind = 2
	KindData   Kind = 3
	KindError  Kind = 4
	KindCancel Kind = 5
	KindCredit Kind = 6
	KindPing   Kind = 7
	KindPong   Kind = 8
	KindGoAway Kind = 9

	// FirstOptional is the lowest kind that is ignored, not refused, where it is unknown.
	FirstOptional Kind = 128
)

// Flags qualify CALL and DATA frames. Every other kind carries none.
type Flags uint8

// The flags.
const (
	FlagEnd Flags = 0x01 // the sender's half of the stream is complete
	FlagEOM Flags = 0x02 // a message ends with this frame
)

// Sizes in bytes.
const (
	HeaderSize  = 6
	TrailerSize = 4
	Overhead    = HeaderSize + TrailerSize // of a frame beyond its payload
	MaxPayload  = 64 << 10                 // of every kind; longer messages are cut
	MaxFrame    = MaxPayload + Overhead

	streamSize = 8
	creditSize = streamSize + 4
	pingSize   = 8
)

// Why a frame is refused. Each of them means that what follows on the connection cannot be trusted.
var (
	ErrLength    = errors.New("impossible frame length")
	ErrKind      = errors.New("unknown frame kind")
	ErrFlags     = errors.New("flags that this frame cannot have")
	ErrCRC       = errors.New("frame checksum does not match")
	ErrMalformed = errors.New("malformed frame payload")
)

// castagnoli is the table of CRC-32C, the polynomial that amd64 and arm64 have instructions for.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Frame is one frame whose length, flags and checksum have been verified. Payload points into the slice it was parsed
// from.
type Frame struct {
	Kind    Kind
	Flags   Flags
	Payload []byte
}

// minPayload is the least a payload of each known kind can be; 0 for an unknown kind.
var minPayload = [...]uint8{
	KindHello:  0,
	KindCall:   streamSize + 4, // kind, timeout, the length of a name, a count
	KindData:   streamSize,
	KindError:  streamSize + 4, // code, outcome, the length of a message, a count
	KindCancel: streamSize,
	KindCredit: creditSize,
	KindPing:   pingSize,
	KindPong:   pingSize,
	KindGoAway: streamSize + 2, // code, the length of a message
}

// maxPayload is the most a payload of k can be.
func maxPayload(k Kind) uint64 {
	switch k {
	case KindCancel:
		return streamSize
	case KindCredit:
		return creditSize
	case KindPing, KindPong:
		return pingSize
	default:
		return MaxPayload
	}
}

// checkHeader verifies the six bytes that a frame begins with and returns the length of its payload. It is done before
// anything is read or allocated for the payload: the checksum, which comes last, cannot protect memory.
func checkHeader(b []byte) (int, error) {
	k, length := Kind(b[0]), uint64(binary.BigEndian.Uint32(b[2:]))
	if k >= FirstOptional {
		if length > MaxPayload {
			return 0, ErrLength
		}
		return int(length), nil
	}
	if k == 0 || k > KindGoAway {
		return 0, ErrKind
	}
	if length < uint64(minPayload[k]) || length > maxPayload(k) {
		return 0, ErrLength
	}
	allowed := Flags(0)
	if k == KindCall || k == KindData {
		allowed = FlagEnd | FlagEOM
	}
	if Flags(b[1])&^allowed != 0 {
		return 0, ErrFlags
	}
	return int(length), nil
}

// Size returns the size of the frame that b begins with, 0 if b is too short to tell. It fails as soon as the header
// is there and wrong.
func Size(b []byte) (int, error) {
	if len(b) < HeaderSize {
		return 0, nil
	}
	n, err := checkHeader(b)
	if err != nil {
		return 0, err
	}
	return n + Overhead, nil
}

// Parse reads the frame that b begins with and returns it and its size. A size of 0 without an error means that b does
// not hold the whole frame yet. Frames of unknown kinds from FirstOptional up are returned like others.
func Parse(b []byte) (Frame, int, error) {
	n, err := Size(b)
	if err != nil || n == 0 || len(b) < n {
		return Frame{}, 0, err
	}
	body := n - TrailerSize
	if crc32.Update(0, castagnoli, b[:body]) != binary.BigEndian.Uint32(b[body:n]) {
		return Frame{}, 0, ErrCRC
	}
	return Frame{Kind: Kind(b[0]), Flags: Flags(b[1]), Payload: b[HeaderSize:body:body]}, n, nil
}

// Join is Parse of a frame in two pieces, of which the first is longer than the header, and whose end trailer begins with: its payload is what is in
// the first. The header was verified by Size.
func Join(head, rest, trailer []byte) (Frame, error) {
	sum := crc32.Update(crc32.Update(0, castagnoli, head), castagnoli, rest)
	if sum != binary.BigEndian.Uint32(trailer) {
		return Frame{}, ErrCRC
	}
	return Frame{Kind: Kind(head[0]), Flags: Flags(head[1]), Payload: head[HeaderSize:]}, nil
}

// begin adds the header of a frame whose length is not known yet.
func begin(dst []byte, k Kind, f Flags) []byte {
	return append(dst, byte(k), byte(f), 0, 0, 0, 0)
}

// finish writes the length of the frame that begins at start and adds its checksum.
func finish(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start+2:], uint32(len(dst)-start-HeaderSize))
	return binary.BigEndian.AppendUint32(dst, crc32.Update(0, castagnoli, dst[start:]))
}

// AppendFrame adds a frame of any kind with a payload of at most MaxPayload bytes.
func AppendFrame(dst []byte, k Kind, f Flags, payload []byte) []byte {
	start := len(dst)
	dst = append(begin(dst, k, f), payload...)
	return finish(dst, start)
}
