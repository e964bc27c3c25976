package wire_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/wire"
)

// parseOne parses exactly one frame.
func parseOne(t *testing.T, b []byte) wire.Frame {
	t.Helper()
	f, n, err := wire.Parse(b)
	require.NoError(t, err)
	require.Equal(t, len(b), n)
	return f
}

// TestBytes pins the bytes of one frame of each kind, checksums included, so that no change of the code can change them.
func TestBytes(t *testing.T) {
	pairs := wire.MakePairs([]string{"k", "v"})
	for _, c := range []struct {
		name  string
		frame []byte
		want  string // without the checksum
	}{
		{
			"hello", wire.AppendHello(nil, &wire.Hello{Message: 4 << 20, Calls: 250, Credit: 256 << 10, Heartbeat: 15000, Program: "x/1"}),
			"0100 00000018 01 04 80808002 02 02 fa01 03 03 808010 04 02 9875 05 03 782f31",
		},
		{"hello of nothing", wire.AppendHello(nil, &wire.Hello{}), "0100 00000000"},
		{
			"call", wire.AppendCall(nil, wire.FlagEnd|wire.FlagEOM, &wire.Call{Stream: 1, Kind: wire.CallUnary, Timeout: 300 * time.Microsecond, Name: []byte("SUM"), Pairs: pairs, Data: []byte("abc")}),
			"0203 00000017 0000000000000001 01 ac02 03 53554d 01 01 6b 01 76 616263",
		},
		{"data", wire.AppendData(nil, wire.FlagEOM, 2, []byte("hi")), "0302 0000000a 0000000000000002 6869"},
		{
			"error", wire.AppendError(nil, &wire.Failure{Stream: 3, Code: wire.Unavailable, Outcome: wire.OutcomeNotRun, Message: []byte("no"), Pairs: pairs}),
			"0400 00000012 0000000000000003 0e 01 02 6e6f 01 01 6b 01 76",
		},
		{"cancel", wire.AppendCancel(nil, 5), "0500 00000008 0000000000000005"},
		{"credit", wire.AppendCredit(nil, 5, 0x10203), "0600 0000000c 0000000000000005 00010203"},
		{"ping", wire.AppendPing(nil, wire.KindPing, 7), "0700 00000008 0000000000000007"},
		{"pong", wire.AppendPing(nil, wire.KindPong, 7), "0800 00000008 0000000000000007"},
		{
			"goaway", wire.AppendGoAway(nil, &wire.GoAway{Last: math.MaxUint64, Code: wire.OK, Message: []byte("bye")}),
			"0900 0000000d ffffffffffffffff 00 03 627965",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.ReplaceAll(c.want, " ", ""))
			require.NoError(t, err)
			sum := crc32.Checksum(want, crc32.MakeTable(crc32.Castagnoli))
			assert.Equal(t, hex.EncodeToString(binary.BigEndian.AppendUint32(want, sum)), hex.EncodeToString(c.frame))
			parseOne(t, c.frame)
		})
	}
}

func TestRoundTrips(t *testing.T) {
	h := wire.Hello{Message: math.MaxUint64, Calls: 1, Credit: 2, Heartbeat: 3, Program: "node 1.0"}
	got, err := wire.ParseHello(parseOne(t, wire.AppendHello(nil, &h)).Payload)
	require.NoError(t, err)
	assert.Equal(t, h, got)

	call := wire.Call{
		Stream: 9, Kind: wire.CallStream, Timeout: time.Second, Name: []byte("ECHO"),
		Pairs: wire.MakePairs([]string{"a", "1", "b"}), Data: []byte("x"),
	}
	f := parseOne(t, wire.AppendCall(nil, wire.FlagEOM, &call))
	assert.Equal(t, wire.FlagEOM, f.Flags)
	gotCall, err := wire.ParseCall(f.Payload)
	require.NoError(t, err)
	assert.Equal(t, call, gotCall)
	assert.Equal(t, []string{"a", "1", "b", ""}, gotCall.Pairs.Strings())
	assert.Equal(t, 2, gotCall.Pairs.Len())
	assert.Equal(t, len(f.Payload)-1, call.HeadSize())

	failure := wire.Failure{Stream: 4, Code: wire.Internal, Outcome: wire.OutcomeFailed, Message: []byte("boom")}
	gotFailure, err := wire.ParseError(parseOne(t, wire.AppendError(nil, &failure)).Payload)
	require.NoError(t, err)
	assert.Equal(t, failure.Message, gotFailure.Message)
	assert.Nil(t, gotFailure.Pairs.Strings())
	assert.Equal(t, wire.OutcomeFailed, gotFailure.Outcome)

	g := wire.GoAway{Last: 3, Code: wire.ResourceExhausted, Message: []byte("why")}
	gotGoAway, err := wire.ParseGoAway(parseOne(t, wire.AppendGoAway(nil, &g)).Payload)
	require.NoError(t, err)
	assert.Equal(t, g, gotGoAway)
}

