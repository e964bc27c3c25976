package gobcodec_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gobnode/internal/gobcodec"
)

func smallGob(t *testing.T) []byte {
	t.Helper()
	c, err := gobcodec.For[smallValue]()
	require.NoError(t, err)
	b, err := c.Append(nil, newSmall())
	require.NoError(t, err)
	return b
}

func TestReadMessageTakesNoByteMore(t *testing.T) {
	b := smallGob(t)
	large, err := gobcodec.For[largeValue]()
	require.NoError(t, err)
	big, err := large.Append(nil, newLarge())
	require.NoError(t, err)
	for _, chop := range []func(io.Reader) io.Reader{
		func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader,
	} {
		r := bufio.NewReaderSize(chop(bytes.NewReader(cat(b, big, b, []byte("\nPING\n")))), 64)
		for _, want := range [][]byte{b, big, b} {
			got, err := gobcodec.ReadMessage(r, []byte("x"), gobcodec.Limits{})
			require.NoError(t, err)
			require.True(t, bytes.Equal(append([]byte("x"), want...), got))
		}
		rest, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "\nPING\n", string(rest))
	}
}

// A gob can be all there is, with the connection open: the reader must not wait for the byte behind it.
func TestReadMessageDoesNotWait(t *testing.T) {
	for _, b := range [][]byte{smallGob(t), message[int](t, []byte{0, 2}), message[bool](t, []byte{0, 1})} {
		r := bufio.NewReader(io.MultiReader(bytes.NewReader(b), iotest.ErrReader(errors.New("read behind the end"))))
		got, err := gobcodec.ReadMessage(r, nil, gobcodec.Limits{})
		require.NoError(t, err)
		require.Equal(t, b, got)
	}
}

func TestReadMessageCutOff(t *testing.T) {
	b := smallGob(t)
	for n := range b {
		got, err := gobcodec.ReadMessage(bufio.NewReader(bytes.NewReader(b[:n])), []byte("dst"), gobcodec.Limits{})
		require.Equal(t, "dst", string(got))
		if n == 0 {
			require.Equal(t, io.EOF, err)
		} else {
			require.Equal(t, io.ErrUnexpectedEOF, err)
		}
	}
	broken := errors.New("broken")
	_, err := gobcodec.ReadMessage(bufio.NewReader(iotest.ErrReader(broken)), nil, gobcodec.Limits{})
	require.Equal(t, broken, err)
}

func TestReadMessageLimit(t *testing.T) {
	b := smallGob(t)
	got, err := gobcodec.ReadMessage(bufio.NewReader(bytes.NewReader(b)), nil, gobcodec.Limits{Message: len(b)})
	require.NoError(t, err)
	require.Equal(t, b, got)

	_, err = gobcodec.ReadMessage(bufio.NewReader(bytes.NewReader(b)), nil, gobcodec.Limits{Message: len(b) - 1})
	var bound *gobcodec.BoundError
	require.ErrorAs(t, err, &bound)
	require.Equal(t, gobcodec.BoundMessage, bound.Bound)
	require.EqualValues(t, len(b), bound.Figure)
	require.EqualValues(t, len(b)-1, bound.Limit)
	require.ErrorIs(t, err, gobcodec.ErrEndUnknown)

	_, err = gobcodec.ReadMessage(bufio.NewReader(bytes.NewReader(wUint(4*mib+1))), nil, gobcodec.Limits{})
	require.ErrorIs(t, err, gobcodec.ErrEndUnknown)
	require.EqualError(t, err, "gob: message bytes: 4194309, more than 4194304")
}

func TestReadMessageUnknownEnd(t *testing.T) {
	for _, b := range [][]byte{
		{0},                                     // no id
		{0x80, 1, 2, 3},                         // a length of 128 bytes
		{0xf7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2}, // of nine bytes
		{1, 0xff, 70},                           // an id that ends behind the message
		wUint(1<<64 - 1),
	} {
		_, err := gobcodec.ReadMessage(bufio.NewReader(bytes.NewReader(append(b, rep(20, 1)...))), nil, gobcodec.Limits{})
		require.ErrorIs(t, err, gobcodec.ErrEndUnknown, "%x", b)
	}
}

// A gob with too many definitions, or too large ones, is refused, and read to its end.
func TestReadMessageRefusedWhole(t *testing.T) {
	value := wMessage(wInt(70), []byte{1, 2, 0})
	var many []byte
	for i := range int64(gobcodec.MaxDefinitions) {
		many = append(many, wSlice(100+i, 2)...)
	}
	fits := wStruct(70, strings.Repeat("A", gobcodec.MaxDefinitionBytes-25), wField{"A", 2})
	require.Equal(t, gobcodec.MaxDefinitionBytes, len(fits)) // Len would print it
	for _, c := range []struct {
		gob  []byte
		want string
	}{
		{cat(many, value), ""},
		{cat(many, wSlice(99, 2), value), "gob: type definitions: 257, more than 256"},
		{cat(fits, value), ""},
		{cat(wStruct(70, strings.Repeat("A", gobcodec.MaxDefinitionBytes-24), wField{"A", 2}), value), "gob: bytes of type definitions: 65537, more than 65536"},
	} {
		r := bufio.NewReader(bytes.NewReader(append(c.gob, "NEXT"...)))
		_, err := gobcodec.ReadMessage(r, nil, gobcodec.Limits{})
		_, _, same := gobcodec.Split(c.gob)
		if c.want == "" {
			require.NoError(t, err)
			require.NoError(t, same)
		} else {
			require.EqualError(t, err, c.want)
			require.EqualError(t, same, c.want)
			require.NotErrorIs(t, err, gobcodec.ErrEndUnknown)
		}
		rest, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "NEXT", string(rest))
	}
}

// A claim costs nothing: memory grows with the bytes that come.
func TestReadMessageMemory(t *testing.T) {
	measure := func(b []byte) (allocated uint64, err error) {
		r := bufio.NewReader(bytes.NewReader(b))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = gobcodec.ReadMessage(r, nil, gobcodec.Limits{})
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc, err
	}
	allocated, err := measure(cat(wUint(4*mib-100), wInt(70), rep(100, 1)))
	require.Equal(t, io.ErrUnexpectedEOF, err)
	assert.LessOrEqual(t, allocated, uint64(4*gobcodec.FirstRead))

	allocated, err = measure(cat(wUint(4*mib-100), wInt(70), rep(100*kib, 1)))
	require.Equal(t, io.ErrUnexpectedEOF, err)
	assert.LessOrEqual(t, allocated, uint64(600*kib))

	var many []byte // 1.6 MB of definitions: dropped behind the first 256
	for i := range int64(100_000) {
		many = append(many, wSlice(100+i, 2)...)
	}
	allocated, err = measure(cat(many, wMessage(wInt(2), []byte{0, 2})))
	require.ErrorAs(t, err, new(*gobcodec.BoundError))
	assert.LessOrEqual(t, allocated, uint64(64*kib))
}