// TestTimeoutsTravelRoundedUp: a deadline is never told shorter than it is, and never becomes none.
func TestTimeoutsTravelRoundedUp(t *testing.T) {
	longest := time.Duration(math.MaxInt64).Truncate(time.Microsecond)
	for _, c := range []struct{ give, want time.Duration }{
		{0, 0},
		{-1, 0},
		{math.MinInt64, 0},
		{1, time.Microsecond},
		{time.Microsecond, time.Microsecond},
		{time.Microsecond + 1, 2 * time.Microsecond},
		{time.Hour, time.Hour},
		{math.MaxInt64, longest},
	} {
		call, err := wire.ParseCall(parseOne(t, wire.AppendCall(nil, 0, &wire.Call{Stream: 1, Timeout: c.give})).Payload)
		require.NoError(t, err)
		assert.Equal(t, c.want, call.Timeout, c.give)
		assert.GreaterOrEqual(t, call.Timeout, min(c.give, longest))
	}
	// A timeout that no Duration holds is the longest one, not a negative one.
	p := binary.BigEndian.AppendUint64(nil, 1)
	p = binary.AppendUvarint(append(p, wire.CallUnary), math.MaxUint64)
	call, err := wire.ParseCall(append(p, 0, 0))
	require.NoError(t, err)
	assert.Positive(t, call.Timeout)
}

// TestRow06OversizedLengthPrefix: a length over the limit is refused from the six bytes of the header alone, and nothing
// is allocated for it.
func TestRow06OversizedLengthPrefix(t *testing.T) {
	for _, length := range []uint32{wire.MaxPayload + 1, 1 << 31, 1<<32 - 1} {
		b := append([]byte{byte(wire.KindData), 0}, binary.BigEndian.AppendUint32(nil, length)...)
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			_, err := wire.Size(b)
			if !errors.Is(err, wire.ErrLength) {
				t.Error("not refused:", length, err)
			}
			if _, n, err := wire.Parse(b); n != 0 || !errors.Is(err, wire.ErrLength) {
				t.Error("not refused:", length, n, err)
			}
		}))
	}
}

// TestRow07LengthArithmetic tries every length around a power of two in every field that has one: accepted exactly when
// the bytes are there. It runs on 386 too, where an int has 32 bits.
func TestRow07LengthArithmetic(t *testing.T) {
	for k := 7; k <= 63; k++ {
		for d := -1; d <= 1; d++ {
			v := uint64(1)<<k + uint64(d)
			if k <= 32 && v <= math.MaxUint32 {
				checkFrameLength(t, v)
			}
			checkStringLengths(t, v)
		}
	}
	checkStringLengths(t, math.MaxUint64)
}

func checkFrameLength(t *testing.T, v uint64) {
	for _, k := range []wire.Kind{wire.KindHello, wire.KindCall, wire.KindData, wire.KindError, wire.KindGoAway, 200} {
		n, err := wire.Size(append([]byte{byte(k), 0}, binary.BigEndian.AppendUint32(nil, uint32(v))...))
		if v <= wire.MaxPayload {
			require.NoError(t, err)
			require.EqualValues(t, v+wire.Overhead, n)
			continue
		}
		require.ErrorIs(t, err, wire.ErrLength, "%d %d", k, v)
	}
}

func checkStringLengths(t *testing.T, v uint64) {
	const have = 1 << 10
	tail := make([]byte, have)
	number := binary.AppendUvarint(nil, v)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	stream := binary.BigEndian.AppendUint64(nil, 1)

	_, err := wire.ParseCall(join(stream, []byte{1, 0}, number, tail)) // length of the name; a count of 0 must follow
	require.Equal(t, v < have, err == nil, "name %d", v)
	_, err = wire.ParseCall(join(stream, []byte{1, 0, 0}, number, tail)) // count of pairs, each of two empty strings
	require.Equal(t, v <= have/2, err == nil, "count %d", v)
	_, err = wire.ParseCall(join(stream, []byte{1, 0, 0, 1}, number, tail)) // length of a key; a value must follow
	require.Equal(t, v < have, err == nil, "key %d", v)
	_, err = wire.ParseError(join(stream, []byte{1, 0}, number, tail)) // message; count of 0, then nothing
	require.Equal(t, v == have-1, err == nil, "message %d", v)
	_, err = wire.ParseGoAway(join(stream, []byte{0}, number, tail)) // message, then nothing
	require.Equal(t, v == have, err == nil, "goaway %d", v)
	_, err = wire.ParseHello(join([]byte{99}, number, tail[:0])) // an unknown id with more than there is
	require.Equal(t, v == 0, err == nil, "hello %d", v)
}

func TestHeadersThatAreRefused(t *testing.T) {
	header := func(kind, flags byte, length uint32) []byte {
		return binary.BigEndian.AppendUint32([]byte{kind, flags}, length)
	}
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"kind 0", header(0, 0, 8), wire.ErrKind},
		{"kind 10", header(10, 0, 8), wire.ErrKind},
		{"kind 127", header(127, 0, 8), wire.ErrKind},
		{"optional kind", header(128, 0xff, 8), nil},
		{"optional kind too long", header(255, 0, wire.MaxPayload+1), wire.ErrLength},
		{"flag 4 on CALL", header(2, 4, 20), wire.ErrFlags},
		{"flag 128 on DATA", header(3, 128, 20), wire.ErrFlags},
		{"END on CANCEL", header(5, 1, 8), wire.ErrFlags},
		{"EOM on HELLO", header(1, 2, 8), wire.ErrFlags},
		{"END on ERROR", header(4, 1, 20), wire.ErrFlags},
		{"short CALL", header(2, 0, 11), wire.ErrLength},
		{"short DATA", header(3, 0, 7), wire.ErrLength},
		{"short ERROR", header(4, 0, 11), wire.ErrLength},
		{"short CANCEL", header(5, 0, 7), wire.ErrLength},
		{"long CANCEL", header(5, 0, 9), wire.ErrLength},
		{"long CREDIT", header(6, 0, 13), wire.ErrLength},
		{"short PING", header(7, 0, 7), wire.ErrLength},
		{"long PONG", header(8, 0, 9), wire.ErrLength},
		{"short GOAWAY", header(9, 0, 9), wire.ErrLength},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := wire.Size(c.b)
			assert.Equal(t, c.want, err)
		})
	}
}

func TestPayloadsThatAreRefused(t *testing.T) {
	one := binary.BigEndian.AppendUint64(nil, 1)
	zero := make([]byte, 8)
	at := func(id []byte, rest ...byte) []byte { return append(bytes.Clone(id), rest...) }
	call := func(p []byte) error { _, err := wire.ParseCall(p); return err }
	fail := func(p []byte) error { _, err := wire.ParseError(p); return err }
	goaway := func(p []byte) error { _, err := wire.ParseGoAway(p); return err }
	hello := func(p []byte) error { _, err := wire.ParseHello(p); return err }
	data := func(p []byte) error { _, _, err := wire.ParseData(p); return err }
	cancel := func(p []byte) error { _, err := wire.ParseCancel(p); return err }
	credit := func(p []byte) error { _, _, err := wire.ParseCredit(p); return err }
	ping := func(p []byte) error { _, err := wire.ParsePing(p); return err }
	longNumber := bytes.Repeat([]byte{0x80}, 11)
	for _, c := range []struct {
		name  string
		parse func([]byte) error
		p     []byte
	}{
		{"CALL of stream 0", call, at(zero, 1, 0, 0, 0)},
		{"CALL without a kind", call, one},
		{"CALL without a timeout", call, at(one, 1)},
		{"CALL with an endless timeout", call, append(at(one, 1), longNumber...)},
		{"CALL without a name", call, at(one, 1, 0)},
		{"CALL without a count", call, at(one, 1, 0, 1, 'x')},
		{"CALL with a key alone", call, at(one, 1, 0, 0, 1, 1, 'k')},
		{"CALL with fewer pairs than counted", call, at(one, 1, 0, 0, 2, 0, 0, 0)},
		{"DATA of stream 0", data, zero},
		{"DATA too short", data, one[:7]},
		{"ERROR of stream 0", fail, at(zero, 1, 0, 0, 0)},
		{"ERROR with bytes behind it", fail, at(one, 1, 0, 0, 0, 0)},
		{"ERROR with half a message", fail, at(one, 1, 0, 3, 'x')},
		{"ERROR without a count", fail, at(one, 1, 0, 0)},
		{"CANCEL of stream 0", cancel, zero},
		{"CANCEL with bytes behind it", cancel, at(one, 0)},
		{"CREDIT of stream 0", credit, at(zero, 0, 0, 0, 1)},
		{"CREDIT of nothing", credit, at(one, 0, 0, 0, 0)},
		{"CREDIT too short", credit, at(one, 0, 0, 1)},
		{"PING too short", ping, one[:7]},
		{"GOAWAY with bytes behind it", goaway, at(zero, 0, 0, 0)},
		{"GOAWAY with half a message", goaway, at(zero, 0, 2, 'x')},
		{"HELLO with an id alone", hello, []byte{1}},
		{"HELLO with half a value", hello, []byte{1, 2, 1}},
		{"HELLO with a number and more", hello, []byte{1, 2, 1, 1}},
		{"HELLO with an empty number", hello, []byte{2, 0}},
		{"HELLO with an id twice", hello, []byte{2, 1, 7, 2, 1, 7}},
		{"HELLO with an endless id", hello, longNumber},
	} {
		t.Run(c.name, func(t *testing.T) { assert.ErrorIs(t, c.parse(c.p), wire.ErrMalformed) })
	}
}

// TestWhatIsNotKnownIsNotBelieved: ids, codes and outcomes from a newer peer.
func TestWhatIsNotKnownIsNotBelieved(t *testing.T) {
	h, err := wire.ParseHello([]byte{0, 1, 'x', 0, 0, 77, 2, 'a', 'b', 2, 1, 9, 77, 0})
	require.NoError(t, err)
	assert.Equal(t, wire.Hello{Calls: 9}, h)

	e, err := wire.ParseError([]byte{0, 0, 0, 0, 0, 0, 0, 1, 17, 3, 0, 0})
	require.NoError(t, err)
	assert.Equal(t, wire.Unknown, e.Code)
	assert.Equal(t, wire.OutcomeUnknown, e.Outcome)
	e, err = wire.ParseError([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0})
	require.NoError(t, err)
	assert.Equal(t, wire.Unknown, e.Code, "a failure with the code of success")

	g, err := wire.ParseGoAway([]byte{0, 0, 0, 0, 0, 0, 0, 1, 99, 0})
	require.NoError(t, err)
	assert.Equal(t, wire.Unknown, g.Code)
	long := wire.Hello{Program: strings.Repeat("p", 1000)}
	h, err = wire.ParseHello(parseOne(t, wire.AppendHello(nil, &long)).Payload)
	require.NoError(t, err)
	assert.Len(t, h.Program, wire.MaxProgram)
}

// TestRow26CorruptBytes flips every bit of frames of every kind, header and checksum included: none is delivered.
func TestRow26CorruptBytes(t *testing.T) {
	for _, frame := range samples() {
		for bit := range len(frame) * 8 {
			b := bytes.Clone(frame)
			b[bit/8] ^= 1 << (bit % 8)
			f, n, err := wire.Parse(b)
			if n != 0 || (err == nil && len(b) >= wire.HeaderSize && complete(b)) {
				t.Fatalf("bit %d of %x: delivered %v, %v", bit, frame, f, err)
			}
		}
	}
}

// complete reports whether b holds as many bytes as its header says, so that Parse has no reason to wait.
func complete(b []byte) bool {
	n, err := wire.Size(b)
	return err == nil && n <= len(b)
}

// samples is a frame of each kind.
func samples() [][]byte {
	return [][]byte{
		wire.AppendHello(nil, &wire.Hello{Message: 1, Calls: 2, Credit: 3, Heartbeat: 4, Program: "p"}),
		wire.AppendCall(nil, wire.FlagEnd, &wire.Call{Stream: 1, Kind: 1, Timeout: 1, Name: []byte("N"), Pairs: wire.MakePairs([]string{"a", "b"}), Data: []byte("d")}),
		wire.AppendData(nil, wire.FlagEOM, 1, []byte("data")),
		wire.AppendError(nil, &wire.Failure{Stream: 1, Code: 3, Outcome: 1, Message: []byte("m"), Pairs: wire.MakePairs([]string{"c", "d"})}),
		wire.AppendCancel(nil, 1),
		wire.AppendCredit(nil, 1, 1),
		wire.AppendPing(nil, wire.KindPing, 1),
		wire.AppendPing(nil, wire.KindPong, 1),
		wire.AppendGoAway(nil, &wire.GoAway{Last: 1, Code: 8, Message: []byte("m")}),
		wire.AppendFrame(nil, 200, 0xaa, []byte("later")),
	}
}

// TestPartialFramesWait: no prefix of a frame is delivered or refused.
func TestPartialFramesWait(t *testing.T) {
	for _, frame := range samples() {
		for n := range frame {
			_, size, err := wire.Parse(frame[:n])
			require.NoError(t, err)
			require.Zero(t, size)
		}
		_, size, err := wire.Parse(append(bytes.Clone(frame), 1, 2, 3))
		require.NoError(t, err)
		require.Equal(t, len(frame), size)
	}
}

// TestNothingAllocates: frames are added to a slice with room and parsed without an allocation.
func TestNothingAllocates(t *testing.T) {
	pairs := wire.MakePairs([]string{"key", "value"})
	name, data := []byte("SUM"), make([]byte, 100)
	buf := make([]byte, 0, 4096)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		b := wire.AppendCall(buf, wire.FlagEnd, &wire.Call{Stream: 1, Kind: 1, Timeout: time.Second, Name: name, Pairs: pairs, Data: data})
		b = wire.AppendData(b, wire.FlagEOM, 1, data)
		b = wire.AppendCredit(b, 1, 5)
		b = wire.AppendPing(b, wire.KindPing, 5)
		b = wire.AppendCancel(b, 1)
		for len(b) > 0 {
			f, n, err := wire.Parse(b)
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
			if f.Kind == wire.KindCall {
				if c, err := wire.ParseCall(f.Payload); err != nil || len(c.Data) != len(data) {
					t.Fatal(err)
				}
			}
			b = b[n:]
		}
	}))
}

// TestJoin: a frame in two pieces is what it is in one.
func TestJoin(t *testing.T) {
	whole := wire.AppendData(nil, wire.FlagEOM, 7, []byte("some data"))
	want, n, err := wire.Parse(whole)
	require.NoError(t, err)
	body := n - wire.TrailerSize
	for cut := wire.HeaderSize; cut <= body; cut++ {
		got, err := wire.Join(whole[:cut], whole[cut:body], append(whole[body:n:n], "more"...))
		require.NoError(t, err)
		require.Equal(t, want.Kind, got.Kind)
		require.Equal(t, want.Flags, got.Flags)
		require.Equal(t, want.Payload, append(slices.Clip(got.Payload), whole[cut:body]...))
	}
	for i := range n {
		broken := append([]byte{}, whole...)
		broken[i] ^= 1
		_, err := wire.Join(broken[:wire.HeaderSize+8], broken[wire.HeaderSize+8:body], broken[body:])
		require.ErrorIs(t, err, wire.ErrCRC)
	}
}
